"""Leaves of the two trees, and their salted hashes (docs/fingerprint.md, "Trees")."""

import hashlib
import hmac
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
        self._context = _LABEL + bytes([tree]) + len(uid).to_bytes(2, "big") + uid
        self._salt_keys = tuple(salt_keys)

    def salts(self, path: bytes) -> list[bytes]:
        """The salt of the leaf at a path under each salt key, 32 bytes."""
        message = self._context + _PATH_LENGTH.pack(len(path)) + path
        return [bytes(32) if key is None else hmac.digest(key, message, "sha256") for key in self._salt_keys]

    def hashes(self, leaf: Leaf) -> list[bytes]:
        """RFC 6962 leaf hash under each salt key."""
        return leaf_hashes(leaf, self.salts(leaf.path))


def leaf_hashes(leaf: Leaf, salts: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 leaf hash under each salt; reads the leaf's value once."""
    path, value = leaf.path, leaf.value
    head = _PATH_LENGTH.pack(len(path)) + path + _KIND_AND_LENGTH.pack(leaf.kind, leaf.length)
    if isinstance(value, bytes):
        return [hashlib.sha256(b"".join((b"\0", salt, head, value))).digest() for salt in salts]
    digests = [hashlib.sha256(b"\0" + salt + head) for salt in salts]
    for chunk in value:
        for digest in digests:
            digest.update(chunk)
    return [digest.digest() for digest in digests]
