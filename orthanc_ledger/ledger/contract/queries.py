"""The contract's queries: what may be asked, with which arguments."""

from collections.abc import Callable
from dataclasses import dataclass

from orthanc_ledger.ledger.contract import advice, anchors, audit, datasets, nodes, pending, policy, requests
from orthanc_ledger.ledger.contract.arguments import (
    PAGE,
    Schema,
    arguments,
    code,
    integer,
    manifest_cid,
    msp_id,
    node,
    optional,
    proof,
    record_id,
    sequence,
    state_key,
    study_token,
    time,
)
from orthanc_ledger.ledger.contract.call import Question, Value


@dataclass(frozen=True)
class Query:
    """A read-only function, open to all."""

    arguments: Schema
    run: Callable[[Question], Value]


_STUDY = arguments(study=study_token, after=optional(integer(0, 1 << 53)))
_REQUESTS = arguments(state=optional(code(requests.STATES)), after=optional(record_id))
_TRAIL = arguments(
    study=optional(study_token),
    organisation=optional(msp_id),
    from_=optional(time),
    until=optional(time),
    after=optional(sequence),
)

QUERIES: dict[str, Query] = {
    "CheckAccess": Query(arguments(study=study_token, node=node, proof=optional(proof)), advice.check_access),
    "ApprovedStudies": Query({**arguments(node=node), **PAGE}, advice.approved_studies),
    "GetAnchor": Query(arguments(manifestCid=manifest_cid), anchors.get_anchor),
    "Anchors": Query({**arguments(after=optional(manifest_cid)), **PAGE}, anchors.anchors),
    "AnchorsOfStudy": Query({**_STUDY, **PAGE}, anchors.anchors_of_study),
    "StandingOf": Query(arguments(study=study_token), advice.standing_of),
    "GetRequest": Query(arguments(id=record_id), requests.get_request),
    "RequestsByState": Query({**_REQUESTS, **PAGE}, requests.requests_by_state),
    "Audit": Query({**_TRAIL, **PAGE}, audit.audit),
    "HistoryOf": Query({**arguments(key=state_key), **PAGE}, audit.history_of),
    "Nodes": Query(PAGE, nodes.nodes),
    "Datasets": Query(PAGE, datasets.datasets),
    "Pending": Query(PAGE, pending.pending),
    "GetPolicy": Query({}, policy.get_policy),
}
