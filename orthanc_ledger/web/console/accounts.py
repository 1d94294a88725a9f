"""The file of who may work in the console: names, what they may, and what their passwords become."""

import hmac
import json
import logging
import re
import secrets
import threading
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from orthanc_ledger.durable import write_over
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.password import stretched
from orthanc_ledger.sole import sole

LOGGER = logging.getLogger(__name__)

Role = Literal["staff", "approver", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)
"""staff: studies, and what waits for a decision; approver: requests; auditor: records and their export."""

SHORTEST = 15
"""Characters of a password that is all there is to know (NIST SP 800-63B-4 3.1.1.2)."""

_LONGEST = 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SALT = 16
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Account:
    """One person. ``identity``: the folder of the person's own key, which lies under a passphrase; None: what this
    person approves is signed by the organisation's node.
    """

    name: str
    roles: frozenset[Role]
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    identity: Path | None = None

    def may(self, role: Role) -> bool:
        """Whether the account has a role."""
        return role in self.roles

    def fits(self, password: str) -> bool:
        """Whether it is the account's password."""
        return hmac.compare_digest(_digest(password, self.salt), self.digest)


NOBODY = Account("", frozenset(), bytes(_SALT), bytes(32))
"""Whose password is tried for a name that nobody has, so that trying takes as long."""


class Accounts:
    """The accounts as their file has them now. Nobody is in while there is none, or it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._version: object = None
        self._known: Mapping[str, Account] = {}

    def find(self, name: str) -> Account | None:
        """The account of that name, or None."""
        return self._now().get(name)

    def all(self) -> list[Account]:
        """All accounts, by name. Raises ConfigError when their file cannot be used."""
        return [account for _, account in sorted(_read(self.path).items())]

    def check(self, name: str, password: str) -> Account | None:
        """The account whose name and password these are, or None; either takes the same time."""
        account = self.find(name)
        fits = (account or NOBODY).fits(password)
        return account if fits else None

    def add(self, name: str, roles: Iterable[Role], password: str, identity: Path | None = None) -> None:
        """Enter a new account. Raises ConfigError."""
        if not _NAME.fullmatch(name):
            raise ConfigError(f"account {name!r}: expected 1 to 64 lower-case letters, digits, '.', '_' or '-'")
        salt = secrets.token_bytes(_SALT)
        added = Account(name, frozenset(roles), salt, _new_digest(password, salt), identity)
        self._change(lambda accounts: {**accounts, name: added}, missing=name)

    def set_password(self, name: str, password: str) -> None:
        """Give an account another password, which ends its sessions. Raises ConfigError."""
        salt = secrets.token_bytes(_SALT)
        digest = _new_digest(password, salt)
        self._change(lambda known: {**known, name: replace(known[name], salt=salt, digest=digest)}, present=name)

    def remove(self, name: str) -> None:
        """Remove an account, which ends its sessions. Raises ConfigError."""
        self._change(lambda known: {each: known[each] for each in known if each != name}, present=name)

    def _change(self, change: Any, present: str | None = None, missing: str | None = None) -> None:
        busy = ConfigError(f"{self.path}: is being changed by another command: try again")
        try:
            with sole(self.path.with_name(f"{self.path.name}.lock"), busy, _PATIENCE_S):
                known = _read(self.path)
                if present is not None and present not in known:
                    raise ConfigError(f"account {present}: not there; `orthanc-ledger account list` shows who is")
                if missing in known:
                    raise ConfigError(f"account {missing}: there already; remove it first, or choose another name")
                write_over(self.path, _encode(change(known)))
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _now(self) -> Mapping[str, Account]:
        with self._lock:
            version = _version(self.path)
            if version != self._version:
                try:
                    self._known = _read(self.path)
                except ConfigError as error:
                    self._known = {}
                    LOGGER.error("nobody can log in: %s", error)
                self._version = version
            return self._known


def _version(path: Path) -> object:
    """What is another after each change of the file."""
    try:
        stat = path.stat()
    except OSError as error:
        return error.errno
    return stat.st_ino, stat.st_mtime_ns, stat.st_size, stat.st_mode


def _digest(password: str, salt: bytes) -> bytes:
    """What is kept of a password: compared in compatibility composition, as keyboards differ (SP 800-63B-4 3.1.1.2)."""
    return stretched(unicodedata.normalize("NFKC", password[:_LONGEST]).encode("utf-8", "replace"), salt)


def _new_digest(password: str, salt: bytes) -> bytes:
    if not SHORTEST <= len(unicodedata.normalize("NFKC", password)) <= _LONGEST:
        raise ConfigError(f"password: expected {SHORTEST} to {_LONGEST} characters; several words are easy to keep")
    return _digest(password, salt)


def _read(path: Path) -> dict[str, Account]:
    """What the file holds; nothing when there is none. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path}: others on this machine may read or change it: chmod 600")
            content = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        rows = json.loads(content)["accounts"]
        return {name: _account(name, row, path.parent) for name, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a file of accounts as `orthanc-ledger account` makes it") from error


def _account(name: str, row: Mapping[str, Any], base: Path) -> Account:
    if unknown := set(row["roles"]) - set(ROLES):
        raise ValueError(unknown)
    identity = None if row["identity"] is None else base / row["identity"]
    return Account(name, frozenset(row["roles"]), bytes.fromhex(row["salt"]), bytes.fromhex(row["digest"]), identity)


def _encode(accounts: Mapping[str, Account]) -> bytes:
    rows = {
        account.name: {
            "roles": sorted(account.roles),
            "salt": account.salt.hex(),
            "digest": account.digest.hex(),
            "identity": None if account.identity is None else str(account.identity),
        }
        for account in accounts.values()
    }
    return json.dumps({"accounts": rows}, indent=1).encode() + b"\n"
