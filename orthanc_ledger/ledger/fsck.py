"""Reading a ledger's file from its genesis again: is every row in it what the signed transactions make it?

What is found is collected, and one change is one finding: an entry at fault is not judged any further, and what it
wrote is taken as it stands.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import dag_cbor

from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError, LedgerAway
from orthanc_ledger.ledger.admission import judge, read_genesis
from orthanc_ledger.ledger.contract.call import Value
from orthanc_ledger.ledger.contract.policy import KEY as POLICY
from orthanc_ledger.ledger.log import Checkpoint, Row, reachable
from orthanc_ledger.ledger.members import Membership
from orthanc_ledger.ledger.snapshot import Snapshot, StateBefore, Written
from orthanc_ledger.ledger.transaction import Genesis, SignedTransaction
from orthanc_ledger.merkle import EMPTY_ROOT, Tree, leaf_hash, node_hash

MOST_FINDINGS = 1000
"""More than a person reads: the check ends there."""
PROGRESS_EVERY = 500

# What the contract may raise on records that are none: those an entry at fault left.
_MISREAD = (ArithmeticError, AttributeError, ConfigError, LookupError, TypeError, ValueError)


class Kind(StrEnum):
    """What can be found; docs/ledger.md says what each means."""

    FILE = "file"
    GENESIS = "genesis"
    MISSING = "missing entry"
    CHANGED = "changed entry"
    REORDERED = "reordered entry"
    COLUMNS = "columns"
    FOREIGN = "foreign transaction"
    UNKNOWN_SIGNER = "unknown signer"
    EXPIRED_SIGNER = "expired signer"
    REVOKED_SIGNER = "revoked signer"
    FORGED = "forged signature"
    REFUSED = "refused call"
    REPEATED = "repeated call"
    TREE = "tree"
    STATE_CHANGED = "state row changed"
    STATE_MISSING = "state row missing"
    STATE_EXTRA = "state row extra"
    ROLLED_BACK = "rolled back"
    OTHER_LOG = "not the checkpoint"
    NOTE = "forged checkpoint"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the log's transactions make it."""

    position: int | None  # the entry it is about; None: the file as a whole
    kind: str  # of Kind
    detail: str
    checkpoint: Checkpoint | None = None  # that it does not fit


@dataclass(frozen=True)
class Report:
    """What a check read, and what it found."""

    size: int  # entries, the genesis included
    root: bytes  # of the tree over them, computed from their bytes
    time: int  # of the last entry, UTC seconds
    state_rows: int  # that they give
    findings: tuple[Finding, ...]


def check(
    path: Path, checkpoints: Sequence[Checkpoint] = (), progress: Callable[[int, int], None] = lambda read, size: None
) -> Report:
    """Read a ledger file from its genesis and run everything again: tree, signatures, certificates, contract, state.

    `checkpoints`: sizes and roots kept where the ledger's owner cannot change them; without one a rollback cannot be
    found. `progress` hears how many entries are read, of how many. Reads one snapshot; others may append meanwhile.
    Raises ConfigError when there is no ledger; LedgerAway when it cannot be read.
    """
    try:
        with reachable(path), closing(Snapshot(path)) as snapshot, snapshot.transaction("DEFERRED"):
            return _check(snapshot, checkpoints, progress)
    except LedgerAway as error:
        code = getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # above it: where it was noticed
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        return _unread(Finding(None, Kind.FILE, f"{error}: restore a copy"))


def authorities(path: Path) -> tuple[bytes, list[Mapping[str, bytes]]]:
    """A ledger's log id, and the CA certificates (MSP ID to DER) of its genesis and of its genesis with each policy's.

    As the file has them: what of that is not the log's, `check` finds. Raises IntegrityError when there is no genesis;
    ConfigError when there is no ledger; LedgerAway when it cannot be read.
    """
    with reachable(path), closing(Snapshot(path)) as snapshot, snapshot.transaction("DEFERRED"):
        genesis, membership = read_genesis(snapshot)
        found: list[Mapping[str, bytes]] = [genesis.organisations]
        for _, policy in snapshot.history(POLICY):
            with suppress(*_MISREAD):
                membership.under(policy)
                found.append({**genesis.organisations, **policy["certificates"]})
        return genesis.log, found


