"""What comes after a receiver's Success: units enter the index, bad ones quarantine, conflicts are reported.

An inbox of 100,000 units is read once at start; from then on only what is new is touched.
"""

import contextlib
import logging
import secrets
from collections.abc import Collection
from dataclasses import replace

from orthanc_ledger import tokens
from orthanc_ledger.arrival import read_head
from orthanc_ledger.attributes import Attributes
from orthanc_ledger.batch import describe, waiting_row
from orthanc_ledger.errors import DataError, IntegrityError, NotHeld, Unreadable
from orthanc_ledger.forwards import Forwards
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.instance import read_identifiers
from orthanc_ledger.keyring import ERASED, Keyring, StudyErased
from orthanc_ledger.outbox import CONFLICT, LOST, QUARANTINED, Outbox
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE, Spool, claim_of

LOGGER = logging.getLogger(__name__)

_AT_ONCE = 64  # units entered in one index transaction


class Intake:
    """Keeps the index true to the spool. Only for the anchorer's one thread."""

    def __init__(self, spool: Spool, index: Index, outbox: Outbox, forwards: Forwards, keyring: Keyring) -> None:
        self._spool = spool
        self._index = index
        self._outbox = outbox
        self._forwards = forwards
        self._keyring = keyring
        self._versions: dict[str, int] = {}  # queue → its version when it was last read
        self._entered: set[str] = set()  # names in the inbox that the index has
        self._unread: set[str] = set()  # names in the inbox that the disk did not let read
        self._noted: set[str] = set()  # names in the conflict queue that were reported

    def recover(self) -> None:
        """Settle units in quarantine that an anchorer or a command left there when it was killed between two steps."""
        for aside in self._spool.names(QUARANTINE):
            self._file_quarantined(aside, "found in quarantine at start")

    def take_in(self) -> None:
        """Enter every new unit of the inbox in the index; put aside what cannot be parsed or has a claimed UID."""
        version = self._spool.version(INBOX)
        if version == self._versions.get(INBOX):
            return
        names = self._spool.names(INBOX, but=self._entered)
        settled = True
        for start in range(0, len(names), _AT_ONCE):
            settled &= self._enter(names[start : start + _AT_ONCE])
        if settled:
            self._versions[INBOX] = version

    def note_conflicts(self) -> None:
        """Alarm of every new unit of the conflict queue, and queue its report to the ledger, once."""
        version = self._spool.version(CONFLICTS)
        if version == self._versions.get(CONFLICTS):
            return
        settled = True
        for name in self._spool.names(CONFLICTS, but=self._noted):
            with contextlib.suppress(NotHeld):  # a person discarded it meanwhile
                settled &= self._note_conflict(name)
        if settled:
            self._versions[CONFLICTS] = version

    def quarantine(self, name: str, reason: str) -> None:
        """Move a unit of the inbox to quarantine, with an alarm."""
        aside = self._spool.put_aside(name, QUARANTINE)
        self._entered.discard(name)
        self._file_quarantined(aside, reason)

    def drop(self, name: str) -> None:
        """Remove a unit that is anchored from the inbox."""
        self._spool.remove(name)
        self._entered.discard(name)

    def erase(self, study_uid: str, claims: Collection[str], until: int) -> list[str]:
        """Remove a study's units, durably: those under its claims and all with its UID, in every queue.

        What arrived after ``until``, seconds of UTC, goes to quarantine instead; returns the names there, to be given
        to ``file`` once the index has forgotten the study.
        """
        later = []
        for queue in (INBOX, CONFLICTS, QUARANTINE):
            names = sorted(claims) if queue == INBOX else self._spool.names(queue)
            for name in names:
                with contextlib.suppress(NotHeld):
                    uid, arrived = self._origin(name, queue)
                    if uid != study_uid and claim_of(name) not in claims:
                        continue
                    self._entered.discard(name)
                    self._noted.discard(name)
                    if arrived <= until:
                        self._spool.remove(name, queue)
                    else:
                        later.append(name if queue == QUARANTINE else self._spool.put_aside(name, QUARANTINE, queue))
            self._spool.sync(queue)
        return later

    def file(self, aside: str, reason: str) -> None:
        """Enter a unit in quarantine, with its alarm."""
        self._file_quarantined(aside, reason)

    def lose(self, instance: Instance) -> None:
        """Give up a waiting object whose unit is gone, so that it can be sent again, or its disk mounted."""
        self._outbox.alarm(
            LOST, instance.claim, "a waiting object is gone from the spool: restore it, or have it sent again"
        )
        self._entered.discard(instance.spool_name)
        self._index.forget(instance.claim)

    def _enter(self, names: list[str]) -> bool:
        """False: some could not be read for a full or failing disk, and are to be tried again."""
        # The index answers a repeat with Success: before a unit is entered there, its name must be durable.
        self._spool.sync()
        found: list[tuple[Instance, Attributes]] = []
        entered, unread = set(), set()
        for name in names:
            try:
                known = self._index.instance(name)
                if known is not None and known.spool_name != name:
                    self._settle(name, INBOX, known)
                    continue
                if known is None:
                    instance, attributes = self._read(name)
                    if self._keyring.is_erased(instance.study_uid):
                        raise StudyErased(ERASED)
                    found.append((instance, attributes))
                entered.add(name)
            except NotHeld:
                continue  # a person removed it
            except DataError as error:
                self.quarantine(name, str(error))
            except OSError as error:
                unread.add(name)
                if name not in self._unread:  # said once, not at every try
                    LOGGER.warning("a unit stays in the inbox, as it cannot be read now: %s", error.strerror)
        if found:
            self._forwards.queue(instance.claim for instance, _ in found)  # what the index has is not queued again
            self._index.enter(found)
        self._entered |= entered
        self._unread = (self._unread - entered) | unread
        return not unread

    def _read(self, name: str) -> tuple[Instance, Attributes]:
        """Raises Unreadable, IntegrityError, NotHeld; OSError when the disk is full or fails."""
        with self._spool.open(name) as unit:
            try:
                return describe(unit, name)
            except DataError:
                raise
            except OSError:  # the disk's, not the object's
                raise
            except Exception as error:  # a fault of ours in one object must not keep all others from being taken in
                fault = f"a fault while reading: {type(error).__name__}"  # by type only: its text may quote a value
                LOGGER.error("%s; the object goes to quarantine", fault, exc_info=LOGGER.isEnabledFor(logging.DEBUG))
                raise Unreadable(fault) from error

    def _origin(self, name: str, queue: str) -> tuple[str, int]:
        """A unit's study UID, empty when it cannot be read, and when it arrived, seconds of UTC. Raises NotHeld."""
        with self._spool.open(name, queue) as unit, contextlib.suppress(IntegrityError):
            arrival = read_head(unit).arrival
            seconds = arrival.received_us // 1_000_000
            with contextlib.suppress(Unreadable):
                return read_identifiers(unit, arrival.transfer_syntax).study_instance_uid, seconds
            return "", seconds
        return "", 0

    def _settle(self, name: str, queue: str, known: Instance) -> None:
        """Remove a unit that repeats what its UID is settled with, else make it a conflict. Raises IntegrityError."""
        with self._spool.open(name, queue) as unit:
            same = read_head(unit).arrival.sha256 == known.sha256
        if same:
            self._spool.remove(name, queue)
        else:
            self._spool.put_aside(name, CONFLICTS, queue)

    def _file_quarantined(self, aside: str, reason: str) -> None:
        """Make the index agree with a unit in quarantine; alarm first, as what the index has is not alarmed again."""
        claim = claim_of(aside)
        text = f"{reason}: decide with `orthanc-ledger quarantine` ({aside})"
        known = self._index.instance(claim)
        if known is None:
            self._outbox.alarm(QUARANTINED, claim, text)
            with contextlib.suppress(IntegrityError):  # too damaged to be in the index: found by its alarm
                quarantined = self._quarantined(aside)
                self._forwards.queue([claim])
                self._index.enter([(quarantined, Attributes({}, {}, {}))])
        elif known.state == "spooled" and not self._spool.holds(claim):
            self._outbox.alarm(QUARANTINED, claim, text)
            self._index.set_state(claim, "quarantined", aside)
        elif known.spool_name != aside:  # it was taken back, or its UID came again, before this one was removed
            try:
                self._settle(aside, QUARANTINE, known)
            except IntegrityError:
                self._outbox.alarm(QUARANTINED, claim, text)

    def _quarantined(self, aside: str) -> Instance:
        """The index row of an object of which no more is known than its arrival. Raises IntegrityError."""
        with self._spool.open(aside, QUARANTINE) as unit:
            head = read_head(unit)
            try:
                study_uid = read_identifiers(unit, head.arrival.transfer_syntax).study_instance_uid
            except Unreadable:  # damaged since it was accepted
                study_uid = ""
            size = unit.seek(0, 2) - head.data_set_offset
        return replace(waiting_row(head.arrival, aside, size, study_uid, series_uid=""), state="quarantined")

    def _note_conflict(self, name: str) -> bool:
        """False: it can only be settled once the first content is taken in. Raises NotHeld."""
        claim = claim_of(name)
        holder = self._index.instance(claim)
        if holder is None:
            if self._spool.holds(claim):
                return False
            self._spool.take_back(name, CONFLICTS)  # a person discarded the first content: this is the first now
            self._outbox.settle(claim, name)
            return True
        if self._keyring.is_erased(holder.study_uid):
            return False  # it goes, or is put aside, with its study (erasure.py)
        with self._spool.open(name, CONFLICTS) as unit:
            presented = read_head(unit).arrival.sha256
        if presented == holder.sha256:  # it has superseded the first content and was not yet removed
            self._spool.remove(name, CONFLICTS)
            self._outbox.settle(claim, name)
            return True
        if holder.study_uid:
            study = self._keyring.ensure_study(holder.study_uid)
            args = {
                "study": study.token,
                "instance": tokens.instance_token(study.k_study, holder.sop_uid),
                "presented": tokens.seen(study.k_study, presented),
            }
            self._outbox.post("ReportConflict", args, nonce=secrets.token_bytes(16), once=f"conflict/{name}")
        text = f"other content came under a known UID: decide with `orthanc-ledger conflicts` ({name})"
        self._outbox.alarm(CONFLICT, claim, text)
        self._noted.add(name)
        return True
