"""The keyring: study and batch keys in one SQLite file, each row wrapped under the node key.

The node key, 32 bytes, lies in a file of its own (node_key.py), and never in the same backup. Rows are sealed by
AES-256-GCM with the row's name as associated data, so that none can stand in for another. What a call returns is
durable.
"""

import contextlib
import functools
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orthanc_ledger import tokens
from orthanc_ledger.database import Database
from orthanc_ledger.errors import ConfigError, DataError, IntegrityError, NotHeld, ServiceAway
from orthanc_ledger.node_key import SIZE, Found, NodeKey, Wrapping
from orthanc_ledger.sole import sole

T = TypeVar("T")

_NONCE = 12
_TOKEN = 16
_KEY = SIZE
_LOOKUP = b"lookup"

# A study's row and its batches' rows go together, and what is left of an erased study is its mark.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lookup (wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS study (name BLOB PRIMARY KEY, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batch (key_id BLOB PRIMARY KEY, study BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS erased (mark BLOB PRIMARY KEY) STRICT;
"""


ERASED = "the study was erased; nothing more of it is anchored"


class StudyErased(DataError):
    """The study was erased: what arrives for it belongs in quarantine."""


@dataclass(frozen=True, slots=True)
class StudyKeys:
    """A study's token (16 bytes), known to the ledger, and its secret ``k_study`` (32 bytes)."""

    token: bytes
    k_study: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BatchKey:
    """A batch key (32 bytes) and its name in the manifest (16 bytes)."""

    key_id: bytes
    key: bytes = field(repr=False)


