"""The embedded ledger's file: entries, the nodes of their Merkle tree and the contract's state, in one SQLite database.

Nothing here is ever updated or deleted: a key's value is its latest row in `state`. Only perfect subtrees are kept; the
right edge of the tree is folded when it is asked for, O(log n) (RFC 6962 2.1).
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import dag_cbor

from orthanc_ledger.errors import ConfigError, IntegrityError, LedgerAway
from orthanc_ledger.ledger.contract.call import Value
from orthanc_ledger.merkle import EMPTY_ROOT, leaf_hash, node_hash

BUSY_TIMEOUT_S = 10.0
TABLES = {
    "entries": """CREATE TABLE entries (
        position INTEGER PRIMARY KEY, time INTEGER NOT NULL, tx_id BLOB NOT NULL UNIQUE, entry BLOB NOT NULL
    ) STRICT""",
    "subtrees": """CREATE TABLE subtrees (
        level INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, number)
    ) STRICT, WITHOUT ROWID""",
    "state": """CREATE TABLE state (
        key TEXT NOT NULL, position INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (key, position)
    ) STRICT, WITHOUT ROWID""",
    "confirmed_clocks": "CREATE TABLE confirmed_clocks (time INTEGER NOT NULL) STRICT",
}


@dataclass(frozen=True)
class Checkpoint:
    """The tree at a size, to be kept where the ledger's owner cannot change it."""

    size: int
    root: bytes


@dataclass(frozen=True)
class Row:
    """One entry as it is kept."""

    position: int
    time: int
    tx_id: bytes
    entry: bytes


