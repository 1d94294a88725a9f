"""The contract's functions: who may call each, and with which arguments. The rules are where `run` points."""

from collections.abc import Callable
from dataclasses import dataclass

from orthanc_ledger.ledger.contract import (
    anchors,
    certificates,
    custody,
    datasets,
    erasure,
    lineage,
    nodes,
    pending,
    policy,
    releases,
    reports,
    requests,
    tampering,
    withdrawal,
)
from orthanc_ledger.ledger.contract.arguments import (
    MAX_ANCHORS,
    MAX_DAYS,
    MAX_INSTANCES,
    MAX_RELEASES,
    MAX_SOP_CLASSES,
    MAX_STUDIES,
    Schema,
    ae_title,
    arguments,
    boolean,
    code,
    count,
    count_from,
    dataset_id,
    digest,
    instance_token,
    integer,
    manifest_cid,
    node,
    optional,
    proof,
    record_id,
    serial,
    sop_class,
    study_token,
    tag_or_frame,
    time,
    unique,
    version,
)
from orthanc_ledger.ledger.contract.call import Effect, Transaction, Value
from orthanc_ledger.ledger.contract.codes import (
    ANCHOR_KINDS,
    DEIDENTIFICATION_PROFILES,
    DENIAL_REASONS,
    DUO,
    RELEASE_FORMS,
    RETRIEVAL_OUTCOMES,
    REVOCATION_REASONS,
    SUPERSEDE_REASONS,
    WITHDRAWAL_REASONS,
)
from orthanc_ledger.reasons import Reason

OWNER = ("owner",)
CUSTODIAN = ("custodian",)
RESEARCH = ("research",)
HOSPITAL = ("owner", "custodian")
ALL = ("owner", "custodian", "research")


@dataclass(frozen=True)
class Function:
    """A contract function: who may call it, with what, and what it does."""

    roles: tuple[str, ...]
    arguments: Schema
    run: Callable[[Transaction], Effect]
    content_id: bool = False  # takes a nonce; its id is the hash of its content


def _is_policy(value: Value) -> bool:
    return type(value) is dict  # its fields are checked where their names can be told: policy.policy_digest


_ID = arguments(id=record_id)
_STUDY = arguments(study=study_token)
_INSTANCE = arguments(study=study_token, instance=instance_token)
_POLICY = arguments(policy=_is_policy)
_DUO = unique(code(DUO), 0, len(DUO))

