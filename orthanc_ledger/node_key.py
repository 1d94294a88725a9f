"""Where the node key, 32 bytes, is kept: one file, plain or under a passphrase, and how another takes its place.

A new key is staged beside the one in force (``.new``); once all rows are under it, it takes the name, and the one
before is overwritten and unlinked (``.old``). Each step may be repeated, and whoever reads meanwhile tries both.
"""

import contextlib
import getpass
import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from orthanc_ledger.durable import sync, write_new
from orthanc_ledger.errors import ConfigError

SIZE = 32
PASSPHRASE_FILE = "ORTHANC_LEDGER_PASSPHRASE_FILE"
NEW_PASSPHRASE_FILE = "ORTHANC_LEDGER_NEW_PASSPHRASE_FILE"
CREDENTIAL = "orthanc-ledger-passphrase"
"""Its name among systemd's credentials (systemd.exec(5), LoadCredential=)."""

_MAGIC = b"orthanc-ledger node key, scrypt v1\n"
_SALT, _NONCE = 16, 12
# RFC 7914 2; the cost that OWASP's Password Storage Cheat Sheet names first. 128 MiB and about half a second.
_SCRYPT = {"n": 1 << 17, "r": 8, "p": 1}


class Wrapping(Protocol):
    """How the key lies in its file. The place for a device (PKCS#11) that wraps it without giving its own key away."""

    def wrap(self, key: bytes) -> bytes:
        """What the file holds. Raises ConfigError."""

    def unwrap(self, content: bytes) -> bytes:
        """The key. Raises ConfigError when the content is not of this kind, was changed, or does not open."""


class Plain:
    """The key as it is: who can read the file has it."""

    def wrap(self, key: bytes) -> bytes:
        return key

    def unwrap(self, content: bytes) -> bytes:
        if len(content) != SIZE:
            raise ConfigError(f"expected {SIZE} bytes, got {len(content)}")
        return content


class Passphrase:
    """Under AES-256-GCM with a key that scrypt makes of a passphrase: magic ‖ salt(16) ‖ nonce(12) ‖ sealed key.

    ``variable`` names the environment variable with the passphrase's file; see `read_passphrase`.
    """

    def __init__(self, variable: str = PASSPHRASE_FILE) -> None:
        self._variable = variable

    def wrap(self, key: bytes) -> bytes:
        salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
        return _MAGIC + salt + nonce + self._aead(salt, new=True).encrypt(nonce, key, _MAGIC)

    def unwrap(self, content: bytes) -> bytes:
        salt, rest = content[len(_MAGIC) :][:_SALT], content[len(_MAGIC) + _SALT :]
        if not content.startswith(_MAGIC) or len(rest) <= _NONCE:
            raise ConfigError("expected a key under a passphrase")
        try:
            return self._aead(salt).decrypt(rest[:_NONCE], rest[_NONCE:], _MAGIC)
        except InvalidTag as error:
            raise ConfigError("does not open: another passphrase, or the file was changed") from error

    def _aead(self, salt: bytes, new: bool = False) -> AESGCM:
        return AESGCM(Scrypt(salt, SIZE, **_SCRYPT).derive(read_passphrase(self._variable, new)))


WRAPPINGS: dict[str, Wrapping] = {"file": Plain(), "passphrase": Passphrase()}
"""By URL scheme."""


@dataclass(frozen=True)
class Found:
    """A key that could be read; ``staged``: beside the one in force."""

    key: bytes = field(repr=False)
    staged: bool


