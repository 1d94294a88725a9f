"""What this node holds: studies, series, instances and their state, prepared batches and supersessions.

One SQLite file used by all of the node's processes. It holds patient data and never leaves the node.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orthanc_ledger.attributes import Attributes
from orthanc_ledger.database import Database
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.listing import INDEXES, Listing
from orthanc_ledger.manifest import Manifest

State = Literal["spooled", "anchored", "quarantined"]

_VERSION = 2  # of the tables and of what is in them
# An object's row is too long for WITHOUT ROWID: half of it would lie on a page of its own.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    study_uid TEXT PRIMARY KEY, token BLOB UNIQUE, patient_id TEXT NOT NULL, attributes TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS studies_by_patient ON studies (patient_id);
CREATE TABLE IF NOT EXISTS series (
    study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, attributes TEXT NOT NULL,
    PRIMARY KEY (study_uid, series_uid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instances (
    claim TEXT PRIMARY KEY, sop_uid TEXT NOT NULL UNIQUE, series_uid TEXT NOT NULL, study_uid TEXT NOT NULL,
    sop_class TEXT NOT NULL, transfer_syntax TEXT NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL,
    received_us INTEGER NOT NULL, origin TEXT NOT NULL, sender TEXT NOT NULL, attributes TEXT NOT NULL,
    state TEXT NOT NULL, spool_name TEXT NOT NULL, batch INTEGER, manifest TEXT, object TEXT);
CREATE INDEX IF NOT EXISTS instances_by_series ON instances (series_uid);
CREATE INDEX IF NOT EXISTS instances_by_batch ON instances (batch);
CREATE INDEX IF NOT EXISTS instances_waiting ON instances (study_uid, received_us, state, batch)
    WHERE state = 'spooled' AND batch IS NULL;
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY, study_uid TEXT NOT NULL, token BLOB NOT NULL, seq INTEGER NOT NULL,
    manifest TEXT NOT NULL UNIQUE, root BLOB NOT NULL, count INTEGER NOT NULL, position INTEGER);
CREATE TABLE IF NOT EXISTS supersessions (
    conflict TEXT PRIMARY KEY, claim TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL,
    old_manifest TEXT NOT NULL, new_manifest TEXT, object TEXT, nonce BLOB, ledger_id BLOB) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Instance:
    """One object this node holds.

    ``size``: bytes of its data set; ``sender``: as `Arrival` has it; ``spool_name`` is empty once it is anchored.
    """

    claim: str
    sop_uid: str
    series_uid: str
    study_uid: str
    sop_class: str
    transfer_syntax: str
    size: int
    sha256: bytes
    received_us: int
    origin: str
    sender: str
    state: State
    spool_name: str
    batch: int | None = None
    manifest: str | None = None
    object: str | None = None


@dataclass(frozen=True)
class Batch:
    """A prepared batch: what ``Anchor`` is called with. ``position`` is set once it is on the ledger."""

    id: int
    study_uid: str
    token: bytes
    seq: int
    manifest: str
    root: bytes
    count: int
    position: int | None


@dataclass(frozen=True)
class Waiting:
    """A study's objects in no batch yet: how many, and when the oldest and the newest arrived (µs of UTC)."""

    study_uid: str
    count: int
    oldest_us: int
    newest_us: int


@dataclass(frozen=True)
class Supersession:
    """A decision that a unit of the conflict queue replaces the current record. ``state`` goes
    decided → prepared → proposed (on the ledger) → confirmed; or ends as ``refused: `` and why."""

    conflict: str
    claim: str
    reason: str
    state: str
    old_manifest: str
    new_manifest: str | None = None
    object: str | None = None
    nonce: bytes | None = None
    ledger_id: bytes | None = None


# Asked many times a second, with a backlog of many thousands: from this index alone.
WAITING = """
SELECT study_uid, COUNT(*), MIN(received_us), MAX(received_us) FROM instances INDEXED BY instances_waiting
WHERE state = 'spooled' AND batch IS NULL GROUP BY study_uid"""

