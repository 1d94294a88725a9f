"""Makes DICOM data sets byte by byte, in every encoding, well-formed or not; finds the real files tests run over."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pydicom.data

from orthanc_ledger.fingerprint import Fingerprint, fingerprints
from orthanc_ledger.instance import Instance, open_instance

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"

SOP_INSTANCE = "1.2.3.4.5"
LONG_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
UNITS = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4}
UNITS |= {"FD": 8, "OD": 8, "SV": 8, "UV": 8, "OV": 8}
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Value:
    """An element with a little-endian value."""

    tag: int
    vr: str
    value: bytes


@dataclass(frozen=True)
class Sequence_:
    """A sequence element; ``as_un`` writes it as UN of implicit items where VRs are written at all (CP-246)."""

    tag: int
    items: tuple[tuple["Value | Sequence_", ...], ...]
    as_un: bool = False


Node = Value | Sequence_


@dataclass(frozen=True)
class Writer:
    """How to write a data set."""

    explicit: bool = True
    big_endian: bool = False
    undefined: bool = False

    def data_set(self, nodes: Sequence[Node]) -> bytes:
        return b"".join(self._node(node) for node in nodes)

    def header(self, tag: int, vr: str, length: int) -> bytes:
        order = ">" if self.big_endian else "<"
        head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if not self.explicit or tag >> 16 == 0xFFFE:
            return head + struct.pack(f"{order}I", length)
        if vr in LONG_VRS:
            return head + vr.encode() + struct.pack(f"{order}HI", 0, length)
        return head + vr.encode() + struct.pack(f"{order}H", length)

    def _node(self, node: Node) -> bytes:
        if isinstance(node, Value):
            value = swapped(node.value, UNITS.get(node.vr, 1)) if self.big_endian else node.value
            return self.header(node.tag, node.vr, len(value)) + value
        as_un = node.as_un and self.explicit
        inner = replace(self, explicit=False, big_endian=False) if as_un else self
        items = b"".join(inner.item(item) for item in node.items)
        length = UNDEFINED if self.undefined else len(items)
        end = inner.header(0xFFFEE0DD, "", 0) if self.undefined else b""
        return self.header(node.tag, "UN" if as_un else "SQ", length) + items + end

    def item(self, nodes: Sequence[Node]) -> bytes:
        content = self.data_set(nodes)
        if self.undefined:
            return self.header(0xFFFEE000, "", UNDEFINED) + content + self.header(0xFFFEE00D, "", 0)
        return self.header(0xFFFEE000, "", len(content)) + content


WRITERS = {
    IMPLICIT: Writer(explicit=False),
    EXPLICIT: Writer(),
    DEFLATED: Writer(),
    BIG_ENDIAN: Writer(big_endian=True),
}


def swapped(value: bytes, unit: int) -> bytes:
    """``value`` in the other byte order."""
    return b"".join(value[i : i + unit][::-1] for i in range(0, len(value), unit))


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def part10(data_set: bytes, transfer_syntax: str = EXPLICIT) -> bytes:
    """A file of an encoded data set, deflating it where the transfer syntax says so."""
    uid = text(transfer_syntax, b"\0")
    meta = Writer().data_set([Value(0x00020010, "UI", uid)])
    meta = Writer().data_set([Value(0x00020000, "UL", struct.pack("<I", len(meta)))]) + meta
    return bytes(128) + b"DICM" + meta + (deflate(data_set) if transfer_syntax == DEFLATED else data_set)


def file_of(nodes: Sequence[Node], transfer_syntax: str = EXPLICIT, undefined: bool = False) -> bytes:
    writer = replace(WRITERS.get(transfer_syntax, Writer()), undefined=undefined)
    return part10(writer.data_set(nodes), transfer_syntax)


def text(value: str, pad: bytes = b" ") -> bytes:
    """Text at an even length."""
    encoded = value.encode("ascii")
    return encoded + pad * (len(encoded) % 2)


def us(tag: int, value: int) -> Value:
    return Value(tag, "US", struct.pack("<H", value))


def image(pixels: Value, without: Sequence[int] = (), **attributes: int | str) -> list[Node]:
    """An image's data set of 16 bits, 4 × 4, one sample; ``without`` leaves tags out, attributes overrule."""
    given: dict[str, int | str] = {
        "samples": 1,
        "photometric": "MONOCHROME2",
        "frames": "",
        "rows": 4,
        "columns": 4,
        "allocated": 16,
        "stored": 16,
        "signed": 0,
        **attributes,
    }
    high = int(given.get("high", int(given["stored"]) - 1))
    nodes: list[Node] = [
        Value(0x00080016, "UI", text("1.2.840.10008.5.1.4.1.1.7", b"\0")),
        Value(0x00080018, "UI", text(SOP_INSTANCE, b"\0")),
        us(0x00280002, int(given["samples"])),
        Value(0x00280004, "CS", text(str(given["photometric"]))),
    ]
    nodes += [us(0x00280006, int(given["planar"]))] if "planar" in given else []
    nodes += [Value(0x00280008, "IS", text(str(given["frames"])))] if given["frames"] else []
    names = ("rows", "columns", "allocated", "stored", "high", "signed")
    tags = (0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
    nodes += [us(tag, int({**given, "high": high}[name])) for name, tag in zip(names, tags, strict=True)]
    return [node for node in [*nodes, pixels] if node.tag not in without]


def native(samples: bytes, vr: str = "OW") -> Value:
    return Value(0x7FE00010, vr, samples)


def encapsulated(*fragments: bytes, table: bytes = b"") -> bytes:
    """Pixel Data with its header, to be appended to an explicit data set."""
    writer = Writer()
    items = (writer.header(0xFFFEE000, "", len(part)) + part for part in (table, *fragments))
    return writer.header(0x7FE00010, "OB", UNDEFINED) + b"".join(items) + writer.header(0xFFFEE0DD, "", 0)


def compressed_file(nodes: Sequence[Node], pixel_data: bytes, transfer_syntax: str) -> bytes:
    """A file whose pixel data element is given encoded."""
    return part10(Writer().data_set([node for node in nodes if node.tag != 0x7FE00010]) + pixel_data, transfer_syntax)


def opened(content: bytes) -> Instance:
    return open_instance(io.BytesIO(content))


def fingerprint(content: bytes, salt_key: bytes | None = None) -> Fingerprint:
    return fingerprints(opened(content), [salt_key])[0]


def real_files(collection: Path | None) -> list[Path]:
    """Real files: those of the collection, of long series the first, middle and last; without it pydicom's own."""
    if collection is None:
        return sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))
    found = sorted(path for path in collection.rglob("*") if path.is_file() and path.suffix not in (".md", ".txt"))
    sampled: list[Path] = []
    for _, group in groupby(found, key=lambda path: (path.parent, path.name.split("_")[0].split("-")[0])):
        series = list(group)
        long = len(series) > 4 and series[0].parent.parent != collection
        sampled += [series[0], series[len(series) // 2], series[-1]] if long else series
    return sampled
