"""ML-DSA-65 (FIPS 204) keys: the second signature under checkpoints, which outlasts ECDSA (docs/checkpoint.md).

A private key is PKCS #8 with its seed, a public key a SubjectPublicKeyInfo, both in PEM (RFC 9881).
"""

import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from orthanc_ledger.errors import ConfigError, IntegrityError

NOTE_TYPE = b"\xfforthanc-ledger ML-DSA-65"
"""Signature type in a C2SP signed note: 0xff, as ML-DSA-65 over a note's text has none assigned, and a longer name."""

_PUBLIC_KEY = re.compile(b"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_NO_KEY = (ValueError, TypeError, UnsupportedAlgorithm)


def new_key() -> bytes:
    """A new private key, PEM."""
    return MLDSA65PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_private_key(path: Path) -> MLDSA65PrivateKey:
    """The private key in a PEM file. Raises ConfigError."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except _NO_KEY as error:
        raise ConfigError(f"{path}: expected an ML-DSA-65 private key in PEM, not encrypted") from error
    if not isinstance(key, MLDSA65PrivateKey):
        raise ConfigError(f"{path}: expected an ML-DSA-65 private key, got one of another kind")
    return key


def public_pem(key: MLDSA65PrivateKey) -> bytes:
    """The public key of a private one, PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_keys(path: Path) -> tuple[MLDSA65PublicKey, ...]:
    """All public keys in a PEM file. Raises ConfigError when one is of another kind."""
    try:
        keys = [load_pem_public_key(pem) for pem in _PUBLIC_KEY.findall(path.read_bytes())]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except _NO_KEY as error:
        raise ConfigError(f"{path}: a public key in it cannot be read") from error
    found = tuple(key for key in keys if isinstance(key, MLDSA65PublicKey))
    if len(found) < len(keys):
        raise ConfigError(f"{path}: expected ML-DSA-65 public keys only, got one of another kind")
    return found


def verify(key: MLDSA65PublicKey, signature: bytes, message: bytes) -> None:
    """FIPS 204, algorithm 3, with an empty context. Raises IntegrityError."""
    try:
        key.verify(signature, message)
    except InvalidSignature as error:
        raise IntegrityError("checkpoint: an ML-DSA-65 signature was not made by its key over these bytes") from error