FUNCTIONS: dict[str, Function] = {
    "InitPolicy": Function(HOSPITAL, _POLICY, policy.init_policy),
    "ProposePolicy": Function(HOSPITAL, _POLICY, policy.propose_policy, content_id=True),
    "ConfirmPolicy": Function(HOSPITAL, _ID, policy.confirm_policy),
    "Anchor": Function(
        OWNER,
        arguments(
            manifestCid=manifest_cid,
            study=study_token,
            root=digest,
            count=count,
            kind=code(ANCHOR_KINDS),
            from_=optional(digest),
            profile=optional(code(DEIDENTIFICATION_PROFILES)),
        ),
        anchors.anchor,
    ),
    "ConfirmStored": Function(CUSTODIAN, arguments(manifestCid=manifest_cid), anchors.confirm_stored),
    "ReportConflict": Function(
        OWNER, {**_INSTANCE, **arguments(presented=digest)}, custody.report_conflict, content_id=True
    ),
    "Supersede": Function(
        OWNER,
        {
            **_INSTANCE,
            **arguments(oldManifest=manifest_cid, newManifest=manifest_cid, reason=code(SUPERSEDE_REASONS)),
        },
        custody.supersede,
        content_id=True,
    ),
    "ConfirmSupersede": Function(CUSTODIAN, _ID, custody.confirm_supersede),
    "Withdraw": Function(
        OWNER,
        arguments(
            study=study_token,
            instances=optional(unique(instance_token, 1, MAX_INSTANCES)),
            reason=code(WITHDRAWAL_REASONS),
        ),
        withdrawal.withdraw,
        content_id=True,
    ),
    "Reinstate": Function(HOSPITAL, _ID, withdrawal.reinstate),
    "FlagTampered": Function(
        HOSPITAL,
        {
            **_INSTANCE,
            **arguments(
                n=count_from(0),
                manifestCid=manifest_cid,
                observed=lambda value: value is None or digest(value),  # None: nothing could be read
                what=unique(tag_or_frame, 0, 64),
            ),
        },
        tampering.flag_tampered,
    ),
    "Resolve": Function(
        HOSPITAL, {**_INSTANCE, **arguments(n=count_from(0), manifestCid=manifest_cid)}, tampering.resolve
    ),
    "ReportRepair": Function(HOSPITAL, {**_INSTANCE, **arguments(node=node)}, tampering.report_repair, content_id=True),
    "RegisterNode": Function(
        ("owner", "research"),
        arguments(aeTitle=ae_title, role=code(("modality", "clinical", "research")), certDigests=unique(digest, 0, 2)),
        nodes.register_node,
    ),
    "ConfirmNode": Function(CUSTODIAN, arguments(node=node, version=version), nodes.confirm_node),
    "RevokeNode": Function(ALL, arguments(node=node), nodes.revoke_node),
    "RegisterDataset": Function(
        HOSPITAL,
        arguments(id=dataset_id, version=version, root=digest, count=count, descriptorDigest=digest, duo=_DUO),
        datasets.register_dataset,
    ),
    "WithdrawDataset": Function(HOSPITAL, arguments(id=dataset_id, version=version), datasets.withdraw_dataset),
    "RequestAccess": Function(
        RESEARCH,
        arguments(
            studies=optional(unique(study_token, 1, MAX_STUDIES)),
            dataset=optional(dataset_id),
            version=optional(version),
            sopClasses=unique(sop_class, 1, MAX_SOP_CLASSES),
            duo=_DUO,
            days=integer(1, MAX_DAYS),
            node=node,
            release=code(RELEASE_FORMS),
            future=boolean,
            publicKeyDigest=optional(digest),
            descriptionDigest=digest,
        ),
        requests.request_access,
        content_id=True,
    ),
    "Approve": Function(HOSPITAL, {**_ID, **arguments(until=time, release=code(RELEASE_FORMS))}, requests.approve),
    "Deny": Function(
        HOSPITAL,
        {**_ID, **arguments(reason=code(DENIAL_REASONS), textCommitment=optional(digest))},
        requests.deny,
    ),
    "Revoke": Function(
        ALL,
        {**_ID, **arguments(reason=code(REVOCATION_REASONS), textCommitment=optional(digest))},
        requests.revoke,
    ),
    "LogRelease": Function(
        HOSPITAL,
        arguments(
            request=record_id,
            study=study_token,
            proof=optional(proof),
            anchors=unique(manifest_cid, 1, MAX_ANCHORS),
            instancesRoot=digest,
            count=count,
            standingVersion=integer(0, 1 << 53),
            node=node,
            renews=optional(record_id),
        ),
        releases.log_release,
        content_id=True,
    ),
    "LogOutcome": Function(
        HOSPITAL,
        arguments(release=record_id, sent=count_from(0), withheld=count_from(0), bitmapDigest=digest),
        reports.log_outcome,
    ),
    "LogDenials": Function(
        HOSPITAL,
        arguments(
            reportingNode=node,
            peer=optional(node),
            unregistered=optional(lambda value: value is True),
            reason=code([reason.value for reason in Reason]),
            seq=integer(0, 1 << 53),
            count=integer(1, 1 << 31),
        ),
        reports.log_denials,
    ),
    "LogRetrieval": Function(
        RESEARCH, arguments(release=record_id, outcome=code(RETRIEVAL_OUTCOMES)), reports.log_retrieval
    ),
    "ReportTamper": Function(
        RESEARCH, arguments(release=record_id, instance=instance_token, observed=digest), reports.report_tamper
    ),
    "RequestErase": Function(HOSPITAL, _STUDY, erasure.request_erase),
    "CancelErase": Function(HOSPITAL, _STUDY, erasure.cancel_erase),
    "ConfirmErase": Function(HOSPITAL, _STUDY, erasure.confirm_erase),
    "ErasureDone": Function(ALL, _STUDY, erasure.erasure_done),
    "Cancel": Function(HOSPITAL, _ID, pending.cancel),
    "RevokeCertificate": Function(ALL, arguments(serial=serial), certificates.revoke_certificate),
    "RegisterTrainingRun": Function(
        RESEARCH,
        arguments(
            dataset=optional(dataset_id),
            version=optional(version),
            codeDigest=digest,
            releases=unique(record_id, 1, MAX_RELEASES),
        ),
        lineage.register_training_run,
        content_id=True,
    ),
    "RegisterModel": Function(
        RESEARCH,
        arguments(digest=digest, run=record_id, metricsDigest=digest),
        lineage.register_model,
        content_id=True,
    ),
}