@dataclass(frozen=True)
class NodeKey:
    """The key's place. Methods raise ConfigError, naming the file, when it cannot be read or written."""

    path: Path
    scheme: str = "file"

    def create(self, key: bytes) -> None:
        """Keep the first key; nothing is overwritten. Durable, mode 0600."""
        _make(self.path, WRAPPINGS[self.scheme].wrap(key))

    def read(self) -> list[Found]:
        """The key in force, and one that is staged: between two steps of a change either may be the right one."""
        found, errors = [], []
        for path in (self.path, self._new):
            try:
                found.append(Found(self._unwrap(path), path == self._new))
            except ConfigError as error:
                errors.append(error)
        if not found:
            raise errors[0]
        return found

    def stage(self, key: bytes, wrapping: Wrapping | None = None) -> None:
        """Keep a key beside the one in force, wrapped as that one or otherwise; durable. Raises OSError, too."""
        write_new(self._new, (wrapping or WRAPPINGS[self.scheme]).wrap(key))

    def unstage(self) -> None:
        """Destroy what is staged, which nothing may be under. Raises OSError."""
        _destroy(self._new)

    def put_in_place(self) -> None:
        """Give a staged key the name, and destroy the key before. Raises OSError."""
        if self._new.exists():
            with contextlib.suppress(FileExistsError):
                os.link(self.path, self._old)
            sync(self.path.parent)  # whoever dies behind the next line leaves the old one where it is found
            self._new.replace(self.path)
            sync(self.path.parent)
        _destroy(self._old)

    @property
    def is_changing(self) -> bool:
        """Whether a change is going on, or was interrupted."""
        return self._new.exists() or self._old.exists()

    def back_up(self, backup: Path) -> None:
        """Copy the file to a new one, and read that back; what is under a passphrase stays so."""
        content = _read(self.path)
        _make(backup, content)
        if _read(backup) != content:
            raise ConfigError(f"{backup}: what was read back differs from the key")

    @property
    def _new(self) -> Path:
        return self.path.with_name(f"{self.path.name}.new")

    @property
    def _old(self) -> Path:
        return self.path.with_name(f"{self.path.name}.old")

    def _unwrap(self, path: Path) -> bytes:
        content = _read(path, private=True)
        scheme = "passphrase" if content.startswith(_MAGIC) else "file"
        if path == self.path and scheme != self.scheme:
            raise ConfigError(f"node key {path}: expected {self.scheme}:, is {scheme}: write `node_key: {scheme}:…`")
        try:
            return WRAPPINGS[scheme].unwrap(content)
        except ConfigError as error:
            raise ConfigError(f"node key {path}: {error}") from error


def locate(url: str, base: Path) -> NodeKey:
    """The place that a URL names: `file:PATH`, a bare path, `passphrase:PATH`; paths count from ``base``.

    Raises ConfigError for `pkcs11:`, whose place this is.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "pkcs11":
        raise ConfigError("pkcs11: not built: expected file:PATH or passphrase:PATH")
    if not colon or scheme not in WRAPPINGS:
        scheme, rest = "file", url
    return NodeKey(base / rest, scheme)


def read_passphrase(
    variable: str = PASSPHRASE_FILE, new: bool = False, what: str = "passphrase of the node key"
) -> bytes:
    """The passphrase, or ``what`` else: of the file that the environment names, or systemd's credential; else asked for
    at the terminal, ``new`` ones twice. Never an argument, which others could read.

    What was typed is kept in memory, where processes that this one starts find it. Raises ConfigError.
    """
    place = os.environ.get(variable)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if place is None and folder and variable == PASSPHRASE_FILE and (Path(folder) / CREDENTIAL).exists():
        place = str(Path(folder) / CREDENTIAL)
    if place is not None:
        try:
            found = Path(place).read_bytes().removesuffix(b"\n")
        except OSError as error:
            raise ConfigError(f"{what}: {place}: {error.strerror}") from error
    elif sys.stdin is not None and sys.stdin.isatty():
        found = _typed(variable, new, what)
    else:
        credential = f", or as systemd's credential {CREDENTIAL}" if variable == PASSPHRASE_FILE else ""
        raise ConfigError(f"no {what}: name its file by ${variable}{credential}")
    if not found:
        raise ConfigError(f"the {what} is empty")
    return found


def _typed(variable: str, new: bool, what: str) -> bytes:
    typed = getpass.getpass(f"{what}: ").encode()
    if new and getpass.getpass("once more: ").encode() != typed:
        raise ConfigError(f"the {what} was typed in two ways")
    kept = os.memfd_create("passphrase")
    os.write(kept, typed)
    os.environ[variable] = f"/proc/{os.getpid()}/fd/{kept}"
    return typed


def _read(path: Path, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if private and os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"node key {path}: others on this machine may read it: chmod 600")
            return file.read()
    except OSError as error:
        raise ConfigError(f"node key {path}: {error.strerror}; restore it from its backup") from error


def _make(path: Path, content: bytes) -> None:
    try:
        write_new(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}") from error


def _destroy(path: Path) -> None:
    """Overwrite a file in its place, then unlink it, durably; one that is gone is no error.

    What a disk kept of it elsewhere (SSD, copy-on-write, snapshots) no program reaches: docs/keys.md.
    """
    with contextlib.suppress(FileNotFoundError):
        with path.open("r+b") as file:
            file.write(secrets.token_bytes(os.fstat(file.fileno()).st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    sync(path.parent)
