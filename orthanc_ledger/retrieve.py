"""What one retrieve may send, and what is logged of it. The recipient decides the rules (ARCHITECTURE.md, "Out")."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO, Literal, Protocol

from orthanc_ledger.gate import Gate, Offer, Refused, Release
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.library import Library
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.peer import Peer
from orthanc_ledger.reasons import Reason

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]


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

        Raises IntegrityError (it differs from its anchor), Refused (the lease has ended and was not renewed),
        ServiceAway.
        """

    def close(self, sent: Collection[str]) -> None:
        """Log the outcome; called exactly once, whatever happens.

        ``sent``: SOP Instance UIDs the recipient confirmed.
        """


class Retrieval:
    """Plans retrieves for clinical and research recipients."""

    def __init__(self, index: Index, library: Library, gate: Gate, outbox: Outbox) -> None:
        self._index = index
        self._library = library
        self._gate = gate
        self._outbox = outbox

    def plan(self, asker: Peer, recipient: Peer, level: Level, query: Query) -> Plan:
        """Decide what may go to ``recipient`` (the asker itself for C-GET).

        Raises LedgerAway, for research recipients only.
        """
        if asker.role == "research" and (recipient.role, recipient.organisation) != ("research", asker.organisation):
            return self._refuse(asker, Reason.DESTINATION)
        found = self._index.select(query.patient_ids, query.studies, query.series, query.instances)
        if recipient.role != "research":
            return ClinicalPlan(self._library, found)
        offers: list[Offer] = []
        refusals: list[Reason] = []
        for study_uid in sorted({instance.study_uid for instance in found}):
            try:
                offers.append(self._gate.offer(recipient, study_uid))
            except Refused as refused:
                refusals.append(refused.reason)
        plan = ResearchPlan(
            self._gate, self._library, self._outbox, recipient, offers, {instance.sop_uid for instance in found}
        )
        refusals += plan.start()
        if not plan.items and not plan.withheld:
            return self._refuse(
                recipient, next((r for r in refusals if r is not Reason.NO_APPROVAL), Reason.NO_APPROVAL)
            )
        return plan

    def _refuse(self, peer: Peer, reason: Reason) -> Plan:
        self._outbox.deny(peer.organisation, peer.ae_title, reason)
        return RefusedPlan(reason)


class RefusedPlan:
    """Nothing may go."""

    items: Sequence[Item] = ()
    withheld: Mapping[str, Reason] = MappingProxyType({})

    def __init__(self, reason: Reason) -> None:
        self.refused = reason

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        raise Refused(self.refused)

    def close(self, sent: Collection[str]) -> None:
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

    def close(self, sent: Collection[str]) -> None:
        """Clinical retrieval is not logged on the ledger."""


class ResearchPlan:
    """What releases on the ledger allow, study by study; a lease that ended is renewed by a new release of what is
    left.
    """

    refused = None

    def __init__(
        self,
        gate: Gate,
        library: Library,
        outbox: Outbox,
        recipient: Peer,
        offers: Sequence[Offer],
        wanted: Collection[str],
    ) -> None:
        self._gate = gate
        self._library = library
        self._outbox = outbox
        self._recipient = recipient
        self._offers = offers
        self._wanted = wanted
        self._running: dict[str, Release] = {}  # study UID → its newest release
        self._releases: list[Release] = []
        self._left_under: dict[str, Release] = {}  # SOP Instance UID → the release it left under
        self._study_of: dict[str, str] = {}
        self.items: list[Item] = []
        self.withheld: dict[str, Reason] = {}

    def start(self) -> list[Reason]:
        """Commit one release a study; returns why studies were refused. Raises LedgerAway."""
        refusals = []
        for offer in self._offers:
            self.withheld |= {uid: reason for uid, reason in offer.withheld.items() if uid in self._wanted}
            wanted = [uid for uid in offer.releasable if uid in self._wanted]
            if not wanted:
                continue
            try:
                self._keep(offer.study_uid, self._gate.release(offer, wanted))
            except Refused as refused:
                refusals.append(refused.reason)
                continue
            self.items += [_item(offer.releasable[uid][0]) for uid in wanted]
            self._study_of |= dict.fromkeys(wanted, offer.study_uid)
        return refusals

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        release = self._lease(item.sop_instance)
        instance, _ = release.instances[item.sop_instance]
        self._left_under[item.sop_instance] = release
        return self._library.open(instance)

    def close(self, sent: Collection[str]) -> None:
        """Queue one LogOutcome a release."""
        for release in self._releases:
            order = sorted(release.instances, key=lambda uid: release.instances[uid][1].instance)
            left = [uid in sent and self._left_under.get(uid) is release for uid in order]
            args = {
                "release": release.id,
                "sent": sum(left),
                "withheld": len(left) - sum(left),
                "bitmapDigest": hashlib.sha256(_bitmap(left)).digest(),
            }
            self._outbox.post("LogOutcome", args)

    def _lease(self, sop_uid: str) -> Release:
        """The running release of an item. Raises Refused when it ended and the ledger gives no new one; LedgerAway."""
        study_uid = self._study_of[sop_uid]
        release = self._running[study_uid]
        if self._gate.running(release):
            return release
        offer = self._gate.offer(self._recipient, study_uid)
        rest = [uid for uid in release.instances if uid in offer.releasable and uid not in self._left_under]
        if sop_uid not in rest:
            raise Refused(offer.withheld.get(sop_uid, Reason.NO_APPROVAL))
        return self._keep(study_uid, self._gate.release(offer, rest, renews=release.id))

    def _keep(self, study_uid: str, release: Release) -> Release:
        self._running[study_uid] = release
        self._releases.append(release)
        return release


def _item(instance: Instance) -> Item:
    return Item(instance.sop_class, instance.sop_uid, instance.transfer_syntax, instance.size)


def _bitmap(bits: Sequence[bool]) -> bytes:
    """Bit i, most significant first, is bits[i] (docs/manifest.md)."""
    padded = [*bits, *[False] * (-len(bits) % 8)]
    return bytes(sum(bit << (7 - n) for n, bit in enumerate(padded[i : i + 8])) for i in range(0, len(padded), 8))
