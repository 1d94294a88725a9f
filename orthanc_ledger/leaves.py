"""Leaves of the two trees, and their salted hashes (docs/fingerprint.md, "Trees")."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from orthanc_ledger.elements import show_tag

VALUE: Final = 1
ITEM_COUNT: Final = 2
FRAME: Final = 3
UNUSED_BITS: Final = 4

PIXEL_TREE: Final = 1
METADATA_TREE: Final = 2

_PATH_LENGTH = struct.Struct(">I")
_STEP = struct.Struct(">II")
_ELEMENT_SIZE: Final = 4
_KIND_AND_LENGTH = struct.Struct(">BQ")
_LABEL: Final = b"\x00\x07leaf/v1"
_UNSALTED: Final = bytes(32)


class Leaf(NamedTuple):
    """One leaf; its value of ``length`` bytes is whole, or in chunks to be read once and before the next leaf."""

    path: bytes
    kind: int
    length: int
    value: bytes | Iterator[bytes]


def show_path(path: bytes) -> str:
    """A metadata leaf's path as ``(0008,1140)[0].(0008,1150)``."""
    sequences = "".join(f"{show_tag(tag)}[{item}]." for tag, item in _STEP.iter_unpack(path[:-_ELEMENT_SIZE]))
    return sequences + show_tag(int.from_bytes(path[-_ELEMENT_SIZE:], "big"))


class LeafHasher:
    """Hashes leaves of one tree of one object under several salt keys at once.

    ``salt_keys`` are 32 bytes each, or None for the unsalted form. ``sop_instance_uid`` is ASCII without padding.
    """

    def __init__(self, tree: int, sop_instance_uid: str, salt_keys: Sequence[bytes | None]) -> None:
        uid = sop_instance_uid.encode("ascii")
        context = _LABEL + bytes([tree]) + len(uid).to_bytes(2, "big") + uid
        self._salts = [None if key is None else _Salts(key, context) for key in salt_keys]

    def salts(self, path: bytes) -> list[bytes]:
        """The salt of the leaf at a path under each salt key, 32 bytes."""
        located = _PATH_LENGTH.pack(len(path)) + path
        return [_UNSALTED if salts is None else salts.of(located) for salts in self._salts]

    def hashes(self, leaf: Leaf) -> list[bytes]:
        """RFC 6962 leaf hash under each salt key."""
        return leaf_hashes(leaf, self.salts(leaf.path))


class _Salts:
    """HMAC-SHA256 (RFC 2104) of messages with a common beginning, which is hashed once.

    An object has a salt for each of its leaves, and ``hmac.digest`` sets up the key for every one of them.
    """

    def __init__(self, key: bytes, beginning: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + beginning)
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def of(self, end: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(end)
        outer.update(inner.digest())
        return outer.digest()


def leaf_hashes(leaf: Leaf, salts: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 leaf hash under each salt; reads the leaf's value once."""
    path, value = leaf.path, leaf.value
    head = _PATH_LENGTH.pack(len(path)) + path + _KIND_AND_LENGTH.pack(leaf.kind, leaf.length)
    digests = [hashlib.sha256(b"\0" + salt + head) for salt in salts]
    for chunk in (value,) if isinstance(value, bytes) else value:
        for digest in digests:
            digest.update(chunk)
    return [digest.digest() for digest in digests]
