"""The gate: what a research recipient may have, by the ledger.

``Gate.offer`` is advice (for C-FIND and for choosing); ``Gate.release`` is the decision: it returns only when
LogRelease has committed. Any error in
between means denied. No approval is kept from one operation to the next.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orthanc_ledger import merkle, tokens
from orthanc_ledger.clock import Clock
from orthanc_ledger.errors import ContractError, DataError, IntegrityError, LedgerAway, NotHeld
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.keyring import Keyring, StudyKeys
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.library import Manifests
from orthanc_ledger.manifest import Record
from orthanc_ledger.peer import Peer
from orthanc_ledger.reasons import Reason


class Refused(DataError):
    """Something may not leave (any more); ``reason`` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Offer:
    """What an approval lets a recipient have of one study now.

    ``releasable`` and ``withheld`` are by SOP Instance UID.
    """

    study_uid: str
    study: StudyKeys
    node: Mapping[str, str]
    request: bytes
    standing_version: int
    releasable: Mapping[str, tuple[Instance, Record]]
    withheld: Mapping[str, Reason]


@dataclass(frozen=True)
class Release:
    """A committed LogRelease: ``instances`` may start to leave before ``lease_end`` (ledger time, seconds of UTC)."""

    id: bytes
    lease_end: int
    instances: Mapping[str, tuple[Instance, Record]]


class Gate:
    """Asks the ledger, trusts nothing else."""

    def __init__(self, ledger: Ledger, index: Index, keyring: Keyring, manifests: Manifests, clock: Clock) -> None:
        self._ledger = ledger
        self._index = index
        self._keyring = keyring
        self._manifests = manifests
        self._clock = clock

    def offers(self, recipient: Peer) -> list[Offer]:
        """All a recipient may have now of what this node holds. Raises LedgerAway."""
        node = node_id(recipient)
        approved = self._ledger.query("ApprovedStudies", {"node": node})
        study_uids = {self._index.study_of_token(token) for row in approved for token in row["studies"]} - {None}
        found = []
        for study_uid in sorted(uid for uid in study_uids if uid):
            try:
                found.append(self.offer(recipient, study_uid))
            except Refused:
                continue  # approved once, nothing to be had now
        return found

    def offer(self, recipient: Peer, study_uid: str) -> Offer:
        """What a recipient may have of one study. Raises Refused; LedgerAway."""
        study = self._keyring.study(study_uid)
        if study is None:
            raise Refused(Reason.NO_APPROVAL)
        node = node_id(recipient)
        approval = self._approval(node, study.token)
        standing = self._ledger.query("StandingOf", {"study": study.token})
        if standing["erased"] != "none":
            raise Refused(Reason.NO_APPROVAL)
        policy = self._ledger.query("GetPolicy", {})
        excluded = {*policy["excluded_origins"], "research"}
        releasable: dict[str, tuple[Instance, Record]] = {}
        withheld: dict[str, Reason] = {}
        current = self._current_records(study, standing)
        blocked = {row["instance"]: Reason.WITHHELD_INTEGRITY for row in standing["flagged"]}
        blocked |= {row["instance"]: Reason.WITHDRAWN for row in standing["withdrawn"]}
        for instance in self._index.select(studies=[study_uid]):
            token = tokens.instance_token(study.k_study, instance.sop_uid)
            if token not in current or instance.sop_class not in approval["sopClasses"]:
                continue
            anchor, record = current[token]
            if (
                not _covers(approval, anchor)
                or (policy["require_stored"] and not anchor["stored"])
                or record.origin in excluded
            ):
                continue
            if token in blocked:
                withheld[instance.sop_uid] = blocked[token]
            else:
                current_one = replace(instance, state="anchored", manifest=anchor["manifestCid"], object=record.object)
                releasable[instance.sop_uid] = (current_one, record)  # by the ledger, whatever the index says
        return Offer(study_uid, study, node, approval["request"], standing["version"], releasable, withheld)

    def release(self, offer: Offer, sop_uids: Sequence[str], renews: bytes | None = None) -> Release:
        """Commit a release of some of an offer's instances.

        Raises Refused when the ledger does not give it; LedgerAway.
        """
        chosen = {uid: offer.releasable[uid] for uid in sop_uids}
        leaves = sorted(record.instance for _, record in chosen.values())
        args: dict[str, Any] = {
            "request": offer.request,
            "study": offer.study.token,
            "anchors": sorted({str(instance.manifest) for instance, _ in chosen.values()}),
            "instancesRoot": merkle.root(leaves),
            "count": len(leaves),
            "standingVersion": offer.standing_version,
            "node": dict(offer.node),
        }
        if renews is not None:
            args["renews"] = renews
        try:
            committed = self._ledger.submit("LogRelease", args, secrets.token_bytes(16))
        except ContractError as error:
            if error.field == "standingVersion":
                raise LedgerAway("the study's standing changed between question and release; ask again") from error
            raise Refused(Reason.APPROVAL_EXPIRED if error.code == "EXPIRED" else Reason.NO_APPROVAL) from error
        return Release(committed.result["release"], committed.result["leaseEnd"], chosen)

    def running(self, release: Release) -> bool:
        """Whether objects may still start to leave under a release."""
        return self._clock() < release.lease_end

    def _approval(self, node: Mapping[str, str], token: bytes) -> Mapping[str, Any]:
        """The approval that lasts longest. Raises Refused with the reason the ledger advises."""
        approved = [
            row for row in self._ledger.query("ApprovedStudies", {"node": dict(node)}) if token in row["studies"]
        ]
        if approved:
            return max(approved, key=lambda row: int(row["until"]))
        advice = self._ledger.query("CheckAccess", {"study": token, "node": dict(node)})
        raise Refused(Reason(advice["reason"] or Reason.NO_APPROVAL))

    def _current_records(
        self, study: StudyKeys, standing: Mapping[str, Any]
    ) -> dict[bytes, tuple[Mapping[str, Any], Record]]:
        """Instance token → (its anchor, its current record): the first anchor's, until a confirmed supersession
        names another.

        A manifest that is missing or differs from its anchor gives no records: nothing of it can be proven, so
        nothing of it is offered.
        """
        replaced = {row["instance"]: row["newManifest"] for row in standing["superseded"]}
        current: dict[bytes, tuple[Mapping[str, Any], Record]] = {}
        for anchor in self._ledger.query("AnchorsOfStudy", {"study": study.token}):
            try:
                manifest = self._manifests.read(anchor["manifestCid"], study.token)
                if (manifest.record_root, manifest.count) != (anchor["root"], anchor["count"]):
                    raise IntegrityError(f"manifest {manifest.cid}: root or count differ from its anchor")
            except (IntegrityError, NotHeld):
                continue
            for record in manifest.records:
                if replaced.get(record.instance, anchor["manifestCid"]) == anchor["manifestCid"]:
                    current.setdefault(record.instance, (anchor, record))
        return current


def node_id(peer: Peer) -> dict[str, str]:
    """A research peer as the ledger names it."""
    return {"organisation": peer.organisation, "aeTitle": peer.ae_title}


def _covers(approval: Mapping[str, Any], anchor: Mapping[str, Any]) -> bool:
    return approval["coveredUntil"] is None or anchor["sequence"] < approval["coveredUntil"]
