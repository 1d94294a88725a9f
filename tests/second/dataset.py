"""Data sets read by `docs/fingerprint.md`, "Reading the data set", and PS3.5 section 7, over bytes in memory.

From pydicom only the data dictionary is used.
"""

import struct
import zlib
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR

ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
PIXEL_DATA = (0x7FE0, 0x0010)
UNDEFINED = 0xFFFFFFFF
DEEPEST = 64
DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
IDENTIFIERS = ((0x0008, 0x0016), (0x0008, 0x0018), (0x0020, 0x000D), (0x0020, 0x000E))
LONGEST_READ = 1024
MOST_INFLATED = 4 << 30
# PS3.5 table 7.1-2: these have a length of 16 bits, every other VR one of 32 bits after two reserved bytes
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())

Tag = tuple[int, int]


class Refused(Exception):
    """Not readable under fp/v1: the object goes to quarantine."""


class TooDeep(Refused):
    """Nested deeper than 64 sequences."""


@dataclass(frozen=True)
class Encoding:
    """How a stretch of bytes is encoded."""

    explicit: bool
    big: bool

    def tag(self, data: bytes, at: int) -> Tag:
        return struct.unpack_from(">HH" if self.big else "<HH", data, at)

    def number(self, raw: bytes) -> int:
        return int.from_bytes(raw, "big" if self.big else "little")


IMPLICIT = Encoding(explicit=False, big=False)
EXPLICIT = Encoding(explicit=True, big=False)
ENCODINGS = {"1.2.840.10008.1.2": IMPLICIT, "1.2.840.10008.1.2.2": Encoding(explicit=True, big=True)}


@dataclass(frozen=True)
class Element:
    """One element: exactly one of value, items and fragments (offset table first) is set."""

    tag: Tag
    vr: str | None
    big: bool
    value: bytes | None = None
    items: "list[list[Element]] | None" = None
    fragments: list[bytes] | None = None


def read_file(data: bytes) -> tuple[str, list[Element]]:
    """Transfer syntax and elements of a Part 10 file."""
    meta, at = _meta(data)
    values = [element.value for element in meta if element.tag == (2, 0x10)]
    if not values or not (values[0] or b"\xff").isascii():
        raise Refused("no transfer syntax")
    syntax = (values[0] or b"").rstrip(b"\0 ").decode("ascii")
    return syntax, read(data[at:], syntax)


def file_meta(data: bytes) -> list[Element]:
    """The elements of group 0002 before the data set."""
    return _meta(data)[0]


def read(data: bytes, syntax: str) -> list[Element]:
    """The elements of a data set in a transfer syntax."""
    if syntax in DEFLATED:
        data = _inflate(data)
    elements = _elements(data, 0, len(data), ENCODINGS.get(syntax, EXPLICIT), 0)[0]
    for element in elements:
        uid = (element.value or b"") if element.tag in IDENTIFIERS else b""
        if not uid.isascii() or len(uid) > LONGEST_READ:
            raise Refused(f"{element.tag} is no UID")
    return elements


def dictionary_vr(tag: Tag) -> str | None:
    """The effective VR; None when unknown."""
    if tag[0] % 2:
        return None
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None


def _meta(data: bytes) -> tuple[list[Element], int]:
    if data[128:132] != b"DICM":
        raise Refused("no DICM")
    meta, at = [], 132
    while data[at : at + 2] == b"\x02\x00":
        tag, vr, length, at = _header(data, at, len(data), EXPLICIT)
        element, at = _value(data, at, len(data), length, Element(tag, vr, False))
        meta.append(element)
    return meta, at


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        out = stream.decompress(data, MOST_INFLATED + 1)
    except zlib.error as error:
        raise Refused("deflate") from error
    behind = stream.unused_data
    if behind[:8] == zlib.crc32(out).to_bytes(4, "little") + (len(out) % (1 << 32)).to_bytes(4, "little"):
        behind = behind[8:]
    if len(out) > MOST_INFLATED or not stream.eof or any(behind):
        raise Refused("deflate stream too long, cut off, or followed by bytes other than zero")
    return out


def _elements(
    data: bytes, at: int, end: int, encoding: Encoding, depth: int, delimited: bool = False
) -> tuple[list[Element], int]:
    """Elements up to `end`, or up to an item's delimiter before it; with the place behind them."""
    elements: list[Element] = []
    while delimited or at < end:
        if delimited and _item_header(data, at, end, encoding)[0] == ITEM_END:
            return elements, at + 8
        element, at = _element(data, at, end, encoding, depth)
        if elements and element.tag <= elements[-1].tag:
            raise Refused(f"{element.tag} after {elements[-1].tag}")
        elements.append(element)
    return elements, at


