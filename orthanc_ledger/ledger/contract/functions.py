"""The contract's functions and queries: who may call each, with which arguments."""

from collections.abc import Callable
from dataclasses import dataclass

from orthanc_ledger.ledger.contract import anchors, audit, custody, nodes, policy, releases, requests
from orthanc_ledger.ledger.contract.arguments import (
    MAX_ANCHORS,
    MAX_COUNT,
    MAX_SOP_CLASSES,
    MAX_STUDIES,
    PAGE,
    Schema,
    ae_title,
    arguments,
    boolean,
    code,
    count,
    digest,
    instance_token,
    integer,
    manifest_cid,
    msp_id,
    node,
    optional,
    record_id,
    sop_class,
    state_key,
    study_token,
    tag_or_frame,
    time,
    unavailable,
    unique,
)
from orthanc_ledger.ledger.contract.call import Effect, Question, Transaction, Value
from orthanc_ledger.ledger.contract.codes import (
    ANCHOR_KINDS,
    DEIDENTIFICATION_PROFILES,
    DENIAL_REASONS,
    DUO,
    RELEASE_FORMS,
    REVOCATION_REASONS,
    SUPERSEDE_REASONS,
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


@dataclass(frozen=True)
class Query:
    """A read-only function, open to all."""

    arguments: Schema
    run: Callable[[Question], Value]


def _is_policy(value: Value) -> bool:
    return type(value) is dict  # its fields are checked where their names can be told: policy.policy_digest


FUNCTIONS: dict[str, Function] = {
    "InitPolicy": Function(HOSPITAL, arguments(policy=_is_policy), policy.init_policy),
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
        OWNER,
        arguments(study=study_token, instance=instance_token, presented=digest),
        custody.report_conflict,
        content_id=True,
    ),
    "Supersede": Function(
        OWNER,
        arguments(
            study=study_token,
            instance=instance_token,
            oldManifest=manifest_cid,
            newManifest=manifest_cid,
            reason=code(SUPERSEDE_REASONS),
        ),
        custody.supersede,
        content_id=True,
    ),
    "ConfirmSupersede": Function(CUSTODIAN, arguments(id=record_id), custody.confirm_supersede),
    "FlagTampered": Function(
        HOSPITAL,
        arguments(
            study=study_token,
            instance=instance_token,
            n=integer(0, MAX_COUNT),
            manifestCid=manifest_cid,
            observed=lambda value: value is None or digest(value),  # None: nothing could be read
            what=unique(tag_or_frame, 0, 64),
        ),
        custody.flag_tampered,
    ),
    "RegisterNode": Function(
        ("owner", "research"),
        arguments(aeTitle=ae_title, role=code(("modality", "clinical", "research")), certDigests=unique(digest, 0, 2)),
        nodes.register_node,
    ),
    "ConfirmNode": Function(CUSTODIAN, arguments(node=node, version=integer(1, 1 << 31)), nodes.confirm_node),
    "RevokeNode": Function(ALL, arguments(node=node), nodes.revoke_node),
    "RequestAccess": Function(
        RESEARCH,
        arguments(
            dataset=optional(unavailable),
            version=optional(unavailable),
            studies=unique(study_token, 1, MAX_STUDIES),
            sopClasses=unique(sop_class, 1, MAX_SOP_CLASSES),
            duo=unique(code(DUO), 0, len(DUO)),
            days=integer(1, 3650),
            node=node,
            release=code(RELEASE_FORMS),
            future=boolean,
            publicKeyDigest=optional(digest),
            descriptionDigest=digest,
        ),
        requests.request_access,
        content_id=True,
    ),
    "Approve": Function(HOSPITAL, arguments(id=record_id, until=time, release=code(RELEASE_FORMS)), requests.approve),
    "Deny": Function(
        HOSPITAL,
        arguments(id=record_id, reason=code(DENIAL_REASONS), textCommitment=optional(digest)),
        requests.deny,
    ),
    "Revoke": Function(
        ALL,
        arguments(id=record_id, reason=code(REVOCATION_REASONS), textCommitment=optional(digest)),
        requests.revoke,
    ),
    "LogRelease": Function(
        HOSPITAL,
        arguments(
            request=record_id,
            study=study_token,
            proof=optional(unavailable),
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
        arguments(release=record_id, sent=integer(0, MAX_COUNT), withheld=integer(0, MAX_COUNT), bitmapDigest=digest),
        releases.log_outcome,
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
        releases.log_denials,
    ),
}

QUERIES: dict[str, Query] = {
    "CheckAccess": Query(arguments(study=study_token, proof=optional(unavailable), node=node), releases.check_access),
    "ApprovedStudies": Query({**arguments(node=node), **PAGE}, releases.approved_studies),
    "GetAnchor": Query(arguments(manifestCid=manifest_cid), anchors.get_anchor),
    "AnchorsOfStudy": Query({**arguments(study=study_token), **PAGE}, anchors.anchors_of_study),
    "StandingOf": Query(arguments(study=study_token), custody.standing_of),
    "GetRequest": Query(arguments(id=record_id), requests.get_request),
    "RequestsByState": Query({**arguments(state=code(requests.STATES)), **PAGE}, requests.requests_by_state),
    "Audit": Query(
        {
            **arguments(
                study=optional(study_token),
                organisation=optional(msp_id),
                from_=optional(time),
                until=optional(time),
            ),
            **PAGE,
        },
        audit.audit,
    ),
    "HistoryOf": Query({**arguments(key=state_key), **PAGE}, audit.history_of),
    "Nodes": Query(PAGE, nodes.nodes),
    "GetPolicy": Query({}, policy.get_policy),
}