_COLUMNS = frozenset(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"))
_INSTANCE = ", ".join(Instance.__annotations__)
_BATCH = ", ".join(Batch.__annotations__)
_SUPERSESSION = ", ".join(Supersession.__annotations__)


class Index:
    """One connection per thread; every write is one durable transaction."""

    def __init__(self, path: Path) -> None:
        """Open an index, or make an empty one. Raises ConfigError when it is of another version of this software."""
        self._db = Database(path, "")
        self._make(path)
        self.listing = Listing(self._db)

    def _make(self, path: Path) -> None:
        """All tables at once, with their version: no other process sees some of them."""
        [(version, tables)] = self._db.rows(
            "SELECT user_version, (SELECT COUNT(*) FROM sqlite_schema) FROM pragma_user_version"
        )
        if not tables:
            script = f"BEGIN IMMEDIATE; {_SCHEMA + INDEXES} PRAGMA user_version = {_VERSION}; COMMIT;"
            self._db.connection().executescript(script)
        elif version != _VERSION:
            raise ConfigError(
                f"{path} is an index of version {version}, expected {_VERSION}: stop the node and make it anew with "
                "`orthanc-ledger reindex`"
            )

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    # Instances

    def claimed(self, claim: str) -> bytes | None:
        """SHA-256 of the data set that holds the claim, or None."""
        rows = self._db.rows("SELECT sha256 FROM instances WHERE claim = ?", claim)
        return rows[0][0] if rows else None

    def enter(self, found: Iterable[tuple[Instance, Attributes]]) -> None:
        """Enter new objects; one that is there already stays as it is."""
        with self._db.write() as db:
            for instance, attributes in found:
                _enter(db, instance, attributes)

    def instance(self, claim: str) -> Instance | None:
        """The object that holds a claim, or None."""
        rows = self._db.rows(f"SELECT {_INSTANCE} FROM instances WHERE claim = ?", claim)
        return Instance(*rows[0]) if rows else None

    def select(
        self,
        patient_ids: Sequence[str] = (),
        studies: Sequence[str] = (),
        series: Sequence[str] = (),
        instances: Sequence[str] = (),
    ) -> list[Instance]:
        """Objects that match all keys given, a key being a list of values; oldest first."""
        wheres, values = ["1"], []
        for column, wanted in (("study_uid", studies), ("series_uid", series), ("sop_uid", instances)):
            if wanted:
                wheres.append(f"{column} IN (SELECT value FROM json_each(?))")
                values.append(json.dumps(list(wanted)))
        if patient_ids:
            wheres.append(
                "study_uid IN (SELECT study_uid FROM studies WHERE patient_id IN (SELECT value FROM json_each(?)))"
            )
            values.append(json.dumps(list(patient_ids)))
        rows = self._db.rows(
            f"SELECT {_INSTANCE} FROM instances WHERE {' AND '.join(wheres)} ORDER BY received_us, sop_uid", *values
        )
        return [Instance(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many objects are in each state."""
        return dict(self._db.rows("SELECT state, COUNT(*) FROM instances GROUP BY state"))

    def set_state(self, claim: str, state: State, spool_name: str) -> None:
        """Move an object to quarantine and back."""
        with self._db.write() as db:
            db.execute(
                "UPDATE instances SET state = ?, spool_name = ?, batch = NULL WHERE claim = ?",
                (state, spool_name, claim),
            )

    def forget(self, claim: str) -> None:
        """Drop an object whose bytes a person decided to discard."""
        with self._db.write() as db:
            db.execute("DELETE FROM instances WHERE claim = ?", (claim,))

    def forget_study(self, study_uid: str) -> None:
        """Drop all that is known of a study; one that is not known is no error."""
        with self._db.write() as db:
            claims = "SELECT claim FROM instances WHERE study_uid = ?"
            db.execute(f"DELETE FROM supersessions WHERE claim IN ({claims})", (study_uid,))
            for table in ("instances", "series", "batches", "studies"):
                db.execute(f"DELETE FROM {table} WHERE study_uid = ?", (study_uid,))

    def scrub(self) -> None:
        """Leave nothing of what was dropped in the file."""
        self._db.scrub()

    # Studies

    def studies(self, study_uids: Sequence[str] | None = None) -> list[tuple[str, bytes | None, dict[str, str]]]:
        """(Study Instance UID, token or None, attributes) of all studies or the named ones."""
        where, values = (
            ("", ())
            if study_uids is None
            else ("WHERE study_uid IN (SELECT value FROM json_each(?))", (json.dumps(list(study_uids)),))
        )
        rows = self._db.rows(f"SELECT study_uid, token, attributes FROM studies {where} ORDER BY study_uid", *values)
        return [(uid, token, json.loads(attributes)) for uid, token, attributes in rows]

    def series_attributes(self, study_uid: str) -> list[tuple[str, dict[str, str]]]:
        """(Series Instance UID, attributes) of a study's series."""
        rows = self._db.rows(
            "SELECT series_uid, attributes FROM series WHERE study_uid = ? ORDER BY series_uid", study_uid
        )
        return [(uid, json.loads(attributes)) for uid, attributes in rows]

    def study_of_token(self, token: bytes) -> str | None:
        """Study Instance UID of a study token, or None when this node holds no such study."""
        rows = self._db.rows("SELECT study_uid FROM studies WHERE token = ?", token)
        return rows[0][0] if rows else None

    # Batches

    def waiting(self) -> list[Waiting]:
        """Studies with objects in no batch yet."""
        return [Waiting(*row) for row in self._db.rows(WAITING)]

    def waiting_instances(self, study_uid: str, limit: int) -> list[Instance]:
        """The oldest objects of a study that are in no batch."""
        rows = self._db.rows(
            f"SELECT {_INSTANCE} FROM instances INDEXED BY instances_waiting "
            "WHERE study_uid = ? AND state = 'spooled' AND batch IS NULL ORDER BY received_us, sop_uid LIMIT ?",
            study_uid,
            limit,
        )
        return [Instance(*row) for row in rows]

    def next_seq(self, study_uid: str) -> int:
        """The number of a study's next batch."""
        seq: int = self._db.rows("SELECT COALESCE(MAX(seq) + 1, 0) FROM batches WHERE study_uid = ?", study_uid)[0][0]
        return seq

    def keep_prepared(
        self, study_uid: str, manifest: Manifest, objects: Mapping[str, str], decision: Supersession | None = None
    ) -> None:
        """Keep a prepared batch, the objects (claim → CID) it makes the current ones, the decision it carries out."""
        with self._db.write() as db:
            batch = db.execute(
                "INSERT INTO batches (study_uid, token, seq, manifest, root, count) VALUES (?, ?, ?, ?, ?, ?)",
                (study_uid, manifest.study_token, manifest.seq, manifest.cid, manifest.record_root, manifest.count),
            ).lastrowid
            db.execute("UPDATE studies SET token = ? WHERE study_uid = ?", (manifest.study_token, study_uid))
            db.executemany(
                "UPDATE instances SET batch = ?, manifest = ?, object = ? WHERE claim = ?",
                [(batch, manifest.cid, cid, claim) for claim, cid in objects.items()],
            )
            if decision is not None:
                _keep_supersession(db, decision)

    def unanchored(self) -> list[Batch]:
        """Prepared batches the ledger has not confirmed, oldest first."""
        return [
            Batch(*row) for row in self._db.rows(f"SELECT {_BATCH} FROM batches WHERE position IS NULL ORDER BY id")
        ]

    def anchored_batches(self) -> list[Batch]:
        """Batches on the ledger, in the order they were prepared."""
        return [
            Batch(*row) for row in self._db.rows(f"SELECT {_BATCH} FROM batches WHERE position IS NOT NULL ORDER BY id")
        ]

    def anchored_batch(self, manifest: str | None) -> int | None:
        """The batch of a manifest that is on the ledger, or None."""
        rows = self._db.rows("SELECT id FROM batches WHERE manifest = ? AND position IS NOT NULL", manifest)
        return rows[0][0] if rows else None

    def keep_anchored(self, batch: Batch, position: int) -> list[str]:
        """Enter a batch's ledger position; returns the spool names its members no longer need."""
        with self._db.write() as db:
            db.execute("UPDATE batches SET position = ? WHERE id = ?", (position, batch.id))
            names = [
                row[0] for row in db.execute("SELECT spool_name FROM instances WHERE batch = ?", (batch.id,)) if row[0]
            ]
            db.execute("UPDATE instances SET state = 'anchored', spool_name = '' WHERE batch = ?", (batch.id,))
        return names

    def replace_current(self, instance: Instance, attributes: Attributes) -> None:
        """Make another anchored record the current one of a UID (a confirmed supersession).

        Its study and series go by it from now on: what is corrected is often the patient.
        """
        with self._db.write() as db:
            db.execute("DELETE FROM instances WHERE claim = ?", (instance.claim,))
            _enter(db, instance, attributes)
            db.execute(
                "UPDATE studies SET patient_id = ?, attributes = ? WHERE study_uid = ?",
                (attributes.study.get("PatientID", ""), json.dumps(dict(attributes.study)), instance.study_uid),
            )
            db.execute(
                "UPDATE series SET attributes = ? WHERE study_uid = ? AND series_uid = ?",
                (json.dumps(dict(attributes.series)), instance.study_uid, instance.series_uid),
            )

    def batches_of(self, study_uid: str) -> list[Batch]:
        """All batches of a study."""
        return [Batch(*row) for row in self._db.rows(f"SELECT {_BATCH} FROM batches WHERE study_uid = ?", study_uid)]

    # Supersessions

    def keep_supersession(self, supersession: Supersession) -> None:
        """Enter a decision, or its next state."""
        with self._db.write() as db:
            _keep_supersession(db, supersession)

    def supersessions(self, state: str | None = None) -> list[Supersession]:
        """Decisions, all or those in one state."""
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        return [
            Supersession(*row)
            for row in self._db.rows(f"SELECT {_SUPERSESSION} FROM supersessions {where} ORDER BY conflict", *values)
        ]


def _values(row: Instance | Supersession) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in row.__annotations__)


def _keep_supersession(db: sqlite3.Connection, supersession: Supersession) -> None:
    db.execute(
        f"INSERT OR REPLACE INTO supersessions ({_SUPERSESSION}) VALUES ({', '.join('?' * 9)})", _values(supersession)
    )


def _enter(db: sqlite3.Connection, instance: Instance, attributes: Attributes) -> None:
    if attributes.study:  # nothing could be read of an object in quarantine
        patient_id = attributes.study.get("PatientID", "")
        db.execute(
            "INSERT OR IGNORE INTO studies VALUES (?, NULL, ?, ?)",
            (instance.study_uid, patient_id, json.dumps(dict(attributes.study))),
        )
        db.execute(
            "INSERT OR IGNORE INTO series VALUES (?, ?, ?)",
            (instance.study_uid, instance.series_uid, json.dumps(dict(attributes.series))),
        )
    db.execute(
        f"INSERT OR IGNORE INTO instances ({_INSTANCE}, attributes) VALUES ({', '.join('?' * 17)})",
        (*_values(instance), json.dumps(_own(attributes))),
    )


def _own(attributes: Attributes) -> dict[str, str]:
    """What an object itself says of all levels, but empty values and those that are columns of its row."""
    texts = {**attributes.study, **attributes.series, **attributes.instance}
    return {keyword: text for keyword, text in texts.items() if text and keyword not in _COLUMNS}
