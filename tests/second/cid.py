"""CIDs of files as `unixfs-v1-2025` makes them: all leaves first, then level by level. Protobuf by hand.

Sources: CIDv1 and multihash, the dag-pb and UnixFS specifications.
"""

from base64 import b32encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

RAW, DAG_PB, DAG_CBOR = 0x55, 0x70, 0x71


@dataclass(frozen=True)
class Node:
    """A block of the DAG: its CID, the file bytes below it, and the bytes of all blocks from it down."""

    cid: bytes
    file_size: int
    tree_size: int


def binary(codec: int, block: bytes) -> bytes:
    """CIDv1, sha2-256."""
    return bytes([1, codec, 0x12, 0x20]) + sha256(block).digest()


def text(cid: bytes) -> str:
    """Multibase base32, lower case, no padding."""
    return "b" + b32encode(cid).decode().lower().rstrip("=")


def of_block(block: bytes) -> str:
    """The CID of a dag-cbor block."""
    return text(binary(DAG_CBOR, block))


def of_bytes(data: bytes, chunk: int = 1 << 20, links: int = 1024) -> str:
    """The CID of a file."""
    return of_chunks((data[at : at + chunk] for at in range(0, len(data), chunk)), links)


def of_chunks(chunks: Iterable[bytes], links: int = 1024) -> str:
    """The CID of a file already cut in chunks."""
    level = [Node(binary(RAW, chunk), len(chunk), len(chunk)) for chunk in chunks]
    if not level:
        return text(binary(RAW, b""))
    while len(level) > 1:
        level = [_parent(level[at : at + links]) for at in range(0, len(level), links)]
    return text(level[0].cid)


def _parent(children: list[Node]) -> Node:
    size = sum(child.file_size for child in children)
    # UnixFS Data: Type = File (2), filesize, one blocksizes each
    unixfs = _number(1, 2) + _number(3, size) + b"".join(_number(4, child.file_size) for child in children)
    # dag-pb writes Links (2) before Data (1); a link is Hash, Name (present though empty), Tsize
    links = [_bytes(1, child.cid) + _bytes(2, b"") + _number(3, child.tree_size) for child in children]
    block = b"".join(_bytes(2, link) for link in links) + _bytes(1, unixfs)
    return Node(binary(DAG_PB, block), size, len(block) + sum(child.tree_size for child in children))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
