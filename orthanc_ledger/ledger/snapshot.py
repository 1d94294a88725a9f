"""A ledger's file as it is at one moment, also when somebody who does not keep to the formats wrote it."""

from collections.abc import Iterable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

from orthanc_ledger.errors import ConfigError, IntegrityError
from orthanc_ledger.ledger.contract.call import Value
from orthanc_ledger.ledger.log import LogFile, Row, decode_value

REMEMBERED = 256
"""Values of the state, so that the policy is not decoded for every entry."""


class Snapshot(LogFile):
    """What an audit reads. To be read inside one `transaction("DEFERRED")`."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when there is no such file; else as `LogFile`."""
        if not path.is_file():
            raise ConfigError(f"{path}: no ledger here to read: name its file, or mount its disk")
        super().__init__(path)
        self._db.text_factory = lambda text: text.decode("utf-8", "replace")  # a key may hold any bytes

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file, or which tables, views or triggers are not those of a ledger."""
        (checked,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if checked != "ok":
            return str(checked)
        foreign = self.foreign()
        return f"not as a ledger is made: {', '.join(foreign)}" if foreign else None

    def entries(self) -> Iterator[Row]:
        """All entries, by position."""
        return starmap(Row, self._db.execute("SELECT position, time, tx_id, entry FROM entries ORDER BY position"))

    def state_rows(self) -> Iterator[tuple[int, str, bytes]]:
        """(position, key, value) of all state rows, by position. SQLite sorts them in a temporary file."""
        return self._db.execute("SELECT position, key, value FROM state ORDER BY position")

    def value_before(self, key: str, position: int) -> bytes | None:
        """The last value written under a key by an entry before `position`."""
        query = "SELECT value FROM state WHERE key = ? AND position BETWEEN 0 AND ? ORDER BY position DESC LIMIT 1"
        value: bytes | None = self._one(query, (key, position - 1))
        return value

    def node(self, level: int, number: int) -> bytes | None:
        """As `subtree`, or None when it is missing."""
        digest: bytes | None = self._one("SELECT hash FROM subtrees WHERE level = ? AND number = ?", (level, number))
        return digest

    def leaf_with(self, leaf_hash: bytes) -> int | None:
        """Number of the leaf with this hash. Reads the whole tree."""
        found: int | None = self._one("SELECT number FROM subtrees WHERE level = 0 AND hash = ?", (leaf_hash,))
        return found

    def leaves(self, start: int) -> tuple[int | None, int | None]:
        """Numbers of the first and the last leaf from a number on; None, None when there are none."""
        query = "SELECT min(number), max(number) FROM subtrees WHERE level = 0 AND number >= ?"
        first, last = self._db.execute(query, (start,)).fetchone()
        return first, last

    def nodes_outside(self, size: int) -> Iterator[tuple[int, int]]:
        """(level, number) of the nodes that no tree of `size` leaves has."""
        query = "SELECT level, number FROM subtrees WHERE level < 0 OR number < 0 OR number >= (? >> level)"
        return self._db.execute(query, (size,))

    def state_rows_outside(self, size: int) -> Iterator[tuple[int, str]]:
        """(position, key) of the state rows that no log of `size` entries has."""
        query = "SELECT position, key FROM state WHERE position < 0 OR position >= ? ORDER BY position"
        return self._db.execute(query, (size,))

    def _one(self, query: str, values: tuple[object, ...]) -> Any:
        row = self._db.execute(query, values).fetchone()
        return row[0] if row else None


class Written:
    """The rows of the state, handed out position by position."""

    def __init__(self, rows: Iterator[tuple[int, str, bytes]]) -> None:
        self._rows = rows
        self._ahead = next(rows, None)

    def at(self, position: int) -> dict[str, bytes]:
        """Key to value of the rows at a position; rows before it are passed over."""
        found = {}
        while self._ahead is not None and self._ahead[0] <= position:
            at, key, value = self._ahead
            if at == position:
                found[key] = value
            self._ahead = next(self._rows, None)
        return found


class StateBefore:
    """The state as the entry at `position` finds it: the file's rows, or the right values where those were wrong."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.position = 0
        self._snapshot = snapshot
        self._correct: dict[str, Value | None] = {}
        self._known: dict[str, Value | None] = {}

    def get(self, key: str) -> Value | None:
        if key in self._correct:
            return self._correct[key]
        if key not in self._known:
            if len(self._known) == REMEMBERED:
                self._known.clear()
            self._known[key] = self._read(key)
        return self._known[key]

    def believe(self, keys: Iterable[str]) -> None:
        """From the next entry on, the file's row at this position counts."""
        for key in keys:
            self._known.pop(key, None)
            self._correct.pop(key, None)

    def correct(self, key: str, value: Value | None) -> None:
        """From now on, until a later row, this value counts."""
        self._correct[key] = value

    def _read(self, key: str) -> Value | None:
        encoded = self._snapshot.value_before(key, self.position)
        if encoded is None:
            return None
        try:
            return decode_value(key, encoded)
        except IntegrityError:
            return None  # an entry found wrong left it
