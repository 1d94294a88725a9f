"""Requests of research organisations, and what owner and custodian decide about them."""

from collections.abc import Iterator, Mapping

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.anchors import DATASET_APPROVALS, anchors_so_far, dataset_approvals
from orthanc_ledger.ledger.contract.call import Effect, Question, Records, State, Transaction, Value, differing
from orthanc_ledger.ledger.contract.datasets import dataset_stands, find_dataset
from orthanc_ledger.ledger.contract.nodes import node_head, node_path, node_stands
from orthanc_ledger.ledger.contract.paging import page
from orthanc_ledger.ledger.contract.policy import needed_roles
from orthanc_ledger.ledger.contract.standing import check_not_erased

APPROVERS = ("owner", "custodian")
DAY_S = 86_400
STATES = ("open", "approved", "expired", "denied", "revoked")


def request_access(tx: Transaction) -> Effect:
    args = tx.args
    key = _request_key(tx.id)
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    _check_subject(args)
    if args["release"] not in tx.policy["release_forms"]:
        raise ContractError("INVALID", "release", f"offered: {', '.join(tx.policy['release_forms'])}")
    if args["days"] > tx.policy["max_days"]:
        raise ContractError("INVALID", "days", f"at most {tx.policy['max_days']}")
    node = args["node"]
    if node["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "node", "not a node of the requesting organisation")
    head = node_head(tx.state, node)
    if head is None:
        raise ContractError("NOT_FOUND", "node", "not registered")
    if head["confirmed"] is None:
        raise ContractError("WRONG_STATE", "node", "not confirmed")
    if "dataset" in args:
        find_dataset(tx, "dataset")
        if not dataset_stands(tx.state, args):
            raise ContractError("WRONG_STATE", "dataset", "this version was withdrawn")
    start = {"revocations": head["revocations"], "state": "open", "until": None, "coveredUntil": None}
    record = {**tx.noted, "id": tx.id, **start}
    index = f"nodeRequest/{node_path(node)}/{tx.id.hex()}"
    return Effect({"id": tx.id}, {key: record, index: True}, named_studies(record))


def approve(tx: Transaction) -> Effect:
    args, request = tx.args, find_request(tx, tx.args["id"], "id")
    needs = needed_roles(tx.policy, request["release"])
    if tx.role not in needs:
        raise ContractError("NOT_PERMITTED", "role", f"this release needs {', '.join(needs)}")
    key = _approval_key(args["id"], tx.role)
    first = tx.state.get(key)
    if first is not None and (first["until"], first["release"]) == (args["until"], args["release"]):
        return Effect(first["result"], repeats=key)
    _check_approvable(tx, request)
    if first is not None:
        raise ContractError("WRONG_STATE", "approved", f"{tx.role} approved until {first['until']} already")
    others = [tx.state.get(_approval_key(args["id"], role)) for role in needs if role != tx.role]
    decided, changes = _approved(tx, request, others) if all(others) else (request, {})
    result = {name: decided[name] for name in ("id", "state", "until")}
    approval = {"until": args["until"], "release": args["release"], **tx.stamp, "result": result}
    changes = {key: approval, **changes}
    return Effect(result, changes, named_studies(request))


def deny(tx: Transaction) -> Effect:
    return _end(tx, "denial", "denied", from_states=("open",))


def revoke(tx: Transaction) -> Effect:
    if tx.role == "research" and find_request(tx, tx.args["id"], "id")["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "id", "a request of another organisation")
    return _end(tx, "revocation", "revoked", from_states=("open", "approved"))


def get_request(question: Question) -> Value:
    return _shown(question, question.record(_request_key(question.args["id"]), "id"))


def requests_by_state(question: Question) -> Value:
    args, time = question.args, question.time
    after = _request_key(args["after"]) if "after" in args else ""
    found = (request for _, request in question.records.scan("request/", after))
    wanted = (request for request in found if args.get("state") in (None, state_at(request, time)))
    return page((_shown(question, request) for request in wanted), args)


def find_request(tx: Transaction, request: bytes, argument: str) -> Value:
    """The request that an argument names. Raises ContractError NOT_FOUND."""
    return tx.record(_request_key(request), argument)


def requests_of_node(records: Records, node: Value) -> Iterator[Value]:
    """All requests of a node."""
    for key, _ in records.scan(f"nodeRequest/{node_path(node)}/"):
        yield records.get(f"request/{key.rpartition('/')[2]}")


def state_at(request: Mapping[str, Value], time: int) -> str:
    """The request's state; an approval whose time has run out is `expired`."""
    expired = request["state"] == "approved" and time >= request["until"]
    return "expired" if expired else str(request["state"])


def fallen(policy: Mapping[str, Value], state: State, request: Value) -> str | None:
    """What a request rests on and stands no more: its `node`, or the `dataset` it is on; None when both stand."""
    if not node_stands(policy, state, request):
        return "node"
    return None if dataset_stands(state, request) else "dataset"


def check_stands(tx: Transaction, request: Value) -> None:
    """Raises ContractError WRONG_STATE node or dataset."""
    if (part := fallen(tx.policy, tx.state, request)) is not None:
        raise ContractError("WRONG_STATE", part, "revoked, withdrawn or outside the policy since the request")


def named_studies(request: Mapping[str, Value]) -> tuple[bytes, ...]:
    """The studies a request names; none for one on a dataset."""
    return tuple(request.get("studies", ()))


def _check_subject(args: Mapping[str, Value]) -> None:
    """A request is on named studies, or on one version of a dataset."""
    named, dataset, version = ("studies" in args, "dataset" in args, "version" in args)
    if dataset != version or named == dataset:
        raise ContractError("INVALID", "dataset", "expected either studies, or dataset and version")


def _check_approvable(tx: Transaction, request: Value) -> None:
    args = tx.args
    if request["state"] != "open":
        raise ContractError("WRONG_STATE", request["state"])
    if args["release"] != request["release"]:
        raise ContractError("INVALID", "release", f"requested: {request['release']}")
    check_stands(tx, request)
    for study in named_studies(request):
        check_not_erased(tx.state, study)
    if args["until"] <= tx.call.time:
        raise ContractError("EXPIRED", "until", f"now is {tx.call.time}")
    days = min(request["days"], tx.policy["max_days"])
    if args["until"] > tx.call.time + days * DAY_S:
        raise ContractError("INVALID", "until", f"later than {days} days from now")


def _approved(tx: Transaction, request: Value, others: list[Value]) -> tuple[Value, dict[str, Value]]:
    """The request with its last needed approval, until the smallest of all, and the changes that make it so.

    It covers what is anchored now, unless future.
    """
    until = min([tx.args["until"], *(other["until"] for other in others)])
    if tx.call.time >= until:
        raise ContractError("EXPIRED", "until", "the other approval has run out: a new request is needed")
    covered, change = _covered(tx, request)
    approved = {**request, "state": "approved", "until": until, "coveredUntil": covered}
    return approved, {_request_key(request["id"]): approved, **change}


def _covered(tx: Transaction, request: Value) -> tuple[Value, dict[str, Value]]:
    """What an approval covers (`anchors.is_covered`), and the change that tells later anchors of it."""
    if request["future"]:
        return None, {}
    if "dataset" not in request:
        return {study.hex(): anchors_so_far(tx.state, study) for study in named_studies(request)}, {}
    number = dataset_approvals(tx.state) + 1
    return number, {DATASET_APPROVALS: number}


def _end(tx: Transaction, kind: str, state: str, from_states: tuple[str, ...]) -> Effect:
    args, request = tx.args, find_request(tx, tx.args["id"], "id")
    key = f"{kind}/{args['id'].hex()}"
    first = tx.state.get(key)
    own = first if first is not None and first["by"]["organisation"] == tx.caller.organisation else None
    if own is not None and not differing(own, args, ("reason", "textCommitment")):
        return Effect(None, repeats=key)
    if request["state"] not in from_states:
        raise ContractError("WRONG_STATE", request["state"])
    return Effect(None, {key: tx.noted, _request_key(args["id"]): {**request, "state": state}}, named_studies(request))


def _shown(question: Question, request: Value) -> Value:
    needs = needed_roles(question.policy, request["release"])
    found = {role: question.records.get(_approval_key(request["id"], role)) for role in APPROVERS}
    approvals = {
        role: {name: approval[name] for name in ("until", "by", "time")} for role, approval in found.items() if approval
    }
    return {**request, "state": state_at(request, question.time), "needs": needs, "approvals": approvals}


def _request_key(request_id: bytes) -> str:
    return f"request/{request_id.hex()}"


def _approval_key(request_id: bytes, role: str) -> str:
    return f"approval/{request_id.hex()}/{role}"
