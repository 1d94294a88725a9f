"""What waits for the other party, and how either of them takes it off the table."""

from collections.abc import Iterator

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Effect, Question, Transaction, Value
from orthanc_ledger.ledger.contract.custody import SUPERSESSIONS, supersession_key
from orthanc_ledger.ledger.contract.paging import page
from orthanc_ledger.ledger.contract.policy import PROPOSALS, proposal_key, proposal_state
from orthanc_ledger.ledger.contract.standing import ERASURES


def cancel(tx: Transaction) -> Effect:
    """Final: a new proposal has a new id."""
    proposal = tx.state.get(proposal_key(tx.args["id"]))
    record = proposal or tx.record(supersession_key(tx.args["id"]), "id")
    key = f"cancellation/{tx.args['id'].hex()}"
    first = tx.state.get(key)
    if first is not None and first["by"]["organisation"] == tx.caller.organisation:
        return Effect(None, repeats=key)
    state = record["state"] if proposal is None else proposal_state(tx.state, proposal)
    if state != "pending":
        raise ContractError("WRONG_STATE", state)
    cancelled = {**record, "state": "cancelled"}
    if proposal is not None:
        return Effect(None, {key: tx.stamp, proposal_key(tx.args["id"]): cancelled})
    return Effect(None, {key: tx.stamp, supersession_key(tx.args["id"]): cancelled}, studies=(record["study"],))


def pending(question: Question) -> Value:
    """Policies, then supersessions, each by id; then erasures by study."""
    return page(_pending(question), question.args)


def _pending(question: Question) -> Iterator[Value]:
    records = question.records
    for key, proposal in records.scan(PROPOSALS):
        if proposal_state(records, proposal) == "pending":
            yield {"kind": "policy", "id": _token(key), "record": proposal}
    for key, supersession in records.scan(SUPERSESSIONS):
        if supersession["state"] == "pending":
            yield {"kind": "supersession", "id": _token(key), "record": supersession}
    for key, erasure in records.scan(ERASURES):
        if erasure["state"] == "requested":
            yield {"kind": "erasure", "study": _token(key), "record": erasure}


def _token(key: str) -> bytes:
    return bytes.fromhex(key.rpartition("/")[2])
