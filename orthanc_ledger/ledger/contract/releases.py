"""Releases: the one decision whether a research node may have a study's objects now; and what came of it."""

from collections.abc import Iterator

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.anchors import anchor_key, erasure_of, is_stored
from orthanc_ledger.ledger.contract.call import Effect, Question, Transaction, Value
from orthanc_ledger.ledger.contract.custody import standing
from orthanc_ledger.ledger.contract.nodes import is_confirmed, node_head, node_path
from orthanc_ledger.ledger.contract.paging import page
from orthanc_ledger.ledger.contract.requests import find_request, requests_of_node, state_at
from orthanc_ledger.reasons import Reason


def log_release(tx: Transaction) -> Effect:
    """The decision. A lease: objects may start to leave until `leaseEnd` (exclusive), not a second longer."""
    args = tx.args
    key = _release_key(tx.id)
    first = tx.state.get(key)
    if first is not None:
        return Effect({"release": tx.id, "leaseEnd": first["leaseEnd"]}, repeats=key)
    request = find_request(tx, "request")
    _check_request(tx, request)
    _check_study(tx, request)
    _check_anchors(tx, request)
    if "renews" in args:
        _check_renewed(tx)
    lease_end = min(tx.call.time + tx.policy["lease_s"], request["until"])
    record = {**args, "by": tx.by, "time": tx.call.time, "leaseEnd": lease_end}
    return Effect({"release": tx.id, "leaseEnd": lease_end}, {key: record}, studies=(args["study"],))


def log_outcome(tx: Transaction) -> Effect:
    args = tx.args
    release = tx.record(_release_key(args["release"]), "release")
    if release["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "release", "logged by another organisation")
    if args["sent"] + args["withheld"] > release["count"]:
        raise ContractError("INVALID", "sent", f"with withheld more than the {release['count']} released")
    key = f"outcome/{args['release'].hex()}"
    first = tx.state.get(key)
    if first is not None:
        if any(first[name] != value for name, value in args.items()):
            raise ContractError("WRONG_STATE", "outcome", "this release has another outcome")
        return Effect(None, repeats=key)
    return Effect(None, {key: {**args, "by": tx.by, "time": tx.call.time}}, studies=(release["study"],))


def log_denials(tx: Transaction) -> Effect:
    args, node = tx.args, tx.args["reportingNode"]
    if node["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "reportingNode", "not a node of the reporting organisation")
    if ("peer" in args) == ("unregistered" in args):
        raise ContractError("INVALID", "peer", "expected either peer or unregistered")
    if "peer" in args and node_head(tx.state, args["peer"]) is None:
        raise ContractError("NOT_FOUND", "peer", "not registered: report it as unregistered")
    key = f"denials/{node_path(node)}/{args['seq']:020d}"
    last_key = f"denialsSeq/{node_path(node)}"
    first = tx.state.get(key)
    if first is not None and all(first.get(name) == args.get(name) for name in {*first, *args} - {"by", "time"}):
        return Effect(None, repeats=key)
    last = tx.state.get(last_key)
    if last is not None and args["seq"] <= last:
        raise ContractError("CONFLICT", "seq", f"the last one was {last}")
    return Effect(None, {key: {**args, "by": tx.by, "time": tx.call.time}, last_key: args["seq"]})


def check_access(question: Question) -> Value:
    """Advice: what LogRelease would most likely say. {permitted, reason, request, until}."""
    args = question.args
    answer = {"permitted": False, "reason": Reason.NO_APPROVAL.value, "request": None, "until": None}
    erasure = erasure_of(question.records, args["study"])
    for request in requests_of_node(question.records, args["node"]):
        if args["study"] not in request["studies"] or not _node_stands(question, request):
            continue
        state = state_at(request, question.time)
        if state == "approved" and erasure != "none":
            return {**answer, "reason": Reason.WITHDRAWN.value}
        if state == "approved":
            return {"permitted": True, "reason": None, "request": request["id"], "until": request["until"]}
        if state == "expired":
            answer["reason"] = Reason.APPROVAL_EXPIRED.value
    return answer


def approved_studies(question: Question) -> Value:
    """Advice: what a node may ask for now, request by request."""
    return page(_approved(question), question.args)


def _approved(question: Question) -> Iterator[Value]:
    shown = ("sopClasses", "release", "until", "future", "coveredUntil")
    for request in requests_of_node(question.records, question.args["node"]):
        if state_at(request, question.time) == "approved" and _node_stands(question, request):
            studies = [study for study in request["studies"] if erasure_of(question.records, study) == "none"]
            yield {"request": request["id"], "studies": studies, **{name: request[name] for name in shown}}


def _node_stands(question: Question, request: Value) -> bool:
    return is_confirmed(question.records, request["node"], request["revocations"])


def _check_request(tx: Transaction, request: Value) -> None:
    state = state_at(request, tx.call.time)
    if state == "expired":
        raise ContractError("EXPIRED", "until", f"approved until {request['until']}, now is {tx.call.time}")
    if state != "approved":
        raise ContractError("WRONG_STATE", state)
    if tx.args["node"] != request["node"]:
        raise ContractError("NOT_PERMITTED", "node", "not the request's node")
    if not is_confirmed(tx.state, request["node"], request["revocations"]):
        raise ContractError("WRONG_STATE", "node", "not confirmed, or revoked since the request")


def _check_study(tx: Transaction, request: Value) -> None:
    study: bytes = tx.args["study"]
    if study not in request["studies"]:
        raise ContractError("NOT_PERMITTED", "study", "not named in the request")
    if (erasure := erasure_of(tx.state, study)) != "none":
        raise ContractError("WRONG_STATE", erasure)
    if tx.args["standingVersion"] != (current := standing(tx.state, study)):
        raise ContractError("WRONG_STATE", "standingVersion", f"current is {current}: ask StandingOf again")


def _check_anchors(tx: Transaction, request: Value) -> None:
    covered_until = request["coveredUntil"]
    for cid in tx.args["anchors"]:
        record = tx.record(anchor_key(cid), "anchors")
        if record["study"] != tx.args["study"]:
            raise ContractError("INVALID", "anchors", f"{cid} is anchored for another study")
        if covered_until is not None and record["sequence"] >= covered_until:
            raise ContractError("WRONG_STATE", "anchors", f"{cid} was anchored after the approval")
        if tx.policy["require_stored"] and not is_stored(tx.state, cid):
            raise ContractError("WRONG_STATE", "stored", f"{cid} is not confirmed as stored")


def _check_renewed(tx: Transaction) -> None:
    renewed = tx.record(_release_key(tx.args["renews"]), "renews")
    same = all(renewed[name] == tx.args[name] for name in ("request", "study", "node"))
    if not same or renewed["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("INVALID", "renews", "a release of another request, study, node or organisation")


def _release_key(release: bytes) -> str:
    return f"release/{release.hex()}"
