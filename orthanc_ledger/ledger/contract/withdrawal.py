"""Withdrawal: research no longer gets a study or some of its instances; nothing is destroyed."""

from orthanc_ledger.ledger.contract.call import Effect, Records, Transaction, Value
from orthanc_ledger.ledger.contract.standing import check_not_erased, raised, repeated_word, word_of_both


def withdraw(tx: Transaction) -> Effect:
    study: bytes = tx.args["study"]
    key = _key(tx.id)
    first = tx.state.get(key)
    if first is not None:
        return Effect({"id": tx.id, "version": first["version"]}, repeats=key)
    check_not_erased(tx.state, study)
    version, change = raised(tx.state, study)
    changes = {
        key: {**tx.args, "state": "withdrawn", "version": version, **tx.stamp},
        f"studyWithdrawal/{study.hex()}/{tx.id.hex()}": True,
        **change,
    }
    return Effect({"id": tx.id, "version": version}, changes, studies=(study,))


def reinstate(tx: Transaction) -> Effect:
    withdrawal: bytes = tx.args["id"]
    record = tx.record(_key(withdrawal), "id")
    words = f"reinstatement/{withdrawal.hex()}"
    if repeat := repeated_word(tx, words):
        return repeat
    study: bytes = record["study"]
    check_not_erased(tx.state, study)
    reinstated = {_key(withdrawal): {**record, "state": "reinstated"}}
    return word_of_both(tx, words, study, ("withdrawn", "reinstated"), lambda version: reinstated)


def withdrawn(records: Records, study: bytes) -> list[Value]:
    """Standing withdrawals by id; `instances` null: all of the study."""
    ids = [bytes.fromhex(key.rpartition("/")[2]) for key, _ in records.scan(f"studyWithdrawal/{study.hex()}/")]
    found = ((withdrawal, records.get(_key(withdrawal))) for withdrawal in ids)
    return [
        {"id": withdrawal, "instances": record.get("instances")}
        for withdrawal, record in found
        if record is not None and record["state"] == "withdrawn"
    ]


def _key(withdrawal: bytes) -> str:
    return f"withdrawal/{withdrawal.hex()}"
