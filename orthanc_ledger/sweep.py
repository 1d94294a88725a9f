"""The sweep: fetches and verifies everything this node holds of all anchors on the ledger, in each of its copies, at a
bounded rate.

Anchors are walked by manifest CID, and the place is kept after each manifest; what is anchored before that place
meanwhile is met by the next round. What differs is alarmed and flagged as if a peer had asked for it (library.py);
what this node anchored and its index does not know is alarmed as not held.
A ledger or content store that is away ends the walk there: what cannot be asked for is not called damaged. Of what is
bad here, while some who may have a healthy copy are away, there is an alarm and no flag.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from orthanc_ledger.anchors import Anchors
from orthanc_ledger.clock import Clock
from orthanc_ledger.custody import Anchor, agreed_on
from orthanc_ledger.database import Database
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld, ServiceAway
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.ledger import Ledger, is_erased
from orthanc_ledger.library import Checked, Library, flag_name
from orthanc_ledger.manifest import Record
from orthanc_ledger.outbox import BAD_MANIFEST, Outbox
from orthanc_ledger.repair import DAMAGED, UNDECIDED
from orthanc_ledger.sole import sole

LOGGER = logging.getLogger(__name__)

_OTHER = "another sweep of this node runs: wait for its end, or stop it"
_NOT_HELD = "not held"
_TICK_S = 1.0
_MIB = 1 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS rounds (
    is_finished INTEGER PRIMARY KEY, started INTEGER NOT NULL, finished INTEGER, place TEXT NOT NULL,
    anchors INTEGER NOT NULL, elsewhere INTEGER NOT NULL, not_held INTEGER NOT NULL,
    objects INTEGER NOT NULL, bytes INTEGER NOT NULL, damaged INTEGER NOT NULL, seconds REAL NOT NULL);
"""


@dataclass(frozen=True)
class Round:
    """A walk over the anchors, so far. ``started`` and ``finished`` in seconds of UTC; ``place``: the last manifest
    done; ``elsewhere`` and ``not_held``: anchors whose studies the index does not know, by other nodes and by this
    one; ``objects`` and ``damaged``: how many were to be verified, and could not be; ``bytes``: sealed size of those
    verified; ``seconds`` of work.
    """

    started: int
    finished: int | None = None
    place: str = ""
    anchors: int = 0
    elsewhere: int = 0
    not_held: int = 0
    objects: int = 0
    bytes: int = 0
    damaged: int = 0
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether all that this node anchored is here, as it was anchored."""
        return not self.damaged and not self.not_held

    @property
    def objects_s(self) -> float:
        """Objects a second."""
        return self.objects / self.seconds if self.seconds else 0.0

    @property
    def mb_s(self) -> float:
        """MiB a second."""
        return self.bytes / _MIB / self.seconds if self.seconds else 0.0


GoOn = Callable[[Round], bool]
"""Told before each manifest and after each object how far the round came; False ends it there: that manifest is begun
anew next time.
"""


@dataclass(frozen=True)
class Damage:
    """What is not as anchored: CID of an object, with its SOP Instance UID where the index knows it, or of a manifest;
    and in which way.
    """

    cid: str
    sop_instance_uid: str | None
    detail: str


class Rounds:
    """The last finished round and the unfinished one, in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    def finished(self) -> Round | None:
        """The last round that came to its end."""
        return self._round(is_finished=True)

    def unfinished(self) -> Round | None:
        """The round that has still to come to its end."""
        return self._round(is_finished=False)

    def is_due(self, now: int, every_s: float) -> bool:
        """Whether a round is to begin, or to go on."""
        last = self.finished()
        if last is None or last.finished is None or self.unfinished() is not None:
            return True
        return not 0 <= now - last.finished < every_s  # also when the clock was set back

    def keep(self, round_: Round) -> None:
        """Keep how far a round came. Durable when it returns."""
        with self._db.write() as db:
            db.execute("DELETE FROM rounds WHERE NOT is_finished")
            values = (round_.finished is not None, *astuple(round_))
            db.execute(f"INSERT OR REPLACE INTO rounds VALUES ({', '.join('?' * len(values))})", values)

    def _round(self, is_finished: bool) -> Round | None:
        columns = ", ".join(Round.__annotations__)
        rows = self._db.rows(f"SELECT {columns} FROM rounds WHERE is_finished = ?", is_finished)
        return Round(*rows[0]) if rows else None


