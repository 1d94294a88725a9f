"""Carrying out what the ledger calls erased: what is left of a study opens for nobody (ARCHITECTURE.md, "Erase").

Two processes share the work, and `erasures.py` keeps how far each study has come: `Removal` is the anchorer's part, in
its one thread, as only that may take units and rows from under itself; `Eraser` does the rest. Every step may be
repeated, so either may be killed anywhere and started again.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from orthanc_ledger.arrival import read_head
from orthanc_ledger.clock import Clock
from orthanc_ledger.content import ContentStore
from orthanc_ledger.erasures import BLOCK, CLAIM, ROOT, Erasure, Erasures
from orthanc_ledger.errors import ContentAway, DataError, IntegrityError, NotHeld, ServiceAway, Unreadable
from orthanc_ledger.forgetting import Forgetting
from orthanc_ledger.forwards import Forwards
from orthanc_ledger.index import Index
from orthanc_ledger.instance import read_identifiers
from orthanc_ledger.intake import Intake
from orthanc_ledger.keyring import ERASED, Keyring
from orthanc_ledger.ledger import Ledger, all_rows, first_record, is_erased
from orthanc_ledger.manifest import Manifest
from orthanc_ledger.node_key import Wrapping
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.sole import sole
from orthanc_ledger.verify import open_unit

LOGGER = logging.getLogger(__name__)

NODE_KEY = "node key"
NOT_DONE = "erasure not done"
FAILED = "erasure failed"
"""Kinds of alarms: a node key of which no copy is kept; an erasure that somebody has not carried out, or that meets a
fault here.
"""

_DAY_S = 86_400
_POLL_S = 1.0
_FAULT_RETRY_S = 60.0
_REPAIR_S = 60.0
_OTHER = "another process carries out erasures: wait for its end, or stop it"


def new_node_key(
    outbox: Outbox, keyring: Keyring, without: Collection[bytes] = (), wrapping: Wrapping | None = None
) -> None:
    """As ``Keyring.rotate``, with an alarm that stands until the new key is copied."""
    text = "the node key is a new one, and older copies of it open nothing: `orthanc-ledger node-key backup FILE`"
    # Told first, by whoever dies in between, too; and when nobody copies the key, who would take it back.
    keyring.rotate(without, wrapping, first=lambda: outbox.alarm(NODE_KEY, NODE_KEY, text))


def lacking(ledger: Ledger, study: bytes) -> list[str]:
    """MSP IDs of the organisations that may have something of an erased study and have not said that it is gone:
    owner, custodian, and whom it was released to. Raises LedgerAway.
    """
    organisations = ledger.query("GetPolicy", {})["organisations"]
    holders = {msp_id for msp_id, role in organisations.items() if role != "research"}
    done = set()
    for event in all_rows(ledger, "Audit", {"study": study}):
        if event["function"] == "LogRelease":
            holders.add(event["args"]["node"]["organisation"])
        elif event["function"] == "ErasureDone":
            done.add(event["by"]["organisation"])
    return sorted(holders - done)


class Removal:
    """The anchorer's part: an open batch is given up by itself, once the index has nothing that waits for it."""

    def __init__(
        self,
        index: Index,
        outbox: Outbox,
        forwards: Forwards,
        erasures: Erasures,
        intake: Intake,
    ) -> None:
        self._index = index
        self._outbox = outbox
        self._forwards = forwards
        self._erasures = erasures
        self._intake = intake

    def run(self) -> None:
        """Take away units and rows of every study that is to be erased."""
        for erasure in self._erasures.in_state("collected"):
            if erasure.study_uid is not None:
                self._remove(erasure, erasure.study_uid)
            self._erasures.advance(erasure, "taken", erasure.study_uid)

    def _remove(self, erasure: Erasure, study_uid: str) -> None:
        batches = self._index.batches_of(study_uid)
        instances = self._index.select(studies=[study_uid])
        for batch in batches:
            self._outbox.settle(str(batch.id), kind="anchor refused")
        # Kept before they are dropped: the content store is still to forget them.
        self._erasures.keep(erasure, ROOT, (batch.manifest for batch in batches))
        self._erasures.keep(erasure, BLOCK, (row.object for row in instances if row.object))
        self._erasures.keep(erasure, CLAIM, (row.claim for row in instances))
        claims = self._erasures.parts(erasure, CLAIM)
        later = self._intake.erase(study_uid, claims, erasure.time)
        self._forwards.forget(*claims)
        self._index.forget_study(study_uid)
        cids = self._erasures.parts(erasure, ROOT) | self._erasures.parts(erasure, BLOCK)
        self._outbox.forget(claims | cids, erasure.token)
        for aside in later:
            self._intake.file(aside, ERASED)