class Keyring:
    """The keys of one organisation on this node; several local processes and threads may use them at once.

    Every method raises ``IntegrityError`` when the file is damaged or a row was changed or exchanged, and
    ``ServiceAway`` when it cannot be read or written now.
    """

    _aead: AESGCM  # of the key that opened the rows last

    def __init__(self, path: Path, node_key: NodeKey, random: Callable[[int], bytes]) -> None:
        self._path = path
        self._node_key = node_key
        self._random = random
        self._db = Database(path, _SCHEMA)

    @classmethod
    def create(cls, path: Path, node_key: NodeKey, random: Callable[[int], bytes] = secrets.token_bytes) -> Self:
        """Make a node key, and a keyring under it with a new ``k_lookup``; both files are mode 0600 and durable.

        Raises ``ConfigError`` when either file exists or cannot be made; nothing is overwritten.
        """
        for file in (path, node_key.path):
            if file.exists():
                raise ConfigError(f"{file}: exists already; a new keyring would lose the keys in it")
        key = random(_KEY)
        node_key.create(key)
        keyring = cls(path, node_key, random)
        with keyring._away(), keyring._db.write() as db:
            wrapped = _wrap(AESGCM(key), random(_NONCE), _LOOKUP, random(_KEY))
            db.execute("INSERT INTO lookup VALUES (?)", (wrapped,))
        return cls.open(path, node_key, random)

    @classmethod
    def open(cls, path: Path, node_key: NodeKey, random: Callable[[int], bytes] = secrets.token_bytes) -> Self:
        """Open a keyring with its node key.

        Raises ``ConfigError`` when a file is missing, is no keyring, or the node key is not this keyring's;
        ``ServiceAway`` when it cannot be read now.
        """
        if not path.is_file():
            raise ConfigError(f"keyring {path}: no such file; restore it, or run init in an empty folder")
        try:
            keyring = cls(path, node_key, random)
        except sqlite3.OperationalError as error:  # as in _away: a node must not end for a disk that fails
            raise ServiceAway(f"keyring {path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"keyring {path}: {error}") from error
        keyring._find_key()
        return keyring

    @functools.cached_property
    def k_lookup(self) -> bytes:
        """The organisation's key (32 bytes) for names of studies and claims."""
        return self._opened(lambda: self._unwrap(_LOOKUP, self._lookup()))

    def study(self, study_uid: str) -> StudyKeys | None:
        """Return the keys of a study, None when there are none, or it was erased."""
        if self.is_erased(study_uid):
            return None
        return self._study(tokens.study_row(self.k_lookup, study_uid))

    def ensure_study(self, study_uid: str) -> StudyKeys:
        """Return the keys of a study, making them at its first call of any process.

        Raises ``StudyErased`` when the study was erased.
        """
        if found := self.study(study_uid):
            return found
        name = tokens.study_row(self.k_lookup, study_uid)
        keys = StudyKeys(self._random(_TOKEN), self._random(_KEY))
        with self._transaction() as db:
            if self.is_erased(study_uid):
                raise StudyErased(ERASED)
            if found := self._study(name):  # another process was first
                return found
            wrapped = self._wrap(b"study" + name, keys.token + keys.k_study)
            db.execute("INSERT INTO study VALUES (?, ?)", (name, wrapped))
        return keys

    def new_batch(self, study_uid: str) -> BatchKey:
        """Make the key of a study's next batch. Raises ``NotHeld`` when the study has no keys."""
        name = tokens.study_row(self.k_lookup, study_uid)
        batch = BatchKey(self._random(_TOKEN), self._random(_KEY))
        with self._transaction() as db:
            if not db.execute("SELECT 1 FROM study WHERE name = ?", (name,)).fetchone():
                raise NotHeld("no keys of this study; ensure_study makes them")
            wrapped = self._wrap(b"batch" + batch.key_id + name, batch.key)
            db.execute("INSERT INTO batch VALUES (?, ?, ?)", (batch.key_id, name, wrapped))
        return batch

    def batch_key(self, key_id: bytes) -> bytes:
        """Return the batch key (32 bytes) of a name (16 bytes). Raises ``NotHeld``."""

        def opened() -> bytes:
            rows = self._rows("SELECT study, wrapped FROM batch WHERE key_id = ?", key_id)
            if not rows:
                raise NotHeld(f"no batch key {key_id.hex()}")
            study, wrapped = rows[0]
            return self._unwrap(b"batch" + key_id + study, wrapped)

        return self._opened(opened)

    def batch(self, key_id: bytes) -> tuple[StudyKeys, bytes]:
        """Return the keys of a batch's study, and the batch key. Raises ``NotHeld``."""
        key = self.batch_key(key_id)
        [(name,)] = self._rows("SELECT study FROM batch WHERE key_id = ?", key_id)
        study = self._study(name)
        if study is None:
            raise NotHeld(f"no keys of the study of batch key {key_id.hex()}")
        return study, key

    def study_tokens(self) -> frozenset[bytes]:
        """Return the tokens of all studies it has keys of."""

        def opened() -> frozenset[bytes]:
            rows = self._rows("SELECT name, wrapped FROM study")
            return frozenset(self._unwrap(b"study" + name, wrapped)[:_TOKEN] for name, wrapped in rows)

        return self._opened(opened)

    # Erasure, and the node key's successors

    def is_erased(self, study_uid: str) -> bool:
        """Whether a study was marked as erased."""
        mark = tokens.erased_mark(self.k_lookup, study_uid)
        return bool(self._rows("SELECT 1 FROM erased WHERE mark = ?", mark))

    def mark_erased(self, study_uid: str) -> None:
        """Give nobody a study's keys any more, nor new ones; the mark stays for good. A repeat changes nothing."""
        mark = tokens.erased_mark(self.k_lookup, study_uid)
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO erased VALUES (?)", (mark,))

    def rotate(
        self,
        without: Collection[bytes] = (),
        wrapping: Wrapping | None = None,
        first: Callable[[], object] = lambda: None,
    ) -> None:
        """Wrap all rows under a new node key and destroy the one before; those of the studies with these tokens are
        deleted instead, with their batches'. ``wrapping``: how the new key lies in its file, if otherwise than before;
        ``first`` is called before anything is changed, when nobody else changes or copies the key.

        Killed anywhere, the next call ends what was begun, and the keyring opens meanwhile. No other process need know:
        it finds the new key when a row does not open. Raises ``ConfigError`` when the new key cannot be kept, and
        ``ServiceAway`` while another process does the same.
        """
        with self._sole():
            first()
            with self._away():
                self._end_rotation()
                key = self._random(_KEY)
                self._node_key.stage(key, wrapping)
                aead = AESGCM(key)
                with self._transaction() as db:
                    self._rewrap(db, aead, without)
                self._aead = aead
                self._node_key.put_in_place()
        self.scrub()

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """While this is held, the node key's file is the one that opens all rows: what an interrupted rotation began is
        ended first, and no other begins. Raises as ``rotate``.
        """
        with self._sole():
            if self._node_key.is_changing:
                with self._away():
                    self._end_rotation()
            yield

    def scrub(self) -> None:
        """Leave nothing of deleted rows in the file and its log."""
        with self._away():
            self._db.scrub()

    def _sole(self) -> contextlib.AbstractContextManager[None]:
        lock = self._path.with_name(f"{self._path.stem}.lock")
        return sole(lock, ServiceAway("another process changes or copies the node key"))

    def _end_rotation(self) -> None:
        """End what a rotation began, if its rows were committed, else undo it."""
        if not self._find_key().staged:
            self._node_key.unstage()
        self._node_key.put_in_place()  # or destroy the key before, if only that is left to do

    def _rewrap(self, db: sqlite3.Connection, new: AESGCM, without: Collection[bytes]) -> None:
        def moved(name: bytes, wrapped: bytes) -> bytes:
            return _wrap(new, self._random(_NONCE), name, self._unwrap(name, wrapped))

        for name, wrapped in db.execute("SELECT name, wrapped FROM study").fetchall():
            if self._unwrap(b"study" + name, wrapped)[:_TOKEN] in without:
                db.execute("DELETE FROM batch WHERE study = ?", (name,))
                db.execute("DELETE FROM study WHERE name = ?", (name,))
            else:
                db.execute("UPDATE study SET wrapped = ? WHERE name = ?", (moved(b"study" + name, wrapped), name))
        for key_id, study, wrapped in db.execute("SELECT key_id, study, wrapped FROM batch").fetchall():
            again = moved(b"batch" + key_id + study, wrapped)
            db.execute("UPDATE batch SET wrapped = ? WHERE key_id = ?", (again, key_id))
        db.execute("UPDATE lookup SET wrapped = ?", (moved(_LOOKUP, self._lookup()),))

    def _find_key(self) -> Found:
        """Take the key under which the rows are. Raises ``ConfigError``, once rows and keys are the same twice: another
        process may be changing them between one look and the other.
        """
        before = None
        while True:
            seen = wrapped, keys = self._lookup(), self._node_key.read()
            for found in keys:
                with contextlib.suppress(InvalidTag, ValueError):
                    aead = AESGCM(found.key)
                    aead.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _LOOKUP)
                    self._aead = aead
                    return found
            if seen == before:
                raise ConfigError(f"node key {self._node_key.path}: is not the key of keyring {self._path}")
            before = seen

    def _opened(self, read: Callable[[], T]) -> T:
        """What ``read`` gives; tried again as long as the key, read again, is another."""
        tried = None
        while True:
            try:
                return read()
            except IntegrityError:
                found = None
                with contextlib.suppress(ConfigError):
                    found = self._find_key().key
                if found in (None, tried):
                    raise
                tried = found

    def _lookup(self) -> bytes:
        rows = self._rows("SELECT wrapped FROM lookup")
        if not rows:
            raise ConfigError(f"keyring {self._path}: is no keyring, or init did not end; it has no lookup key")
        wrapped: bytes = rows[0][0]
        return wrapped

    def _study(self, name: bytes) -> StudyKeys | None:
        def opened() -> StudyKeys | None:
            rows = self._rows("SELECT wrapped FROM study WHERE name = ?", name)
            if not rows:
                return None
            both = self._unwrap(b"study" + name, rows[0][0])
            return StudyKeys(both[:_TOKEN], both[_TOKEN:])

        return self._opened(opened)

    def _wrap(self, name: bytes, plain: bytes) -> bytes:
        return _wrap(self._aead, self._random(_NONCE), name, plain)

    def _unwrap(self, name: bytes, wrapped: bytes) -> bytes:
        try:
            return self._aead.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], name)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError(f"keyring {self._path}: a row was changed, or is wrapped under another key") from error

    def _rows(self, sql: str, *values: bytes) -> list[tuple[bytes, ...]]:
        with self._away():
            return self._db.rows(sql, *values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._away(), self._db.write() as db:
            self._opened(lambda: self._unwrap(_LOOKUP, self._lookup()))  # from here on the key is the one in force
            yield db

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # locked for too long, disk full, read error
            raise ServiceAway(f"keyring {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise IntegrityError(f"keyring {self._path}: the file is damaged: {error}") from error
        except OSError as error:  # the node key's disk
            raise ServiceAway(f"node key {self._node_key.path}: {error.strerror}") from error


def _wrap(aead: AESGCM, nonce: bytes, name: bytes, plain: bytes) -> bytes:
    return nonce + aead.encrypt(nonce, plain, name)
