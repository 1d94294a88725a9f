"""Walks the elements of a data set where they lie in the file (PS3.5 section 7).

A data set is walked twice: ``Scan`` checks it to its end and notes how many items each sequence has, ``walk`` then
yields the elements with those counts. Only headers and short values are read, so memory does not grow with the object.
"""

import struct
from array import array
from collections.abc import Container, Generator, Iterator
from typing import BinaryIO, Final, NamedTuple

from orthanc_ledger.errors import Unreadable
from orthanc_ledger.values import UNKNOWN, effective_vr

UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA: Final = 0x7FE00010
MAX_DEPTH: Final = 64
MAX_SEQUENCES: Final = 1 << 24
MAX_FRAGMENTS: Final = 1 << 21

_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_ITEM_BYTES: Final = b"\xfe\xff\x00\xe0"
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO"}
    | {b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_NOT_ITEMS: Final = -1
_NOT_IN_DATA_SETS = frozenset((0x0002, 0xFFFE))


class Reader:
    """Part of a seekable file, by offsets from the file's position at construction."""

    BLOCK: Final = 1 << 18
    CHUNK: Final = 1 << 20

    def __init__(self, file: BinaryIO, block: int = BLOCK) -> None:
        self._file = file
        self._origin = file.tell()
        self.size = file.seek(0, 2) - self._origin
        self._block_size = block
        self._block = b""
        self._start = 0

    def block(self, offset: int, length: int) -> tuple[bytes, int]:
        """A block of what is read ahead, and where in it the ``length`` bytes at ``offset`` are.

        Raises ``Unreadable`` when the file ends before.
        """
        start = offset - self._start
        if start < 0 or start + length > len(self._block):
            self._file.seek(self._origin + offset)
            self._block, self._start, start = self._file.read(max(length, self._block_size)), offset, 0
            if len(self._block) < length:
                raise Unreadable(
                    f"the file ends at byte {offset + len(self._block)}, {length} bytes expected at {offset}"
                )
        return self._block, start

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``. Raises as ``block``."""
        block, start = self.block(offset, length)
        return block[start : start + length]

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """The same bytes in pieces of ``CHUNK`` bytes, the last one shorter."""
        for begin in range(offset, offset + length, self.CHUNK):
            yield self.read(begin, min(self.CHUNK, offset + length - begin))


class Element(NamedTuple):
    """One element where it stands.

    ``path`` is as in docs/fingerprint.md and ends in the tag. ``vr`` is the stream's (empty when implicit). A sequence
    has its number of ``items``; every other element has None, and its value at ``offset``, where ``length`` UNDEFINED
    means encapsulated fragments.
    """

    path: bytes
    tag: int
    vr: bytes
    big_endian: bool
    offset: int
    length: int
    items: int | None


_LENGTH_LE, _LENGTH_BE = struct.Struct("<I"), struct.Struct(">I")
_EXPLICIT_LE, _EXPLICIT_BE = struct.Struct("<HH2sH"), struct.Struct(">HH2sH")
_PATH_PART = struct.Struct(">I")


class Encoding:
    """How element headers are written (PS3.5 7.1)."""

    def __init__(self, explicit: bool, big_endian: bool) -> None:
        self.explicit = explicit
        self.big_endian = big_endian
        self._header = _EXPLICIT_BE if big_endian else _EXPLICIT_LE
        self._length = _LENGTH_BE if big_endian else _LENGTH_LE

    def header(self, reader: Reader, offset: int, limit: int) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty when implicit), length and offset of the value for the element header at ``offset``.

        Raises ``Unreadable`` for a VR that is not two capital letters, for a delimiter with a length (PS3.5 7.5.2), and
        when header or value run past ``limit``.
        """
        value = offset + 8
        if value > limit:
            raise Unreadable(f"the data set breaks off in an element header at byte {offset}")
        block, start = reader.block(offset, 8)
        group, element, vr, length = self._header.unpack_from(block, start)
        if not self.explicit or group == 0xFFFE:
            vr, length = b"", self._length.unpack_from(block, start + 4)[0]
            if group == 0xFFFE and length and element != 0xE000:
                raise Unreadable(f"({group:04X},{element:04X}) at byte {offset}: length 0 expected, got {length}")
        elif vr not in _SHORT_VRS:
            if not (vr.isalpha() and vr.isupper()):
                raise Unreadable(f"({group:04X},{element:04X}) at byte {offset}: VR is two capital letters, got {vr!r}")
            if value + 4 > limit:
                raise Unreadable(f"the data set breaks off in an element header at byte {offset}")
            length = self._length.unpack(reader.read(value, 4))[0]
            value += 4
        if value + length > limit and length != UNDEFINED:
            past = value + length - limit
            raise Unreadable(
                f"({group:04X},{element:04X}) at byte {offset}: its {length} bytes run {past} past the end"
            )
        return group << 16 | element, vr, length, value


IMPLICIT_LE = Encoding(explicit=False, big_endian=False)
EXPLICIT_LE = Encoding(explicit=True, big_endian=False)
EXPLICIT_BE = Encoding(explicit=True, big_endian=True)


class Fragments(NamedTuple):
    """Encapsulated fragments (PS3.5 A.4). The first item, the Basic Offset Table, is not among them."""

    offset_table: tuple[int, int]
    offsets: "array[int]"
    lengths: "array[int]"
    end: int


def fragments(reader: Reader, offset: int, limit: int, encoding: Encoding) -> Fragments:
    """The fragments of the value at ``offset``, by offset and length; ``end`` is the byte after the delimiter.

    Raises ``Unreadable`` when anything but items of defined length stands there, the delimiter is missing, or there are
    more than MAX_FRAGMENTS.
    """
    offsets, lengths = array("Q"), array("Q")
    while True:
        tag, _, length, value = encoding.header(reader, offset, limit)
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or length == UNDEFINED:
            raise Unreadable(f"encapsulated pixel data: a fragment expected at byte {offset}, got {show_tag(tag)}")
        if len(offsets) > MAX_FRAGMENTS:
            raise Unreadable(f"encapsulated pixel data has more than {MAX_FRAGMENTS} fragments")
        offsets.append(value)
        lengths.append(length)
        offset = value + length
    if not offsets:
        raise Unreadable(f"encapsulated pixel data: an offset table expected at byte {offset}, got the delimiter")
    return Fragments((offsets[0], lengths[0]), offsets[1:], lengths[1:], value)


def show_tag(tag: int) -> str:
    """A tag as the standard writes it: ``(0010,0020)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _TooDeep(Unreadable):
    """Nesting beyond MAX_DEPTH; never taken for "content that does not parse"."""


class Scan:
    """Checks a data set and keeps what a walk must know before it gets there.

    ``counts`` holds the items of each sequence in the order met, or -1 for a value that only looked like one. ``found``
    holds the wanted values of the top level.
    """

    def __init__(self, reader: Reader, encoding: Encoding, wanted: Container[int]) -> None:
        self.reader = reader
        self.encoding = encoding
        self.counts = array("q")
        self.found: dict[int, Element] = {}
        self._wanted = wanted

    def run(self, offset: int, limit: int, last_tag: int = UNDEFINED) -> None:
        """Scan the top level from ``offset`` to ``limit``, but nothing after ``last_tag``.

        Raises ``Unreadable`` for everything docs/fingerprint.md calls an error under "Reading the data set".
        """
        self._elements(offset, limit, False, self.encoding, 0, last_tag)

    def _elements(
        self, offset: int, limit: int, undefined: bool, encoding: Encoding, depth: int, last_tag: int = UNDEFINED
    ) -> int:
        previous = -1
        while undefined or offset < limit:
            start = offset
            tag, vr, length, offset = encoding.header(self.reader, offset, limit)
            if tag == _ITEM_END and undefined:
                return offset
            if tag >> 16 in _NOT_IN_DATA_SETS:
                place = "a sequence" if tag >> 16 == 0xFFFE else "the file meta information"
                raise Unreadable(f"{show_tag(tag)} at byte {start} stands outside {place}")
            if tag <= previous:
                raise Unreadable(
                    f"{show_tag(tag)} at byte {start}: tags must rise strictly, it follows {show_tag(previous)}"
                )
            if tag > last_tag:
                return start
            previous = tag
            value, counted = offset, len(self.counts)
            if tag == PIXEL_DATA and length == UNDEFINED:
                offset = fragments(self.reader, value, limit, encoding).end
            elif inner := _inner_encoding(self.reader, tag, vr, length, value, encoding, depth == 0):
                offset = self._nested(tag, vr, length, value, limit, inner, depth)
            else:
                offset += length
            if depth == 0 and tag in self._wanted and len(self.counts) == counted:
                self.found[tag] = Element(_PATH_PART.pack(tag), tag, vr, encoding.big_endian, value, length, None)
            if tag == last_tag:
                break
        return offset

    def _nested(self, tag: int, vr: bytes, length: int, offset: int, limit: int, inner: Encoding, depth: int) -> int:
        if length == UNDEFINED:
            return self._items(offset, limit, True, inner, depth + 1)
        if vr == b"SQ" or effective_vr(tag) == "SQ":
            return self._items(offset, offset + length, False, inner, depth + 1)
        slot = len(self.counts)
        try:
            return self._items(offset, offset + length, False, inner, depth + 1)
        except _TooDeep:
            raise
        except Unreadable:
            del self.counts[slot:]
            self.counts.append(_NOT_ITEMS)
            return offset + length

    def _items(self, offset: int, limit: int, undefined: bool, encoding: Encoding, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise _TooDeep(f"sequences nested deeper than {MAX_DEPTH} at byte {offset}")
        slot = len(self.counts)
        if slot == MAX_SEQUENCES:
            raise _TooDeep(f"more than {MAX_SEQUENCES} sequences")
        self.counts.append(0)
        count = 0
        while undefined or offset < limit:
            tag, _, length, value = encoding.header(self.reader, offset, limit)
            if tag == _SEQUENCE_END and undefined:
                offset = value
                break
            if tag != _ITEM:
                raise Unreadable(f"an item expected at byte {offset}, got {show_tag(tag)}")
            end = limit if length == UNDEFINED else value + length
            offset = self._elements(value, end, length == UNDEFINED, encoding, depth)
            count += 1
        self.counts[slot] = count
        return offset


def _inner_encoding(
    reader: Reader, tag: int, vr: bytes, length: int, offset: int, encoding: Encoding, top: bool
) -> Encoding | None:
    """Encoding of the items an element has or may have; None when it is a value for certain."""
    known = effective_vr(tag)
    if length == UNDEFINED or vr == b"SQ":
        if (top and tag == PIXEL_DATA) or (length == 0 and known == UNKNOWN):
            return None
        return encoding if vr == b"SQ" else IMPLICIT_LE
    if known == UNKNOWN:
        begins_an_item = length >= 8 and reader.read(offset, 4) == _ITEM_BYTES
        return IMPLICIT_LE if begins_an_item else None
    return IMPLICIT_LE if known == "SQ" else None


def walk(scan: Scan, offset: int, limit: int) -> Iterator[Element]:
    """The elements of a scanned data set in its order: a sequence before what its items hold."""
    counts = iter(scan.counts)

    def elements(
        offset: int, limit: int, undefined: bool, encoding: Encoding, prefix: bytes
    ) -> Generator[Element, None, int]:
        while undefined or offset < limit:
            tag, vr, length, offset = encoding.header(scan.reader, offset, limit)
            if tag == _ITEM_END:
                break
            path = prefix + _PATH_PART.pack(tag)
            if tag == PIXEL_DATA and length == UNDEFINED:
                yield Element(path, tag, vr, encoding.big_endian, offset, length, None)
                offset = fragments(scan.reader, offset, limit, encoding).end
                continue
            inner = _inner_encoding(scan.reader, tag, vr, length, offset, encoding, not prefix)
            count = _NOT_ITEMS if inner is None else next(counts)
            if inner is None or count == _NOT_ITEMS:
                yield Element(path, tag, vr, encoding.big_endian, offset, length, None)
                offset += length
                continue
            if count == 0 and effective_vr(tag) == UNKNOWN:
                yield Element(path, tag, vr, encoding.big_endian, offset, 0, None)
            else:
                yield Element(path, tag, vr, encoding.big_endian, offset, length, count)
            end = limit if length == UNDEFINED else offset + length
            offset = yield from items(offset, end, length == UNDEFINED, inner, path)
        return offset

    def items(
        offset: int, limit: int, undefined: bool, encoding: Encoding, prefix: bytes
    ) -> Generator[Element, None, int]:
        index = 0
        while undefined or offset < limit:
            tag, _, length, offset = encoding.header(scan.reader, offset, limit)
            if tag == _SEQUENCE_END:
                break
            end = limit if length == UNDEFINED else offset + length
            offset = yield from elements(offset, end, length == UNDEFINED, encoding, prefix + _PATH_PART.pack(index))
            index += 1
        return offset

    yield from elements(offset, limit, False, scan.encoding, b"")
