"""The embedded ledger: signed transactions in an append-only Merkle log, and the contract's state, in one SQLite file.

Several local processes append at once; each transaction is verified, run and written under SQLite's write lock. What
can be trusted without its owner: the signatures. What needs a checkpoint kept elsewhere: that nothing was rolled back
(docs/ledger.md).
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal

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

    Durable: `submit` returns after SQLite's commit with synchronous=FULL. May be used by several threads. The file is
    opened when it is first asked, so that a node starts without it, and anew once another lies in its place.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity | None = None,
        clock: Clock = system_clock,
        patience_s: float | None = None,
    ) -> None:
        """Without an identity it only answers queries. ``patience_s``: as for LogFile.

        Every method raises LedgerAway when the file is not there, cannot be read or was replaced, IntegrityError on a
        bad genesis.
        """
        self._identity, self._clock = identity, clock
        # Two connections, so that queries do not wait behind a transaction.
        self._writer, self._reader = _Connection(path, patience_s), _Connection(path, patience_s)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._writer.close()
        self._reader.close()

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        """As the port says. Without a nonce it gets a random one.

        Raises ContractError when the contract or the log refuses; LedgerAway when the file cannot be written within
        ``patience_s``, or the clock jumped by more than 31 days (see `confirm_clock`); ConfigError without an identity.
        """
        if self._identity is None:
            raise ConfigError(f"{function}: this ledger was opened without an identity: name one to submit")
        if nonce is None:
            nonce = secrets.token_bytes(NONCE_BYTES)
        return self.append(sign(self._identity, self.log_id, function, args, nonce, self._clock()))

    def append(self, transaction: SignedTransaction) -> Committed:
        """Append a transaction that anybody signed. Raises as `submit`."""
        genesis, membership = self._founded
        with self._writer.transaction("IMMEDIATE") as log:
            if log.find(genesis.log) is None:
                raise LedgerAway("another ledger lies in the place of this one: start again to use it")
            known = log.find(transaction.tx_id)
            if known is not None:
                event = log.get(event_key(known.position)) or {}
                return _first(log, known.position, event.get("result"))
            last, last_time = log.last()
            position, time = last + 1, self._entry_time(last_time, log.confirmed_clock())
            applied = judge(genesis, membership, log, transaction, position, time)
            if applied.repeats is not None:
                return _first(log, log.first_write(applied.repeats), applied.result)
            row = Row(position, time, transaction.tx_id, transaction.entry(time))
            log.append(row, applied.changes)
        return Committed(row.tx_id, position, time, applied.result)

    def query(self, function: str, args: Mapping[str, Value]) -> Value:
        """As the port says; the question's time is max(clock, last entry)."""
        with self._reader.transaction("DEFERRED") as log:
            time = max(self._clock(), log.last()[1])
            return answer(log, function, args, time)

    def authorities(self) -> Mapping[str, bytes]:
        """As the port says: the policy's, else the genesis'."""
        return {**self._founded[0].organisations, **self.query("GetPolicy", {}).get("certificates", {})}

    @property
    def log_id(self) -> bytes:
        """What a transaction must be signed for, 32 bytes."""
        return self._founded[0].log

    @property
    def size(self) -> int:
        """Number of entries, the genesis included."""
        with self._reader.transaction("DEFERRED") as log:
            return log.last()[0] + 1

    def root(self, size: int | None = None) -> bytes:
        """Root of the tree over the first `size` entries, or over all. Raises IndexError beyond the last."""
        return self.checkpoint(size).root

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        """Size and root, now or at an earlier size: to be kept elsewhere and given to `fsck.check`.

        Raises IndexError beyond the last entry.
        """
        with self._reader.transaction("DEFERRED") as log:
            length = log.last()[0] + 1
            size = length if size is None else size
            if not 0 <= size <= length:
                raise IndexError(f"no tree of {size} entries in a log of {length}")
            return Checkpoint(size, log.root(0, size))

    def inclusion(self, position: int) -> tuple[Checkpoint, list[bytes]]:
        """Proof that an entry is in the tree as it is now (`merkle.verify_inclusion`). Raises IndexError beyond it."""
        with self._reader.transaction("DEFERRED") as log:
            size = log.last()[0] + 1
            if not 0 <= position < size:
                raise IndexError(f"no entry {position} in a log of {size}")
            return Checkpoint(size, log.root(0, size)), log.path(position, 0, size)

    def consistency(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """Proof that the log of `new_size` entries (all, when left out) continues that of `old_size`.

        For `merkle.verify_consistency`. Raises IndexError unless 0 ≤ old size ≤ new size ≤ the log's.
        """
        with self._reader.transaction("DEFERRED") as log:
            length = log.last()[0] + 1
            if new_size is not None and new_size > length:
                raise IndexError(f"no tree of {new_size} entries in a log of {length}")
            return consistency_proof(old_size, length if new_size is None else new_size, log.root)

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """The entries' bytes (the tree's leaf inputs) from a position on."""
        while True:
            with self._reader.transaction("DEFERRED") as log:
                rows = log.page(start)
            if not rows:
                return
            yield from (row.entry for row in rows)
            start = rows[-1].position + 1

    def confirm_clock(self) -> None:
        """The operator's word that this machine's clock is right, though more than 31 days after the last entry."""
        with self._writer.transaction("IMMEDIATE") as log:
            log.confirm_clock(self._clock())

    @cached_property
    def _founded(self) -> tuple[Genesis, Membership]:
        with self._reader.transaction("DEFERRED") as log:
            return read_genesis(log)

    def _entry_time(self, last_time: int, confirmed: int) -> int:
        now = self._clock()
        if now > max(last_time, confirmed) + CLOCK_JUMP_S:
            raise LedgerAway(
                f"the clock ({now}) is more than 31 days after the last entry ({last_time}): correct it, or say that "
                "it is right with `orthanc-ledger ledger confirm-clock`"
            )
        return max(now, last_time)


class _Connection:
    """The file at a path, for one thread at a time. What goes into a file that lies there no more is lost."""

    def __init__(self, path: Path, patience_s: float | None) -> None:
        self._path, self._patience_s, self._lock = path, patience_s, threading.Lock()
        self._log: LogFile | None = None

    @contextmanager
    def transaction(self, mode: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[LogFile]:
        """As `LogFile.transaction`; not over before the file was seen in its place again. Raises LedgerAway."""
        with self._lock, reachable(self._path):
            log = self._log = self._log or self._open()
            self._check_in_place(log)
            with log.transaction(mode):
                yield log
            self._check_in_place(log)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _open(self) -> LogFile:
        log = LogFile(self._path, self._patience_s)
        try:
            if foreign := log.foreign():
                raise LedgerAway(f"{self._path}: not as a ledger is made: {', '.join(foreign)}; `fsck` says more")
        except BaseException:
            log.close()
            raise
        return log

    def _check_in_place(self, log: LogFile) -> None:
        if not log.in_place():
            self.close()
            raise LedgerAway(f"{self._path}: was replaced while open; the next call opens what is there now")


def _first(log: LogFile, position: int, result: Value) -> Committed:
    row = log.entry(position)
    if row is None:
        raise IntegrityError(f"entry {position} is missing: the ledger's file is damaged, restore a copy")
    return Committed(row.tx_id, row.position, row.time, result)
