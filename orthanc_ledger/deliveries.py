"""What the courier must not forget: the last checkpoint it signed, and how far each sink has come."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.database import Database
from orthanc_ledger.ledger.log import Checkpoint

_SCHEMA = """
CREATE TABLE IF NOT EXISTS signed (
    one INTEGER PRIMARY KEY CHECK (one = 1), log BLOB NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL,
    time INTEGER NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS places (
    kind TEXT NOT NULL, url TEXT NOT NULL, position INTEGER NOT NULL DEFAULT 0, time INTEGER NOT NULL DEFAULT 0,
    waiting_since INTEGER, error TEXT, differs BOOLEAN NOT NULL DEFAULT FALSE, PRIMARY KEY (kind, url)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Signed:
    """A checkpoint with its signed note; kept before anybody else has it, so that all get the same bytes."""

    log_id: bytes
    checkpoint: Checkpoint
    time: int  # the note's
    note: str


@dataclass(frozen=True)
class Route:
    """A sink in its use: `kind` is also the kind of the alarm when it is away."""

    kind: str
    url: str


@dataclass(frozen=True)
class Place:
    """How far a sink has come. Times in seconds of UTC."""

    route: Route
    position: int  # entries that its newest checkpoint covers, or id of the last notice; 0: nothing yet
    time: int  # when that was signed or raised
    waiting_since: int | None  # since when it lacks something
    error: str | None  # of the last try, when that failed
    differs: bool  # it was found to hold another checkpoint of a size that this ledger has: for good


class Deliveries:
    """The courier's memory: one SQLite file. Every change is durable when its method returns."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    def signed(self) -> Signed | None:
        """The last checkpoint that was signed."""
        rows = self._db.rows("SELECT log, size, root, time, note FROM signed")
        return next((Signed(log, Checkpoint(size, root), time, note) for log, size, root, time, note in rows), None)

    def keep_signed(self, signed: Signed) -> None:
        """Keep a checkpoint as the last, unless a larger one is."""
        checkpoint = signed.checkpoint
        values = (signed.log_id, checkpoint.size, checkpoint.root, signed.time, signed.note)
        with self._db.write() as db:
            db.execute("DELETE FROM signed WHERE size < ?", (checkpoint.size,))
            db.execute("INSERT OR IGNORE INTO signed VALUES (1, ?, ?, ?, ?, ?)", values)

    def configure(self, routes: Collection[Route]) -> None:
        """Begin with what is new among these, and forget what is no longer there."""
        with self._db.write() as db:
            for kind, url in db.execute("SELECT kind, url FROM places").fetchall():
                if Route(kind, url) not in routes:
                    db.execute("DELETE FROM places WHERE (kind, url) = (?, ?)", (kind, url))
            rows = [(route.kind, route.url) for route in routes]
            db.executemany("INSERT OR IGNORE INTO places (kind, url) VALUES (?, ?)", rows)

    def places(self) -> list[Place]:
        """All sinks of the configuration the courier last ran with."""
        rows = self._db.rows("SELECT kind, url, position, time, waiting_since, error, differs FROM places")
        return [
            Place(Route(kind, url), position, time, waiting_since, error, bool(differs))
            for kind, url, position, time, waiting_since, error, differs in rows
        ]

    def place(self, route: Route) -> Place:
        """How far a sink has come."""
        return next(place for place in self.places() if place.route == route)

    def waits(self, route: Route, now: int) -> None:
        """A sink lacks something; it counts from the first time on."""
        self._update("waiting_since = coalesce(waiting_since, ?)", route, now)

    def delivered(self, route: Route, position: int, time: int) -> None:
        """A sink has come this far, with what was signed or raised at that time."""
        self._update("position = ?, time = ?, waiting_since = NULL, error = NULL", route, position, time)

    def lacks_nothing(self, route: Route) -> None:
        """A sink answered, and there is nothing to bring."""
        self._update("waiting_since = NULL, error = NULL", route)

    def failed(self, route: Route, error: str, differs: bool) -> None:
        """A sink did not take what it lacks."""
        self._update("error = ?, differs = ?", route, error, differs)

    def _update(self, change: str, route: Route, *values: object) -> None:
        with self._db.write() as db:
            db.execute(f"UPDATE places SET {change} WHERE (kind, url) = (?, ?)", (*values, route.kind, route.url))
