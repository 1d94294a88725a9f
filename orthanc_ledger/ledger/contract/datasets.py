"""Datasets: a version is the root over a sorted list of study tokens. The lists themselves live off the ledger."""

from collections.abc import Mapping

from orthanc_ledger.errors import ContractError, IntegrityError
from orthanc_ledger.ledger.contract.call import Effect, Question, State, Transaction, Value, differing
from orthanc_ledger.ledger.contract.paging import page
from orthanc_ledger.merkle import leaf_hash, verify_inclusion

_DATASETS = "dataset/"
_CONTENT = ("root", "count", "descriptorDigest", "duo")


def register_dataset(tx: Transaction) -> Effect:
    """A dataset's next version; it belongs to the organisation that registered the first."""
    args = tx.args
    dataset, version = args["id"], args["version"]
    head = tx.state.get(_key(dataset, 1))
    if head is not None and head["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "id", "a dataset of another organisation")
    key = _key(dataset, version)
    first = tx.state.get(key)
    if first is not None:
        if name := differing(first, args, _CONTENT):
            raise ContractError("CONFLICT", name, "this version is registered with another value")
        return Effect(None, repeats=key)
    if version > 1 and tx.state.get(_key(dataset, version - 1)) is None:
        raise ContractError("INVALID", "version", f"versions count from 1, and there is none {version - 1}")
    return Effect(None, {key: tx.noted})


def withdraw_dataset(tx: Transaction) -> Effect:
    """Final for this version: what was approved on it ends."""
    dataset, version = tx.args["id"], tx.args["version"]
    tx.record(_key(dataset, version), "id")
    key = _withdrawal_key(dataset, version)
    if tx.state.get(key) is not None:
        return Effect(None, repeats=key)
    return Effect(None, {key: tx.stamp})


def datasets(question: Question) -> Value:
    """All versions of all datasets, by id and version."""
    return page((_shown(question.records, record) for _, record in question.records.scan(_DATASETS)), question.args)


def find_dataset(tx: Transaction, argument: str) -> Value:
    """The dataset version that the call's `dataset` and `version` name. Raises ContractError NOT_FOUND."""
    return tx.record(_key(tx.args["dataset"], tx.args["version"]), argument)


def dataset_stands(state: State, subject: Mapping[str, Value]) -> bool:
    """Whether the dataset version that a request is on was not withdrawn; true for a request on named studies."""
    return "dataset" not in subject or state.get(_withdrawal_key(subject["dataset"], subject["version"])) is None


def is_proven(state: State, request: Mapping[str, Value], study: bytes, proof: Value) -> bool:
    """Whether the proof shows that a study belongs to the dataset version a request is on."""
    record = state.get(_key(request["dataset"], request["version"]))
    if record is None:
        return False
    try:
        verify_inclusion(leaf_hash(study), proof["index"], record["count"], proof["path"], record["root"])
    except IntegrityError:
        return False
    return True


def _shown(state: State, record: Value) -> Value:
    withdrawn = state.get(_withdrawal_key(record["id"], record["version"])) is not None
    return {**record, "state": "withdrawn" if withdrawn else "registered"}


def _key(dataset: bytes, version: int) -> str:
    return f"{_DATASETS}{dataset.hex()}/{version:010d}"


def _withdrawal_key(dataset: bytes, version: int) -> str:
    return f"datasetWithdrawal/{dataset.hex()}/{version:010d}"