class LogFile:
    """One connection to the file. Not for two threads at once."""

    def __init__(self, path: Path, patience_s: float | None = None) -> None:
        """``patience_s``: how long to wait for others that write; None: BUSY_TIMEOUT_S.

        Raises LedgerAway when there is no such file, or it cannot be opened.
        """
        self._path, self._file = path, _file_at(path)
        if self._file is None:
            raise LedgerAway(f"{path}: not there: mount its disk or restore it")
        with reachable(path):
            self._db = _connect(path, BUSY_TIMEOUT_S if patience_s is None else patience_s)

    @classmethod
    def create(cls, path: Path, genesis: Row) -> "LogFile":
        """A new file with its first entry, mode 0600. Raises ConfigError when it exists or cannot be made."""
        try:
            path.touch(0o600, exist_ok=False)
        except FileExistsError as error:
            raise ConfigError(f"{path}: exists already; a ledger is never overwritten") from error
        except OSError as error:
            raise ConfigError(f"{path}: cannot be made: {error.strerror}") from error
        log = cls(path)
        log._db.execute("PRAGMA journal_mode=WAL")
        with log.transaction("IMMEDIATE"):
            for table in TABLES.values():
                log._db.execute(table)
            log.append(genesis, {})
        return log

    def close(self) -> None:
        self._db.close()

    def in_place(self) -> bool:
        """Whether the file at the path still is the one that was opened."""
        return _file_at(self._path) == self._file

    def foreign(self) -> list[str]:
        """Names of the tables, indexes, views and triggers that are not as a ledger's, or are missing."""
        found = self._db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return sorted({name for name, _ in set(found) ^ set(TABLES.items())})

    @contextmanager
    def transaction(self, mode: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
        """All or nothing: committed when the block ends, rolled back when it raises. DEFERRED reads one snapshot."""
        self._db.execute(f"BEGIN {mode}")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    # Entries

    def last(self) -> tuple[int, int]:
        """Position and time of the last entry; (-1, 0) when there is none."""
        row = self._db.execute("SELECT position, time FROM entries ORDER BY position DESC LIMIT 1").fetchone()
        return row or (-1, 0)

    def entry(self, position: int) -> Row | None:
        row = self._db.execute("SELECT * FROM entries WHERE position = ?", (position,)).fetchone()
        return Row(*row) if row else None

    def find(self, tx_id: bytes) -> Row | None:
        row = self._db.execute("SELECT * FROM entries WHERE tx_id = ?", (tx_id,)).fetchone()
        return Row(*row) if row else None

    def page(self, start: int, limit: int = 256) -> list[Row]:
        query = "SELECT * FROM entries WHERE position >= ? ORDER BY position LIMIT ?"
        return [Row(*row) for row in self._db.execute(query, (start, limit))]

    def append(self, row: Row, changes: Mapping[str, Value]) -> None:
        """Write an entry, the tree nodes it completes and the state it changes, inside the caller's transaction."""
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (row.position, row.time, row.tx_id, row.entry))
        subtrees = completed(row.position, row.entry, self.subtree)
        self._db.executemany("INSERT INTO subtrees VALUES (?, ?, ?)", subtrees)
        rows = [(key, row.position, dag_cbor.encode(value)) for key, value in changes.items()]
        self._db.executemany("INSERT INTO state VALUES (?, ?, ?)", rows)

    # The operator's word on a clock that jumped

    def confirmed_clock(self) -> int:
        """The latest clock an operator confirmed, UTC seconds; 0 when none was."""
        confirmed: int = self._db.execute("SELECT coalesce(max(time), 0) FROM confirmed_clocks").fetchone()[0]
        return confirmed

    def confirm_clock(self, time: int) -> None:
        self._db.execute("INSERT INTO confirmed_clocks VALUES (?)", (time,))

    # The tree

    def subtree(self, level: int, number: int) -> bytes:
        """Root of the perfect subtree over entries [number · 2^level, (number + 1) · 2^level).

        Raises IntegrityError when it is missing.
        """
        row = self._db.execute("SELECT hash FROM subtrees WHERE level = ? AND number = ?", (level, number)).fetchone()
        if row is None:
            raise IntegrityError(f"tree node {level}/{number} is missing: the ledger's file is damaged, restore a copy")
        digest: bytes = row[0]
        return digest

    def root(self, start: int, end: int) -> bytes:
        """MTH of the entries [start, end); `start` is a multiple of the smallest power of two that covers them."""
        size = end - start
        if size == 0:
            return EMPTY_ROOT
        level = size.bit_length() - 1
        left = self.subtree(level, start >> level)
        rest = start + (1 << level)
        return left if rest == end else node_hash(left, self.root(rest, end))

    def path(self, position: int, start: int, end: int) -> list[bytes]:
        """PATH(position, entries [start, end)) of RFC 6962 2.1.1, from the leaf's sibling up."""
        if end - start == 1:
            return []
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if position < middle:
            return [*self.path(position, start, middle), self.root(middle, end)]
        return [*self.path(position, middle, end), self.root(start, middle)]

    # The contract's state

    def get(self, key: str) -> Value | None:
        row = self._db.execute(
            "SELECT value FROM state WHERE key = ? ORDER BY position DESC LIMIT 1", (key,)
        ).fetchone()
        return decode_value(key, row[0]) if row else None

    def scan(self, prefix: str, after: str = "") -> Iterator[tuple[str, Value]]:
        # Keys are ASCII: U+10FFFF is above all of them. With max() SQLite takes `value` from the row of the maximum.
        query = "SELECT key, value, max(position) FROM state WHERE key > ? AND key < ? GROUP BY key ORDER BY key"
        for key, value, _ in self._db.execute(query, (max(prefix, after), prefix + "\U0010ffff")):
            yield key, decode_value(key, value)

    def history(self, key: str) -> Iterator[tuple[int, Value]]:
        query = "SELECT position, value FROM state WHERE key = ? ORDER BY position"
        for position, value in self._db.execute(query, (key,)):
            yield position, decode_value(key, value)

    def first_write(self, key: str) -> int:
        """Position of the entry that wrote a key first."""
        position: int = self._db.execute("SELECT min(position) FROM state WHERE key = ?", (key,)).fetchone()[0]
        return position


def completed(position: int, entry: bytes, subtree: Callable[[int, int], bytes]) -> list[tuple[int, int, bytes]]:
    """(level, number, hash) of every perfect subtree that the entry at `position` completes, its leaf first."""
    level, number, digest = 0, position, leaf_hash(entry)
    nodes = [(level, number, digest)]
    while number & 1:
        digest = node_hash(subtree(level, number - 1), digest)
        level, number = level + 1, number >> 1
        nodes.append((level, number, digest))
    return nodes


def decode_value(key: str, encoded: bytes) -> Value:
    """A value of the state. Raises IntegrityError when the bytes are no dag-cbor."""
    try:
        return dag_cbor.decode(encoded)
    except (dag_cbor.decoding.CBORDecodingError, ArithmeticError, LookupError, ValueError, RecursionError) as error:
        raise IntegrityError(f"state {key}: not dag-cbor: the ledger's file is damaged, restore a copy") from error


@contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into LedgerAway: nothing of the transaction was written."""
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerAway(f"{path}: {error}") from error


def _file_at(path: Path) -> tuple[int, int] | None:
    """Device and inode of what lies at a path; None when nothing does."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path, patience_s: float) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=patience_s,
        isolation_level=None,
        check_same_thread=False,
    )
    db.execute("PRAGMA synchronous=FULL")
    return db
