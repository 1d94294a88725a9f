"""The composition root: a configuration becomes the objects a process works with."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orthanc_ledger import tokens
from orthanc_ledger.anchorer import Anchorer, Pace
from orthanc_ledger.anchors import Anchors
from orthanc_ledger.backfill import Backfill
from orthanc_ledger.chronicle import Chronicle
from orthanc_ledger.clock import Clock, system_clock, system_clock_us
from orthanc_ledger.config import Config, Party, check_data_dir
from orthanc_ledger.content import ContentStore, open_store
from orthanc_ledger.courier import ROLLED_BACK, Courier, Errand
from orthanc_ledger.datasets import Datasets
from orthanc_ledger.deliveries import Deliveries
from orthanc_ledger.erasure import Eraser
from orthanc_ledger.erasures import Erasures
from orthanc_ledger.errors import LedgerAway, ServiceAway
from orthanc_ledger.fetcher import Fetcher
from orthanc_ledger.find import Catalogue
from orthanc_ledger.forwarding import Forwarding
from orthanc_ledger.forwards import Forwards
from orthanc_ledger.gate import Gate
from orthanc_ledger.index import Index
from orthanc_ledger.keeper import Keeper
from orthanc_ledger.key_release import KeyRelease
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.ledger import Ledger, OpenLedger, open_ledger
from orthanc_ledger.ledger.identity import ca_certificate, load_identity
from orthanc_ledger.library import Library, Manifests
from orthanc_ledger.orthanc_rest import OrthancRest
from orthanc_ledger.outage import SignedAnew
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.paced import PacedStore
from orthanc_ledger.pacs import Pacs
from orthanc_ledger.reconcile import Reconciler, has_let_go
from orthanc_ledger.reindex import Loss, Reindex
from orthanc_ledger.repair import Nearest, Repairs, Sealed
from orthanc_ledger.retrieve import Retrieval
from orthanc_ledger.sole import Shared
from orthanc_ledger.spool import TEMPORARY, Spool
from orthanc_ledger.sweep import Damage, Rounds, Sweep

INDEX = "index.db"
INDEX_LOCK = "index.lock"
OUTBOX = "outbox.db"
DELIVERIES = "courier.db"
FORWARDS = "forwards.db"
KEYRING = "keyring.db"
DATASETS = "datasets.db"
SPOOL = "spool"
SWEEP = "sweep.db"
ERASURES = "erasures.db"
BESIDE = "beside.sock"
ENTRANCE = "orthanc.json"
PACS = "pacs.db"
_ERASER_LOCK = "eraser.lock"
_SWEEP_LOCK = "sweep.lock"
_BACKFILL_LOCK = "backfill.lock"
_REPAIR_LOCK = "repair.lock"
_ANCHORER_PATIENCE_S = 1.0
_PERSONS_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Node:
    """The parts of one node, each made when first used.

    Several processes may each have a Node on the same data directory.
    """

    config: Config

    @cached_property
    def keyring(self) -> Keyring:
        return Keyring.open(self.config.data_dir / KEYRING, self.config.node_key)

    @cached_property
    def index_held(self) -> Shared:
        """What keeps the index from being replaced under whoever has it open."""
        reindexed = ServiceAway("the index is being made anew: wait for the end of `orthanc-ledger reindex`")
        return Shared(self.config.data_dir / INDEX_LOCK, reindexed)

    @cached_property
    def index(self) -> Index:
        """Raises ServiceAway while it is made anew."""
        _ = self.index_held
        return Index(self.config.data_dir / INDEX)

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.config.data_dir / OUTBOX, system_clock)

    @cached_property
    def pacs(self) -> Pacs:
        return Pacs(self.config.data_dir / PACS, system_clock)

    @cached_property
    def forwards(self) -> Forwards:
        return Forwards(self.config.data_dir / FORWARDS, self.config.forward, system_clock)

    @cached_property
    def spool(self) -> Spool:
        k_lookup = self.keyring.k_lookup
        return Spool(
            self.config.data_dir / SPOOL,
            lambda sop_uid: tokens.claim_name(k_lookup, sop_uid),
            self.index,
            self.config.spool_reserve_mb << 20,
            self.config.largest_object_mb << 20,
            system_clock_us,
        )

    @cached_property
    def content(self) -> ContentStore:
        return open_store(self.config.content)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger as the node's own identity sees it."""
        return self.ledger_as()

    @cached_property
    def anchorer_ledger(self) -> Ledger:
        """The same, soon away: the anchorer tries again, and what arrives while it waits is not seen."""
        return self.ledger_as(patience_s=_ANCHORER_PATIENCE_S)

    def ledger_as(self, identity: Path | None = None, patience_s: float | None = None) -> OpenLedger:
        """The ledger as an identity's folder sees it; None: the node's own. ``patience_s``: as for `open_ledger`."""
        return open_ledger(
            self.config.ledger, load_identity(identity or self.config.identity), system_clock, patience_s
        )

    @cached_property
    def deliveries(self) -> Deliveries:
        return Deliveries(self.config.data_dir / DELIVERIES)

    def courier(self) -> Courier:
        config = self.config
        errand = Errand(config.ae_title, config.checkpoint_sinks, config.alarm_sinks, config.checkpoint_within_s)
        identity, ca = load_identity(config.identity), ca_certificate(config.identity)
        return Courier(self.ledger_as, identity, ca, self.outbox, self.deliveries, errand, system_clock)

    @property
    def named(self) -> dict[str, str]:
        """This node as the ledger names it."""
        return {"organisation": self.config.organisation, "aeTitle": self.config.ae_title}

    @cached_property
    def repairs(self) -> Repairs:
        return self._repairs()

    def _repairs(self, pay: Callable[[int], object] = lambda _: None) -> Repairs:
        lock = self.config.data_dir / _REPAIR_LOCK
        return Repairs(self.content, self.outbox, self.named, lock, pay, self.erasures.has)

    @cached_property
    def manifests(self) -> Manifests:
        return Manifests(self.content, self.repairs)

    @cached_property
    def library(self) -> Library:
        """What research is served from."""
        return self._library(self.content, self.manifests, self.repairs)

    @cached_property
    def near(self) -> Sealed:
        """What clinical peers are served from, and whatever else need not wait for other machines."""
        return self.content if self.content.near is self.content else Nearest(self.content)

    @cached_property
    def near_manifests(self) -> Manifests:
        return Manifests(self.near, self.repairs)

    @cached_property
    def near_library(self) -> Library:
        return self._library(self.near, self.near_manifests, self.repairs)

    def _library(self, content: Sealed, manifests: Manifests, repairs: Repairs) -> Library:
        return Library(self.spool, self.index, self.keyring, content, manifests, self.outbox, repairs)

    @cached_property
    def forwarding(self) -> Forwarding:
        return Forwarding(self.forwards, self.index, self.near_library, self.outbox, system_clock)

    @cached_property
    def datasets(self) -> Datasets:
        return Datasets(self.config.data_dir / DATASETS, self.outbox)

    @cached_property
    def gate(self) -> Gate:
        parts = self.ledger, self.index, self.keyring, self.manifests, self.datasets, self.content
        return Gate(*parts, self.rolled_back, system_clock)

    def rolled_back(self) -> bool:
        """Whether the courier's alarm that the ledger was rolled back stands."""
        return any(alarm.kind == ROLLED_BACK for alarm in self.outbox.alarms())

    @cached_property
    def retrieval(self) -> Retrieval:
        return Retrieval(self.index, self.near_library, self.library, self.gate, self.outbox)

    @cached_property
    def key_release(self) -> KeyRelease:
        parts = self.index, self.keyring, self.manifests, self.library, self.outbox
        return KeyRelease(self.ledger, self.gate, *parts, load_identity(self.config.identity))

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.index, self.gate)

    @cached_property
    def chronicle(self) -> Chronicle:
        """What people are told; they do not wait long for the ledger."""
        ledger = self.ledger_as(patience_s=_PERSONS_PATIENCE_S)
        state = self.spool, self.index, self.keyring, self.outbox, self.rounds
        return Chronicle(*state, ledger, system_clock, self.pacs if self.config.orthanc else None)

    def anchorer(self) -> Anchorer:
        """The write path; only one process of a node may run it."""
        config = self.config
        pace = Pace(config.batch, config.ledger_retry_s, config.denial_report_s)
        state = self.spool, self.index, self.outbox, self.forwards
        return Anchorer(*state, self.keyring, self.content, self.anchorer_ledger, self.erasures, self.named, pace)

    @cached_property
    def erasures(self) -> Erasures:
        return Erasures(self.config.data_dir / ERASURES)

    def eraser(self) -> Eraser:
        """What carries out erasures, with the anchorer; only one process of a node at a time."""
        state = self.index, self.outbox, self.forwards, self.erasures
        locks = self.config.data_dir / _ERASER_LOCK, self.config.data_dir / _REPAIR_LOCK
        ledger, wait_s = SignedAnew(self.ledger), self.config.erasure_alarm_days * 86_400
        return Eraser(ledger, *state, self.keyring, self.content, *locks, wait_s, system_clock, self.is_released)

    def is_released(self, study_uid: str) -> bool:
        """Whether nothing but this node has anything of an erased study. Raises OrthancAway."""
        return not self.config.orthanc or has_let_go(self.orthanc, self.pacs, study_uid)

    @cached_property
    def rounds(self) -> Rounds:
        return Rounds(self.config.data_dir / SWEEP)

    def sweep(
        self,
        mb_s: float,
        sleep: Callable[[float], object] = time.sleep,
        tell: Callable[[Damage], object] = lambda _: None,
    ) -> Sweep:
        """A sweep that reads at most ``mb_s`` MiB a second (0: as fast as it can), waits by ``sleep`` and gives what it
        finds to ``tell``.
        """
        content, repairs = self.near, self.repairs
        if mb_s:
            content = paced = PacedStore(self.near, mb_s * (1 << 20), sleep)
            repairs = self._repairs(paced.pay)
        library = self._library(content, Manifests(content, repairs), repairs)
        ledger, lock = self.ledger_as(), self.config.data_dir / _SWEEP_LOCK
        state = self.index, library, self.outbox, self.rounds
        return Sweep(ledger, self._anchors(ledger), *state, lock, system_clock, tell)

    @cached_property
    def orthanc(self) -> OrthancRest:
        """The Orthanc whose plugin this node is."""
        return OrthancRest(self.config.data_dir / ENTRANCE)

    def reconciler(self) -> Reconciler:
        """What keeps up with Orthanc."""
        return Reconciler(self.orthanc, self.pacs, self.fetcher, self.outbox, self._is_withdrawn, system_clock)

    def backfill(self, rests: bool) -> Backfill:
        """What takes in what Orthanc held before; ``rests``: as for `Backfill`."""
        lock = self.config.data_dir / _BACKFILL_LOCK
        return Backfill(self.pacs, self.fetcher, self.spool, self.reconciler().compare, lock, rests)

    @cached_property
    def fetcher(self) -> Fetcher:
        """What takes objects from Orthanc into the spool."""
        return Fetcher(self.orthanc, self.pacs, self.spool, self.keyring, self.config.ae_title)

    def _is_withdrawn(self, study_uid: str) -> bool:
        """Whether a whole study is withdrawn on the ledger; not while that is away."""
        study = self.keyring.study(study_uid)
        if study is None:
            return False
        try:
            standing = self.ledger.query("StandingOf", {"study": study.token})
        except LedgerAway:
            return False
        return any(withdrawal["instances"] is None for withdrawal in standing["withdrawn"])

    def reindex(self, fresh: Index, tell: Callable[[Loss], object]) -> Reindex:
        """What makes the index anew in ``fresh``, and gives what it cannot restore to ``tell``."""
        ledger, temporary = self.ledger_as(), self.config.data_dir / SPOOL / TEMPORARY
        parts = self.keyring, self.near, self.near_manifests, self.repairs
        return Reindex(ledger, self._anchors(ledger), *parts, fresh, temporary, tell)

    def _anchors(self, ledger: Ledger) -> Anchors:
        return Anchors(ledger, load_identity(self.config.identity).certificate, self.keyring)


def keeper(
    party: Party,
    sleep: Callable[[float], object] = time.sleep,
    clock: Clock = system_clock,
    monotonic: Callable[[], float] = time.monotonic,
) -> Keeper:
    """The custodian's keeper; only one process may run it. Raises ConfigError."""
    check_data_dir(party)
    outbox = Outbox(party.data_dir / OUTBOX, clock)
    content = open_store(party.content)
    pay = PacedStore(content, party.sweep_mb_s * (1 << 20), sleep).pay if party.sweep_mb_s else lambda _: None
    named = {"organisation": party.organisation, "aeTitle": party.ae_title}
    repairs = Repairs(content, outbox, named, party.data_dir / _REPAIR_LOCK, pay)
    ledger = SignedAnew(open_ledger(party.ledger, load_identity(party.identity), system_clock))
    state = outbox, Erasures(party.data_dir / ERASURES), Rounds(party.data_dir / SWEEP)
    pace = party.sweep_every_h * 3600, clock, monotonic
    return Keeper(ledger, content, Manifests(content, repairs), repairs, *state, party.organisation, *pace)
