"""CIDs as Kubo makes them, computed without a node (docs/manifest.md, "CID").

A CID here is text: CIDv1, SHA2-256, base32 lower case (multiformats.io CID specification). Files are UnixFS with raw
leaves in a balanced tree, what `ipfs add --cid-version=1 --raw-leaves --chunker=size-1048576 --max-file-links=1024`
gives (IPIP-499, unixfs-v1-2025); blocks are dag-cbor.
"""

import hashlib
import re
from base64 import b32decode, b32encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from orthanc_ledger.errors import IntegrityError

CHUNK = 1 << 20
LINKS = 1024
LARGEST = 17 << 30
"""Bytes that an object has at most: `largest_object_mb`, sealed."""

_FILE = b"\x08\x02"  # the beginning of a UnixFS node of Type 2: File
_RAW = 0x55
_DAG_PB = 0x70
_DAG_CBOR = 0x71

# The binary CID's first 30 bits are the codec's and fix the prefix; then 2 zero bits, the digest, 2 bits of padding.
_DIGEST = "[a-h][a-z2-7]{50}[aeimquy4]"
_FILE_CID = re.compile(f"(bafkrei|bafybei){_DIGEST}")
_BLOCK_CID = re.compile(f"bafyrei{_DIGEST}")


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the tree: its binary CID, the file's bytes below it, and those with the blocks above them."""

    cid: bytes
    file_size: int
    total_size: int


Block = tuple[bytes, bytes]
"""A block: its binary CID, its bytes."""


class _Tree:
    """The balanced tree over a file's leaves; ``take`` gets each node above them once it is whole, children first."""

    def __init__(self, links: int, take: Callable[[Block], object]) -> None:
        self._links = links
        self._take = take
        self._levels: list[list[_Node]] = [[]]

    def add(self, node: _Node, level: int = 0) -> None:
        if level == len(self._levels):
            self._levels.append([])
        # A full level is closed by its next node only: were it the last one, it would be the root's children.
        if len(self._levels[level]) == self._links:
            self._close(level)
            self._levels[level] = []
        self._levels[level].append(node)

    def root(self) -> bytes:
        """The binary CID over all leaves, of which there is at least one."""
        level = 0
        while level + 1 < len(self._levels) or len(self._levels[level]) > 1:
            self._close(level)
            level += 1
        return self._levels[level][0].cid

    def _close(self, level: int) -> None:
        node, block = _parent(self._levels[level])
        self._take((node.cid, block))
        self.add(node, level + 1)


class UnixFsImporter:
    """Computes the CID of a file from its bytes in order, in memory of one node for each level and link.

    ``chunk`` is the size of a leaf in bytes, ``links`` the most children a node may have.
    """

    def __init__(self, chunk: int = CHUNK, links: int = LINKS) -> None:
        self._chunk = chunk
        self._tree = _Tree(links, lambda block: None)
        self._leaf = hashlib.sha256()
        self._leaf_size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the file's next bytes."""
        view = memoryview(data)
        while view:
            if self._leaf_size == self._chunk:
                self._end_leaf()
            part = view[: self._chunk - self._leaf_size]
            self._leaf.update(part)
            self._leaf_size += len(part)
            view = view[len(part) :]

    def finish(self) -> str:
        """Return the CID of all bytes so far; nothing may be added afterwards."""
        self._end_leaf()
        return cid_text(self._tree.root())

    def _end_leaf(self) -> None:
        self._tree.add(_leaf(self._leaf.digest(), self._leaf_size))
        self._leaf = hashlib.sha256()
        self._leaf_size = 0


def cid_of(source: BinaryIO, chunk: int = CHUNK, links: int = LINKS) -> str:
    """Return the CID of the file that ``source`` holds from where it stands to its end."""
    importer = UnixFsImporter(chunk, links)
    while data := source.read(1 << 18):
        importer.update(data)
    return importer.finish()


def blocks_of(source: BinaryIO, chunk: int = CHUNK, links: int = LINKS) -> Iterator[Block]:
    """The blocks of the file that ``source`` holds from where it stands to its end, children first, the root last.

    ``source`` reads as much as it is asked for, save at its end.
    """
    made: list[Block] = []
    tree = _Tree(links, made.append)
    data = source.read(chunk)
    while True:
        leaf = _leaf(hashlib.sha256(data).digest(), len(data))
        tree.add(leaf)
        yield from made
        made.clear()
        yield leaf.cid, data
        if not (data := source.read(chunk)):
            break
    tree.root()
    yield from made


