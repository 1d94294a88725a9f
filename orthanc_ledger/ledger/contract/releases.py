"""Releases: the one decision whether a research node may have a study's objects now."""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.anchors import anchor_key, is_covered, is_stored
from orthanc_ledger.ledger.contract.call import Effect, Transaction, Value
from orthanc_ledger.ledger.contract.datasets import is_proven
from orthanc_ledger.ledger.contract.requests import check_stands, find_request, named_studies
from orthanc_ledger.ledger.contract.standing import erasure_of, standing


def log_release(tx: Transaction) -> Effect:
    """The decision. A lease: objects may start to leave until `leaseEnd` (exclusive), not a second longer."""
    args = tx.args
    key = _release_key(tx.id)
    first = tx.state.get(key)
    if first is not None:
        return Effect({"release": tx.id, "leaseEnd": first["leaseEnd"]}, repeats=key)
    request = find_request(tx, args["request"], "request")
    _check_request(tx, request)
    _check_study(tx, request)
    _check_anchors(tx, request)
    if "renews" in args:
        _check_renewed(tx)
    lease_end = min(tx.call.time + tx.policy["lease_s"], request["until"])
    record = {**tx.noted, "leaseEnd": lease_end}
    return Effect({"release": tx.id, "leaseEnd": lease_end}, {key: record}, studies=(args["study"],))


def find_release(tx: Transaction, release: bytes, argument: str) -> Value:
    """The release that an argument names. Raises ContractError NOT_FOUND."""
    return tx.record(_release_key(release), argument)


def _check_request(tx: Transaction, request: Value) -> None:
    until = request["until"]
    if until is not None and tx.call.time >= until:
        raise ContractError("EXPIRED", "until", f"approved until {until}, now is {tx.call.time}")
    if request["state"] != "approved":
        raise ContractError("WRONG_STATE", request["state"])
    if tx.args["node"] != request["node"]:
        raise ContractError("NOT_PERMITTED", "node", "not the request's node")
    check_stands(tx, request)


def _check_study(tx: Transaction, request: Value) -> None:
    study: bytes = tx.args["study"]
    if ("proof" in tx.args) != ("dataset" in request):
        raise ContractError("INVALID", "proof", "a request on a dataset needs one, one on named studies none")
    if not _covers(tx, request, study):
        raise ContractError("NOT_PERMITTED", "study", "neither named in the request nor proven to be in its dataset")
    if (erasure := erasure_of(tx.state, study)) != "none":
        raise ContractError("WRONG_STATE", erasure)
    if tx.args["standingVersion"] != (current := standing(tx.state, study)):
        raise ContractError("WRONG_STATE", "standingVersion", f"current is {current}: ask StandingOf again")


def _covers(tx: Transaction, request: Value, study: bytes) -> bool:
    if "proof" in tx.args:
        return is_proven(tx.state, request, study, tx.args["proof"])
    return study in named_studies(request)


def _check_anchors(tx: Transaction, request: Value) -> None:
    for cid in tx.args["anchors"]:
        record = tx.record(anchor_key(cid), "anchors")
        if record["study"] != tx.args["study"]:
            raise ContractError("INVALID", "anchors", f"{cid} is anchored for another study")
        if not is_covered(record, request["coveredUntil"]):
            raise ContractError("WRONG_STATE", "anchors", f"{cid} was anchored after the approval")
        if tx.policy["require_stored"] and not is_stored(tx.state, cid):
            raise ContractError("WRONG_STATE", "stored", f"{cid} is not confirmed as stored")


def _check_renewed(tx: Transaction) -> None:
    renewed = find_release(tx, tx.args["renews"], "renews")
    same = all(renewed[name] == tx.args[name] for name in ("request", "study", "node"))
    if not same or renewed["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("INVALID", "renews", "a release of another request, study, node or organisation")


def _release_key(release: bytes) -> str:
    return f"release/{release.hex()}"
