"""Keeping up with Orthanc: what its hooks missed is taken into the spool, what is gone there is noted for a person.

Orthanc's changes say what is new; they may be deleted, or begin anew with a new database. So all that Orthanc holds is
compared, too: at each start, once a day, and where the changes do not go on. Every step may be repeated, and whoever
does it killed anywhere.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Protocol

from orthanc_ledger.arrival import RECONCILED
from orthanc_ledger.clock import Clock, MicrosecondClock
from orthanc_ledger.errors import OrthancAway, ServiceAway
from orthanc_ledger.fetcher import Fetched, Fetcher, Source
from orthanc_ledger.keyring import ERASED
from orthanc_ledger.orthanc_rest import Change, Changes, Series
from orthanc_ledger.outage import Outage
from orthanc_ledger.outbox import MISSED, Outbox
from orthanc_ledger.pacs import Derived, How, Pacs
from orthanc_ledger.pacs_comparison import Object

LOGGER = logging.getLogger(__name__)

ORTHANC_AWAY, UNTAKEN = "orthanc away", "not taken from Orthanc"
"""Kinds of alarms."""

SETTLED_S = 5.0
"""What is new in Orthanc is looked at so many seconds later: its hooks have ended by then, so that nothing is fetched
that is on its way to the spool.
"""

_DAY_S = 86_400
_DOUBTED_S = 3600  # between two comparisons while the changes do not go on
_CHANGES = 500
_SERIES = 50
_MADE: Mapping[str, How] = {"ModifiedFrom": "modified", "AnonymizedFrom": "anonymized"}


class Orthanc(Source, Protocol):
    """What is asked of Orthanc, as `OrthancRest` answers it."""

    def last_change(self) -> Changes:
        """The last change alone."""

    def changes(self, after: int, limit: int) -> Changes:
        """The next changes behind a number."""

    def series(self, offset: int, limit: int) -> list[Series]:
        """A page of all series."""

    def one_series(self, id: str) -> Series | None:
        """A series."""

    def study_uid(self, id: str) -> str | None:
        """Study Instance UID of a study."""

    def received(self, metadata: Mapping[str, str]) -> int:
        """When an instance with this metadata came, seconds of UTC."""

    def find(self, uid: str, kind: str) -> list[str]:
        """Ids of what has a UID."""


class Reconciler:
    """One process of a node runs it; a command may do a step beside it."""

    def __init__(
        self,
        orthanc: Orthanc,
        pacs: Pacs,
        fetcher: Fetcher,
        outbox: Outbox,
        is_withdrawn: Callable[[str], bool],
        clock: Clock,
        settled_s: float = SETTLED_S,
    ) -> None:
        """``is_withdrawn``: whether a study, by its UID, is withdrawn from research on the ledger, as far as known."""
        self._orthanc = orthanc
        self._pacs = pacs
        self._fetcher = fetcher
        self._outbox = outbox
        self._is_withdrawn = is_withdrawn
        self._clock = clock
        self._settled_s = settled_s

    def run(self, stop: threading.Event, retry_s: float, now_us: MicrosecondClock) -> None:
        """Until ``stop`` is set; tried again ``retry_s`` after Orthanc was away, or the spool full."""
        text = "what it stored without the node, and what staff deleted there, is not seen until it is back"
        outage, is_first, said = Outage(self._outbox, ORTHANC_AWAY, "orthanc", text), True, ""
        while not stop.is_set():
            try:
                self.step(stop.wait, whole=is_first)
                outage.is_over()
                is_first, said = False, ""
            except OrthancAway as error:
                if outage.lasts(now_us(), error):
                    LOGGER.warning("the reconciler waits: %s", error)
                stop.wait(retry_s)
            except ServiceAway as error:
                if said != (said := str(error)):
                    LOGGER.warning("the reconciler waits: %s", error)
                stop.wait(retry_s)

    def step(self, wait: Callable[[float], object], whole: bool = False) -> Counter[Fetched]:
        """Look once for what is new, and for what is gone; ``whole``: by comparing all. Of the objects that were not
        known, how many were taken, and so on.

        ``wait`` is given seconds; what it returns as true ends the step. Raises OrthancAway, SpoolFull.
        """
        until, found = self._look(), dict[str, Fetched]()
        begun, late = self._compare() if whole or self._is_comparison_due() else (None, [])
        if wait(self._settled_s):
            return Counter()
        has_missed = bool(self._outbox.standing(MISSED, MISSED))
        self._follow(until, has_missed, found)
        untaken = {each.id for each in self._pacs.untaken()} if late else set()
        for id, origin in late:
            is_known = self._pacs.object(id) is not None
            if id not in found and (id in untaken or not is_known):
                found[id] = self._fetcher.take(id, origin, again=is_known)
        if begun is not None:
            self._pacs.keep_compared(begun)
        self._look_after(self._pacs.to_look_after(self._clock() - int(self._settled_s)), were_deleted=True)
        if has_missed and self._orthanc.last_change().last == until:  # else it may be of what came since
            self._outbox.settle(MISSED, kind=MISSED)
        counts = Counter(found.values())
        if counts[Fetched.TAKEN]:
            LOGGER.warning("taken from Orthanc, as only that had them: %d objects", counts[Fetched.TAKEN])
        self._tell_untaken()
        return counts

    def compare(self) -> None:
        """Find out what came before the plugin, and what is gone."""
        begun, _ = self._compare()
        self._pacs.keep_compared(begun)

    def _compare(self) -> tuple[int, list[tuple[str, str]]]:
        """Compare all that Orthanc holds with what is noted: keep what came before the plugin, look after what is gone.

        Returns when it was begun, and what is to be taken before it counts: Orthanc's ids, with their origins.
        """
        comparison, offset = self._pacs.compare(), 0
        new = [(each.id, each.origin) for each in self._pacs.untaken()]
        while page := self._orthanc.series(offset, _SERIES):
            offset += len(page)
            for series in page:
                comparison.see(series.instances)
                new += [(id, RECONCILED) for id in self._new_in(series)]
        self._look_after(comparison.missed(), were_deleted=False)
        # Orthanc counts its series anew when one is deleted meanwhile, and the walk misses another.
        comparison.see(id for id in comparison.left() if self._orthanc.sop_uid(id) is not None)
        comparison.end()
        for gone in self._pacs.gone():
            if self._is_withdrawn(gone.study_uid):
                self._pacs.decided(gone.study_uid)
        return comparison.begun, new

    def _look(self) -> int:
        """The number of Orthanc's last change. The place is put right where the changes do not go on from it, and that
        is kept as a doubt.
        """
        latest = self._orthanc.last_change()
        place = self._pacs.place()
        if place.sequence is None:
            self._pacs.begin(latest.last, latest.rows[0].name if latest.rows else None)
            place = self._pacs.place()
        sequence = place.sequence or 0
        if latest.last < sequence:  # a new database, which counts anew
            self._pacs.doubt()
            self._pacs.go_on(0, None)
            return latest.last
        rows = latest.rows if latest.last == sequence else self._orthanc.changes(sequence - 1, 1).rows
        there = next((change.name for change in rows if change.sequence == sequence), None)
        if sequence and (there != place.change or (there is None and latest.last > sequence)):
            self._pacs.doubt()
            self._pacs.go_on(sequence, there)
        return latest.last

    def _is_comparison_due(self) -> bool:
        place = self._pacs.place()
        return not 0 <= self._clock() - place.compared < (_DOUBTED_S if place.doubted else _DAY_S)

    def _new_in(self, series: Series) -> list[str]:
        """What of a series is not known, and came since the plugin is there; what came before is kept as such."""
        unknown, installed = self._pacs.unknown(series.instances), self._pacs.place().installed
        study_uid = self._orthanc.study_uid(series.study) if unknown else None
        if study_uid is None:
            return []
        new = []
        if series.updated >= installed:
            received = {id: self._orthanc.metadata(id) for id in unknown}
            new = [id for id, kept in received.items() if kept and self._orthanc.received(kept) >= installed]
        self._pacs.keep_earlier(set(unknown) - set(new), study_uid)
        return new

    def _follow(self, until: int, has_missed: bool, found: dict[str, Fetched]) -> None:
        """Read Orthanc's changes up to a number, and enter in ``found`` what became of objects. ``has_missed``: whether
        a hook has failed.
        """
        place = self._pacs.place()
        while (sequence := place.sequence or 0) < until:
            rows = [change for change in self._orthanc.changes(sequence, _CHANGES).rows if change.sequence <= until]
            for change in rows:
                if change.kind == "NewSeries":
                    self._trace(change.id)
                if change.kind == "NewInstance" and change.time >= place.installed:
                    self._see(change, has_missed or change.time < place.started, found)
            self._pacs.go_on(*((rows[-1].sequence, rows[-1].name) if rows else (until, None)))
            place = self._pacs.place()

    def _see(self, change: Change, may_be_missed: bool, found: dict[str, Fetched]) -> None:
        """Take what is new. What is known may have been overwritten, or deleted and sent again, without its hook; only
        then: what Orthanc has is not always what came ("IngestTranscoding"), and would be a conflict.
        """
        known = self._pacs.object(change.id)
        if known is None or (may_be_missed and known.noted < change.time):
            found[change.id] = self._fetcher.take(change.id, RECONCILED, again=known is not None)

    def _trace(self, id: str) -> None:
        """Keep of which study a new series was made, where Orthanc made it."""
        series = self._orthanc.one_series(id)
        if series is None or not series.instances:
            return
        metadata = self._orthanc.metadata(series.instances[0]) or {}
        for name, how in _MADE.items():
            if name in metadata:
                source, study_uid = self._pacs.object(metadata[name]), self._orthanc.study_uid(series.study)
                source_uid = source.study_uid if source else self._orthanc.study_uid_of(metadata[name]) or ""
                if study_uid not in (None, source_uid):
                    self._pacs.keep_derived(Derived(str(study_uid), source_uid, how, self._clock()))

    def _look_after(self, objects: Iterable[Object], were_deleted: bool) -> None:
        """Find out of objects whether Orthanc has them, by their UIDs, as its ids change with the patient's."""
        for study_uid, of_study in groupby(objects, key=lambda each: each.study_uid):
            some, has_study = list(of_study), bool(self._orthanc.find(study_uid, "Study"))
            gone = [each for each in some if not has_study]
            for each in some if has_study else ():
                ids = self._orthanc.find(each.sop_uid, "Instance")
                if not ids:
                    gone.append(each)
                elif were_deleted or each.id not in ids:
                    self._pacs.keep_replaced(each, each.id if each.id in ids else ids[0])
            held = {each.id for each in gone if self._fetcher.is_held(each.sop_uid)}
            self._pacs.keep_gone(each for each in gone if each.id in held)
            self._pacs.drop([each for each in gone if each.id not in held])

    def _tell_untaken(self) -> None:
        """Raise the alarm that something cannot be taken, or take it back."""
        is_told = bool(self._outbox.standing(UNTAKEN, UNTAKEN))
        if any(each.reason != ERASED for each in self._pacs.untaken()):
            text = "Orthanc has objects that cannot be taken as they are: `orthanc-ledger pacs untaken` says why"
            self._outbox.alarm(UNTAKEN, UNTAKEN, text)
        elif is_told:
            self._outbox.settle(UNTAKEN, kind=UNTAKEN)


def has_let_go(orthanc: Orthanc, pacs: Pacs, study_uid: str) -> bool:
    """Whether Orthanc has nothing of an erased study any more; then pacs.db has nothing of it either.

    Raises OrthancAway.
    """
    if orthanc.find(study_uid, "Study"):
        return False
    pacs.forget_study(study_uid)
    return True
