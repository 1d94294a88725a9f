"""Signed envelopes whose commit is not known yet, kept so that the same bytes can be sent again.

Sending an envelope again is harmless: a transaction id is committed once. A second envelope of the same call is not
wrong either, but the contract then has to recognise the repeat.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orthanc_ledger.database import Database
from orthanc_ledger.errors import LedgerAway

FORGOTTEN_AFTER_S = 30 * 86_400
"""A call that nobody made again for so long leaves its envelope to nobody."""

_SCHEMA = """CREATE TABLE IF NOT EXISTS envelopes (
    call BLOB PRIMARY KEY, time INTEGER NOT NULL, envelope BLOB NOT NULL
) STRICT, WITHOUT ROWID"""


@dataclass(frozen=True)
class Kept:
    """A kept envelope and when it was, UTC seconds."""

    time: int
    envelope: bytes


class Envelopes:
    """Envelopes by call, in a SQLite file that several processes and threads use. Every method raises LedgerAway when
    the file cannot be used: what could be lost is not sent.
    """

    def __init__(self, path: Path) -> None:
        """The file is made with the first envelope."""
        self._path = path
        self._lock = threading.Lock()  # SQLite makes writers sleep, a lock only wait
        self._database: Database | None = None

    def find(self, call: bytes) -> Kept | None:
        """The envelope of a call, whoever kept it."""
        with self._usable() as database:
            rows = database.rows("SELECT time, envelope FROM envelopes WHERE call = ?", call)
        return Kept(*rows[0]) if rows else None

    def keep(self, call: bytes, envelope: bytes, time: int) -> Kept:
        """Keep a call's envelope, durable when this returns; the one that counts: another may have been first."""
        with self._usable("FULL") as database, database.write() as rows:
            rows.execute("DELETE FROM envelopes WHERE time < ?", (time - FORGOTTEN_AFTER_S,))
            rows.execute("INSERT INTO envelopes VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (call, time, envelope))
            return Kept(*rows.execute("SELECT time, envelope FROM envelopes WHERE call = ?", (call,)).fetchone())

    def forget(self, call: bytes, envelope: bytes) -> None:
        """Drop a call's envelope, unless another is kept by now. Not durable: its status would be asked once more."""
        with self._usable("NORMAL") as database, database.write() as rows:
            rows.execute("DELETE FROM envelopes WHERE call = ? AND envelope = ?", (call, envelope))

    def close(self) -> None:
        """Close this thread's connection to the file."""
        if self._database is not None:
            self._database.close()

    @contextlib.contextmanager
    def _usable(self, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Iterator[Database]:
        try:
            with self._lock:
                if self._database is None:
                    self._database = Database(self._path, _SCHEMA)
                self._database.connection().execute(f"PRAGMA synchronous={synchronous}")
                yield self._database
        except (OSError, sqlite3.Error) as error:
            raise LedgerAway(
                f"{self._path}: signed envelopes cannot be kept there: {error}; make it writable, or name another file "
                "with `envelopes` in the connection file"
            ) from error