class Eraser:
    """Everything else: finds what is to be erased, makes it unreadable, says so, and watches that all do.

    ``lock`` keeps other erasers away, ``repairs`` whoever replaces bad copies (repair.py): none may bring back what is
    being forgotten. ``wait_s``: after so many seconds it is an alarm that somebody has not said so. ``is_released``:
    whether what else holds a study by its UID (in Orthanc, its storage) has let go of it; asked again until it has.
    """

    def __init__(
        self,
        ledger: Ledger,
        index: Index,
        outbox: Outbox,
        forwards: Forwards,
        erasures: Erasures,
        keyring: Keyring,
        content: ContentStore,
        lock: Path,
        repairs: Path,
        wait_s: float,
        clock: Clock,
        is_released: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._outbox = outbox
        self._forwards = forwards
        self._erasures = erasures
        self._keyring = keyring
        self._content = content
        self._lock = lock
        self._repairs = repairs
        self._wait_s = wait_s
        self._clock = clock
        self._is_released = is_released
        self._watched_at: int | None = None
        self._forgetting = Forgetting(erasures, content, outbox, clock)

    def run(self, stop: threading.Event, retry_s: float) -> None:
        """Work until ``stop`` is set; tried again ``retry_s`` after a service was away, or after a fault, which is an
        alarm: no fault of one study may end the node.
        """
        said = ""
        while not stop.is_set():
            pause_s = _POLL_S
            try:
                self.step()
                self._outbox.settle(FAILED, kind=FAILED)
                said = ""
            except (ServiceAway, sqlite3.OperationalError) as error:
                pause_s = retry_s
                if said != (said := str(error)):
                    LOGGER.warning("erasures wait: %s", error)
            except DataError as error:
                pause_s = _FAULT_RETRY_S
                self._outbox.alarm(FAILED, FAILED, f"erasures cannot be carried out: {error}")
            stop.wait(pause_s)

    def step(self) -> None:
        """Do what can be done now. Raises ServiceAway: ledger, content store or keyring are, or another eraser runs."""
        with sole(self._lock, ServiceAway(_OTHER)):
            if self._look() or self._watched_at is None or self._clock() - self._watched_at >= _DAY_S:
                self._watch()
            for erasure in self._erasures.in_state("erased"):
                self._collect(erasure)
            taken = self._erasures.in_state("taken")
            if gone := [each for each in taken if self._is_released_elsewhere(each) and self._is_forgotten(each)]:
                self._clear(gone)
            if cleared := self._erasures.in_state("cleared"):
                self._erasures.scrub()
            for erasure in cleared:
                self._ledger.submit("ErasureDone", {"study": erasure.token})
                self._erasures.advance(erasure, "done")
                self._watched_at = None

    def _look(self) -> bool:
        """Enter what the ledger calls erased; whether it has events that were not looked at.

        Once a day all studies are asked for: on Fabric an event may come to lie before one that was seen.
        """
        before, checked = self._erasures.place()
        place, now = before, self._clock()
        for event in all_rows(self._ledger, "Audit", {} if place is None else {"after": place}):
            place = event["sequence"]
            if event["function"] == "ConfirmErase" and event["args"]["study"] in self._held():
                self._begin(event["args"]["study"])
        if not 0 <= now - checked < _DAY_S:
            for token in self._held():
                if is_erased(self._ledger, token):
                    self._begin(token)
            checked = now
        if (place, checked) != self._erasures.place():
            self._erasures.keep_place(place, checked)
        return place != before

    def _held(self) -> frozenset[bytes]:
        """Tokens of what is held here; others are another node's, or carried out. Keyring and index each may be one of
        before, put back.
        """
        return self._keyring.study_tokens() | {token for _, token, _ in self._index.studies() if token is not None}

    def _begin(self, token: bytes) -> None:
        confirmation = first_record(self._ledger, f"erasureConfirmation/{token.hex()}")
        self._erasures.begin(token, confirmation["time"])

    def _collect(self, erasure: Erasure) -> None:
        """Give nobody the study's keys any more, and find what is held of it."""
        study_uid = self._index.study_of_token(erasure.token)
        if study_uid is not None:
            self._keyring.mark_erased(study_uid)  # also while the content store is away
        manifests = self._manifests(erasure)
        if study_uid is None and (study_uid := self._study_uid(erasure, manifests)) is not None:
            self._keyring.mark_erased(study_uid)
        self._erasures.advance(erasure, "collected", study_uid)

    def _clear(self, taken: Collection[Erasure]) -> None:
        """Destroy what is left in free pages, and then the keys."""
        for database in (self._index, self._outbox, self._forwards):
            database.scrub()
        tokens = {erasure.token for erasure in taken}
        if tokens & self._keyring.study_tokens():
            new_node_key(self._outbox, self._keyring, tokens)
        else:  # whoever was cut off behind that: each other key makes the copies of the last one useless
            with self._keyring.settled():
                self._keyring.scrub()
        for erasure in taken:
            self._erasures.advance(erasure, "cleared")
            LOGGER.info("erased: study %s", erasure.token.hex())

    def _is_released_elsewhere(self, erasure: Erasure) -> bool:
        return erasure.study_uid is None or self._is_released(erasure.study_uid)

    def _is_forgotten(self, erasure: Erasure) -> bool:
        """Whether the content store has nothing of a study any more. Raises ContentAway."""
        if not self._forgetting.is_due(erasure):
            return False
        self._manifests(erasure)  # also those that the anchorer found
        with sole(self._repairs, ContentAway("a copy is being repaired"), _REPAIR_S):
            return self._forgetting.is_done(erasure)

    def _manifests(self, erasure: Erasure) -> list[Manifest]:
        """Raises LedgerAway, ContentAway."""
        anchors = all_rows(self._ledger, "AnchorsOfStudy", {"study": erasure.token})
        return self._erasures.collect(erasure, anchors, self._content.get_block)

    def _study_uid(self, erasure: Erasure, manifests: Collection[Manifest]) -> str | None:
        """The Study Instance UID by any object that opens under the study's own keys, as a manifest may name others';
        None when none does. Raises ContentAway.
        """
        for manifest in manifests:
            for record in manifest.records:
                with contextlib.suppress(IntegrityError, NotHeld, Unreadable):
                    study, key = self._keyring.batch(manifest.key_id)
                    if study.token != erasure.token:
                        continue
                    with open_unit(record, study, key, self._content) as unit:
                        head = read_head(unit)
                        return read_identifiers(unit, head.arrival.transfer_syntax).study_instance_uid
        return None

    def _watch(self) -> None:
        """Raise an alarm about who has not said in time that a study is erased, or take it back."""
        now = self._watched_at = self._clock()
        standing = {alarm.claim: alarm.text for alarm in self._outbox.alarms() if alarm.kind == NOT_DONE}
        for erasure in self._erasures.all():
            token, missing = erasure.token.hex(), lacking(self._ledger, erasure.token)
            text = f"study {token} is erased, but not yet by {', '.join(missing)}: `orthanc-ledger erase list`"
            late = bool(missing) and now - erasure.time > self._wait_s
            if token in standing and standing[token] != text * late:
                self._outbox.settle(token, kind=NOT_DONE)
            if late:
                self._outbox.alarm(NOT_DONE, token, text)
            if not missing:
                self._erasures.end(erasure)
