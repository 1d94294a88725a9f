"""What became of releases and refusals: the releasing party's word, and the recipient's own. None of it blocks."""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Effect, Transaction, Value, differing
from orthanc_ledger.ledger.contract.nodes import node_head, node_path
from orthanc_ledger.ledger.contract.releases import find_release
from orthanc_ledger.ledger.contract.requests import find_request


def log_outcome(tx: Transaction) -> Effect:
    args = tx.args
    release = find_release(tx, args["release"], "release")
    if release["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "release", "logged by another organisation")
    if args["sent"] + args["withheld"] > release["count"]:
        raise ContractError("INVALID", "sent", f"with withheld more than the {release['count']} released")
    return _told_once(tx, f"outcome/{args['release'].hex()}", release, ("WRONG_STATE", "outcome"))


def log_retrieval(tx: Transaction) -> Effect:
    release = check_own_release(tx, tx.args["release"], "release")
    return _told_once(tx, f"retrieval/{tx.args['release'].hex()}", release, ("CONFLICT", "outcome"))


def report_tamper(tx: Transaction) -> Effect:
    args = tx.args
    release = check_own_release(tx, args["release"], "release")
    key = f"tamperReport/{args['release'].hex()}/{args['instance'].hex()}"
    return _told_once(tx, key, release, ("CONFLICT", "observed"))


def log_denials(tx: Transaction) -> Effect:
    args, node = tx.args, tx.args["reportingNode"]
    if node["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "reportingNode", "not a node of the reporting organisation")
    if ("peer" in args) == ("unregistered" in args):
        raise ContractError("INVALID", "peer", "expected either peer or unregistered")
    if "peer" in args and node_head(tx.state, args["peer"]) is None:
        raise ContractError("NOT_FOUND", "peer", "not registered: report it as unregistered")
    key = f"denials/{node_path(node)}/{args['seq']:020d}"
    first = tx.state.get(key)
    if first is not None and not differing(first, args, ("peer", "unregistered", "reason", "count")):
        return Effect(None, repeats=key)
    last_key = f"denialsSeq/{node_path(node)}"
    last = tx.state.get(last_key)
    if last is not None and args["seq"] <= last:
        raise ContractError("CONFLICT", "seq", f"the last one was {last}")
    return Effect(None, {key: tx.noted, last_key: args["seq"]})


def check_own_release(tx: Transaction, release: bytes, argument: str) -> Value:
    """A release to the calling organisation. Raises ContractError NOT_FOUND, or NOT_PERMITTED for another's."""
    record = find_release(tx, release, argument)
    if find_request(tx, record["request"], argument)["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", argument, "released to another organisation")
    return record


def _told_once(tx: Transaction, key: str, release: Value, otherwise: tuple[str, str]) -> Effect:
    """A note that is written once; the same again is a repeat, another one is refused with this code and field."""
    first = tx.state.get(key)
    if first is None:
        return Effect(None, {key: tx.noted}, studies=(release["study"],))
    if differing(first, tx.args, tx.args):
        raise ContractError(*otherwise, "told otherwise before")
    return Effect(None, repeats=key)
