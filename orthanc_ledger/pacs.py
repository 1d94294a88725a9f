"""What Orthanc holds of this node's objects, and what became of them there: one SQLite file, used by Orthanc's process
and the node's.

The plugin notes what its hooks see, the reconciler what they missed (reconcile.py). What is gone from Orthanc waits
here for a person to decide. It names patients' studies and never leaves the node.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from orthanc_ledger.clock import Clock
from orthanc_ledger.database import Database
from orthanc_ledger.pacs_comparison import OBJECT, Comparison, Object

How = Literal["modified", "anonymized"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS place (
    one INTEGER PRIMARY KEY CHECK (one = 1), installed INTEGER NOT NULL, started INTEGER NOT NULL, sequence INTEGER,
    change TEXT,
    compared INTEGER NOT NULL DEFAULT 0, doubted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS objects (
    id TEXT PRIMARY KEY, study_uid TEXT NOT NULL, sop_uid TEXT NOT NULL, noted INTEGER NOT NULL, gone INTEGER,
    replaced INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_study ON objects (study_uid);
CREATE INDEX IF NOT EXISTS objects_gone ON objects (study_uid, gone) WHERE gone IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_by_uid ON objects (sop_uid);
CREATE TABLE IF NOT EXISTS earlier (id TEXT PRIMARY KEY, study_uid TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS earlier_by_study ON earlier (study_uid);
CREATE TABLE IF NOT EXISTS untaken (
    id TEXT PRIMARY KEY, study_uid TEXT NOT NULL, origin TEXT NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deleted (id TEXT PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS derived (
    study_uid TEXT NOT NULL, source_uid TEXT NOT NULL, how TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (study_uid, source_uid)) WITHOUT ROWID;
"""


class Untaken(NamedTuple):
    """An object that cannot be taken from Orthanc with an origin, since when (seconds of UTC), and why."""

    id: str
    study_uid: str
    origin: str
    since: int
    reason: str


@dataclass(frozen=True)
class Place:
    """How far Orthanc's changes were read. ``installed``, ``started``: the plugin's first and last start, seconds of
    UTC; ``sequence``: of the last change read, None before the first look; ``change``: what that change was, None when
    Orthanc has none there; ``compared``: when all that Orthanc holds was last compared; ``doubted``: whether something
    may have been missed since.
    """

    installed: int
    started: int
    sequence: int | None = None
    change: str | None = None
    compared: int = 0
    doubted: bool = False


@dataclass(frozen=True)
class Gone:
    """Objects of a study that the node keeps and Orthanc has no more: how many, and since when (seconds of UTC).
    ``left``: how many of the study it still has.
    """

    study_uid: str
    count: int
    since: int
    left: int


@dataclass(frozen=True)
class Derived:
    """A study that staff had Orthanc make of another; ``source_uid`` is empty where nobody knows that one any more."""

    study_uid: str
    source_uid: str
    how: How
    since: int


