"""Every key, token and name that is derived from a secret: the one place (docs/manifest.md, "Keys and tokens").

All are HMAC-SHA256 or HKDF-SHA256 over a label that no other derivation uses, so none of them says anything about
another. Keys and digests are 32 bytes, study tokens 16 bytes; UIDs are taken without trailing NUL or space.
"""

import hmac
from dataclasses import dataclass, field

from orthanc_ledger.errors import DataError


@dataclass(frozen=True, slots=True)
class ObjectKeys:
    """What opens and verifies one sealed object (`seal_key`, `salt_key`), and no other."""

    seal: bytes = field(repr=False)
    salt: bytes = field(repr=False)


def label(text: str) -> bytes:
    """str(x) of the format pages: u16 length, then ASCII.

    Raises ``DataError`` when the text is not ASCII or longer than 65,535 characters.
    """
    if not text.isascii() or len(text) > 0xFFFF:
        raise DataError(f"expected ASCII of at most 65535 characters, got {text[:80]!r} ({len(text)} characters)")
    return len(text).to_bytes(2, "big") + text.encode("ascii")


def claim_name(k_lookup: bytes, sop_uid: str) -> str:
    """Name, 64 hex digits, under which this node claims a SOP Instance UID."""
    return _hmac(k_lookup, label("sop") + _uid(sop_uid)).hex()


def study_row(k_lookup: bytes, study_uid: str) -> bytes:
    """Name of a study's row in the keyring."""
    return _hmac(k_lookup, label("study") + _uid(study_uid))


def erased_mark(k_lookup: bytes, study_uid: str) -> bytes:
    """What stays in the keyring of an erased study."""
    return _hmac(k_lookup, label("erased") + _uid(study_uid))


def instance_token(k_study: bytes, sop_uid: str) -> bytes:
    """How ledger and manifests call an instance."""
    return _hmac(k_study, label("instance/v1") + _uid(sop_uid))


def content_id(k_study: bytes, fingerprint: bytes) -> bytes:
    """Sameness of content within a study; ``fingerprint`` is the unsalted one."""
    return _hmac(k_study, label("content/v1") + fingerprint)


def seen(key: bytes, sha256: bytes) -> bytes:
    """``observed`` and ``presented`` on the ledger; ``sha256`` is of the data set, ``key`` k_study; a research centre,
    which has none, takes the object's salt key.
    """
    return _hmac(key, label("seen/v1") + sha256)


def object_keys(batch_key: bytes, instance_token: bytes) -> ObjectKeys:
    """Both keys of an instance's sealed object in one batch."""
    return ObjectKeys(seal_key(batch_key, instance_token), salt_key(batch_key, instance_token))


def seal_key(batch_key: bytes, instance_token: bytes) -> bytes:
    """Key material of an instance's sealed object in one batch."""
    return _hkdf(batch_key, label("object/v1") + instance_token)


def salt_key(batch_key: bytes, instance_token: bytes) -> bytes:
    """Key of an instance's leaf salts and of its keyed digest in one batch."""
    return _hkdf(batch_key, label("salt/v1") + instance_token)


def keyed_digest(salt_key: bytes, sha256: bytes) -> bytes:
    """Digest of a data set as a record carries it; ``sha256`` is of the data set as it arrived."""
    return _hmac(salt_key, label("digest/v1") + sha256)


def seal_aad(study_token: bytes, instance_token: bytes) -> bytes:
    """Associated data of a sealed object: it opens only as this instance of this study."""
    return label("seal/v1") + study_token + instance_token


def _uid(uid: str) -> bytes:
    return label(uid.rstrip("\0 "))


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _hkdf(key: bytes, info: bytes) -> bytes:
    """One block of RFC 5869's output, with an empty salt: the key material is random already."""
    return _hmac(_hmac(bytes(32), key), info + b"\x01")
