"""A recipient's key pair: what key files are sealed to (docs/keyfile.md).

HPKE base mode (RFC 9180) with MLKEM768-X25519, HKDF-SHA256, AES-256-GCM: what is sealed stays so as long as either of
ML-KEM and X25519 holds. Base mode says nothing of the sender: `key_file.py` has it sign.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from orthanc_ledger.durable import write_new
from orthanc_ledger.errors import ConfigError, IntegrityError, Unreadable

PUBLIC_FILE = "public.key"
PRIVATE_FILE = "private.key"

_MLKEM, _X25519 = 1184, 32  # bytes of the public keys
_SEED = 32
_PUBLIC_LABEL = "orthanc-ledger-public-key-v1"
_PRIVATE_LABEL = "orthanc-ledger-private-key-v1"
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@dataclass(frozen=True)
class PublicKey:
    """The ML-KEM-768 encapsulation key (1184 bytes), then the X25519 key (32 bytes)."""

    raw: bytes

    def __post_init__(self) -> None:
        """Raises Unreadable when the bytes are no such keys."""
        _ = self._key

    @property
    def digest(self) -> bytes:
        """SHA-256: `publicKeyDigest` of a request."""
        return hashlib.sha256(self.raw).digest()

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """HPKE's encapsulated key (1120 bytes), then its ciphertext."""
        return _SUITE.encrypt(plaintext, self._key, info=info)

    @cached_property
    def _key(self) -> hpke.MLKEM768X25519PublicKey:
        try:
            key = hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.raw[:_MLKEM]),
                X25519PublicKey.from_public_bytes(self.raw[_MLKEM:]),
            )
            _SUITE.encrypt(b"", key)  # refuses points of low order (RFC 7748 6.1): before anything is released to it
            return key
        except ValueError as error:
            raise Unreadable(
                "public key: expected an ML-KEM-768 and an X25519 key, none of low order, "
                f"{_MLKEM + _X25519} bytes, got {len(self.raw)}"
            ) from error


@dataclass(frozen=True)
class PrivateKey:
    """A seed of 32 bytes, from which both private keys follow (draft-connolly-cfrg-xwing-kem 5.2)."""

    _seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Callable[[int], bytes] = secrets.token_bytes) -> "PrivateKey":
        """A new one."""
        return cls(random(_SEED))

    @cached_property
    def public(self) -> PublicKey:
        """Its public key."""
        mlkem, x25519 = self._parts
        return PublicKey(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """What `PublicKey.seal` was given. Raises IntegrityError: for another key or info, changed or cut off."""
        try:
            return _SUITE.decrypt(sealed, hpke.MLKEM768X25519PrivateKey(*self._parts), info=info)
        except (InvalidTag, ValueError):
            pass
        raise IntegrityError("sealed keys: do not open: for another key, or another release, or changed or cut off")

    def write(self, folder: Path) -> None:
        """Write both keys into a folder, which is made; the private one for its owner only. Durable.

        Raises ConfigError when one is there already, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, label, raw, mode in (
                (PRIVATE_FILE, _PRIVATE_LABEL, self._seed, 0o600),
                (PUBLIC_FILE, _PUBLIC_LABEL, self.public.raw, 0o644),
            ):
                write_new(folder / name, f"{label} {base64.b64encode(raw).decode()}\n".encode("ascii"), mode)
        except FileExistsError as error:
            raise ConfigError(
                f"{error.filename} exists already: keys are never overwritten, choose another folder"
            ) from error
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error

    @cached_property
    def _parts(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        expanded = hashlib.shake_256(self._seed).digest(96)
        return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def read_public(path: Path) -> PublicKey:
    """The public key in a file that `PrivateKey.write` made. Raises ConfigError."""
    try:
        return PublicKey(_read(path, _PUBLIC_LABEL, _MLKEM + _X25519))
    except Unreadable as error:
        raise ConfigError(f"{path}: {error}") from error


def read_private(path: Path) -> PrivateKey:
    """The private key in such a file. Raises ConfigError, which says nothing of what is in there; also when others may
    read it.
    """
    raw = _read(path, _PRIVATE_LABEL, _SEED)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others on this machine may read this private key: chmod 600")
    return PrivateKey(raw)


def _read(path: Path, label: str, size: int) -> bytes:
    try:
        label_here, _, text = path.read_text(encoding="ascii").strip().partition(" ")
        raw = base64.b64decode(text, validate=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, binascii.Error):
        label_here, raw = "", b""
    if label_here != label or len(raw) != size:
        raise ConfigError(f"{path}: expected one line that begins with {label}, as `orthanc-ledger keypair` writes it")
    return raw
