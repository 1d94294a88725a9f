"""A study's standing: the counter that a release must name, and the erasure that ends everything.

`standing/STUDY` counts what takes something away from research or gives it back. A release names the number its gate
saw, so that no gate goes by an older answer of StandingOf.
"""

from collections.abc import Callable, Mapping

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Effect, State, Transaction, Value

ERASURES = "erasure/"


def standing(state: State, study: bytes) -> int:
    """The study's standing version, 0 at first."""
    version: int = state.get(_key(study)) or 0
    return version


def raised(state: State, study: bytes) -> tuple[int, dict[str, Value]]:
    """The next standing version, and the change that makes it so."""
    version = standing(state, study) + 1
    return version, {_key(study): version}


def erasure_of(state: State, study: bytes) -> str:
    """`none`, `requested` or `erased`."""
    record = state.get(erasure_key(study))
    return "none" if record is None else str(record["state"])


def check_not_erased(state: State, study: bytes) -> None:
    """Raises ContractError WRONG_STATE erased: final."""
    if erasure_of(state, study) == "erased":
        raise ContractError("WRONG_STATE", "erased", "the study was erased: nothing changes it any more")


def erasure_key(study: bytes) -> str:
    return ERASURES + study.hex()


# What owner and custodian must both say before research has something back.


def repeated_word(tx: Transaction, words: str) -> Effect | None:
    """The repeat, when the caller's role has said so under these words' key already."""
    key = f"{words}/{tx.role}"
    first = tx.state.get(key)
    return None if first is None else Effect(first["result"], repeats=key)


def word_of_both(
    tx: Transaction, words: str, study: bytes, states: tuple[str, str], complete: Callable[[int], Mapping[str, Value]]
) -> Effect:
    """The caller's word. With the other party's it is complete: `complete` says what changes at that standing version.

    `states` are what the result tells before and after.
    """
    other = "custodian" if tx.role == "owner" else "owner"
    both = tx.state.get(f"{words}/{other}") is not None
    result = {"state": states[both]}
    changes: dict[str, Value] = {f"{words}/{tx.role}": {"result": result, **tx.stamp}}
    if both:
        version, change = raised(tx.state, study)
        changes |= {**complete(version), **change}
    return Effect(result, changes, studies=(study,))


def _key(study: bytes) -> str:
    return f"standing/{study.hex()}"
