"""The anchorer: has units taken in, prepares batches, submits them, and tells the ledger what else happened.

One process, one thread. Every step is one durable change that may be repeated, so it may be killed anywhere and started
again; ARCHITECTURE.md lists the points.
"""

import logging
import os
import threading
from collections.abc import Mapping, Set
from dataclasses import dataclass

from orthanc_ledger.batch import BatchLimits, OpenBatch, Preparer, fingerprint_limit_s, fingerprint_unit
from orthanc_ledger.clock import MicrosecondClock
from orthanc_ledger.content import ContentStore
from orthanc_ledger.erasure import Removal
from orthanc_ledger.erasures import Erasures
from orthanc_ledger.errors import ConfigError, ContentAway, ContractError, DataError, LedgerAway, ServiceAway
from orthanc_ledger.forwards import Forwards
from orthanc_ledger.index import Batch, Index, Instance, Waiting
from orthanc_ledger.intake import Intake
from orthanc_ledger.keyring import Keyring, StudyErased
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.outage import ANCHORS_WAIT, CONTENT_AWAY, Outage, SignedAnew
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.sole import sole
from orthanc_ledger.spool import INBOX, Spool
from orthanc_ledger.supersede import Supersessions
from orthanc_ledger.teller import ERASED, Teller
from orthanc_ledger.workers import Workers

LOGGER = logging.getLogger(__name__)

_TICK_S = 0.05
_FAILED_RETRY_S = 60.0  # for what failed although every service answered: a person was alarmed
_LOCK = "anchorer.lock"
_BATCH_FAILED = "batch failed"
_WORKERS = min(4, os.cpu_count() or 1)  # four keep this process busy with what only it does


@dataclass(frozen=True)
class Pace:
    """How often: batch limits, and the seconds between tries and reports."""

    batch: BatchLimits
    ledger_retry_s: float
    denial_report_s: float


