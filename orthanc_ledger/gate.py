"""The gate: what a research recipient may have, by the ledger.

``Gate.offers`` chooses: classes, origins, flags and supersession are applied here; coverage and storage too, so that
nothing is asked for in vain. ``Gate.release`` is the decision: it returns only when LogRelease has committed. Any error
in between means denied. No approval is kept from one operation to the next.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orthanc_ledger import merkle, tokens
from orthanc_ledger.clock import Clock
from orthanc_ledger.content import ContentStore
from orthanc_ledger.custody import Records, records_that_count
from orthanc_ledger.datasets import Datasets, StudyList
from orthanc_ledger.errors import ContractError, DataError, IntegrityError, LedgerAway, NotHeld, ServiceAway
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.keyring import Keyring, StudyKeys
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.ledger.contract.anchors import is_covered
from orthanc_ledger.library import Manifests
from orthanc_ledger.manifest import Record
from orthanc_ledger.peer import Peer
from orthanc_ledger.reasons import Reason
from orthanc_ledger.repair import check_readable


class Refused(DataError):
    """Something may not leave (any more); ``reason`` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class StandingChanged(LedgerAway):
    """Something was taken from research, or given back, since the offer was made: make it anew."""


@dataclass(frozen=True)
class Approval:
    """A running approval: of the studies with these tokens, a dataset's verified list or those the request names.

    ``covered_until``: only of anchors committed before the approval (`anchors.is_covered`); None: of later ones too.
    """

    request: bytes
    studies: StudyList | Collection[bytes]
    sop_classes: Collection[str]
    covered_until: int | Mapping[str, int] | None


@dataclass(frozen=True)
class Offer:
    """What one approval lets a recipient have of one study now.

    ``releasable``, ``withheld`` and ``damaged`` are by SOP Instance UID; ``damaged`` are those of ``withheld`` whose
    manifest cannot be read here.
    """

    study_uid: str
    study: StudyKeys
    node: Mapping[str, str]
    approval: Approval
    standing_version: int
    releasable: Mapping[str, tuple[Instance, Record]]
    withheld: Mapping[str, Reason]
    damaged: Mapping[str, Instance]


@dataclass(frozen=True)
class Release:
    """A committed LogRelease: ``instances`` may start to leave before ``lease_end`` (ledger time, seconds of UTC).

    ``ends_s`` is that end on this host's monotonic clock: setting the clock back lengthens no lease.
    """

    id: bytes
    study_uid: str
    request: bytes
    lease_end: int
    ends_s: float
    instances: Mapping[str, tuple[Instance, Record]]


@dataclass(frozen=True)
class _Custody:
    """What ledger and manifests say of a study's records; ``blocked``: by instance token, why one may not leave."""

    version: int
    records: Records
    blocked: Mapping[bytes, Reason]


