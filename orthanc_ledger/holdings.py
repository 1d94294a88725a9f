"""What a research centre has pulled, and what of it is still to be done or told: one SQLite file in its data_dir.

A row is written before what it is about: whatever was fetched or lies in a folder is known here, and can be deleted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orthanc_ledger.database import Database

Outcome = Literal["complete", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pulls (
    release BLOB PRIMARY KEY, request BLOB NOT NULL, study BLOB NOT NULL, key_file BLOB, folder TEXT NOT NULL,
    time INTEGER NOT NULL, objects INTEGER NOT NULL DEFAULT 0, outcome TEXT, told INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS tampered (
    release BLOB NOT NULL, instance BLOB NOT NULL, observed BLOB NOT NULL, PRIMARY KEY (release, instance)) STRICT;
CREATE TABLE IF NOT EXISTS fetched (
    study BLOB NOT NULL, cid TEXT NOT NULL, root INTEGER NOT NULL, PRIMARY KEY (study, cid)) STRICT;
"""
_COLUMNS = "release, request, study, key_file, folder, time, objects, outcome, told"


@dataclass(frozen=True)
class Holding:
    """A release that was asked for. ``outcome`` None: its objects are still to be fetched; ``folder``: where they go;
    ``time``: when it was asked for, UTC seconds.
    """

    release: bytes
    request: bytes
    study: bytes
    key_file: bytes | None = field(repr=False)
    folder: Path
    time: int
    objects: int
    outcome: Outcome | None
    told: bool


class Holdings:
    """Raises what SQLite raises."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    def keep(self, holding: Holding) -> None:
        """Keep a new one, before anything of it is fetched."""
        values = (holding.release, holding.request, holding.study, holding.key_file, str(holding.folder), holding.time)
        with self._db.write() as db:
            columns = "release, request, study, key_file, folder, time"
            db.execute(f"INSERT OR IGNORE INTO pulls ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)

    def fetching(self, study: bytes, cids: Iterable[str], root: bool = False) -> None:
        """Keep what of a study the content store is going to be asked for; ``root``: a manifest."""
        with self._db.write() as db:
            db.executemany("INSERT OR IGNORE INTO fetched VALUES (?, ?, ?)", [(study, cid, root) for cid in cids])

    def end(
        self, holding: Holding, outcome: Outcome, objects: int = 0, tampered: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Keep how it ended, and drop its keys. ``tampered``: instance and what was observed of it."""
        with self._db.write() as db:
            db.execute(
                "UPDATE pulls SET outcome = ?, objects = ?, key_file = NULL WHERE release = ?",
                (outcome, objects, holding.release),
            )
            rows = [(holding.release, instance, observed) for instance, observed in tampered]
            db.executemany("INSERT OR IGNORE INTO tampered VALUES (?, ?, ?)", rows)

    def told(self, holding: Holding) -> None:
        """Keep that the ledger has been told how it ended."""
        with self._db.write() as db:
            db.execute("UPDATE pulls SET told = 1 WHERE release = ?", (holding.release,))

    def all(self) -> list[Holding]:
        """All, the oldest first."""
        return self._select("")

    def untold(self) -> list[Holding]:
        """Those that have ended and are still to be told."""
        return self._select("WHERE outcome IS NOT NULL AND NOT told")

    def latest(self, request: bytes, study: bytes) -> Holding | None:
        """The newest of a study under a request."""
        found = self._select("WHERE request = ? AND study = ?", request, study)
        return found[-1] if found else None

    def of_study(self, study: bytes) -> list[Holding]:
        """Those of a study."""
        return self._select("WHERE study = ?", study)

    def tampered(self, holding: Holding) -> list[tuple[bytes, bytes]]:
        """Instances of it that were not as anchored, and what was observed."""
        return self._db.rows("SELECT instance, observed FROM tampered WHERE release = ?", holding.release)

    def fetched(self, study: bytes, root: bool) -> list[str]:
        """CIDs of a study that the content store was asked for: of manifests, or of all else."""
        rows = self._db.rows("SELECT cid FROM fetched WHERE study = ? AND root = ?", study, root)
        return [cid for (cid,) in rows]

    def forget(self, study: bytes) -> None:
        """Leave nothing of a study in the file."""
        with self._db.write() as db:
            db.execute("DELETE FROM tampered WHERE release IN (SELECT release FROM pulls WHERE study = ?)", (study,))
            db.execute("DELETE FROM fetched WHERE study = ?", (study,))
            db.execute("DELETE FROM pulls WHERE study = ?", (study,))
        self._db.scrub()

    def _select(self, where: str, *values: Any) -> list[Holding]:
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM pulls {where} ORDER BY time, rowid", *values)
        return [
            Holding(release, request, study, key_file, Path(folder), time, objects, outcome, bool(told))
            for release, request, study, key_file, folder, time, objects, outcome, told in rows
        ]
