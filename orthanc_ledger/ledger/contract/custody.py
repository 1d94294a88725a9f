"""What happens to an instance after its anchor: conflicts, supersession, tampering; and the standing of its study.

`standing/STUDY` counts everything that takes something away from research or gives it back. A release names the number
its gate saw.
"""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.anchors import anchor_key, erasure_of
from orthanc_ledger.ledger.contract.call import Effect, Question, State, Transaction, Value


def report_conflict(tx: Transaction) -> Effect:
    study: bytes = tx.args["study"]
    key = f"conflict/{study.hex()}/{tx.id.hex()}"
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    return Effect({"id": tx.id}, {key: {**tx.args, "by": tx.by, "time": tx.call.time}}, studies=(study,))


def supersede(tx: Transaction) -> Effect:
    args = tx.args
    key = f"supersede/{tx.id.hex()}"
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    for name in ("oldManifest", "newManifest"):
        anchored_in_study(tx, name)
    if args["oldManifest"] == args["newManifest"]:
        raise ContractError("INVALID", "newManifest", "the same as oldManifest")
    _check_current(tx.state, args)
    record = {**args, "state": "pending", "by": tx.by, "time": tx.call.time}
    return Effect({"id": tx.id}, {key: record}, studies=(args["study"],))


def confirm_supersede(tx: Transaction) -> Effect:
    name = tx.args["id"].hex()
    pending = tx.record(f"supersede/{name}", "id")
    key = f"confirmedSupersede/{name}"
    first = tx.state.get(key)
    if first is not None:
        return Effect({"version": first["version"]}, repeats=key)
    _check_current(tx.state, pending)
    study: bytes = pending["study"]
    version = standing(tx.state, study) + 1
    changes = {
        key: {"version": version, "by": tx.by, "time": tx.call.time},
        f"supersede/{name}": {**pending, "state": "confirmed"},
        _current_key(pending): {"newManifest": pending["newManifest"], "supersede": tx.args["id"]},
        _standing_key(study): version,
    }
    return Effect({"version": version}, changes, studies=(study,))


def flag_tampered(tx: Transaction) -> Effect:
    args = tx.args
    anchored_in_study(tx, "manifestCid")
    study, number = args["study"], args["n"]
    prefix = f"flag/{study.hex()}/{args['instance'].hex()}/"
    key = f"{prefix}{number:06d}"
    first = tx.state.get(key)
    if first is not None:
        if any(first[name] != value for name, value in args.items()):
            raise ContractError("CONFLICT", "n", "this flag exists with other content")
        return Effect({"version": first["version"]}, repeats=key)
    if number and tx.state.get(f"{prefix}{number - 1:06d}") is None:
        raise ContractError("INVALID", "n", f"flags of an instance count from 0, and there is none {number - 1}")
    version = standing(tx.state, study) + 1
    record = {**args, "version": version, "by": tx.by, "time": tx.call.time}
    return Effect({"version": version}, {key: record, _standing_key(study): version}, studies=(study,))


def standing_of(question: Question) -> Value:
    records, study = question.records, question.args["study"]
    superseded = records.scan(f"superseded/{study.hex()}/")
    flagged = records.scan(f"flag/{study.hex()}/")
    return {
        "version": standing(records, study),
        "superseded": [
            {"instance": bytes.fromhex(key.rpartition("/")[2]), "newManifest": current["newManifest"]}
            for key, current in superseded
        ],
        "flagged": [{name: flag[name] for name in ("instance", "manifestCid", "n")} for _, flag in flagged],
        "withdrawn": [],
        "erased": erasure_of(records, study),
    }


def standing(state: State, study: bytes) -> int:
    """The study's standing version, 0 at first."""
    version: int = state.get(_standing_key(study)) or 0
    return version


def anchored_in_study(tx: Transaction, name: str) -> None:
    """Raises ContractError NOT_FOUND when the manifest an argument names has no anchor, INVALID for another study's."""
    if tx.record(anchor_key(tx.args[name]), name)["study"] != tx.args["study"]:
        raise ContractError("INVALID", name, "anchored for another study")


def _check_current(state: State, change: Value) -> None:
    """A supersession starts from the current record: before the first one the first anchor's, which readers know."""
    current = state.get(_current_key(change))
    if current is not None and current["newManifest"] != change["oldManifest"]:
        raise ContractError("WRONG_STATE", "oldManifest", f"the current record is in {current['newManifest']}")


def _current_key(change: Value) -> str:
    return f"superseded/{change['study'].hex()}/{change['instance'].hex()}"


def _standing_key(study: bytes) -> str:
    return f"standing/{study.hex()}"