class Sweep:
    """Walks the anchors; only one sweep of a node at a time."""

    def __init__(
        self,
        ledger: Ledger,
        anchors: Anchors,
        index: Index,
        library: Library,
        outbox: Outbox,
        rounds: Rounds,
        lock: Path,
        clock: Clock,
        tell: Callable[[Damage], object] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``tell`` is given all damage as it is found."""
        self._ledger = ledger
        self._anchors = anchors
        self._index = index
        self._library = library
        self._outbox = outbox
        self._rounds = rounds
        self._lock = lock
        self._clock = clock
        self._tell = tell
        self._monotonic = monotonic

    def run(self, stop: threading.Event, every_s: float, retry_s: float) -> None:
        """Until ``stop`` is set: a round ``every_s`` after the end of the last, and on with an unfinished one; tried
        again ``retry_s`` after a service was away.
        """
        said = ""
        while not stop.is_set():
            pause_s = _TICK_S
            if self._rounds.is_due(self._clock(), every_s):
                try:
                    round_ = self.round(lambda _: not stop.is_set())
                    said = ""
                    if round_.finished is not None:
                        found = (round_.damaged, round_.objects, round_.not_held)
                        LOGGER.info("swept: %d of %d objects are damaged, %d manifests not held", *found)
                except ServiceAway as error:
                    pause_s = retry_s
                    if said != (said := str(error)):
                        LOGGER.warning("the sweep waits: %s", error)
            stop.wait(pause_s)

    def round(self, go_on: GoOn) -> Round:
        """Go on with the unfinished round, else begin one; the place is kept, whatever ends it.

        Raises ServiceAway: ledger, content store or keyring are, or another sweep runs.
        """
        with sole(self._lock, ServiceAway(_OTHER)):
            round_ = self._rounds.unfinished() or Round(self._clock())
            return self._walk(self._anchors.behind(round_.place), round_, go_on, self._rounds.keep)

    def study(self, study_uid: str, go_on: GoOn) -> Round:
        """One study's anchors alone, without keeping a place. Raises as ``round``; NotHeld."""
        token = next((token for _, token, _ in self._index.studies([study_uid])), None)
        if token is None:
            raise NotHeld(f"study {study_uid}: nothing of it is anchored here; `orthanc-ledger studies` lists what is")
        with sole(self._lock, ServiceAway(_OTHER)):
            return self._walk(self._anchors.of_study(token), Round(self._clock()), go_on, lambda _: None)

    def _walk(self, anchors: Iterable[Anchor], round_: Round, go_on: GoOn, keep: Callable[[Round], None]) -> Round:
        alarmed = self._alarmed()
        for anchor in anchors:
            begun_s = self._monotonic()
            reached = self._check(anchor, round_, go_on, alarmed) if go_on(round_) else None
            if reached is None:
                return round_
            seconds = round_.seconds + self._monotonic() - begun_s
            round_ = replace(reached, place=anchor["manifestCid"], anchors=round_.anchors + 1, seconds=seconds)
            keep(round_)
        round_ = replace(round_, finished=self._clock())
        keep(round_)
        return round_

    def _check(self, anchor: Anchor, round_: Round, go_on: GoOn, alarmed: Mapping[str, str]) -> Round | None:
        """The round after one more anchor; None when it was told to end before."""
        study_uid = self._index.study_of_token(anchor["study"])
        if study_uid is None:
            if not self._anchors.is_own(anchor):
                return replace(round_, elsewhere=round_.elsewhere + 1)
            if is_erased(self._ledger, anchor["study"]):
                return round_
            self._report_not_held(anchor)
            return replace(round_, not_held=round_.not_held + 1)
        try:
            objects = self._library.check_manifest(study_uid, anchor, every_copy=True)
        except (IntegrityError, NotHeld) as fault:
            if is_erased(self._ledger, anchor["study"]):  # at this moment
                return round_
            self._report_manifest(study_uid, anchor, fault)
            count = anchor["count"]
            return replace(round_, objects=round_.objects + count, damaged=round_.damaged + count)
        except ContentAway as error:
            self._library.check()  # raises when it is not this manifest's
            count = anchor["count"]
            self._report_undecided(anchor, count, error)
            return replace(round_, objects=round_.objects + count, damaged=round_.damaged + count)
        if anchor["manifestCid"] in alarmed:
            self._outbox.settle(anchor["manifestCid"])
        faulty, cids = [], []
        for checked in objects:
            cids.append(checked.record.object)
            record, healthy = checked.record, checked.fault is None
            if not healthy:
                faulty.append(checked)
            elif claim := alarmed.get(record.object):
                self._settle(anchor, record, claim)
            size = record.sealed_size if healthy else 0
            round_ = replace(round_, objects=round_.objects + 1, bytes=round_.bytes + size)
            if not go_on(round_):
                return None
        undecided = [checked.fault for checked in faulty if isinstance(checked.fault, ContentAway)]
        damaged = len(undecided)
        if undecided:
            self._report_undecided(anchor, damaged, undecided[0])
            faulty = [checked for checked in faulty if not isinstance(checked.fault, ContentAway)]
        else:
            self._settle_undecided(anchor["manifestCid"])
        if faulty:
            damaged += self._report(study_uid, anchor, faulty)
        if not damaged:
            now_us = self._clock() * 1_000_000
            self._library.tend(anchor["manifestCid"], cids, now_us, lambda: is_erased(self._ledger, anchor["study"]))
        return replace(round_, damaged=round_.damaged + damaged)

    def _report_not_held(self, anchor: Anchor) -> None:
        cid = anchor["manifestCid"]
        text = f"manifest {cid}: {anchor['count']} objects that this node anchored, of a study its index does not know"
        self._outbox.alarm(_NOT_HELD, cid, f"{text}; make the index anew with `orthanc-ledger reindex`")
        self._tell(Damage(cid, None, f"{_NOT_HELD}: {text}"))

    def _report(self, study_uid: str, anchor: Anchor, faulty: Sequence[Checked]) -> int:
        """Alarm of what differs or is missing, and flag it; returns how many objects that were.

        An object in whose place both parties resolved on another manifest is none of them: it was told.
        """
        cid = anchor["manifestCid"]
        standing = self._ledger.query("StandingOf", {"study": anchor["study"]})
        if standing["erased"] == "erased":  # at this moment
            return 0
        agreed = agreed_on(standing)
        faulty = [checked for checked in faulty if agreed.get(checked.record.instance, cid) == cid]
        current = {instance.object: instance for instance in self._members(study_uid, cid)}
        for checked in faulty:
            bad = checked.record.object
            instance = current.get(bad)
            if instance is not None:
                self._library.report(instance)
            else:
                text = f"object {bad}, not the current one of its instance, differs from its anchor"
                self._outbox.alarm(DAMAGED, bad, text)
            self._tell(Damage(bad, instance.sop_uid if instance else None, str(checked.fault)))
        return len(faulty)

    def _report_manifest(self, study_uid: str, anchor: Anchor, fault: IntegrityError | NotHeld) -> None:
        """Alarm of a manifest and flag the instances whose current record is in it."""
        cid = anchor["manifestCid"]
        text = f"the {anchor['count']} objects of manifest {cid} cannot be verified: {fault}"
        self._outbox.alarm(BAD_MANIFEST, cid, text)
        self._tell(Damage(cid, None, text))
        with contextlib.suppress(NotHeld):  # without the study's keys nobody can say which instances they are
            for instance in self._members(study_uid, cid):
                self._library.report(instance)
                self._tell(Damage(str(instance.object), instance.sop_uid, f"its manifest {cid} cannot be used"))

    def _report_undecided(self, anchor: Anchor, count: int, error: ContentAway) -> None:
        """Alarm of what is bad here and may be healthy elsewhere; no flag."""
        cid = anchor["manifestCid"]
        text = f"{count} objects of manifest {cid} cannot be verified now, nor repaired: {error}"
        if not self._is_undecided(cid):  # told, in other words
            self._outbox.alarm(UNDECIDED, cid, text)
        self._tell(Damage(cid, None, text))

    def _settle_undecided(self, cid: str) -> None:
        if self._is_undecided(cid):
            self._outbox.settle(cid, kind=UNDECIDED)

    def _is_undecided(self, cid: str) -> bool:
        return bool(self._outbox.standing(UNDECIDED, cid))

    def _members(self, study_uid: str, manifest_cid: str) -> list[Instance]:
        """The instances whose current record is in a manifest."""
        instances = self._index.select(studies=[study_uid])
        return [instance for instance in instances if instance.manifest == manifest_cid]

    def _alarmed(self) -> dict[str, str]:
        """CID of each manifest or object that an alarm stands about → the alarm's claim."""
        found = {}
        for alarm in self._outbox.alarms():
            if alarm.kind in (DAMAGED, BAD_MANIFEST, _NOT_HELD):
                instance = self._index.instance(alarm.claim)
                found[str(instance.object) if instance else alarm.claim] = alarm.claim
        return found

    def _settle(self, anchor: Anchor, record: Record, claim: str) -> None:
        """Take back the alarm of an object that verifies again: a current one's once both parties resolved its flag."""
        if claim == record.object or self._is_resolved(anchor["study"], record.instance):
            self._outbox.settle(claim, kind=DAMAGED)

    def _is_resolved(self, study: bytes, instance: bytes) -> bool:
        if self._outbox.waits(flag_name(instance)):  # asked first: what no longer waits, the ledger knows
            return False
        standing = self._ledger.query("StandingOf", {"study": study})
        flagged, resolved = ({flag["instance"] for flag in standing[kind]} for kind in ("flagged", "resolved"))
        return instance in resolved - flagged
