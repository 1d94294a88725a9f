"""The embedded ledger: signed transactions in an append-only Merkle log, and the contract's state, in one SQLite file.

Several local processes append at once; each transaction is verified, run and written under SQLite's write lock. What
can be trusted without its owner: the signatures. What needs a checkpoint kept elsewhere: that nothing was rolled back
(docs/ledger.md).
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.errors import ConfigError, IntegrityError, LedgerAway
from orthanc_ledger.ledger import Committed, Value
from orthanc_ledger.ledger.admission import judge, read_genesis
from orthanc_ledger.ledger.contract import NONCE_BYTES, answer, event_key
from orthanc_ledger.ledger.contract.policy import policy_digest
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.ledger.log import Checkpoint, LogFile, Row, reachable
from orthanc_ledger.ledger.members import Membership
from orthanc_ledger.ledger.transaction import Genesis, SignedTransaction, sign
from orthanc_ledger.merkle import consistency_proof

CLOCK_JUMP_S = 31 * 86_400


def create_ledger(
    path: Path,
    organisations: Mapping[str, bytes],
    policy: Mapping[str, Value],
    clock: Clock = system_clock,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """Make a new ledger file with its genesis.

    `organisations`: MSP ID to CA certificate (DER, `identity.ca_certificate`). Of `policy` the genesis holds the
    SHA-256 only: afterwards owner or custodian submits InitPolicy with exactly this policy. Raises ConfigError when the
    file exists, a certificate here or in the policy is no CA's, or the policy names other organisations than these
    certificates; ContractError INVALID when the policy is none.
    """
    digest = policy_digest(policy)
    Membership(organisations).under(policy)
    expected = {*organisations, *policy.get("certificates", {})}
    if set(policy["organisations"]) != expected:
        raise ConfigError(
            f"policy: expected the organisations {sorted(expected)}, got {sorted(policy['organisations'])}"
        )
    genesis = Genesis(random(32), clock(), organisations, digest)
    with reachable(path):
        LogFile.create(path, Row(0, genesis.time, genesis.log, genesis.encode())).close()


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
            self._genesis, self._membership = read_genesis(self._reader)

    def close(self) -> None:
        """Close the file; the ledger is of no use afterwards."""
        self._writer.close()
        self._reader.close()

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        """As the port says. Without a nonce it gets a random one.

        Raises ContractError when the contract or the log refuses; LedgerAway when the file cannot be written within 10
        s, or the clock jumped by more than 31 days (see `confirm_clock`); ConfigError without an identity.
        """
        if self._identity is None:
            raise ConfigError(f"{function}: this ledger was opened without an identity: name one to submit")
        if nonce is None:
            nonce = secrets.token_bytes(NONCE_BYTES)
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
            applied = judge(self._genesis, self._membership, self._writer, transaction, position, time)
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
    def log_id(self) -> bytes:
        """What a transaction must be signed for, 32 bytes."""
        return self._genesis.log

    @property
    def size(self) -> int:
        """Number of entries, the genesis included."""
        with self._reading, reachable(self._path):
            return self._reader.last()[0] + 1

    def root(self, size: int | None = None) -> bytes:
        """Root of the tree over the first `size` entries, or over all. Raises IndexError beyond the last."""
        return self.checkpoint(size).root

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        """Size and root, now or at an earlier size: to be kept elsewhere and given to `fsck.check`.

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

    def consistency(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """Proof that the log of `new_size` entries (all, when left out) continues that of `old_size`.

        For `merkle.verify_consistency`. Raises IndexError unless 0 ≤ old size ≤ new size ≤ the log's.
        """
        with self._reading, reachable(self._path), self._reader.transaction("DEFERRED"):
            length = self._reader.last()[0] + 1
            if new_size is not None and new_size > length:
                raise IndexError(f"no tree of {new_size} entries in a log of {length}")
            return consistency_proof(old_size, length if new_size is None else new_size, self._reader.root)

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
                f"the clock ({now}) is more than 31 days after the last entry ({last_time}): correct it, or say that "
                "it is right with `orthanc-ledger ledger confirm-clock`"
            )
        return max(now, last_time)

    def _first(self, position: int, result: Value) -> Committed:
        row = self._writer.entry(position)
        if row is None:
            raise IntegrityError(f"entry {position} is missing: the ledger's file is damaged, restore a copy")
        return Committed(row.tx_id, row.position, row.time, result)