def _element(data: bytes, at: int, end: int, encoding: Encoding, depth: int) -> tuple[Element, int]:
    tag, vr, length, at = _header(data, at, end, encoding)
    if tag[0] in (0x0002, 0xFFFE):
        raise Refused(f"{tag} has no place in a data set")
    known = dictionary_vr(tag)
    inner = encoding if vr == "SQ" else IMPLICIT
    if tag == PIXEL_DATA and length == UNDEFINED:
        fragments, at = _fragments(data, at, end, encoding)
        return Element(tag, vr, encoding.big, fragments=fragments), at
    if tag == PIXEL_DATA and depth == 0:
        return _value(data, at, end, length, Element(tag, vr, encoding.big))
    if length == 0 and known is None:
        return Element(tag, vr, encoding.big, b""), at
    if vr == "SQ" or known == "SQ" or length == UNDEFINED:
        items, at = _items(data, at, end, length, inner, depth + 1)
        if not items and known is None:
            return Element(tag, vr, encoding.big, b""), at
        return Element(tag, vr, encoding.big, items=items), at
    element, after = _value(data, at, end, length, Element(tag, vr, encoding.big))
    if known is None and length >= 8 and data[at : at + 4] == b"\xfe\xff\x00\xe0":
        try:
            items, _ = _items(data, at, after, length, IMPLICIT, depth + 1)
        except TooDeep:
            raise
        except Refused:
            return element, after
        return Element(tag, vr, encoding.big, items=items), after
    return element, after


def _value(data: bytes, at: int, end: int, length: int, element: Element) -> tuple[Element, int]:
    if at + length > end:
        raise Refused(f"{element.tag} runs past its container")
    return Element(element.tag, element.vr, element.big, data[at : at + length]), at + length


def _items(
    data: bytes, at: int, end: int, length: int, encoding: Encoding, depth: int
) -> tuple[list[list[Element]], int]:
    if depth > DEEPEST:
        raise TooDeep("nested deeper than 64")
    if length != UNDEFINED:
        if at + length > end:
            raise Refused("a sequence runs past its container")
        end = at + length
    items: list[list[Element]] = []
    while length == UNDEFINED or at < end:
        tag, size, at = _item_header(data, at, end, encoding)
        if tag == SEQUENCE_END and length == UNDEFINED:
            return items, at
        if tag != ITEM:
            raise Refused(f"{tag} where an item should be")
        delimited = size == UNDEFINED
        if not delimited and at + size > end:
            raise Refused("an item runs past its sequence")
        item, at = _elements(data, at, end if delimited else at + size, encoding, depth, delimited)
        items.append(item)
    return items, at


def _fragments(data: bytes, at: int, end: int, encoding: Encoding) -> tuple[list[bytes], int]:
    fragments: list[bytes] = []
    while True:
        tag, size, at = _item_header(data, at, end, encoding)
        if tag == SEQUENCE_END and fragments:
            return fragments, at
        if tag != ITEM or size == UNDEFINED or at + size > end:
            raise Refused("not a fragment")
        fragments.append(data[at : at + size])
        at += size


def _item_header(data: bytes, at: int, end: int, encoding: Encoding) -> tuple[Tag, int, int]:
    if at + 8 > end:
        raise Refused("a sequence without its delimiter")
    tag, length = encoding.tag(data, at), encoding.number(data[at + 4 : at + 8])
    if tag in (ITEM_END, SEQUENCE_END) and length:
        raise Refused("a delimiter with a length")
    return tag, length, at + 8


def _header(data: bytes, at: int, end: int, encoding: Encoding) -> tuple[Tag, str | None, int, int]:
    if at + 8 > end:
        raise Refused("cut off in an element's header")
    tag = encoding.tag(data, at)
    if not encoding.explicit or tag[0] == 0xFFFE:
        return tag, None, encoding.number(data[at + 4 : at + 8]), at + 8
    vr = data[at + 4 : at + 6]
    if vr in SHORT:
        return tag, vr.decode(), encoding.number(data[at + 6 : at + 8]), at + 8
    if not (vr.isalpha() and vr.isupper()) or at + 12 > end:
        raise Refused(f"{tag}: no VR")
    return tag, vr.decode(), encoding.number(data[at + 8 : at + 12]), at + 12
