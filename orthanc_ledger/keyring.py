"""The keyring: study and batch keys in one SQLite file, each row wrapped under the node key.

The node key, 32 bytes, lies in a file of its own, and never in the same backup. Rows are sealed by AES-256-GCM with the
row's name as associated data, so that none can stand in for another. What a call returns is durable.
"""

import contextlib
import functools
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orthanc_ledger import tokens
from orthanc_ledger.database import Database
from orthanc_ledger.durable import sync
from orthanc_ledger.errors import ConfigError, DataError, IntegrityError, NotHeld, ServiceAway

_NONCE = 12
_TOKEN = 16
_KEY = 32

# A study's row and its batches' rows go together, and what is left of an erased study is its mark.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lookup (wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS study (name BLOB PRIMARY KEY, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batch (key_id BLOB PRIMARY KEY, study BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS erased (mark BLOB PRIMARY KEY) STRICT;
"""


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

    def __init__(self, path: Path, node_key: bytes, random: Callable[[int], bytes]) -> None:
        self._path = path
        self._aead = AESGCM(node_key)
        self._random = random
        self._db = Database(path, _SCHEMA)

    @classmethod
    def create(cls, path: Path, node_key_path: Path, random: Callable[[int], bytes] = secrets.token_bytes) -> Self:
        """Make a node key, and a keyring under it with a new ``k_lookup``; both files are mode 0600 and durable.

        Raises ``ConfigError`` when either file exists or cannot be made; nothing is overwritten.
        """
        for file in (path, node_key_path):
            if file.exists():
                raise ConfigError(f"{file}: exists already; a new keyring would lose the keys in it")
        node_key = random(_KEY)
        _write_new(node_key_path, node_key)
        _write_new(path, b"")
        keyring = cls(path, node_key, random)
        with keyring._transaction() as db:
            db.execute("INSERT INTO lookup VALUES (?)", (keyring._wrap(b"lookup", random(_KEY)),))
        return keyring

    @classmethod
    def open(cls, path: Path, node_key_path: Path, random: Callable[[int], bytes] = secrets.token_bytes) -> Self:
        """Open a keyring with its node key.

        Raises ``ConfigError`` when a file is missing, is no keyring, or the node key is not this keyring's;
        ``ServiceAway`` when it cannot be read now.
        """
        if not path.is_file():
            raise ConfigError(f"keyring {path}: no such file; restore it, or run init in an empty folder")
        try:
            node_key = node_key_path.read_bytes()
        except OSError as error:
            raise ConfigError(f"node key {node_key_path}: {error.strerror}; restore it from its backup") from error
        if len(node_key) != _KEY:
            raise ConfigError(f"node key {node_key_path}: expected {_KEY} bytes, got {len(node_key)}")
        try:
            keyring = cls(path, node_key, random)
        except sqlite3.OperationalError as error:  # as in _away: a node must not end for a disk that fails
            raise ServiceAway(f"keyring {path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"keyring {path}: {error}") from error
        try:
            _ = keyring.k_lookup
        except IntegrityError as error:
            raise ConfigError(f"node key {node_key_path}: is not the key of keyring {path}") from error
        return keyring

    @functools.cached_property
    def k_lookup(self) -> bytes:
        """The organisation's key (32 bytes) for names of studies and claims."""
        rows = self._rows("SELECT wrapped FROM lookup")
        if not rows:
            raise ConfigError(f"keyring {self._path}: is no keyring, or init did not end; it has no lookup key")
        return self._unwrap(b"lookup", rows[0][0])

    def study(self, study_uid: str) -> StudyKeys | None:
        """Return the keys of a study, None when there are none."""
        return self._study(tokens.study_row(self.k_lookup, study_uid))

    def ensure_study(self, study_uid: str) -> StudyKeys:
        """Return the keys of a study, making them at its first call of any process.

        Raises ``StudyErased`` when the study was erased.
        """
        name = tokens.study_row(self.k_lookup, study_uid)
        if found := self._study(name):
            return found
        mark = tokens.erased_mark(self.k_lookup, study_uid)
        keys = StudyKeys(self._random(_TOKEN), self._random(_KEY))
        with self._transaction() as db:
            if found := self._study(name):  # another process was first
                return found
            if db.execute("SELECT 1 FROM erased WHERE mark = ?", (mark,)).fetchone():
                raise StudyErased("the study was erased; nothing more of it is anchored")
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
        rows = self._rows("SELECT study, wrapped FROM batch WHERE key_id = ?", key_id)
        if not rows:
            raise NotHeld(f"no batch key {key_id.hex()}")
        study, wrapped = rows[0]
        return self._unwrap(b"batch" + key_id + study, wrapped)

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
        rows = self._rows("SELECT name, wrapped FROM study")
        return frozenset(self._unwrap(b"study" + name, wrapped)[:_TOKEN] for name, wrapped in rows)

    def _study(self, name: bytes) -> StudyKeys | None:
        rows = self._rows("SELECT wrapped FROM study WHERE name = ?", name)
        if not rows:
            return None
        both = self._unwrap(b"study" + name, rows[0][0])
        return StudyKeys(both[:_TOKEN], both[_TOKEN:])

    def _wrap(self, name: bytes, plain: bytes) -> bytes:
        nonce = self._random(_NONCE)
        return nonce + self._aead.encrypt(nonce, plain, name)

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
            yield db

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # locked for too long, disk full, read error
            raise ServiceAway(f"keyring {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise IntegrityError(f"keyring {self._path}: the file is damaged: {error}") from error


def _write_new(path: Path, content: bytes) -> None:
    """Make a file that only its owner can read, durable with its name."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}") from error
