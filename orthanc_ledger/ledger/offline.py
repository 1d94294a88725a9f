"""For those who sign on a machine of their own: a copy of the ledger to read, signed transactions as files.

A file holds one transaction as an entry does, with the signer's time in place of the entry's (docs/ledger.md).
"""

import os
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.durable import write_new
from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError
from orthanc_ledger.ledger import Committed, Value, fsck
from orthanc_ledger.ledger.admission import judge, read_genesis
from orthanc_ledger.ledger.contract import NONCE_BYTES
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.ledger.log import LogFile, reachable
from orthanc_ledger.ledger.transaction import SignedTransaction, sign

LARGEST_FILE = 1 << 20
"""Bytes; the largest call the contract takes is far smaller."""


class OfflineLedger:
    """The `Ledger` port on a copy of the ledger: queries are answered from it, a submission is signed into a file.

    Whatever the copy's state refuses is not signed, and nothing on a copy that is not what its signed entries make it.
    """

    def __init__(self, copy: Path, identity: Identity, out: Path, clock: Clock = system_clock) -> None:
        """`out`: the file to make. Reads the whole copy: about a second for 3,000 entries.

        Raises ConfigError when `out` exists, IntegrityError when `fsck.check` finds anything; else as `EmbeddedLedger`.
        """
        if out.exists():
            raise ConfigError(f"{out}: exists already; name another file for what is signed now")
        findings = fsck.check(copy).findings
        if findings:
            first = f"{findings[0].kind}: {findings[0].detail}"
            raise IntegrityError(f"{copy}: nothing is signed on it, as it was changed ({first}); have a new copy sent")
        self._copy, self._identity, self._out, self._clock = copy, identity, out, clock
        self._ledger = EmbeddedLedger(copy, None, clock)

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        """Sign into the file; position, time and result are what they would be if the copy were the ledger.

        Raises ContractError when that would refuse, ConfigError when the file cannot be written.
        """
        nonce = secrets.token_bytes(NONCE_BYTES) if nonce is None else nonce
        transaction = sign(self._identity, self._ledger.log_id, function, args, nonce, self._clock())
        rehearsed = self._rehearse(transaction)
        write_transaction(self._out, transaction)
        return rehearsed

    def query(self, function: str, args: Mapping[str, Value]) -> Value:
        """As the port says, of the copy."""
        return self._ledger.query(function, args)

    def authorities(self) -> Mapping[str, bytes]:
        """As the port says, of the copy."""
        return self._ledger.authorities()

    def close(self) -> None:
        """As the port says."""
        self._ledger.close()

    def _rehearse(self, transaction: SignedTransaction) -> Committed:
        with closing(LogFile(self._copy)) as log, reachable(self._copy), log.transaction("DEFERRED"):
            genesis, members = read_genesis(log)
            last, last_time = log.last()
            time = max(self._clock(), last_time)
            applied = judge(genesis, members, log, transaction, last + 1, time)
        return Committed(transaction.tx_id, last + 1, time, applied.result)


def write_transaction(path: Path, transaction: SignedTransaction) -> None:
    """Make a new file, durable, that holds a signed transaction. Raises ConfigError."""
    try:
        write_new(path, transaction.entry(transaction.time), 0o644)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; name another file") from error


def read_transaction(path: Path) -> SignedTransaction:
    """The transaction in a file, its signature unchecked. Raises ConfigError, IntegrityError when it holds none."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        time, transaction = SignedTransaction.decode_entry(content)
    except ContractError as error:
        raise IntegrityError(
            f"{path}: no signed transaction, or damaged on its way: have it sent again ({error.detail})"
        ) from error
    if time != transaction.time:
        raise IntegrityError(f"{path}: expected the signer's time {transaction.time}, got {time}: have it sent again")
    return transaction


def copy_ledger(source: Path, target: Path) -> None:
    """Copy a ledger's file as it is at one moment, also while processes write to it, into a new file, mode 0600.

    The copy is one file without WAL, so it can be read from a medium that cannot be written.

    Raises ConfigError when there is no ledger, or the target exists or cannot be made; LedgerAway when the copy fails.
    """
    LogFile(source).close()
    try:
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be made: {error.strerror}; name a new file") from error
    try:
        with reachable(source), closing(sqlite3.connect(source, isolation_level=None)) as database:
            database.execute("VACUUM INTO ?", (str(target),))
        os.fsync(file)
    except BaseException:
        target.unlink()
        raise
    finally:
        os.close(file)
