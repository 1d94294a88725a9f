"""The lists behind datasets: which studies each holds. Only this node knows; the ledger has a root over them.

A list is durable before its dataset is registered. It is kept under the digest of its descriptor, which the ledger
names, so that no other list can stand in for it, and one that never came to be registered is simply not found.
"""

import contextlib
import hashlib
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import dag_cbor
from dag_cbor.decoding import CBORDecodingError

from orthanc_ledger import merkle
from orthanc_ledger.database import Database
from orthanc_ledger.errors import IntegrityError, NotHeld, ServiceAway
from orthanc_ledger.outbox import Outbox

_SCHEMA = """
CREATE TABLE IF NOT EXISTS descriptors (digest BLOB PRIMARY KEY, descriptor BLOB NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS members (
    digest BLOB NOT NULL, study BLOB NOT NULL, PRIMARY KEY (digest, study)) WITHOUT ROWID, STRICT;
CREATE INDEX IF NOT EXISTS members_by_study ON members (study);
"""

_ALARM = "dataset"
_FILE = ""  # the claim of an alarm about the whole file; that about a list is its descriptor's digest
_FIELDS = frozenset({"v", "id", "version", "salt", "counts", "duo", "criteria"})


@dataclass(frozen=True)
class StudyList:
    """A dataset's study tokens (16 bytes each), rising: leaf inputs of the dataset's tree (RFC 6962 2.1)."""

    studies: Sequence[bytes]

    @classmethod
    def of(cls, tokens: Iterable[bytes]) -> Self:
        """The list of these studies, in whatever order they come."""
        return cls(tuple(sorted(set(tokens))))

    @cached_property
    def root(self) -> bytes:
        """What the ledger has of the list."""
        return merkle.root(self.studies)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.studies)

    def __len__(self) -> int:
        return len(self.studies)

    def __contains__(self, token: object) -> bool:
        return isinstance(token, bytes) and self._place(token) is not None

    def proof(self, token: bytes) -> dict[str, Any]:
        """{index, path} as LogRelease takes it (RFC 6962 2.1.1). Raises NotHeld for a study of no place in the list."""
        index = self._place(token)
        if index is None:
            raise NotHeld("the dataset does not hold this study")
        hashes = [merkle.leaf_hash(study) for study in self.studies]
        return {"index": index, "path": merkle.inclusion_proof(hashes, index)}

    def _place(self, token: bytes) -> int | None:
        index = bisect_left(self.studies, token)
        return index if self.studies[index : index + 1] == (token,) else None


class Datasets:
    """The node's lists and descriptors. An alarm stands for a list that somebody changed, until it is restored.

    Every method raises IntegrityError when the file is damaged, ServiceAway when it cannot be read or written now. It
    is opened when first used: clinical retrieval does without it.
    """

    def __init__(self, path: Path, outbox: Outbox) -> None:
        self._path = path
        self._outbox = outbox
        self.open = lru_cache(maxsize=4)(self._open)  # what was verified once cannot change in memory

    @cached_property
    def _db(self) -> Database:
        return Database(self._path, _SCHEMA)

    def keep(self, descriptor: bytes, studies: StudyList) -> bytes:
        """Keep a list that is about to be registered; the descriptor's SHA-256, under which the ledger will name it."""
        digest = hashlib.sha256(descriptor).digest()
        with self._reachable(), self._db.write() as db:
            db.execute("INSERT OR IGNORE INTO descriptors VALUES (?, ?)", (digest, descriptor))
            db.executemany("INSERT OR IGNORE INTO members VALUES (?, ?)", [(digest, study) for study in studies])
        return digest

    def descriptor(self, digest: bytes) -> bytes:
        """The descriptor of this digest, to be read by `read_descriptor`. Raises NotHeld."""
        rows = self._rows("SELECT descriptor FROM descriptors WHERE digest = ?", digest)
        if not rows:
            raise NotHeld("this dataset was not made on this node: its descriptor and its list are elsewhere")
        return bytes(rows[0][0])

    def naming(self, token: bytes) -> set[bytes]:
        """Descriptor digests of the lists that have a study in them, unverified."""
        return {row[0] for row in self._rows("SELECT digest FROM members WHERE study = ?", token)}

    def _open(self, digest: bytes, root: bytes) -> StudyList:
        """The list of the dataset with this descriptor and root on the ledger.

        Raises NotHeld; IntegrityError, after an alarm, when the list is not the one that was registered.
        """
        rows = self._rows("SELECT study FROM members WHERE digest = ? ORDER BY study", digest)
        if not rows:
            raise NotHeld("this dataset was not made on this node: its list is elsewhere")
        found = StudyList(tuple(row[0] for row in rows))
        if found.root != root:
            self._alarm(digest.hex(), "a dataset's list is not the one that was registered")
            raise IntegrityError(f"dataset list: expected root {root.hex()}, got {found.root.hex()}")
        for claim in (digest.hex(), _FILE):
            self._outbox.settle(claim, kind=_ALARM)
        return found

    def _rows(self, sql: str, value: bytes) -> list[tuple[bytes, ...]]:
        with self._reachable():
            return self._db.rows(sql, value)

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # locked for too long, disk full, read error
            raise ServiceAway(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._alarm(_FILE, "the file with the lists of datasets is damaged")
            raise IntegrityError(f"{self._path}: the file is damaged: {error}") from error

    def _alarm(self, claim: str, what: str) -> None:
        self._outbox.alarm(_ALARM, claim, f"{what}: nothing leaves by it; restore {self._path.name}")


def encode_descriptor(**fields: Any) -> bytes:
    """A descriptor, what research is told of a dataset, as dag-cbor: {v: 1, id, version, salt, counts, duo, criteria}.

    ``salt``, 32 random bytes, keeps what is in it from being guessed by its digest on the ledger.
    """
    return dag_cbor.encode({"v": 1, **fields})


def read_descriptor(descriptor: bytes, digest: bytes) -> dict[str, Any]:
    """The fields of a descriptor that has the digest on the ledger. Raises IntegrityError."""
    found = hashlib.sha256(descriptor).digest()
    if found != digest:
        raise IntegrityError(f"descriptor: expected SHA-256 {digest.hex()}, as on the ledger, got {found.hex()}")
    try:
        fields = dag_cbor.decode(descriptor)
    except CBORDecodingError as error:
        raise IntegrityError(f"descriptor: expected canonical dag-cbor: {error}") from error
    if not isinstance(fields, dict) or fields.keys() != _FIELDS or fields["v"] != 1:
        raise IntegrityError(f"descriptor: expected version 1 with {', '.join(sorted(_FIELDS))}")
    return fields
