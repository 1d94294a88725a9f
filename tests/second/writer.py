"""Small DICOM files written element by element."""

import struct
import zlib

from tests.second.arrival import part10
from tests.second.dataset import SHORT

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, UNCOMPRESSED, RLE = EXPLICIT + ".99", EXPLICIT + ".98", "1.2.840.10008.1.2.5"
BASELINE = "1.2.840.10008.1.2.4.50"
UNDEFINED = 0xFFFFFFFF
SOP = "1.2.826.0.1.3680043.8.498.77"


def element(group: int, number: int, vr: str, value: bytes, syntax: str = EXPLICIT, length: int | None = None) -> bytes:
    """One element; `value` is already in the byte order of the syntax."""
    order = ">" if syntax == BIG else "<"
    size = len(value) if length is None else length
    tag = struct.pack(order + "HH", group, number)
    if syntax == IMPLICIT:
        return tag + struct.pack("<I", size) + value
    if vr.encode() in SHORT:
        return tag + vr.encode() + struct.pack(order + "H", size) + value
    return tag + vr.encode() + b"\0\0" + struct.pack(order + "I", size) + value


def uid(value: str) -> bytes:
    """A UID padded to even length."""
    return value.encode() + b"\0" * (len(value) % 2)


def item(content: bytes, delimited: bool = False, big: bool = False) -> bytes:
    """An item, of defined length or with its delimiter."""
    order = ">" if big else "<"
    size = UNDEFINED if delimited else len(content)
    end = struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0) if delimited else b""
    return struct.pack(order + "HHI", 0xFFFE, 0xE000, size) + content + end


SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def file(body: bytes, syntax: str = EXPLICIT) -> bytes:
    """A Part 10 file: SOP Class and Instance UID, then `body`."""
    return encoded_file(head(syntax) + body, syntax)


def head(syntax: str = EXPLICIT) -> bytes:
    """SOP Class and Instance UID."""
    return element(8, 0x16, "UI", uid("1.2.840.10008.5.1.4.1.1.7"), syntax) + element(8, 0x18, "UI", uid(SOP), syntax)


def encoded_file(data_set: bytes, syntax: str = EXPLICIT) -> bytes:
    """A Part 10 file of a whole data set."""
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-15)
        data_set = deflate.compress(data_set) + deflate.flush()
    return part10(
        [(2, "UI", uid("1.2.840.10008.5.1.4.1.1.7")), (3, "UI", uid(SOP)), (0x10, "UI", uid(syntax))], data_set
    )


def image(value: bytes, syntax: str = EXPLICIT, vr: str = "OW", tag: int = 0x0010, **given: int | str | None) -> bytes:
    """The image elements and a pixel data element; 2 × 2, 16 bits, one sample unless given; None leaves one out."""
    fields: dict[str, int | str | None] = {
        "samples": 1, "photometric": "MONOCHROME2", "planar": None, "frames": None, "rows": 2, "columns": 2,
        "allocated": 16, "stored": 16, "high": None, "signed": 0,
    }  # fmt: skip
    fields |= given
    if fields["high"] is None and isinstance(fields["stored"], int):
        fields["high"] = fields["stored"] - 1
    numbers = {"samples": 2, "photometric": 4, "planar": 6, "frames": 8, "rows": 0x10, "columns": 0x11,
               "allocated": 0x100, "stored": 0x101, "high": 0x102, "signed": 0x103}  # fmt: skip
    body = b""
    for name, number in numbers.items():
        content = fields[name]
        if isinstance(content, str):
            raw = content.encode() + b" " * (len(content) % 2)
            body += element(0x28, number, "IS" if name == "frames" else "CS", raw, syntax)
        elif content is not None:
            body += element(0x28, number, "US", struct.pack(">H" if syntax == BIG else "<H", content), syntax)
    return body + element(0x7FE0, tag, vr, value, syntax)


def words(*values: int) -> bytes:
    """16-bit samples, little-endian."""
    return struct.pack(f"<{len(values)}H", *values)


def fragments(*parts: bytes, table: bytes = b"") -> bytes:
    """An encapsulated value, with its delimiter."""
    return b"".join(item(part) for part in (table, *parts)) + SEQUENCE_END


def capsule(*parts: bytes, syntax: str, table: bytes = b"", **given: int | str | None) -> bytes:
    """A file with encapsulated pixel data."""
    body = image(b"", EXPLICIT, **given)
    return file(body[:-12] + element(0x7FE0, 0x10, "OB", fragments(*parts, table=table), length=UNDEFINED), syntax)


def colour_of_bytes() -> dict[str, int | str | None]:
    """Attributes of RGB bytes."""
    return {"samples": 3, "allocated": 8, "stored": 8, "vr": "OB", "photometric": "RGB"}


def with_value(body: bytes, number: int, value: bytes) -> bytes:
    """The image elements with another value in a US element of group 0028."""
    at = body.index(struct.pack("<HH", 0x28, number) + b"US")
    return body[:at] + element(0x28, number, "US", value) + body[at + 10 :]
