"""The courier: brings an embedded ledger's signed checkpoints out of its owner's reach, notices of alarms to people.

One process; a thread a sink, so that one that hangs holds up no other. Every step may be repeated, so it may be killed
anywhere and started again: a sink may get the same text twice, never a part of it, and no text is lost.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from orthanc_ledger.clock import Clock
from orthanc_ledger.deliveries import Deliveries, Route, Signed
from orthanc_ledger.errors import IntegrityError, LedgerAway, SinkAway
from orthanc_ledger.ledger import Ledger, OpenLedger
from orthanc_ledger.ledger.checkpoint import open_note, own_pins, prove_growth, sign_note
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.sinks import Same, kept, open_sink

LOGGER = logging.getLogger(__name__)

CHECKPOINT_SINK, ALARM_SINK = "checkpoint sink", "alarm sink"
DIFFERS = "checkpoint differs"
ROLLED_BACK, LEDGER_AWAY, NOT_SIGNED = "ledger rolled back", "ledger away", "checkpoint not signed"
_ABOUT_LEDGER = (ROLLED_BACK, LEDGER_AWAY, NOT_SIGNED)
_KINDS = (CHECKPOINT_SINK, ALARM_SINK, DIFFERS, *_ABOUT_LEDGER)

_LEDGER = "ledger"  # the claim of an alarm about it
_LONGEST_PAUSE_S = 60.0
_SHORTEST_ALARM_S = 60.0


@dataclass(frozen=True)
class Parcel:
    """What a sink lacks next, and how far it has come once it has it. `time`: when it was made, seconds of UTC."""

    position: int
    name: str
    text: str
    time: int


@dataclass(frozen=True)
class Errand:
    """Which sinks get what, and within how many seconds; `node`: the AE title that notices begin with."""

    node: str
    checkpoint_sinks: tuple[str, ...]
    alarm_sinks: tuple[str, ...]
    within_s: float

    @property
    def pace_s(self) -> float:
        """Seconds between two looks: half the time is for signing and finding out, half for the sink."""
        return self.within_s / 4

    @property
    def alarm_s(self) -> float:
        """Seconds after which a sink that lacks something, or a ledger that is away, is an alarm."""
        return max(_SHORTEST_ALARM_S, 10 * self.within_s)


class Courier:
    """Looks after the ledger and the alarms.

    `open_ledger` is called for every look: a file put in the place of the ledger's is seen. `identity` signs; with
    `ca_certificate` (DER), its organisation's, it knows its own notes again.
    """

    def __init__(
        self,
        open_ledger: Callable[[], OpenLedger],
        identity: Identity,
        ca_certificate: bytes,
        outbox: Outbox,
        deliveries: Deliveries,
        errand: Errand,
        clock: Clock,
    ) -> None:
        self._open_ledger = open_ledger
        self._identity = identity
        self._ca_certificates = {identity.msp_id: ca_certificate}
        self._pins = own_pins(identity, ca_certificate)
        self._outbox = outbox
        self._deliveries = deliveries
        self._errand = errand
        self._clock = clock
        self._away_since: int | None = None
        self._about_ledger = {alarm.kind: alarm.text for alarm in outbox.alarms() if alarm.kind in _ABOUT_LEDGER}
        self._unasked: set[Route] = set()
        self._found: list[Signed] = []  # at the sinks that were asked, and not yet proven to be of this ledger

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; never gives up because the ledger or a sink is away.

        Raises SinkAway when a delivery's thread ended, on what the node's own files raise (a full disk): the supervisor
        starts everything again.
        """
        deliveries = self.begin()
        self.look()
        pace_s = self._errand.pace_s
        threads = [threading.Thread(target=each.run, args=(stop, pace_s), daemon=True) for each in deliveries]
        for thread in threads:
            thread.start()
        while not stop.wait(pace_s):
            self.look()
            if not all(thread.is_alive() or stop.is_set() for thread in threads):
                raise SinkAway("a delivery ended; its error stands above")

    def begin(self) -> "list[Delivery]":
        """Take up the sinks of the configuration; a delivery for each."""
        errand = self._errand
        kinds = (
            (CHECKPOINT_SINK, errand.checkpoint_sinks, self._next_checkpoint),
            (ALARM_SINK, errand.alarm_sinks, self._next_notice),
        )
        found = [
            Delivery(Route(kind, url), next_parcel, self._ask, self._same, self._deliveries, self._clock)
            for kind, urls, next_parcel in kinds
            for url in urls
        ]
        self._deliveries.configure([delivery.route for delivery in found])
        self._ask_all()
        return found

    def look(self) -> None:
        """Sign a checkpoint if an embedded ledger has grown, drop the notices that all have, set the alarms right."""
        try:
            with closing(self._open_ledger()) as ledger:
                self._about_ledger = self._sign(ledger) if isinstance(ledger, EmbeddedLedger) else _asked(ledger)
            self._away_since = None
        except IntegrityError as error:
            self._away_since = None
            self._about_ledger = {ROLLED_BACK: f"the ledger is not what it was, no checkpoint is signed: {error}"}
            self._ask_all()  # it may be a sink's note that is false, and be taken away
        except LedgerAway as error:
            self._wait_for_ledger(str(error))
        self._drop_notices()
        self._set_alarms()

    def _ask_all(self) -> None:
        """Sign nothing before each checkpoint sink was asked what it keeps; one that differs has its alarm for good."""
        self._found = []
        self._unasked = {
            place.route
            for place in self._deliveries.places()
            if place.route.kind == CHECKPOINT_SINK and not place.differs
        }

    def _ask(self, route: Route) -> None:
        """Find the largest own checkpoint that a sink keeps, unless it was asked: a data_dir put back from a backup
        takes the ledger and the courier's memory back together. Raises SinkAway.
        """
        if route not in self._unasked:
            return
        self._deliveries.waits(route, self._clock())
        signed = self._deliveries.signed()
        for text in kept(route.url):
            with suppress(IntegrityError):  # nothing of ours: `fsck` judges it
                note = open_note(text, signed.log_id if signed else None, self._ca_certificates, self._pins)
                self._found.append(Signed(note.log_id, note.checkpoint, note.time, text))
                break
        self._unasked.discard(route)

    def _same(self, held: str, text: str) -> bool:
        """Whether a sink's note is of the checkpoint in ours, and signed by our organisation, too."""
        with suppress(IntegrityError):
            theirs, ours = (open_note(note, None, self._ca_certificates, self._pins) for note in (held, text))
            return (theirs.log_id, theirs.checkpoint) == (ours.log_id, ours.checkpoint)
        return False

    def _sign(self, ledger: EmbeddedLedger) -> dict[str, str]:
        """Sign if the ledger grew; gives what is wrong about it, kinds and texts of alarms.

        Raises IntegrityError when it does not contain what was signed before; nothing is signed then.
        """
        all_asked = not self._unasked  # first: deliveries add what they find before they count as asked
        found, last = list(self._found), self._deliveries.signed()
        checkpoint = ledger.checkpoint()
        for before in [*found, *([last] if last else [])]:
            prove_growth(ledger, before.checkpoint, checkpoint)
        if not all_asked:  # what was wrong may be so still
            return {kind: text for kind, text in self._about_ledger.items() if kind != LEDGER_AWAY}
        for signed in found:
            self._deliveries.keep_signed(signed)
        last = self._deliveries.signed()
        if last is not None and last.checkpoint == checkpoint:
            return {}
        now = self._clock()
        note = sign_note(checkpoint, ledger.log_id, now, self._identity)
        try:
            open_note(note, ledger.log_id, self._ca_certificates, self._pins)
        except IntegrityError as error:
            wrong = f"the node's own note would not count: {error}: renew its certificate, or set this machine's clock"
            return {NOT_SIGNED: wrong}
        self._deliveries.keep_signed(Signed(ledger.log_id, checkpoint, now, note))
        return {}

    def _wait_for_ledger(self, error: str) -> None:
        now = self._clock()
        if self._away_since is None:
            LOGGER.warning("ledger away, research waits: %s", error)
            self._away_since = now
        if now - self._away_since > self._errand.alarm_s:
            self._about_ledger[LEDGER_AWAY] = f"it does not answer, research waits: {error}"

    def _next_checkpoint(self, covered: int) -> Parcel | None:
        """The last signed checkpoint: it covers all that lie between."""
        signed = self._deliveries.signed()
        if signed is None or signed.checkpoint.size <= covered:
            return None
        return Parcel(signed.checkpoint.size, f"{signed.checkpoint.size:020d}", signed.note, signed.time)

    def _next_notice(self, told: int) -> Parcel | None:
        for notice in self._outbox.notices(told, limit=1):
            moment = datetime.fromtimestamp(notice.time, UTC).isoformat()
            text = f"{self._errand.node} {moment} {notice.kind}: {notice.text}\n"
            return Parcel(notice.id, str(notice.id), text, notice.time)
        return None

    def _drop_notices(self) -> None:
        waiting = self._outbox.notices(0)
        told = [place.position for place in self._deliveries.places() if place.route.kind == ALARM_SINK]
        done = [notice.id for notice in waiting if notice.id <= min(told, default=notice.id)]
        if done:
            self._outbox.drop_notices(done[-1])

    def _set_alarms(self) -> None:
        """Raise what is wrong now and not told yet, take back what is right again or no longer configured."""
        wrong = self._wrong()
        standing = {(alarm.kind, alarm.claim) for alarm in self._outbox.alarms() if alarm.kind in _KINDS}
        for kind, claim in wrong.keys() - standing:
            self._outbox.alarm(kind, claim, wrong[kind, claim])
        for kind, claim in standing - wrong.keys():
            self._outbox.settle(claim, kind=kind)

    def _wrong(self) -> Mapping[tuple[str, str], str]:
        found = {(kind, _LEDGER): text for kind, text in self._about_ledger.items()}
        now = self._clock()
        for place in self._deliveries.places():
            kind, url = place.route.kind, place.route.url
            if place.differs:
                found[DIFFERS, url] = place.error or url
            elif place.waiting_since is not None and now - place.waiting_since > self._errand.alarm_s:
                found[kind, url] = f"{url}: does not answer or take what is due; `status` says since when and why"
        return found


