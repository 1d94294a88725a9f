"""Which record of an instance is the current one: conflicts noted, supersession proposed and confirmed."""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.anchors import check_anchored
from orthanc_ledger.ledger.contract.call import Effect, Records, State, Transaction, Value
from orthanc_ledger.ledger.contract.standing import check_not_erased, raised

SUPERSESSIONS = "supersede/"


def report_conflict(tx: Transaction) -> Effect:
    study: bytes = tx.args["study"]
    key = f"conflict/{study.hex()}/{tx.id.hex()}"
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    return Effect({"id": tx.id}, {key: tx.noted}, studies=(study,))


def supersede(tx: Transaction) -> Effect:
    args = tx.args
    key = supersession_key(tx.id)
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    for name in ("oldManifest", "newManifest"):
        check_anchored(tx, name)
    if args["oldManifest"] == args["newManifest"]:
        raise ContractError("INVALID", "newManifest", "the same as oldManifest")
    _check_current(tx.state, args)
    record = {**args, "state": "pending", **tx.stamp}
    return Effect({"id": tx.id}, {key: record}, studies=(args["study"],))


def confirm_supersede(tx: Transaction) -> Effect:
    supersession: bytes = tx.args["id"]
    pending = tx.record(supersession_key(supersession), "id")
    key = f"confirmedSupersede/{supersession.hex()}"
    first = tx.state.get(key)
    if first is not None:
        return Effect({"version": first["version"]}, repeats=key)
    if pending["state"] != "pending":
        raise ContractError("WRONG_STATE", pending["state"], "propose it anew")
    _check_current(tx.state, pending)
    study: bytes = pending["study"]
    version, change = raised(tx.state, study)
    changes = {
        key: {"version": version, **tx.stamp},
        supersession_key(supersession): {**pending, "state": "confirmed"},
        _current_key(study, pending["instance"]): {"newManifest": pending["newManifest"], "supersede": supersession},
        **change,
    }
    return Effect({"version": version}, changes, studies=(study,))


def current_manifest(state: State, study: bytes, instance: bytes) -> str | None:
    """The manifest with the instance's current record by a confirmed supersession; None before the first one."""
    current = state.get(_current_key(study, instance))
    return None if current is None else str(current["newManifest"])


def superseded(records: Records, study: bytes) -> list[Value]:
    return [
        {"instance": bytes.fromhex(key.rpartition("/")[2]), "newManifest": current["newManifest"]}
        for key, current in records.scan(f"superseded/{study.hex()}/")
    ]


def supersession_key(supersession: bytes) -> str:
    return SUPERSESSIONS + supersession.hex()


def _check_current(state: State, change: Value) -> None:
    """A supersession starts from the current record: before the first one the first anchor's, which readers know.

    Raises ContractError WRONG_STATE erased or oldManifest.
    """
    check_not_erased(state, change["study"])
    current = current_manifest(state, change["study"], change["instance"])
    if current is not None and current != change["oldManifest"]:
        raise ContractError("WRONG_STATE", "oldManifest", f"the current record is in {current}")


def _current_key(study: bytes, instance: bytes) -> str:
    return f"superseded/{study.hex()}/{instance.hex()}"
