"""The ledger port: what the rest of the node may ask of a ledger, and which backend a URL names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Value = Any
"""A dag-cbor value: None, bool, int, str, bytes, list or dict of str."""


@dataclass(frozen=True)
class Committed:
    """A transaction that is on the ledger for good."""

    tx_id: bytes  # SHA-256 of the signed transaction
    position: int  # entry number, from 0
    time: int  # the ledger's time of it, UTC seconds
    result: Value  # what the contract function returned


class Ledger(Protocol):
    """A ledger as one identity sees it.

    ``submit`` returns only when the transaction is committed and survives a crash. Whoever gets no answer may call
    again with the same arguments (and nonce, for functions marked *id* in the rule book): the first result comes back and nothing changes.
    """

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        """Run a contract function.

        Raises ContractError when the contract refuses; LedgerAway when no answer could be had.
        """

    def query(self, function: str, args: Mapping[str, Value]) -> Value:
        """Run a read-only contract query. Raises as ``submit``."""
