"""The embedded ledger: signed transactions in an append-only Merkle log, and the contract's state, in one SQLite file.

Several local processes append at once; each transaction is verified, run and written under SQLite's write lock. What
can be trusted without its
owner: the signatures. What needs a checkpoint kept elsewhere: that nothing was rolled back (docs/ledger.md).
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dag_cbor

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError, LedgerAway
from orthanc_ledger.ledger import Committed, Value
from orthanc_ledger.ledger.contract import FUNCTIONS, answer, apply, event_key
from orthanc_ledger.ledger.contract.call import Applied, Call, State
from orthanc_ledger.ledger.contract.policy import policy_digest
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.ledger.log import LogFile, Row, completed, reachable
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.ledger.transaction import Genesis, SignedTransaction, sign

SIGNED_AHEAD_S = 300
SIGNED_BEFORE_S = 7 * 86_400
CLOCK_JUMP_S = 31 * 86_400


@dataclass(frozen=True)
class Checkpoint:
    """The tree at a size, to be kept where the ledger's owner cannot change it."""

    size: int
    root: bytes


@dataclass(frozen=True)
class Report:
    """What a replay found to be right."""

    size: int  # entries, the genesis included
    root: bytes
    time: int  # of the last entry, UTC seconds
    state_rows: int


def create_ledger(
    path: Path,
    organisations: Mapping[str, bytes],
    policy: Mapping[str, Value],
    clock: Clock = system_clock,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """Make a new ledger file with its genesis.

    `organisations`: MSP ID to CA certificate (DER, `identity.ca_certificate`). Of `policy` the genesis holds the
    SHA-256 only: afterwards owner or
    custodian submits InitPolicy with exactly this policy. Raises ConfigError when the file exists, an organisation's
    certificate is no CA, or the
    policy names other organisations; ContractError INVALID when the policy is none.
    """
    Members(organisations)
    digest = policy_digest(policy)
    if set(policy["organisations"]) != set(organisations):
        raise ConfigError(
            f"policy: expected the organisations {sorted(organisations)}, got {sorted(policy['organisations'])}"
        )
    genesis = Genesis(random(32), clock(), organisations, digest)
    with reachable(path):
        log = LogFile.create(path)
        with log.transaction("IMMEDIATE"):
            log.append(Row(0, genesis.time, genesis.log, genesis.encode()), {})
        log.close()


class EmbeddedLedger:
    """A ledger file as one identity sees it: the `Ledger` port, and the log's tree.

    Durable: `submit` returns after SQLite's commit with synchronous=FULL. May be used by several threads.
    """

    def __init__(self, path: Path, identity: Identity | None = None, clock: Clock = system_clock) -> None:
        """Without an identity it only answers queries.

        Raises ConfigError when there is no ledger, LedgerAway when it cannot be read, IntegrityError on a bad genesis.
        """
        self._path, self._identity, self._clock = path, identity, clock
        # Two connections, so that queries do not wait behind a transaction; a lock each, as SQLite's are not for two
        # threads at once.
        self._writer, self._writing = LogFile(path), threading.Lock()
        self._reader, self._reading = LogFile(path), threading.Lock()
        with reachable(path):
            self._genesis, self._members = _genesis(self._reader)

    def close(self) -> None:
        """Close the file; the ledger is of no use afterwards."""
        self._writer.close()
        self._reader.close()

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        """As the port says. Without a nonce a function marked id gets a random one.

        Raises ContractError when the contract or the log refuses; LedgerAway when the file cannot be written within 10
        s, or the clock jumped by more
        than 31 days (see `confirm_clock`); ConfigError without an identity.
        """
        if self._identity is None:
            raise ConfigError(f"{function}: this ledger was opened without an identity: name one to submit")
        if nonce is None and function in FUNCTIONS and FUNCTIONS[function].content_id:
            nonce = secrets.token_bytes(16)
        return self.append(sign(self._identity, self._genesis.log, function, args, nonce, self._clock()))

    def append(self, transaction: SignedTransaction) -> Committed:
        """Append a transaction that anybody signed. Raises as `submit`."""
        with self._writing, reachable(self._path), self._writer.transaction("IMMEDIATE"):
            known = self._writer.find(transaction.tx_id)
            if known is not None:
                event = self._writer.get(event_key(known.position)) or {}
                return self._first(known.position, event.get("result"))
            last, last_time = self._writer.last()
            position, time = last + 1, self._entry_time(last_time)
            applied = _judge(self._genesis, self._members, self._writer, transaction, position, time)
            if applied.repeats is not None:
                return self._first(self._writer.first_write(applied.repeats), applied.result)
            row = Row(position, time, transaction.tx_id, transaction.entry(time))
            self._writer.append(row, applied.changes)
        return Committed(row.tx_id, position, time, applied.result)

    def query(self, function: str, args: Mapping[str, Value]) -> Value:
        """As the port says; the question's time is max(clock, last entry)."""
        with self._reading, reachable(self._path), self._reader.transaction("DEFERRED"):
            time = max(self._clock(), self._reader.last()[1])
            return answer(self._reader, function, args, time)

    @property
    def size(self) -> int:
        """Number of entries, the genesis included."""
        with self._reading, reachable(self._path):
            return self._reader.last()[0] + 1

    def root(self, size: int | None = None) -> bytes:
        """Root of the tree over the first `size` entries, or over all. Raises IndexError beyond the last."""
        return self.checkpoint(size).root

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        """Size and root, now or at an earlier size: to be kept elsewhere and given to `replay`.

        Raises IndexError beyond the last entry.
        """
        with self._reading, reachable(self._path), self._reader.transaction("DEFERRED"):
            length = self._reader.last()[0] + 1
            size = length if size is None else size
            if not 0 <= size <= length:
                raise IndexError(f"no tree of {size} entries in a log of {length}")
            return Checkpoint(size, self._reader.root(0, size))

    def inclusion(self, position: int) -> tuple[Checkpoint, list[bytes]]:
        """Proof that an entry is in the tree as it is now (`merkle.verify_inclusion`). Raises IndexError beyond it."""
        with self._reading, reachable(self._path), self._reader.transaction("DEFERRED"):
            size = self._reader.last()[0] + 1
            if not 0 <= position < size:
                raise IndexError(f"no entry {position} in a log of {size}")
            return Checkpoint(size, self._reader.root(0, size)), self._reader.path(position, 0, size)

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """The entries' bytes (the tree's leaf inputs) from a position on."""
        while True:
            with self._reading, reachable(self._path):
                rows = self._reader.page(start)
            if not rows:
                return
            yield from (row.entry for row in rows)
            start = rows[-1].position + 1

    def confirm_clock(self) -> None:
        """The operator's word that this machine's clock is right, though more than 31 days after the last entry."""
        with self._writing, reachable(self._path):
            self._writer.confirm_clock(self._clock())

    def _entry_time(self, last_time: int) -> int:
        now = self._clock()
        if now > max(last_time, self._writer.confirmed_clock()) + CLOCK_JUMP_S:
            raise LedgerAway(
                f"the clock ({now}) is more than 31 days after the last entry ({last_time}): correct it, or confirm it"
            )
        return max(now, last_time)

    def _first(self, position: int, result: Value) -> Committed:
        row = self._writer.entry(position)
        if row is None:
            raise IntegrityError(f"entry {position} is missing: the ledger's file is damaged, restore a copy")
        return Committed(row.tx_id, row.position, row.time, result)


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
    genesis, members = _genesis(log)
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
        applied = _judge(genesis, members, _StateBefore(log, row.position), transaction, row.position, time)
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


def _judge(
    genesis: Genesis, members: Members, state: State, transaction: SignedTransaction, position: int, time: int
) -> Applied:
    """What a transaction does as the entry at `position` and `time`. Raises ContractError when it must not be one."""
    if transaction.log != genesis.log:
        raise ContractError("INVALID", "log", "signed for another ledger")
    if not time - SIGNED_BEFORE_S <= transaction.time <= time + SIGNED_AHEAD_S:
        raise ContractError("SKEW", "time", f"signed at {transaction.time}, the entry's time is {time}: sign it anew")
    caller = members.verify(transaction.certificate, transaction.signature, transaction.payload, time)
    call = Call(
        transaction.function,
        transaction.args,
        transaction.nonce,
        caller,
        time=time,
        host_time=time,  # here the entry's time is the host's word already
        sequence=position,
        policy_sha256=genesis.policy_sha256,
    )
    return apply(state, call)


def _genesis(log: LogFile) -> tuple[Genesis, Members]:
    row = log.entry(0)
    if row is None:
        raise IntegrityError("entry 0, the genesis, is missing")
    genesis = Genesis.decode(row.entry)
    try:
        return genesis, Members(genesis.organisations)
    except ConfigError as error:
        raise IntegrityError(f"entry 0, the genesis: {error}") from error
