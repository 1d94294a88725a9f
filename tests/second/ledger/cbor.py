"""Canonical dag-cbor of the contract's values: those of `tests.second.manifest`, and booleans."""

from typing import Any

from tests.second import manifest

Value = Any
"""None, bool, int, str, bytes, list or dict with text keys."""


def encode(value: Value) -> bytes:
    """Shortest heads, keys by length then bytes."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, list):
        return _head(0x80, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return _head(0xA0, len(keys)) + b"".join(encode(key) + encode(value[key]) for key in keys)
    return manifest.encode(value)


def _head(major: int, length: int) -> bytes:
    # A length's head is an unsigned integer's with another major type (RFC 8949, 3).
    first, *rest = manifest.encode(length)
    return bytes([major | first, *rest])