class _Enough(Exception):
    """So much was found that nothing more is worth reading."""


def _check(snapshot: Snapshot, checkpoints: Sequence[Checkpoint], progress: Callable[[int, int], None]) -> Report:
    damage = snapshot.damage()
    if damage is not None:
        return _unread(Finding(None, Kind.FILE, damage))
    try:
        genesis, membership = read_genesis(snapshot)
    except IntegrityError as error:
        return _unread(Finding(0, Kind.GENESIS, str(error)))
    reading = _Reading(snapshot, genesis, membership, checkpoints)
    with suppress(_Enough):
        reading.read(progress)
    return reading.report()


def _unread(finding: Finding) -> Report:
    return Report(0, EMPTY_ROOT, 0, 0, (finding,))


class _Reading:
    """One reading of a file, from its first entry to its last."""

    def __init__(
        self, snapshot: Snapshot, genesis: Genesis, membership: Membership, checkpoints: Sequence[Checkpoint]
    ) -> None:
        self._snapshot, self._genesis, self._membership = snapshot, genesis, membership
        self._checkpoints = sorted(checkpoints, key=lambda checkpoint: checkpoint.size, reverse=True)  # next one last
        self._state = StateBefore(snapshot)
        self._tree, self._gap = Tree(), False
        self._next = self._time = self._state_rows = 0
        self._findings: list[Finding] = []

    def report(self) -> Report:
        return Report(self._tree.size, self._tree.root(), self._time, self._state_rows, tuple(self._findings))

    def read(self, progress: Callable[[int, int], None]) -> None:
        """Raises _Enough."""
        written, size = Written(self._snapshot.state_rows()), self._snapshot.last()[0] + 1
        self._compare_checkpoints()
        for row in self._snapshot.entries():
            if row.position < 0:
                self._found(row.position, Kind.REORDERED, "expected 0 as the first position")
                continue
            self._read_entry(row, written.at(row.position))
            if self._tree.size % PROGRESS_EVERY == 0 or self._next == size:
                progress(self._tree.size, size)
        self._check_rest()

    def _found(self, position: int | None, kind: Kind, detail: str, checkpoint: Checkpoint | None = None) -> None:
        self._findings.append(Finding(position, kind, detail, checkpoint))
        if len(self._findings) == MOST_FINDINGS:
            raise _Enough

    def _read_entry(self, row: Row, rows: Mapping[str, bytes]) -> None:
        position, digest = row.position, leaf_hash(row.entry)
        if position > self._next:
            self._found(self._next, Kind.MISSING, f"entries {self._next} to {position - 1} are not there")
            self._gap = True
        self._next = position + 1
        self._state.position = position
        changes = self._run(row) if self._in_place(position, digest) else None
        if changes is None:
            self._state.believe(rows)
        else:
            self._check_state(position, changes, rows)
        self._check_nodes(position, self._tree.add(digest))
        self._compare_checkpoints()

    def _run(self, row: Row) -> Mapping[str, Value] | None:
        """What an entry's transaction changes; None when it cannot have been accepted."""
        if row.position == 0:
            self._check_columns(row, self._genesis.time, self._genesis.log)
            return {}
        try:
            time, transaction = SignedTransaction.decode_entry(row.entry)
        except ContractError as error:
            self._found(row.position, Kind.CHANGED, error.detail)
            return None
        self._check_columns(row, time, transaction.tx_id)
        try:
            applied = judge(self._genesis, self._membership, self._state, transaction, row.position, time)
        except ContractError as error:
            self._found(row.position, self._kind(error, transaction, time), str(error))
            return None
        except _MISREAD as error:
            self._found(row.position, Kind.REFUSED, f"not with the records that the entries found here left: {error!r}")
            return None
        if applied.repeats is not None:
            self._found(row.position, Kind.REPEATED, f"{transaction.function}: {applied.repeats} was written before")
            return None
        return applied.changes

    def _kind(self, error: ContractError, transaction: SignedTransaction, time: int) -> Kind:
        match error.code, error.field:
            case "INVALID", "log":
                return Kind.FOREIGN
            case "NOT_PERMITTED", "signature":
                return Kind.FORGED
            case "NOT_PERMITTED", "certificate":
                try:
                    member = self._membership.under(self._state.get(POLICY)).identify(transaction.certificate)
                except ContractError:
                    return Kind.UNKNOWN_SIGNER
                return Kind.REVOKED_SIGNER if member.valid_at(time) else Kind.EXPIRED_SIGNER
        return Kind.REFUSED

    def _check_columns(self, row: Row, time: int, tx_id: bytes) -> None:
        if (row.time, row.tx_id) != (time, tx_id):
            self._found(row.position, Kind.COLUMNS, "time or tx_id differ from the entry's bytes")
        if time < self._time:
            self._found(row.position, Kind.REORDERED, f"its time {time} is before {self._time}, the one before it")
        self._time = time

    # The tree

    def _in_place(self, position: int, digest: bytes) -> bool:
        """Whether the entry is the one that the tree has at its position."""
        leaf = self._snapshot.node(0, position)
        if leaf is None:
            self._found(position, Kind.TREE, f"leaf 0/{position} is missing")
        elif leaf != digest:
            elsewhere = self._snapshot.leaf_with(digest)
            if elsewhere is None:
                self._found(position, Kind.CHANGED, "its bytes are not those that its leaf in the tree was made of")
            else:
                self._found(position, Kind.REORDERED, f"the tree has it as entry {elsewhere}")
        return leaf in (None, digest)

    def _check_nodes(self, position: int, completed: Sequence[bytes]) -> None:
        if self._gap:  # every entry behind it would be in another place
            return
        for level, digest in enumerate(completed[1:], 1):
            number = position >> level
            node = self._snapshot.node(level, number)
            if node == digest:
                continue
            left, right = self._snapshot.node(level - 1, 2 * number), self._snapshot.node(level - 1, 2 * number + 1)
            # One that fits what is below it differs only because a leaf does, and that is found already.
            if node is None or left is None or right is None or node != node_hash(left, right):
                self._found(position, Kind.TREE, f"node {level}/{number} is not that of the entries it covers")

    def _compare_checkpoints(self) -> None:
        while self._checkpoints and self._checkpoints[-1].size <= self._tree.size:
            checkpoint = self._checkpoints.pop()
            if checkpoint.root != self._tree.root():
                detail = f"the first {checkpoint.size} entries are not those of the checkpoint {checkpoint.root.hex()}"
                self._found(None, Kind.OTHER_LOG, detail, checkpoint)
                self._checkpoints.clear()  # the later ones hold the same entries

    # The state

    def _check_state(self, position: int, changes: Mapping[str, Value], rows: Mapping[str, bytes]) -> None:
        for key in rows.keys() - changes.keys():
            self._found(position, Kind.STATE_EXTRA, key)
            self._state.correct(key, self._state.get(key))
        for key, value in changes.items():
            stored = rows.get(key)
            if stored == dag_cbor.encode(value):
                self._state.believe([key])
            else:
                self._found(position, Kind.STATE_MISSING if stored is None else Kind.STATE_CHANGED, key)
                self._state.correct(key, value)
        self._state_rows += len(changes)

    def _check_rest(self) -> None:
        """What the file has besides its entries and what they gave."""
        first, last = self._snapshot.leaves(self._next)
        if first is not None:
            self._found(first, Kind.MISSING, f"the tree has leaves up to {last}, the log ends with {self._next - 1}")
        size = self._next if last is None else last + 1
        for level, number in self._snapshot.nodes_outside(size):
            self._found(None, Kind.TREE, f"node {level}/{number} is none of a tree of {size} entries")
        for position, key in self._snapshot.state_rows_outside(size):
            self._found(position, Kind.STATE_EXTRA, key)
        if self._checkpoints:
            largest = self._checkpoints[0]
            self._found(self._next, Kind.ROLLED_BACK, f"a checkpoint has {largest.size} entries", largest)
