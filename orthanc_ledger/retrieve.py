"""What one retrieve may send, and what is logged of it. The recipient decides the rules (ARCHITECTURE.md, "Out")."""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, Protocol

from orthanc_ledger.gate import Gate, Offer, Refused, Release, StandingChanged
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.library import Library
from orthanc_ledger.manifest import Record
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.peer import Peer
from orthanc_ledger.reasons import Reason

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
LEVELS: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""One a level (PS3.4 C.6.1.1)."""

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Query:
    """The unique keys of a C-GET or C-MOVE identifier, without wildcards (PS3.4 C.4.2.1.4, C.4.3.1.4).

    The level's own key may hold several UIDs, those above it hold one; empty where the identifier had none (Study
    Root has no Patient ID).
    """

    patient_ids: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()

    def by_keyword(self) -> dict[str, tuple[str, ...]]:
        """The values of each unique key, by its keyword."""
        values = self.patient_ids, self.studies, self.series, self.instances
        return dict(zip(UNIQUE_KEYS, values, strict=True))


@dataclass(frozen=True, slots=True)
class Item:
    """One object that may be sent; ``size`` in bytes is that of its encoded data set."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    size: int


class Plan(Protocol):
    """What one retrieve may send. ``refused`` set: nothing at all may go, and ``items`` is empty.

    ``withheld`` are the objects that match but may not go, by SOP Instance UID; each is a failed sub-operation.
    """

    @property
    def refused(self) -> Reason | None: ...

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def withheld(self) -> Mapping[str, Reason]: ...

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        """A reader of the encoded data set bytes, front to back, verified whole before this returns.

        Raises IntegrityError (it differs from its anchor), Refused (there is no lease for it any more), ServiceAway.
        """

    def leave(self, item: Item) -> None:
        """The last check, right before the first byte of an opened item is sent: from then on it counts as disclosed.

        Raises Refused (the lease has ended and was not renewed), ServiceAway.
        """

    def close(self) -> None:
        """Log the outcome; called exactly once, whatever happens."""