def _asked(ledger: Ledger) -> dict[str, str]:
    """That a ledger which its peers keep is there: of its growth they tell each other. Raises LedgerAway."""
    ledger.query("GetPolicy", {})
    return {}


class Delivery:
    """Brings one sink what it lacks. `next_parcel` gives that from how far it has come; `ask` is called first, to learn
    from what it keeps.
    """

    def __init__(
        self,
        route: Route,
        next_parcel: Callable[[int], Parcel | None],
        ask: Callable[[Route], None],
        same: Same,
        deliveries: Deliveries,
        clock: Clock,
    ) -> None:
        self.route = route
        self._sink = open_sink(route.url, same)
        self._next_parcel = next_parcel
        self._ask = ask
        self._deliveries = deliveries
        self._clock = clock

    def run(self, stop: threading.Event, pace_s: float) -> None:
        """Deliver until ``stop`` is set, less and less often while the sink is away."""
        pause_s = 0.0
        with closing(self._deliveries):
            while not stop.wait(pause_s):
                pause_s = pace_s if self.deliver() else min(max(2 * pause_s, pace_s), _LONGEST_PAUSE_S)

    def deliver(self) -> bool:
        """Bring everything that waits; False when the sink did not take it, or was found to hold something else."""
        before = self._deliveries.place(self.route)
        if before.differs:
            return False
        try:
            self._ask(self.route)
            while parcel := self._next_parcel(self._deliveries.place(self.route).position):
                self._deliveries.waits(self.route, self._clock())
                self._sink.deliver(parcel.name, parcel.text)
                self._deliveries.delivered(self.route, parcel.position, parcel.time)
        except (SinkAway, IntegrityError) as error:
            if before.error is None:
                LOGGER.warning("a sink waits: %s", error)
            self._deliveries.failed(self.route, str(error), isinstance(error, IntegrityError))
            return False
        if before.error is not None:
            LOGGER.warning("a sink has all again: %s", self.route.url)
        if self._deliveries.place(self.route).waiting_since is not None:
            self._deliveries.lacks_nothing(self.route)
        return True
