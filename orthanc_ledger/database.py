"""The node's own SQLite files: one connection a thread, every write one durable transaction."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Database:
    """A SQLite file (WAL, synchronous=FULL) that several local processes and threads use at once."""

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._local = threading.local()
        # Patients' data and keys: its owner's only. SQLite makes its -wal and -shm files as the file is.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self.connection().executescript(schema)

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;")
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: durable when the block ends, undone when it raises."""
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
                connection.execute("ROLLBACK")
            raise

    def scrub(self) -> None:
        """Leave nothing of deleted rows in the file and its log.

        `secure_delete` overwrites what is deleted, but not what a page that was divided keeps of it, nor the log
        (sqlite.org, "PRAGMA secure_delete", "VACUUM"). Raises sqlite3.OperationalError when others read for too long.
        """
        connection = self.connection()
        connection.execute("VACUUM")
        [(is_busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if is_busy:
            raise sqlite3.OperationalError("others read for too long: its log still holds deleted rows")

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        return self.connection().execute(sql, values).fetchall()