class Retrieval:
    """Plans retrieves for clinical and research recipients."""

    def __init__(self, index: Index, near: Library, library: Library, gate: Gate, outbox: Outbox) -> None:
        """Clinical recipients are served from ``near``, the copies on this machine, research from ``library``."""
        self._index = index
        self._near = near
        self._library = library
        self._gate = gate
        self._outbox = outbox

    def plan(
        self,
        asker: Peer,
        recipient: Peer,
        level: Level,
        query: Query,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Plan:
        """Decide what may go to ``recipient`` (the asker itself for C-GET).

        ``meanwhile`` is called before each study that the ledger is asked about; what it raises ends the planning.
        Raises LedgerAway and ContentAway, for research recipients only.
        """
        if asker.role == "research" and (recipient.role, recipient.organisation) != ("research", asker.organisation):
            return self._refused(asker, Reason.DESTINATION)
        found = self._index.select(query.patient_ids, query.studies, query.series, query.instances)
        if recipient.role != "research":
            return ClinicalPlan(self._near, found)
        for _ in range(_TRIES - 1):
            with contextlib.suppress(StandingChanged):
                return self._research_plan(recipient, found, query.studies, meanwhile)
        return self._research_plan(recipient, found, query.studies, meanwhile)

    def count_refusal(self, peer: Peer, reason: Reason) -> None:
        """Count a refusal that was given to a research peer."""
        if peer.role == "research":
            self._outbox.deny(peer.organisation, peer.ae_title, reason)

    def _research_plan(
        self, recipient: Peer, found: Sequence[Instance], named: Collection[str], meanwhile: Callable[[], object]
    ) -> Plan:
        # All of this is asked whether anything is held or not: the time of an answer would tell.
        approvals = self._gate.approvals(recipient)
        studies = {*named, *(instance.study_uid for instance in found)} or {""}
        plan = ResearchPlan(self._gate, self._library, self._outbox, recipient, {row.sop_uid for row in found})
        reasons = []
        try:
            for study_uid in sorted(studies):
                meanwhile()
                offers = self._gate.offers(recipient, study_uid, approvals)
                reasons += plan.take(offers) if offers else [self._gate.refusal(recipient, study_uid)]
        except BaseException:
            plan.close()
            raise
        if plan.items or plan.withheld:
            return plan
        telling = (reason for reason in reasons if reason is not Reason.NO_APPROVAL)
        return self._refused(recipient, next(telling, Reason.NO_APPROVAL))

    def _refused(self, peer: Peer, reason: Reason) -> Plan:
        self.count_refusal(peer, reason)
        return RefusedPlan(reason)


class RefusedPlan:
    """Nothing may go."""

    items: Sequence[Item] = ()
    withheld: Mapping[str, Reason] = MappingProxyType({})

    def __init__(self, reason: Reason) -> None:
        self.refused = reason

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        raise Refused(self.refused)

    def leave(self, item: Item) -> None:
        raise Refused(self.refused)

    def close(self) -> None:
        """Nothing to log: the refusal was counted when it was made."""


class ClinicalPlan:
    """Everything that matches, from local copies; the ledger is not asked."""

    refused = None
    withheld: Mapping[str, Reason] = MappingProxyType({})

    def __init__(self, library: Library, found: Sequence[Instance]) -> None:
        self._library = library
        self._found = {instance.sop_uid: instance for instance in found}
        self.items = [_item(instance) for instance in found]

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        return self._library.open(self._found[item.sop_instance])

    def leave(self, item: Item) -> None:
        """A clinical recipient needs no lease."""

    def close(self) -> None:
        """Clinical retrieval is not logged on the ledger."""


class ResearchPlan:
    """What releases on the ledger allow, one for each study and approval; a lease that ended is renewed by a new
    release of what is left.
    """

    refused = None

    def __init__(self, gate: Gate, library: Library, outbox: Outbox, recipient: Peer, wanted: Collection[str]) -> None:
        self._gate = gate
        self._library = library
        self._outbox = outbox
        self._recipient = recipient
        self._wanted = wanted
        self._releases: list[Release] = []
        self._under: dict[str, Release] = {}  # SOP Instance UID → the newest release it is in
        self._opened: dict[str, Record] = {}
        self._left: dict[str, Release] = {}  # SOP Instance UID → the release it left under
        self.items: list[Item] = []
        self.withheld: dict[str, Reason] = {}

    def take(self, offers: Sequence[Offer]) -> list[Reason]:
        """Commit one release for each offer of a study that adds something; returns why any was refused.

        Raises StandingChanged, LedgerAway.
        """
        refusals = []
        for offer in offers:
            for sop_uid in offer.damaged.keys() & self._wanted:
                self._library.report(offer.damaged[sop_uid])
            chosen = [uid for uid in offer.releasable if uid in self._wanted and uid not in self._under]
            if chosen:
                try:
                    self._release(offer, chosen)
                except Refused as refused:
                    refusals.append(refused.reason)
                    continue
            self.items += [_item(offer.releasable[uid][0]) for uid in chosen]
        withheld = {uid: reason for offer in offers for uid, reason in offer.withheld.items() if uid in self._wanted}
        self.withheld |= {uid: reason for uid, reason in withheld.items() if uid not in self._under}
        return refusals

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        instance, record = self._lease(item.sop_instance).instances[item.sop_instance]
        self._opened[item.sop_instance] = record
        return self._library.open(instance)

    def leave(self, item: Item) -> None:
        release = self._lease(item.sop_instance)
        if release.instances[item.sop_instance][1] != self._opened[item.sop_instance]:
            raise Refused(Reason.NO_APPROVAL)  # superseded since it was opened
        self._left[item.sop_instance] = release

    def close(self) -> None:
        """Queue one LogOutcome a release: sent is what began to leave, whatever the recipient says of it."""
        for release in self._releases:
            left = {uid for uid in release.instances if self._left.get(uid) is release}
            self._outbox.post("LogOutcome", outcome(release, left))

    def _lease(self, sop_uid: str) -> Release:
        """The running release of an item. Raises Refused when it ended and the ledger gives no new one; LedgerAway."""
        release = self._under[sop_uid]
        while not self._gate.running(release):
            with contextlib.suppress(StandingChanged):
                release = self._renew(sop_uid, release)
        return release

    def _renew(self, sop_uid: str, release: Release) -> Release:
        offers = self._gate.offers(self._recipient, release.study_uid, self._gate.approvals(self._recipient))
        able = [offer for offer in offers if sop_uid in offer.releasable]
        if not able:
            withheld = [offer.withheld[sop_uid] for offer in offers if sop_uid in offer.withheld]
            raise Refused((withheld or [self._gate.refusal(self._recipient, release.study_uid)])[0])
        offer = next((offer for offer in able if offer.approval.request == release.request), able[0])
        ended = (uid for uid, under in self._under.items() if under is release and uid not in self._left)
        return self._release(offer, [uid for uid in ended if uid in offer.releasable], release)

    def _release(self, offer: Offer, sop_uids: Sequence[str], ended: Release | None = None) -> Release:
        renews = ended.id if ended is not None and ended.request == offer.approval.request else None
        release = self._gate.release(offer, sop_uids, renews)
        self._releases.append(release)
        self._under |= dict.fromkeys(sop_uids, release)
        return release


def outcome(release: Release, left: Collection[str]) -> dict[str, Any]:
    """The arguments of LogOutcome, when the objects with these SOP Instance UIDs left under a release."""
    order = sorted(release.instances, key=lambda uid: release.instances[uid][1].instance)
    bits = [uid in left for uid in order]
    digest = hashlib.sha256(_bitmap(bits)).digest()
    return {"release": release.id, "sent": sum(bits), "withheld": len(bits) - sum(bits), "bitmapDigest": digest}


def _item(instance: Instance) -> Item:
    return Item(instance.sop_class, instance.sop_uid, instance.transfer_syntax, instance.size)


def _bitmap(bits: Sequence[bool]) -> bytes:
    """Bit i, most significant first, is bits[i] (docs/manifest.md)."""
    padded = [*bits, *[False] * (-len(bits) % 8)]
    return bytes(sum(bit << (7 - n) for n, bit in enumerate(padded[i : i + 8])) for i in range(0, len(padded), 8))
