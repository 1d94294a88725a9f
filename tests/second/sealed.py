"""Sealed objects, from the published description of Tink's AES-GCM-HKDF streaming AEAD.

    header     = u8 header length (40) ‖ salt(32) ‖ nonce prefix(7)
    key        = HKDF-SHA-256(key material, salt, info = associated data), 32 bytes
    segment i  = AES-256-GCM(key, nonce prefix ‖ u32 i ‖ u8 last, plaintext i), no associated data

The header counts towards the first segment: every ciphertext segment but the last ends on a multiple of 1 MiB.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.second.keys import hkdf, text

SEGMENT = 1 << 20
HEADER = 40
TAG = 16


class Refused(Exception):
    """The object is not what was sealed under this key and this associated data."""


def associated_data(study_token: bytes, instance_token: bytes) -> bytes:
    """What binds an object to its place."""
    return text("seal/v1") + study_token + instance_token


def seal(plain: bytes, key: bytes, aad: bytes, salt: bytes, prefix: bytes) -> bytes:
    """The sealed object, for a given salt(32) and nonce prefix(7)."""
    first = SEGMENT - HEADER - TAG
    parts = [plain[:first]]
    parts += [plain[at : at + SEGMENT - TAG] for at in range(first, len(plain), SEGMENT - TAG)]
    cipher = AESGCM(hkdf(key, salt, aad, 32))
    out = bytes([HEADER]) + salt + prefix
    for number, part in enumerate(parts):
        out += cipher.encrypt(_nonce(prefix, number, number == len(parts) - 1), part, b"")
    return out


def unseal(sealed: bytes, key: bytes, aad: bytes) -> bytes:
    """The whole plaintext. Raises Refused when any of it is not genuine."""
    if len(sealed) < HEADER + TAG or sealed[0] != HEADER:
        raise Refused("no header")
    salt, prefix = sealed[1:33], sealed[33:HEADER]
    cipher = AESGCM(hkdf(key, salt, aad, 32))
    bounds = [HEADER, *range(SEGMENT, len(sealed), SEGMENT), len(sealed)]
    plain = b""
    for number in range(len(bounds) - 1):
        segment = sealed[bounds[number] : bounds[number + 1]]
        try:
            plain += cipher.decrypt(_nonce(prefix, number, number == len(bounds) - 2), segment, b"")
        except InvalidTag as error:
            raise Refused(f"segment {number}") from error
    return plain


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])
