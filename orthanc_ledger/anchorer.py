"""The anchorer: takes units in, prepares batches, submits them, and tells the ledger what else happened. One process, one thread.

Every step is one durable change that may be repeated, so it may be killed anywhere and started again; ARCHITECTURE.md lists the points.
"""

import logging
import secrets
import threading
from dataclasses import dataclass

from orthanc_ledger import tokens
from orthanc_ledger.arrival import read_head
from orthanc_ledger.attributes import Attributes
from orthanc_ledger.batch import describe, prepare
from orthanc_ledger.clock import MicrosecondClock
from orthanc_ledger.config import BatchLimits
from orthanc_ledger.content import ContentStore
from orthanc_ledger.errors import ContentAway, ContractError, LedgerAway, Unreadable
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.instance import read_identifiers
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.outbox import LedgerCall, Outbox
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE, Spool
from orthanc_ledger.supersede import Supersessions

LOGGER = logging.getLogger(__name__)

_TICK_S = 0.05
_INTAKE = 64  # units entered in one index transaction


@dataclass(frozen=True)
class Pace:
    """How often: batch limits, and the seconds between tries and reports."""

    batch: BatchLimits
    ledger_retry_s: float
    denial_report_s: float


class Anchorer:
    """The write path behind the receivers. ``node`` is this node's id on the ledger: organisation and aeTitle."""

    def __init__(
        self, spool: Spool, index: Index, outbox: Outbox, keyring: Keyring, content: ContentStore, ledger: Ledger, node: dict[str, str], pace: Pace
    ) -> None:
        self._spool = spool
        self._index = index
        self._outbox = outbox
        self._keyring = keyring
        self._content = content
        self._ledger = ledger
        self._node = node
        self._pace = pace
        self._supersessions = Supersessions(spool, index, keyring, content, ledger)
        self._inbox_seen_ns = -1
        self._conflicts_seen_ns = -1

    def run(self, stop: threading.Event, now_us: MicrosecondClock) -> None:
        """Work until ``stop`` is set; never gives up because a service is away."""
        self.recover()
        retry_at_us = report_at_us = 0.0
        while not stop.wait(_TICK_S):
            now = now_us()
            self.take_in()
            self.note_conflicts()
            self.prepare_due(now)
            if now < retry_at_us:
                continue
            if now >= report_at_us:
                self._outbox.post_denials(self._node)
                report_at_us = now + self._pace.denial_report_s * 1e6
            try:
                self.submit()
            except LedgerAway as error:
                LOGGER.warning("ledger away, %d batches wait: %s", len(self._index.unanchored()), error)
                retry_at_us = now + self._pace.ledger_retry_s * 1e6

    def recover(self) -> None:
        """Mend what a killed anchorer left between two steps: staged content, and units in quarantine the index does not know of."""
        self._content.recover()
        for name in self._spool.names(QUARANTINE):
            claim = name.partition(".")[0]
            known = self._index.instance(claim)
            if known is None:
                self._enter_quarantined(claim, name, "found in quarantine at start")
            elif known.state != "quarantined":
                self._index.set_state(claim, "quarantined", name)

    def take_in(self) -> None:
        """Enter every new unit of the inbox in the index; put aside what cannot be parsed or comes under a claimed UID."""
        changed_ns = self._spool.changed_ns(INBOX)
        if changed_ns == self._inbox_seen_ns:
            return
        found: list[tuple[Instance, Attributes]] = []
        for name in self._spool.names(INBOX):
            known = self._index.instance(name)
            if known is not None:
                if known.spool_name != name:
                    self._settle_latecomer(name, known)
                continue
            try:
                found.append(self._read(name))
            except Unreadable as error:
                self._enter_quarantined(name, self._spool.put_aside(name, QUARANTINE), str(error))
            if len(found) == _INTAKE:
                self._index.enter(found)
                found = []
        self._index.enter(found)
        self._inbox_seen_ns = changed_ns

    def note_conflicts(self) -> None:
        """Report every new unit of the conflict queue to the ledger, with an alarm."""
        changed_ns = self._spool.changed_ns(CONFLICTS)
        if changed_ns == self._conflicts_seen_ns:
            return
        for name in self._spool.names(CONFLICTS):
            holder = self._index.instance(name.partition(".")[0])
            if holder is None:  # the first content is still on its way in: next time
                return
            with self._spool.open(name, CONFLICTS) as unit:
                presented = read_head(unit).arrival.sha256
            study = self._keyring.ensure_study(holder.study_uid)
            args = {
                "study": study.token,
                "instance": tokens.instance_token(study.k_study, holder.sop_uid),
                "presented": tokens.seen(study.k_study, presented),
            }
            self._outbox.post("ReportConflict", args, nonce=secrets.token_bytes(16), once=f"conflict/{name}")
            self._alarm("conflict", holder.claim, f"other content came under a known UID: decide with `orthanc-ledger conflicts` ({name})")
        self._conflicts_seen_ns = changed_ns

    def prepare_due(self, now_us: int) -> None:
        """Prepare one batch of every study whose batch closes now."""
        limits = self._pace.batch
        for waiting in self._index.waiting():
            idle_s = (now_us - waiting.newest_us) / 1e6
            age_s = (now_us - waiting.oldest_us) / 1e6
            if idle_s < limits.idle_s and age_s < limits.max_age_s and waiting.count < limits.max_instances:
                continue
            try:
                self._prepare(waiting.study_uid)
            except ContentAway as error:
                LOGGER.warning("content store away, a study waits: %s", error)
        self._supersessions.prepare_decided()

    def submit(self) -> None:
        """Give the ledger all prepared batches and queued calls. Raises LedgerAway; what was answered stays done."""
        for batch in self._index.unanchored():
            args = {"manifestCid": batch.manifest, "study": batch.token, "root": batch.root, "count": batch.count, "kind": "original"}
            try:
                committed = self._ledger.submit("Anchor", args)
            except ContractError as error:
                self._alarm("anchor refused", str(batch.id), f"the ledger refused a batch of {batch.count} objects: {error}")
                continue
            for name in self._index.keep_anchored(batch, committed.position):
                self._spool.remove(name)
            LOGGER.info("anchored %d objects at ledger position %d", batch.count, committed.position)
        for call in self._outbox.posted():
            try:
                self._tell(call)
            except ContractError as error:
                self._alarm("report refused", str(call.id), f"the ledger refused {call.function}: {error}")
            self._outbox.done(call)
        self._supersessions.advance()

    def _tell(self, call: LedgerCall) -> None:
        try:
            self._ledger.submit(call.function, call.args, call.nonce)
        except ContractError as error:
            if (call.function, error.code, error.field) != ("LogDenials", "NOT_FOUND", "peer"):
                raise
            unregistered = {name: value for name, value in call.args.items() if name != "peer"}
            self._ledger.submit(call.function, {**unregistered, "unregistered": True})

    def _prepare(self, study_uid: str) -> None:
        instances = self._index.waiting_instances(study_uid, self._pace.batch.max_instances)
        prepared, rejected = prepare(
            study_uid, self._index.next_seq(study_uid), instances, INBOX, self._spool, self._keyring, self._content
        )
        for item in rejected:
            aside = self._spool.put_aside(item.instance.spool_name, QUARANTINE)
            self._index.set_state(item.instance.claim, "quarantined", aside)
            self._alarm("quarantine", item.instance.claim, f"{item.reason}: decide with `orthanc-ledger quarantine` ({aside})")
        if prepared is not None:
            self._index.keep_prepared(study_uid, prepared.manifest, prepared.objects)

    def _read(self, name: str) -> tuple[Instance, Attributes]:
        with self._spool.open(name) as unit:
            return describe(unit, name)

    def _settle_latecomer(self, name: str, known: Instance) -> None:
        """A unit under a UID that is settled already: a leftover or repeat goes, other content becomes a conflict."""
        with self._spool.open(name) as unit:
            same = read_head(unit).arrival.sha256 == known.sha256
        if same:
            self._spool.remove(name)
        else:
            self._spool.put_aside(name, CONFLICTS)

    def _enter_quarantined(self, claim: str, aside: str, reason: str) -> None:
        with self._spool.open(aside, QUARANTINE) as unit:
            head = read_head(unit)
            found = read_identifiers(unit, head.arrival.transfer_syntax)
            size = unit.seek(0, 2) - head.data_set_offset
        arrival = head.arrival
        instance = Instance(
            claim=claim,
            sop_uid=arrival.sop_instance,
            series_uid="",
            study_uid=found.study_instance_uid,
            sop_class=arrival.sop_class,
            transfer_syntax=arrival.transfer_syntax,
            size=size,
            sha256=arrival.sha256,
            received_us=arrival.received_us,
            origin=arrival.origin,
            state="quarantined",
            spool_name=aside,
        )
        self._index.enter([(instance, Attributes({}, {}, {}))])
        self._alarm("quarantine", claim, f"{reason}: decide with `orthanc-ledger quarantine` ({aside})")

    def _alarm(self, kind: str, claim: str, text: str) -> None:
        if self._outbox.alarm(kind, claim, text):
            LOGGER.warning("alarm: %s", kind)