class Pacs:
    """Every change is durable when its method returns. Raises what SQLite raises."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._db = Database(path, _SCHEMA)
        self._clock = clock

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    def compare(self) -> Comparison:
        """Begin to compare all that is kept here with what Orthanc holds."""
        return Comparison(self._db, self._clock())

    # How far it is known

    def start(self) -> None:
        """Keep that the plugin starts, and when it did first."""
        now = self._clock()
        with self._db.write() as db:
            sql = (
                "INSERT INTO place (one, installed, started) VALUES (1, ?1, ?1) ON CONFLICT DO UPDATE SET started = ?1"
            )
            db.execute(sql, (now,))

    def begin(self, sequence: int, change: str | None) -> None:
        """Keep Orthanc's last change before the plugin, unless a place is kept already."""
        with self._db.write() as db:
            db.execute("UPDATE place SET sequence = ?, change = ? WHERE sequence IS NULL", (sequence, change))

    def place(self) -> Place:
        """How far Orthanc's changes were read."""
        rows = self._db.rows("SELECT installed, started, sequence, change, compared, doubted FROM place")
        return Place(*rows[0]) if rows else Place(self._clock(), self._clock())

    def go_on(self, sequence: int, change: str | None) -> None:
        """Read on behind this change."""
        with self._db.write() as db:
            db.execute("UPDATE place SET sequence = ?, change = ?", (sequence, change))

    def doubt(self) -> None:
        """Keep that something may have been missed."""
        with self._db.write() as db:
            db.execute("UPDATE place SET doubted = 1")

    def keep_compared(self, time: int) -> None:
        """Keep when all was compared."""
        with self._db.write() as db:
            db.execute("UPDATE place SET compared = ?, doubted = 0", (time,))

    # What Orthanc holds

    def note(self, seen: Iterable[tuple[str, str, str]]) -> None:
        """Keep that Orthanc holds objects that the node has: Orthanc's id, Study and SOP Instance UID."""
        now = self._clock()
        with self._db.write() as db:
            for id, study_uid, sop_uid in seen:
                db.execute(
                    f"INSERT INTO objects ({OBJECT}) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                    "noted = excluded.noted, replaced = iif(gone IS NULL, replaced, excluded.noted), gone = NULL",
                    (id, study_uid, sop_uid, now),
                )
                _is_no_other(db, id)

    def object(self, id: str) -> Object | None:
        """What an id of Orthanc names, if that was noted."""
        rows = self._db.rows(f"SELECT {OBJECT} FROM objects WHERE id = ?", id)
        return Object(*rows[0]) if rows else None

    def has_other(self, id: str, sop_uid: str) -> bool:
        """Whether another id of Orthanc's than this one is known with a SOP Instance UID."""
        return bool(self._db.rows("SELECT 1 FROM objects WHERE sop_uid = ? AND id != ? LIMIT 1", sop_uid, id))

    def unknown(self, ids: Iterable[str]) -> list[str]:
        """Those of Orthanc's ids of which nothing is kept here."""
        found = " UNION ALL ".join(f"SELECT id FROM {table}" for table in ("objects", "earlier", "untaken"))
        sql = f"SELECT value FROM json_each(?) WHERE value NOT IN ({found})"
        return [id for (id,) in self._db.rows(sql, json.dumps(list(ids)))]

    def keep_earlier(self, ids: Iterable[str], study_uid: str) -> None:
        """Keep that objects came before the plugin: a backfill takes them."""
        with self._db.write() as db:
            db.executemany("INSERT OR IGNORE INTO earlier VALUES (?, ?)", [(id, study_uid) for id in ids])

    def held(self, study_uid: str) -> int:
        """How many objects of a study Orthanc holds, as far as known."""
        tables = ("objects WHERE gone IS NULL AND", "earlier WHERE", "untaken WHERE")
        sql = " + ".join(f"(SELECT COUNT(*) FROM {table} study_uid = ?1)" for table in tables)
        [(count,)] = self._db.rows(f"SELECT {sql}", study_uid)
        return int(count)

    def earlier(self, study_uid: str | None = None) -> int:
        """How many objects came before the plugin and were not taken, of a study or of all."""
        sql = "SELECT COUNT(*) FROM earlier WHERE study_uid = COALESCE(?, study_uid)"
        [(count,)] = self._db.rows(sql, study_uid)
        return int(count)

    def earlier_study(self, after: str = "") -> str | None:
        """The next study that has such objects."""
        found: str | None = self._db.rows("SELECT MIN(study_uid) FROM earlier WHERE study_uid > ?", after)[0][0]
        return found

    def earlier_ids(self, study_uid: str) -> list[str]:
        """Orthanc's ids of such objects of a study."""
        return [id for (id,) in self._db.rows("SELECT id FROM earlier WHERE study_uid = ? ORDER BY id", study_uid)]

    def keep_untaken(self, id: str, study_uid: str, origin: str, reason: str) -> None:
        """Keep that an object cannot be taken from Orthanc as it is."""
        with self._db.write() as db:
            _is_no_other(db, id)
            values = (id, study_uid, origin, self._clock(), reason)
            db.execute("INSERT INTO untaken VALUES (?, ?, ?, ?, ?)", values)

    def untaken(self) -> list[Untaken]:
        """What cannot be taken, oldest first."""
        return [Untaken(*row) for row in self._db.rows("SELECT * FROM untaken ORDER BY since, id")]

    # What staff did

    def deleted(self, ids: Iterable[str]) -> None:
        """Keep that Orthanc deleted something; whether it came again is to be seen."""
        now = self._clock()
        with self._db.write() as db:
            for id in ids:
                db.execute("INSERT OR IGNORE INTO deleted SELECT id, ? FROM objects WHERE id = ?", (now, id))
                _is_no_other(db, id)

    def to_look_after(self, until: int) -> list[Object]:
        """What Orthanc deleted until then (seconds of UTC), of a study together."""
        sql = f"SELECT {OBJECT} FROM objects JOIN deleted USING (id) WHERE time <= ? ORDER BY study_uid, id"
        return [Object(*row) for row in self._db.rows(sql, until)]

    def keep_gone(self, objects: Iterable[Object]) -> None:
        """Keep that Orthanc has them no more."""
        now = self._clock()
        with self._db.write() as db:
            for each in objects:
                db.execute("UPDATE objects SET gone = COALESCE(gone, ?) WHERE id = ?", (now, each.id))
                db.execute("DELETE FROM deleted WHERE id = ?", (each.id,))

    def drop(self, objects: Iterable[Object]) -> None:
        """Forget objects: neither Orthanc has them nor the node."""
        with self._db.write() as db:
            for table in ("objects", "deleted"):
                db.executemany(f"DELETE FROM {table} WHERE id = ?", [(each.id,) for each in objects])

    def keep_replaced(self, each: Object, id: str) -> None:
        """Keep that Orthanc deleted an object and has one with its UID again, under the same id or another."""
        with self._db.write() as db:
            db.execute("DELETE FROM deleted WHERE id = ?", (each.id,))
            if id != each.id:
                db.execute("DELETE FROM objects WHERE id = ?", (each.id,))
                db.execute(f"INSERT OR IGNORE INTO objects ({OBJECT}) VALUES (?, ?, ?, ?)", each._replace(id=id))
            db.execute("UPDATE objects SET replaced = ? WHERE id = ?", (self._clock(), id))

    def replaced(self, sop_uid: str) -> int | None:
        """Since when Orthanc has another object than before under a SOP Instance UID; None: not, as far as known."""
        sql = "SELECT MAX(replaced) FROM objects WHERE sop_uid = ? AND replaced IS NOT NULL"
        found: int | None = self._db.rows(sql, sop_uid)[0][0]
        return found

    def keep_derived(self, derived: Derived) -> None:
        """Keep of what Orthanc made a study."""
        values = (derived.study_uid, derived.source_uid, derived.how, derived.since)
        with self._db.write() as db:
            db.execute("INSERT OR IGNORE INTO derived VALUES (?, ?, ?, ?)", values)

    def gone(self, study_uid: str | None = None) -> list[Gone]:
        """Studies that Orthanc lacks something of, for a person to decide: all, or one; the longest waiting first."""
        sql = """
            SELECT study_uid, COUNT(*), MIN(gone), (
                SELECT COUNT(*) FROM objects WHERE study_uid = each.study_uid AND gone IS NULL)
            FROM objects AS each WHERE gone IS NOT NULL AND study_uid = COALESCE(?, study_uid)
            GROUP BY study_uid ORDER BY MIN(gone), study_uid"""
        return [Gone(*row) for row in self._db.rows(sql, study_uid)]

    def derived(self) -> list[Derived]:
        """Studies made of others, oldest first."""
        return [Derived(*row) for row in self._db.rows("SELECT * FROM derived ORDER BY since, study_uid")]

    def decided(self, study_uid: str) -> int:
        """Forget what is gone of a study, as a person decided; how many objects that were."""
        with self._db.write() as db:
            sql = "DELETE FROM objects WHERE study_uid = ? AND gone IS NOT NULL"
            return db.execute(sql, (study_uid,)).rowcount

    def forget_study(self, study_uid: str) -> None:
        """Leave nothing of a study in the file."""
        with self._db.write() as db:
            db.execute("DELETE FROM deleted WHERE id IN (SELECT id FROM objects WHERE study_uid = ?)", (study_uid,))
            for table in ("objects", "earlier", "untaken", "derived"):
                db.execute(f"DELETE FROM {table} WHERE study_uid = ?", (study_uid,))
            db.execute("UPDATE derived SET source_uid = '' WHERE source_uid = ?", (study_uid,))
        self._db.scrub()


def _is_no_other(db: sqlite3.Connection, id: str) -> None:
    """Drop what else was kept of an id of Orthanc."""
    for table in ("earlier", "untaken"):
        db.execute(f"DELETE FROM {table} WHERE id = ?", (id,))
