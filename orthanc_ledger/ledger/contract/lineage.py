"""Lineage: which training runs used which releases, and which models came of them."""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Effect, Transaction
from orthanc_ledger.ledger.contract.datasets import find_dataset
from orthanc_ledger.ledger.contract.reports import check_own_release
from orthanc_ledger.ledger.contract.requests import find_request


def register_training_run(tx: Transaction) -> Effect:
    """A run on releases to one's own organisation; with a dataset, only on releases of that version."""
    args = tx.args
    key = _run_key(tx.id)
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    if ("dataset" in args) != ("version" in args):
        raise ContractError("INVALID", "dataset", "expected both dataset and version, or neither")
    if "dataset" in args:
        find_dataset(tx, "dataset")
    studies = dict.fromkeys(_check_used(tx, release) for release in args["releases"])
    return Effect({"id": tx.id}, {key: tx.noted}, studies=tuple(studies))


def register_model(tx: Transaction) -> Effect:
    key = f"model/{tx.id.hex()}"
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    run = tx.record(_run_key(tx.args["run"]), "run")
    if run["by"]["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "run", "a run of another organisation")
    return Effect({"id": tx.id}, {key: tx.noted})


def _check_used(tx: Transaction, release: bytes) -> bytes:
    """The study of a release that the run may name. Raises ContractError."""
    record = check_own_release(tx, release, "releases")
    request = find_request(tx, record["request"], "releases")
    if "dataset" in tx.args and any(request.get(name) != tx.args[name] for name in ("dataset", "version")):
        raise ContractError("INVALID", "releases", f"{release.hex()} is not of a request on this dataset version")
    study: bytes = record["study"]
    return study


def _run_key(run: bytes) -> str:
    return f"trainingRun/{run.hex()}"