class Gate:
    """Asks the ledger, trusts nothing else; and that not while it is known to be `rolled_back`: what was revoked since
    would be approved again. While the content store is away nothing is released in vain.
    """

    def __init__(
        self,
        ledger: Ledger,
        index: Index,
        keyring: Keyring,
        manifests: Manifests,
        datasets: Datasets,
        content: ContentStore,
        rolled_back: Callable[[], bool],
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._keyring = keyring
        self._manifests = manifests
        self._datasets = datasets
        self._content = content
        self._rolled_back = rolled_back
        self._clock = clock
        self._monotonic = monotonic

    def approvals(self, recipient: Peer) -> list[Approval]:
        """The approvals a recipient has now, the one that lasts longest first. Raises LedgerAway, ContentAway.

        Left out, as it opens nothing: one on a dataset whose list is not here, or not the registered one; one of a
        release form that this node cannot make, for the objects here are identified.
        """
        self._check_services()
        approved = all_rows(self._ledger, "ApprovedStudies", {"node": node_id(recipient)})
        rows = [row for row in approved if row["release"] == "identified"]
        registered = all_rows(self._ledger, "Datasets", {}) if any(row["dataset"] for row in rows) else []
        datasets = {(dataset["id"], dataset["version"]): dataset for dataset in registered}
        found = []
        for row in sorted(rows, key=lambda row: -int(row["until"])):
            named = row["dataset"]
            studies = row["studies"] if named is None else self._list(datasets[named["id"], named["version"]])
            if studies is not None:
                found.append(Approval(row["request"], studies, row["sopClasses"], row["coveredUntil"]))
        return found

    def studies(self, approvals: Sequence[Approval]) -> list[str]:
        """Study Instance UIDs of what is held here of the studies that approvals are of."""
        named = {token for approval in approvals for token in approval.studies}
        held = (self._index.study_of_token(token) for token in named)
        return [study_uid for study_uid in held if study_uid is not None]

    def offers(self, recipient: Peer, study_uid: str, approvals: Sequence[Approval]) -> list[Offer]:
        """What a recipient may have of one study, approval by approval. Raises LedgerAway, ContentAway."""
        study = self._keyring.study(study_uid)
        if study is None:
            return []
        approvals = [approval for approval in approvals if study.token in approval.studies]
        custody = self._custody(study) if approvals else None
        if custody is None:
            return []
        policy = self._ledger.query("GetPolicy", {})
        node = node_id(recipient)
        return [self._offer(study_uid, study, node, approval, custody, policy) for approval in approvals]

    def refusal(self, recipient: Peer, study_uid: str) -> Reason:
        """Why a recipient has no approval for a study. Neither the answer nor its time says whether it is held."""
        study = self._keyring.study(study_uid)
        token = secrets.token_bytes(16) if study is None else study.token  # not held: as long, and nobody's
        question = {"study": token, "node": node_id(recipient)}
        try:
            for proof in ({}, *self._proofs(token)):
                advice = self._ledger.query("CheckAccess", {**question, **proof})
                if advice["reason"] not in (None, Reason.NO_APPROVAL):
                    return Reason(advice["reason"])
        except (ServiceAway, IntegrityError):  # may come of what is held only: an answer of its own would tell
            pass
        return Reason.NO_APPROVAL

    def release(self, offer: Offer, sop_uids: Sequence[str], renews: bytes | None = None) -> Release:
        """Commit a release of some of an offer's instances.

        Raises Refused when the ledger does not give it; StandingChanged; LedgerAway, ContentAway.
        """
        self._check_services()
        chosen = {uid: offer.releasable[uid] for uid in sop_uids}
        leaves = sorted(record.instance for _, record in chosen.values())
        args: dict[str, Any] = {
            "request": offer.approval.request,
            "study": offer.study.token,
            "anchors": sorted({str(instance.manifest) for instance, _ in chosen.values()}),
            "instancesRoot": merkle.root(leaves),
            "count": len(leaves),
            "standingVersion": offer.standing_version,
            "node": dict(offer.node),
        }
        if isinstance(offer.approval.studies, StudyList):
            args["proof"] = offer.approval.studies.proof(offer.study.token)
        if renews is not None:
            args["renews"] = renews
        try:
            committed = self._ledger.submit("LogRelease", args, secrets.token_bytes(16))
        except ContractError as error:
            if error.field == "standingVersion":
                raise StandingChanged("the study's standing changed between question and release") from error
            raise Refused(Reason.APPROVAL_EXPIRED if error.code == "EXPIRED" else Reason.NO_APPROVAL) from error
        lease_end: int = committed.result["leaseEnd"]
        ends_s = self._monotonic() + lease_end - self._clock()
        return Release(committed.result["release"], offer.study_uid, offer.approval.request, lease_end, ends_s, chosen)

    def running(self, release: Release) -> bool:
        """Whether objects may still start to leave under a release."""
        return self._clock() < release.lease_end and self._monotonic() < release.ends_s

    def _check_services(self) -> None:
        if self._rolled_back():
            raise LedgerAway("the ledger was rolled back: nothing leaves for research until it is restored")
        check_readable(self._content)

    def _offer(
        self,
        study_uid: str,
        study: StudyKeys,
        node: Mapping[str, str],
        approval: Approval,
        custody: _Custody,
        policy: Mapping[str, Any],
    ) -> Offer:
        excluded = never_given(policy)
        releasable: dict[str, tuple[Instance, Record]] = {}
        withheld: dict[str, Reason] = {}
        damaged: dict[str, Instance] = {}
        for instance in self._index.select(studies=[study_uid]):
            token = tokens.instance_token(study.k_study, instance.sop_uid)
            anchor, record = custody.records.current.get(
                token, (custody.records.unproven.get(str(instance.manifest)), None)
            )
            if anchor is None or not is_covered(anchor, approval.covered_until):
                continue
            if instance.sop_class not in approval.sop_classes:
                continue
            if (policy["require_stored"] and not anchor["stored"]) or (record and record.origin in excluded):
                continue
            if record is None:
                withheld[instance.sop_uid] = Reason.WITHHELD_INTEGRITY
                if instance.manifest in custody.records.unreadable:
                    damaged[instance.sop_uid] = instance
            elif token in custody.blocked:
                withheld[instance.sop_uid] = custody.blocked[token]
            else:
                current = replace(instance, state="anchored", manifest=anchor["manifestCid"], object=record.object)
                releasable[instance.sop_uid] = (current, record)  # by the ledger, whatever the index says
        version = custody.version
        return Offer(study_uid, study, node, approval, version, releasable, withheld, damaged)

    def _custody(self, study: StudyKeys) -> _Custody | None:
        """None: erased."""
        standing = self._ledger.query("StandingOf", {"study": study.token})
        if standing["erased"] != "none":
            return None
        anchors = all_rows(self._ledger, "AnchorsOfStudy", {"study": study.token})
        records = records_that_count(anchors, standing["superseded"], self._records)
        blocked = {row["instance"]: Reason.WITHHELD_INTEGRITY for row in standing["flagged"]}
        for withdrawal in standing["withdrawn"]:
            instances = records.current if withdrawal["instances"] is None else withdrawal["instances"]
            blocked |= dict.fromkeys(instances, Reason.WITHDRAWN)
        return _Custody(standing["version"], records, blocked)

    def _list(self, dataset: Mapping[str, Any]) -> StudyList | None:
        """The list of a dataset on the ledger; None when it is not here, or is not the one that was registered."""
        try:
            return self._datasets.open(dataset["descriptorDigest"], dataset["root"])
        except (NotHeld, IntegrityError):
            return None

    def _proofs(self, token: bytes) -> Iterator[dict[str, Any]]:
        """That a study is in a dataset, as an argument of CheckAccess: once for each dataset that holds it."""
        naming = self._datasets.naming(token)
        for dataset in all_rows(self._ledger, "Datasets", {}) if naming else ():
            studies = self._list(dataset) if dataset["descriptorDigest"] in naming else None
            if studies is not None and token in studies:
                yield {"proof": studies.proof(token)}

    def _records(self, anchor: Mapping[str, Any]) -> Sequence[Record] | None:
        """An anchor's records; None when its manifest is missing, damaged, or not the one that was anchored."""
        try:
            return self._manifests.anchored(anchor).records
        except (IntegrityError, NotHeld):
            return None


def node_id(peer: Peer) -> dict[str, str]:
    """A research peer as the ledger names it."""
    return {"organisation": peer.organisation, "aeTitle": peer.ae_title}


def never_given(policy: Mapping[str, Any]) -> set[str]:
    """Origins of objects that no approval gives."""
    return {*policy["excluded_origins"], "research"}
