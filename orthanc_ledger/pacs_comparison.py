"""A walk over all that Orthanc holds, held against what pacs.db has of it (pacs.py)."""

from collections.abc import Iterable
from typing import NamedTuple

from orthanc_ledger.database import Database

OBJECT = "id, study_uid, sop_uid, noted"
_WAITING = ("earlier", "untaken")


class Object(NamedTuple):
    """An object that Orthanc holds, by Orthanc's id of it, and the node has. ``noted``: when that was seen last,
    seconds of UTC.
    """

    id: str
    study_uid: str
    sop_uid: str
    noted: int


class Comparison:
    """What the walk came by. For one thread, one at a time."""

    def __init__(self, db: Database, begun: int) -> None:
        """``begun``: seconds of UTC, before the walk."""
        self._db = db
        self.begun = begun
        connection = db.connection()
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.execute("DELETE FROM seen")

    def see(self, ids: Iterable[str]) -> None:
        """Orthanc holds these."""
        values = [(id,) for id in ids]
        self._db.connection().executemany("INSERT OR IGNORE INTO seen VALUES (?)", values)

    def missed(self) -> list[Object]:
        """What was noted before the walk, and the walk did not come by; of a study together."""
        sql = f"""
            SELECT {OBJECT} FROM objects WHERE gone IS NULL AND noted < ? AND id NOT IN (SELECT id FROM seen)
            ORDER BY study_uid, id"""
        return [Object(*row) for row in self._db.rows(sql, self.begun)]

    def left(self) -> list[str]:
        """Ids of what came before the plugin, or could not be taken, and the walk did not come by."""
        rows = " UNION ".join(f"SELECT id FROM {table}" for table in _WAITING)
        return [id for (id,) in self._db.rows(f"SELECT id FROM ({rows}) WHERE id NOT IN (SELECT id FROM seen)")]

    def end(self) -> None:
        """Forget the rest that the walk did not come by."""
        with self._db.write() as db:
            for table in _WAITING:
                db.execute(f"DELETE FROM {table} WHERE id NOT IN (SELECT id FROM seen)")
            db.execute("DELETE FROM seen")
