"""The node's SQLite files: nothing of deleted rows is left once they are scrubbed."""

import random
import sqlite3
from pathlib import Path

import pytest

from orthanc_ledger.database import Database

MARK = b"to be deleted"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose pages were divided again and again, with a third of its rows deleted."""
    drawn, path = random.Random(3), tmp_path / "rows.db"
    schema = (
        "CREATE TABLE t (claim TEXT PRIMARY KEY, uid TEXT UNIQUE, study TEXT, text TEXT); CREATE INDEX s ON t (study);"
    )
    database = Database(path, schema)
    with database.write() as db:
        for number in range(6_000):
            study = drawn.choice([MARK.decode(), "a", "b"])
            uid = f"{study} {number}"
            row = (f"{drawn.getrandbits(256):064x}", uid, study, uid * drawn.randint(1, 60))
            db.execute("INSERT INTO t VALUES (?, ?, ?, ?)", row)
            if number % 3 == 0:
                db.execute("UPDATE t SET text = text || text WHERE uid = ?", (uid,))
    with database.write() as db:
        db.execute("DELETE FROM t WHERE study = ?", (MARK.decode(),))
    database.close()
    return path


def test_secure_delete_alone_leaves_some(path: Path) -> None:
    """Why scrubbing makes the file anew."""
    assert MARK in path.read_bytes()


def test_scrubbed_it_has_none_in_file_and_log_and_keeps_rowids(path: Path) -> None:
    database = Database(path, "")
    before = database.rows("SELECT rowid, * FROM t")
    database.scrub()
    assert MARK not in path.read_bytes() + path.with_name("rows.db-wal").read_bytes()
    assert database.rows("SELECT rowid, * FROM t") == before  # a listing that is under way asks on by them


def test_a_reader_that_stays_is_told(path: Path) -> None:
    database, reader = Database(path, ""), sqlite3.connect(path, isolation_level=None)
    database.connection().execute("PRAGMA busy_timeout = 1")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t LIMIT 1").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="others read"):
        database.scrub()
    reader.close()
    database.scrub()
