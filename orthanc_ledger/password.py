"""Keys and digests made of what a person remembers."""

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

COST = {"n": 1 << 14, "r": 8, "p": 5}
"""RFC 7914 2; of the settings that OWASP's Password Storage Cheat Sheet calls equal the one with 16 MiB: several may be
made at once, and OpenSSL opens a key under it within its own limit.
"""


def stretched(secret: bytes, salt: bytes, size: int = 32) -> bytes:
    """``size`` bytes that take a quarter of a second to try for each guess."""
    return Scrypt(salt, size, **COST).derive(secret)
