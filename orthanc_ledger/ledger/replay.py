"""Reading a ledger file from its genesis again: is it what its transactions make it?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dag_cbor

from orthanc_ledger.errors import ContractError, IntegrityError
from orthanc_ledger.ledger.admission import judge, read_genesis
from orthanc_ledger.ledger.contract.call import Value
from orthanc_ledger.ledger.log import Checkpoint, LogFile, Row, completed, reachable
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.ledger.transaction import Genesis, SignedTransaction


@dataclass(frozen=True)
class Report:
    """What a replay found to be right."""

    size: int  # entries, the genesis included
    root: bytes
    time: int  # of the last entry, UTC seconds
    state_rows: int


class _StateBefore:
    """The stored state as the entry at a position found it."""

    def __init__(self, log: LogFile, position: int) -> None:
        self._log, self._position = log, position

    def get(self, key: str) -> Value | None:
        return self._log.value_before(key, self._position)


def replay(path: Path, checkpoint: Checkpoint | None = None) -> Report:
    """Read a ledger file from its genesis and run everything again: tree, signatures, certificates, contract, state.

    Reads one snapshot; others may append meanwhile. Raises IntegrityError naming the first difference, also to a
    checkpoint kept elsewhere; ConfigError when there is no ledger; LedgerAway when it cannot be read.
    """
    log = LogFile(path)
    try:
        with reachable(path), log.transaction("DEFERRED"):
            return _replay(log, checkpoint)
    finally:
        log.close()


def _replay(log: LogFile, checkpoint: Checkpoint | None) -> Report:
    genesis, members = read_genesis(log)
    size = time = nodes = state_rows = 0
    changes: Mapping[str, Value]
    for row in log.entries(0):
        if row.position != size:
            raise IntegrityError(f"entry {size} is missing: the next one is {row.position}")
        nodes += _check_subtrees(log, row)
        if row.position == 0:
            expected, changes = Row(0, genesis.time, genesis.log, row.entry), {}
        else:
            expected, changes = _again(log, genesis, members, row)
        if row != expected or row.time < time:
            raise IntegrityError(f"entry {row.position}: its columns differ from its bytes, or its time goes backwards")
        _check_state(log, row.position, changes)
        size, time, state_rows = size + 1, row.time, state_rows + len(changes)
        if checkpoint is not None and size == checkpoint.size and log.root(0, size) != checkpoint.root:
            raise IntegrityError(f"the first {size} entries are not those of the checkpoint {checkpoint.root.hex()}")
    if checkpoint is not None and size < checkpoint.size:
        raise IntegrityError(f"expected at least the checkpoint's {checkpoint.size} entries, got {size}: rolled back")
    if log.counts() != (nodes, state_rows):
        raise IntegrityError(f"expected {nodes} tree nodes and {state_rows} state rows, got {log.counts()}")
    return Report(size, log.root(0, size), time, state_rows)


def _again(log: LogFile, genesis: Genesis, members: Members, row: Row) -> tuple[Row, Mapping[str, Value]]:
    """The row an entry's bytes make, and what its transaction changes."""
    try:
        time, transaction = SignedTransaction.decode_entry(row.entry)
        applied = judge(genesis, members, _StateBefore(log, row.position), transaction, row.position, time)
    except ContractError as error:
        raise IntegrityError(f"entry {row.position} cannot have been accepted: {error}") from error
    if applied.repeats is not None:
        raise IntegrityError(f"entry {row.position} repeats an earlier call: it cannot have been accepted")
    return Row(row.position, time, transaction.tx_id, row.entry), applied.changes


def _check_subtrees(log: LogFile, row: Row) -> int:
    # The left siblings come from the file: each was compared when its own last entry was read.
    expected = completed(row.position, row.entry, log.subtree)
    for level, number, digest in expected:
        if log.subtree(level, number) != digest:
            raise IntegrityError(f"entry {row.position}: its bytes differ from the tree's node {level}/{number}")
    return len(expected)


def _check_state(log: LogFile, position: int, changes: Mapping[str, Value]) -> None:
    for key, value in changes.items():
        if log.value_at(key, position) != dag_cbor.encode(value):
            raise IntegrityError(f"state {key}: differs from what entry {position} wrote")
