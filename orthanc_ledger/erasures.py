"""The journal of erasures: how far each has come on this node. What names the study goes with its keys."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orthanc_ledger.database import Database
from orthanc_ledger.errors import IntegrityError, NotHeld
from orthanc_ledger.manifest import Manifest
from orthanc_ledger.manifest import read as read_manifest

ROOT, BLOCK, CLAIM = "root", "block", "claim"
"""Kinds of what a study is made of: CIDs of manifests, of what lies under them, and its objects' claims."""

State = Literal["erased", "collected", "taken", "cleared", "done"]
"""erased (on the ledger) → collected (nobody gets its keys; what it is made of is known) → taken (units and rows are
gone: the anchorer's part) → cleared (nothing opens it any more) → done (this organisation said so; others may lack).
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS erasures (
    token BLOB PRIMARY KEY, time INTEGER NOT NULL, state TEXT NOT NULL, study_uid TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    token BLOB NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (token, kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER, checked INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Erasure:
    """One study's: its token, when the ledger confirmed it (seconds of UTC), and its UID while that is needed and
    known here.
    """

    token: bytes
    time: int
    state: State
    study_uid: str | None


class Erasures:
    """Shared by the node's processes; every change is durable when its method returns."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    def scrub(self) -> None:
        """Leave nothing of what was deleted in the file."""
        self._db.scrub()

    def place(self) -> tuple[int | None, int]:
        """The last event of the ledger that was looked at, and when all studies were (seconds of UTC)."""
        rows = self._db.rows("SELECT sequence, checked FROM place")
        return next(((sequence, checked) for sequence, checked in rows), (None, 0))

    def keep_place(self, sequence: int | None, checked: int) -> None:
        with self._db.write() as db:
            db.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?)", (sequence, checked))

    def begin(self, token: bytes, time: int) -> None:
        """Enter a study that the ledger calls erased. One that is carried out again begins anew: a backup was put
        back.
        """
        with self._db.write() as db:
            db.execute("DELETE FROM erasures WHERE token = ? AND state IN ('cleared', 'done')", (token,))
            db.execute("INSERT OR IGNORE INTO erasures VALUES (?, ?, 'erased', NULL)", (token, time))

    def all(self) -> list[Erasure]:
        """Those that somebody has still to carry out."""
        return [Erasure(*row) for row in self._db.rows("SELECT token, time, state, study_uid FROM erasures")]

    def has(self, token: bytes) -> bool:
        """Whether a study is among those."""
        return bool(self._db.rows("SELECT 1 FROM erasures WHERE token = ?", token))

    def in_state(self, state: State) -> list[Erasure]:
        """Those that have come so far, oldest first."""
        rows = self._db.rows("SELECT token, time, state, study_uid FROM erasures WHERE state = ? ORDER BY time", state)
        return [Erasure(*row) for row in rows]

    def advance(self, erasure: Erasure, state: State, study_uid: str | None = None) -> None:
        """Enter how far one has come, and its study's UID; None: that is not needed any more."""
        with self._db.write() as db:
            sql = "UPDATE erasures SET state = ?, study_uid = ? WHERE token = ?"
            db.execute(sql, (state, study_uid, erasure.token))
            if state == "cleared":
                db.execute("DELETE FROM parts WHERE token = ?", (erasure.token,))

    def end(self, erasure: Erasure) -> None:
        """Forget one that all have carried out."""
        with self._db.write() as db:
            db.execute("DELETE FROM erasures WHERE token = ?", (erasure.token,))

    def keep(self, erasure: Erasure, kind: str, names: Iterable[str]) -> None:
        """Keep what a study is made of, until it is cleared."""
        with self._db.write() as db:
            rows = [(erasure.token, kind, name) for name in names]
            db.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?, ?)", rows)

    def collect(
        self, erasure: Erasure, anchors: Iterable[Mapping[str, Any]], get_block: Callable[[str], bytes]
    ) -> list[Manifest]:
        """The manifests of a study's anchors that can be read; their CIDs, and of each what lies under it, are kept.

        Raises what ``get_block`` does, but for IntegrityError and NotHeld: damaged, or forgotten by a process that was
        killed.
        """
        self.keep(erasure, ROOT, (anchor["manifestCid"] for anchor in anchors))
        manifests, under = [], list[str]()

        def block(cid: str) -> bytes:
            under.append(cid)
            return get_block(cid)

        for cid in self.parts(erasure, ROOT):
            with contextlib.suppress(IntegrityError, NotHeld):
                manifests.append(read_manifest(cid, block, erasure.token))
        under += (record.object for manifest in manifests for record in manifest.records)
        self.keep(erasure, BLOCK, under)
        return manifests

    def parts(self, erasure: Erasure, kind: str) -> set[str]:
        """What was kept of a kind."""
        sql = "SELECT name FROM parts WHERE token = ? AND kind = ?"
        return {name for (name,) in self._db.rows(sql, erasure.token, kind)}
