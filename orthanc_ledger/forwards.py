"""What clinical destinations must still get: one row for each object and destination, until the destination has it.

Intake queues an object before it enters the index, so an object that was acknowledged is forwarded at least once,
however often any process dies. Nothing leaves the queue but what was confirmed, what a person discards, and what is no
longer held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.clock import Clock
from orthanc_ledger.database import Database

# Asked once a second for each destination, from this index: oldest first, what was put off after what was never tried.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS forwards (
    id INTEGER PRIMARY KEY AUTOINCREMENT, destination TEXT NOT NULL, claim TEXT NOT NULL, queued INTEGER NOT NULL,
    due INTEGER NOT NULL DEFAULT 0, tried INTEGER, trouble TEXT, UNIQUE (claim, destination));
CREATE INDEX IF NOT EXISTS forwards_due ON forwards (destination, due, queued);
"""

_PUT_OFF_S = 7200  # nothing is put off for so long: what is due later was, before the clock was set back


@dataclass(frozen=True)
class Forward:
    """An object that a destination, by its AE title, must get. Times in seconds of UTC; ``due``: not tried before."""

    id: int
    destination: str
    claim: str
    queued: int
    due: int
    tried: int | None
    trouble: str | None


@dataclass(frozen=True)
class Waiting:
    """What waits for a destination: how many objects, since when the oldest, and what hindered the last one tried."""

    destination: str
    count: int
    oldest: int
    trouble: str | None


_FORWARD = ", ".join(Forward.__annotations__)


class Forwards:
    """Durable queue, shared by the node's processes. ``destinations``: AE titles, for which new objects are queued."""

    def __init__(self, path: Path, destinations: Sequence[str], clock: Clock) -> None:
        self._db = Database(path, _SCHEMA)
        self._destinations = tuple(destinations)
        self._clock = clock

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    def queue(self, claims: Iterable[str]) -> None:
        """Queue new objects for every destination; what waits already stays as it is."""
        self._insert("IGNORE", claims)

    def queue_again(self, claim: str) -> None:
        """Queue an object whose content was replaced, also for who is being sent the content before at this moment."""
        self._insert("REPLACE", [claim])

    def due(self, destination: str, limit: int) -> list[Forward]:
        """The oldest rows of a destination that may be tried now."""
        now = self._clock()
        sql = (
            f"SELECT {_FORWARD} FROM forwards WHERE destination = ? AND (due <= ? OR due > ?) "
            "ORDER BY due, queued, id LIMIT ?"
        )
        return [Forward(*row) for row in self._db.rows(sql, destination, now, now + _PUT_OFF_S, limit)]

    def done(self, forward: Forward) -> None:
        """The destination has it. A row that was queued again meanwhile is another one, and stays."""
        with self._db.write() as db:
            db.execute("DELETE FROM forwards WHERE id = ?", (forward.id,))

    def failed(self, forward: Forward, trouble: str, wait_s: int | None = None) -> bool:
        """The destination has it not. ``wait_s``: put off by that many seconds; None: it keeps its place. False: it
        was dropped meanwhile.
        """
        now = self._clock()
        due = forward.due if wait_s is None else now + wait_s
        with self._db.write() as db:
            sql = "UPDATE forwards SET due = ?, tried = ?, trouble = ? WHERE id = ?"
            return bool(db.execute(sql, (due, now, trouble, forward.id)).rowcount)

    def waits_since(self, destination: str, moment: int) -> bool:
        """Whether a destination lacks anything that was queued before a moment."""
        sql = "SELECT 1 FROM forwards WHERE destination = ? AND queued < ? LIMIT 1"
        return bool(self._db.rows(sql, destination, moment))

    def waiting(self) -> list[Waiting]:
        """What waits, by destination; also for those that are no longer configured."""
        sql = """
            SELECT destination, COUNT(*), MIN(queued), (
                SELECT trouble FROM forwards WHERE destination = each.destination AND trouble IS NOT NULL
                ORDER BY tried DESC, id LIMIT 1)
            FROM forwards AS each GROUP BY destination ORDER BY destination"""
        return [Waiting(*row) for row in self._db.rows(sql)]

    def rows(self) -> list[Forward]:
        """All that waits, oldest first."""
        return [Forward(*row) for row in self._db.rows(f"SELECT {_FORWARD} FROM forwards ORDER BY id")]

    def retry(self) -> int:
        """Let everything that was put off be tried at once; how many that are."""
        with self._db.write() as db:
            return db.execute("UPDATE forwards SET due = 0 WHERE due > 0").rowcount

    def discard(self, destination: str, claim: str | None = None) -> list[str]:
        """Give up an object for a destination, or with None all; the claims that waited."""
        with self._db.write() as db:
            sql = "DELETE FROM forwards WHERE destination = ? AND claim = COALESCE(?, claim) RETURNING claim"
            return [row[0] for row in db.execute(sql, (destination, claim)).fetchall()]

    def forget(self, *claims: str) -> None:
        """Drop objects for all destinations: they are not held any more."""
        with self._db.write() as db:
            db.executemany("DELETE FROM forwards WHERE claim = ?", [(claim,) for claim in claims])

    def scrub(self) -> None:
        """Leave nothing of what was dropped in the file."""
        self._db.scrub()

    def _insert(self, otherwise: str, claims: Iterable[str]) -> None:
        now = self._clock()
        values = [(destination, claim, now) for claim in claims for destination in self._destinations]
        if values:
            with self._db.write() as db:
                sql = f"INSERT OR {otherwise} INTO forwards (destination, claim, queued) VALUES (?, ?, ?)"
                db.executemany(sql, values)
