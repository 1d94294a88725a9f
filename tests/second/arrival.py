"""Spool units of `docs/manifest.md`: u32 length, arrival record in dag-cbor, Part 10 file."""

from tests.second.manifest import Value, encode

SHORT_LENGTH = {"UI", "SH", "AE", "UL"}


def part10(meta: list[tuple[int, str, bytes]], data_set: bytes) -> bytes:
    """Preamble of zeros, file meta (element of group 0002, VR, value) with its group length, data set (PS3.10 7.1)."""
    body = b"".join(_element(element, vr, value) for element, vr, value in meta)
    return bytes(128) + b"DICM" + _element(0, "UL", len(body).to_bytes(4, "little")) + body + data_set


def unit(record: dict[str, Value], file: bytes) -> bytes:
    """The spool unit, byte for byte."""
    encoded = encode(record)
    return len(encoded).to_bytes(4, "big") + encoded + file


def _element(element: int, vr: str, value: bytes) -> bytes:
    value += (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) % 2)
    head = b"\x02\x00" + element.to_bytes(2, "little") + vr.encode()
    if vr in SHORT_LENGTH:
        return head + len(value).to_bytes(2, "little") + value
    return head + b"\0\0" + len(value).to_bytes(4, "little") + value