def is_tree(cid: str) -> bool:
    """Whether a CID is of a node above the leaves of a file, and of a file that has several."""
    return cid.startswith("bafybei")


def children(block: bytes) -> list[str]:
    """The CIDs that a node above leaves links to (dag-pb). Raises ``IntegrityError`` when it is none of ours."""
    try:
        return [cid_text(dict(_walk(link))[1]) for number, link in _walk(block) if number == 2]
    except (IndexError, KeyError) as error:
        raise IntegrityError(f"dag-pb node expected, got {len(block)} bytes that are none") from error


def is_file(block: bytes) -> bool:
    """Whether a node above leaves (dag-pb) says that it is of a file (UnixFS): not of a directory, or of nothing."""
    try:
        return any(number == 1 and data.startswith(_FILE) for number, data in _walk(block))
    except (IndexError, IntegrityError):
        return False


def block_cid(block: bytes) -> str:
    """Return the CID of a dag-cbor block."""
    return cid_text(_binary(_DAG_CBOR, hashlib.sha256(block).digest()))


def check_file_cid(cid: str) -> None:
    """Raise ``IntegrityError`` unless the text is a CID that :func:`cid_of` can give."""
    if not _FILE_CID.fullmatch(cid):
        raise IntegrityError(f"expected the CIDv1 of a file (base32, raw or dag-pb, SHA2-256), got {cid!r}")


def check_block_cid(cid: str) -> None:
    """Raise ``IntegrityError`` unless the text is a CID that :func:`block_cid` can give."""
    if not _BLOCK_CID.fullmatch(cid):
        raise IntegrityError(f"expected the CIDv1 of a block (base32, dag-cbor, SHA2-256), got {cid!r}")


def is_block_cid(cid: str) -> bool:
    """Whether a CID is a block's and no file's. Raises ``IntegrityError`` when the text is neither's."""
    if _BLOCK_CID.fullmatch(cid):
        return True
    check_file_cid(cid)
    return False


def cid_text(cid: bytes) -> str:
    """Return the text of a binary CID: base32, lower case, without padding."""
    return "b" + b32encode(cid).decode("ascii").lower().rstrip("=")


def cid_bytes(cid: str) -> bytes:
    """Return the binary CID of a text that :func:`check_file_cid` or :func:`check_block_cid` takes."""
    return b32decode(cid[1:].upper() + "=" * (-(len(cid) - 1) % 8))


def _leaf(digest: bytes, size: int) -> _Node:
    return _Node(_binary(_RAW, digest), size, size)


def _parent(children: Sequence[_Node]) -> tuple[_Node, bytes]:
    """The dag-pb node over children, and its block: PBNode with its links before its data, which is a UnixFS file
    without bytes.
    """
    links = b"".join(
        _field(2, _field(1, child.cid) + _field(2, b"") + _number(3, child.total_size)) for child in children
    )
    file_size = sum(child.file_size for child in children)
    sizes = b"".join(_number(4, child.file_size) for child in children)
    block = links + _field(1, _FILE + _number(3, file_size) + sizes)
    total_size = len(block) + sum(child.total_size for child in children)
    return _Node(_binary(_DAG_PB, hashlib.sha256(block).digest()), file_size, total_size), block


def _walk(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of wire type 2 in a protobuf message, with their numbers; numbers are passed over."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        length, at = _read_varint(message, at)
        if key & 7 == 2:
            yield key >> 3, message[at : at + length]
            at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a byte, and where it ends."""
    value = shift = 0
    while True:
        if shift > 63:
            raise IntegrityError("dag-pb node expected, got a number of more than 64 bits")
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def _field(number: int, value: bytes) -> bytes:
    """A protobuf field of wire type 2."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    """A protobuf field of wire type 0."""
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first (multiformats.io unsigned-varint)."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _binary(codec: int, digest: bytes) -> bytes:
    return bytes((1, codec, 0x12, 0x20)) + digest  # version, codec, multihash of SHA2-256 and its 32 bytes
