"""Erasure of a study: asked for by owner or custodian, confirmed by the other after a time of grace, final.

none → requested → none or erased. Nothing is released from the request on.
"""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Effect, Transaction, Value
from orthanc_ledger.ledger.contract.standing import erasure_key, erasure_of, raised

_NONE = {"state": "none", "number": 0, "organisation": None, "time": None}


def request_erase(tx: Transaction) -> Effect:
    erasure = _asked(tx)
    if erasure["state"] != "none":
        if erasure["organisation"] != tx.caller.organisation:
            raise ContractError("WRONG_STATE", erasure["state"])
        return _first(tx, "erasureRequest", erasure)
    number, organisation = erasure["number"] + 1, tx.caller.organisation
    requested = {"state": "requested", "number": number, "organisation": organisation, "time": tx.call.time}
    return _turned(tx, "erasureRequest", requested)


def cancel_erase(tx: Transaction) -> Effect:
    erasure = _asked(tx)
    if erasure["state"] != "requested":
        last = tx.state.get(_key("erasureCancel", tx.args["study"], erasure["number"]))
        if last is None or last["by"]["organisation"] != tx.caller.organisation:
            raise ContractError("WRONG_STATE", erasure["state"])
        return _first(tx, "erasureCancel", erasure)
    return _turned(tx, "erasureCancel", {**erasure, "state": "none"})


def confirm_erase(tx: Transaction) -> Effect:
    study, erasure = tx.args["study"], _asked(tx)
    if erasure["state"] == "none":
        raise ContractError("WRONG_STATE", "none", "nobody asked for it")
    if erasure["organisation"] == tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "study", "its own request: the other party confirms")
    key = f"erasureConfirmation/{study.hex()}"
    if tx.state.get(key) is not None:
        return Effect(None, repeats=key)
    grace_end = erasure["time"] + tx.policy["erase_grace_s"]
    if tx.call.time < grace_end:
        raise ContractError("WRONG_STATE", "grace", f"may be confirmed from {grace_end} on, now is {tx.call.time}")
    return Effect(None, {key: tx.stamp, erasure_key(study): {**erasure, "state": "erased"}}, studies=(study,))


def erasure_done(tx: Transaction) -> Effect:
    study: bytes = tx.args["study"]
    key = f"erasureDone/{study.hex()}/{tx.caller.organisation}"
    if tx.state.get(key) is not None:
        return Effect(None, repeats=key)
    if (state := erasure_of(tx.state, study)) != "erased":
        raise ContractError("WRONG_STATE", state)
    return Effect(None, {key: tx.stamp}, studies=(study,))


def _asked(tx: Transaction) -> Value:
    """What was asked for last."""
    return tx.state.get(erasure_key(tx.args["study"])) or _NONE


def _first(tx: Transaction, kind: str, erasure: Value) -> Effect:
    key = _key(kind, tx.args["study"], erasure["number"])
    return Effect({"version": tx.record(key, "study")["version"]}, repeats=key)


def _turned(tx: Transaction, kind: str, erasure: Value) -> Effect:
    """The request or its end, and the standing it raises."""
    study: bytes = tx.args["study"]
    version, change = raised(tx.state, study)
    record = {"version": version, **tx.stamp}
    changes = {_key(kind, study, erasure["number"]): record, erasure_key(study): erasure, **change}
    return Effect({"version": version}, changes, studies=(study,))


def _key(kind: str, study: bytes, number: int) -> str:
    return f"{kind}/{study.hex()}/{number:06d}"