class Anchorer:
    """The write path behind the receivers. ``node`` is this node's id on the ledger: organisation and aeTitle."""

    def __init__(
        self,
        spool: Spool,
        index: Index,
        outbox: Outbox,
        forwards: Forwards,
        keyring: Keyring,
        content: ContentStore,
        ledger: Ledger,
        erasures: Erasures,
        node: Mapping[str, str],
        pace: Pace,
    ) -> None:
        self._spool = spool
        self._index = index
        self._outbox = outbox
        self._content = content
        self._ledger = SignedAnew(ledger)
        self._teller = Teller(self._ledger, outbox)
        takes_nothing = "the ledger takes nothing, `status` says what waits"
        waits = "new objects are not sealed and research gets nothing until it is back"
        self._outage = Outage(outbox, ANCHORS_WAIT, "ledger", takes_nothing)
        self._content_outage = Outage(outbox, CONTENT_AWAY, "content", waits)
        self._has_recovered = False
        self._node = node
        self._pace = pace
        self._intake = Intake(spool, index, outbox, forwards, keyring)
        self._preparer = Preparer(
            spool,
            keyring,
            content,
            between=self.take_in,  # clinical peers shall see what comes meanwhile
        )
        self._supersessions = Supersessions(spool, index, outbox, forwards, keyring, self._preparer, self._ledger)
        self._removal = Removal(index, outbox, forwards, erasures, self._intake)
        self._open: dict[str, OpenBatch] = {}  # study UID → its batch that has not closed
        self._waiting: set[str] = set()  # studies that wait for a service
        self._failed: set[str] = set()  # studies and manifests that wait for a person

    def run(self, stop: threading.Event, now_us: MicrosecondClock, patience_s: float = 0.0) -> None:
        """Work until ``stop`` is set; never gives up because a service is away or an object is bad.

        Raises ConfigError when another anchorer works here and does not end within ``patience_s``, and what the node's
        own files raise (a full disk): the supervisor starts it again.
        """
        retry, failed_retry = _Every(self._pace.ledger_retry_s), _Every(_FAILED_RETRY_S)
        report = _Every(self._pace.denial_report_s)
        ledger_away = content_away = False
        lock, another = self._spool.folder.parent / _LOCK, "another anchorer of this node runs: stop it first"
        with (
            sole(lock, ConfigError(another), patience_s, stop.wait),
            Workers(fingerprint_unit, _WORKERS, fingerprint_limit_s) as workers,
        ):
            self._preparer.fingerprint_all = workers.map
            self.recover()
            while not stop.wait(_TICK_S):
                now = now_us()
                if retry.due(now):
                    self._waiting.clear()
                    ledger_away = False
                    content_away = not self._has_content(now)
                if failed_retry.due(now):
                    self._failed.clear()
                self.take_in()
                if not content_away:
                    self.prepare_due(now)
                if ledger_away:
                    continue
                try:
                    self.submit()
                    if report.due(now):
                        self.report()
                    self._outage.is_over()
                except LedgerAway as error:
                    if self._outage.lasts(now, error):
                        LOGGER.warning("ledger away, %d batches wait: %s", len(self._index.unanchored()), error)
                    ledger_away = True

    def recover(self) -> None:
        """Mend what a killed anchorer left in spool and index; what it left in the content store is mended by `run`,
        once that is there.
        """
        self._intake.recover()

    def take_in(self) -> None:
        """Bring the index up to date with the spool."""
        self._intake.take_in()
        self._intake.note_conflicts()

    def prepare_due(self, now_us: int) -> None:
        """Take away what is erased, add what is new to its study's open batch, finish those that close now, and prepare
        what a person decided.
        """
        self._removal.run()
        waiting_studies = self._index.waiting()
        for waiting in waiting_studies:
            if waiting.study_uid not in self._waiting and waiting.study_uid not in self._failed:
                self._try_to_prepare(waiting, self._closes(waiting, now_us))
        for study_uid in self._open.keys() - {waiting.study_uid for waiting in waiting_studies}:
            self._discard(study_uid)  # a person took away all that was in it
        try:
            self._supersessions.prepare_decided()
        except ServiceAway as error:
            LOGGER.warning("a service is away, a supersession waits: %s", error)

    def submit(self) -> None:
        """Give the ledger all prepared batches and queued calls. Raises LedgerAway; what was answered stays done."""
        for batch in self._index.unanchored():
            if batch.manifest not in self._failed:
                self._anchor(batch)
        self._teller.submit()

    def report(self) -> None:
        """Queue a report of what was denied since the last one, and move supersessions on. Raises LedgerAway."""
        self._outbox.post_denials(self._node)
        self._supersessions.advance()

    def _has_content(self, now_us: int) -> bool:
        """Whether batches can be written now. A store that must not be used is away, too: clinical peers go on."""
        try:
            self._content.check()
            if not self._has_recovered:  # before the first batch: what is open from then on is this anchorer's own
                self._content.recover()
                self._has_recovered = True
        except (ContentAway, ConfigError) as error:
            if self._content_outage.lasts(now_us, error):
                LOGGER.warning("content store away, new objects wait in the spool: %s", error)
            return False
        self._content_outage.is_over()
        return True

    def _closes(self, waiting: Waiting, now_us: int) -> bool:
        """Whether a study's batch closes now; also when the clock was set back, which must not hold it."""
        limits = self._pace.batch
        return (
            waiting.count >= limits.max_instances
            or now_us - waiting.newest_us >= limits.idle_s * 1e6
            or not 0 <= now_us - waiting.oldest_us < limits.max_age_s * 1e6
        )

    def _try_to_prepare(self, waiting: Waiting, closes: bool) -> None:
        study_uid = waiting.study_uid
        batch = self._open.get(study_uid)
        if batch is not None and waiting.count == len(batch.claims) and not closes:
            return
        instances = self._index.waiting_instances(study_uid, self._pace.batch.max_instances)
        try:
            if batch is None:
                batch = self._open[study_uid] = self._preparer.open(study_uid, INBOX)
            self._add(batch, instances)
            if closes:
                self._finish(study_uid, batch)
            return
        except StudyErased as error:
            for instance in instances:
                self._intake.quarantine(instance.spool_name, str(error))
        except ServiceAway as error:
            LOGGER.warning("a service is away, a study waits: %s", error)
            self._waiting.add(study_uid)
        except (DataError, OSError) as error:  # this study's alone: the others go on
            self._outbox.alarm(_BATCH_FAILED, instances[0].claim, f"a study's batch cannot be prepared: {error}")
            self._failed.add(study_uid)
        self._discard(study_uid)

    def _add(self, batch: OpenBatch, instances: list[Instance]) -> None:
        for rejected in batch.add([instance for instance in instances if instance.claim not in batch.claims]):
            name = rejected.instance.spool_name
            if self._spool.holds(name):
                self._intake.quarantine(name, rejected.reason)
            else:
                self._intake.lose(rejected.instance)

    def _finish(self, study_uid: str, batch: OpenBatch) -> None:
        waiting = self._index.waiting_instances(study_uid, self._pace.batch.max_instances)
        if batch.claims <= {instance.claim for instance in waiting}:  # else a person took one away: begin anew
            prepared = batch.finish(self._index.next_seq(study_uid))
            if prepared is not None:
                self._settle_failure(prepared.objects.keys())
                self._index.keep_prepared(study_uid, prepared.manifest, prepared.objects)
        self._discard(study_uid)

    def _settle_failure(self, claims: Set[str]) -> None:
        """Take back the alarm that a batch of these claims failed: no person can."""
        for alarm in self._outbox.alarms():
            if alarm.kind == _BATCH_FAILED and alarm.claim in claims:
                self._outbox.settle(alarm.claim, kind=_BATCH_FAILED)

    def _discard(self, study_uid: str) -> None:
        batch = self._open.pop(study_uid, None)
        if batch is not None:
            batch.close()

    def _anchor(self, batch: Batch) -> None:
        args = {
            "manifestCid": batch.manifest,
            "study": batch.token,
            "root": batch.root,
            "count": batch.count,
            "kind": "original",
        }
        try:
            committed = self._ledger.submit("Anchor", args)
        except ContractError as error:
            if error.field != ERASED:  # which takes the batch away
                text = f"the ledger refused a batch of {batch.count} objects: {error}"
                self._outbox.alarm("anchor refused", str(batch.id), text)
            self._failed.add(batch.manifest)
            return
        self._outage.is_over()
        for name in self._index.keep_anchored(batch, committed.position):
            self._intake.drop(name)
        LOGGER.info("anchored %d objects at ledger position %d", batch.count, committed.position)


class _Every:
    """Due when asked first, and again each time so many seconds have gone, or the clock was set back."""

    def __init__(self, seconds: float) -> None:
        self._us = seconds * 1e6
        self._last_us: int | None = None

    def due(self, now_us: int) -> bool:
        due = self._last_us is None or not 0 <= now_us - self._last_us < self._us
        if due:
            self._last_us = now_us
        return due
