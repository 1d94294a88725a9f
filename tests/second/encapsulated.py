"""Encapsulated pixel data: fragments to frames (PS3.5 A.4), and RLE (PS3.5 annex G)."""

import struct
from itertools import pairwise


class Undecodable(Exception):
    """The object falls back to its encoded form."""


def split(fragments: list[bytes], frames: int, extended: bytes) -> list[bytes]:
    """The frames, from fragments with the Basic Offset Table first; all joined as one when no rule works."""
    table, parts = fragments[0] if fragments else b"", fragments[1:]
    if frames == 1:
        return [b"".join(parts)]
    if len(parts) == frames:
        return parts
    cuts = _by_offsets(parts, frames, extended, "Q") or _by_offsets(parts, frames, table, "I") or _by_end(parts, frames)
    return [b"".join(parts[a:b]) for a, b in pairwise(cuts or [0, len(parts)])]


def _by_offsets(parts: list[bytes], frames: int, table: bytes, form: str) -> list[int] | None:
    """Where frames begin among the fragments; None unless every offset is a fragment's and they rise from 0."""
    if len(table) != frames * struct.calcsize(form):
        return None
    starts, at = {}, 0
    for number, part in enumerate(parts):
        starts[at] = number
        at += 8 + len(part)
    offsets = struct.unpack(f"<{frames}{form}", table)
    if offsets[0] != 0 or any(offset not in starts for offset in offsets):
        return None
    cuts = [*(starts[offset] for offset in offsets), len(parts)]
    return cuts if all(a < b for a, b in pairwise(cuts)) else None


def _by_end(parts: list[bytes], frames: int) -> list[int] | None:
    """The same from fragments that end with an end-of-image marker (FF D9), which zeros may pad."""
    ends = [number + 1 for number, part in enumerate(parts) if part.rstrip(b"\0").endswith(b"\xff\xd9")]
    return [0, *ends] if len(ends) == frames and ends[-1] == len(parts) else None


def announced(frame: bytes) -> tuple[int, int, int, int]:
    """Rows, columns, components and bits of a codestream: JPEG and JPEG-LS by SOFn, JPEG 2000 by SIZ."""
    try:
        return _start_of_frame(frame) if frame[:2] == b"\xff\xd8" else _image_and_tile_size(frame)
    except (IndexError, ValueError, struct.error) as error:
        raise Undecodable("no frame header") from error


def _start_of_frame(frame: bytes) -> tuple[int, int, int, int]:
    at = 2
    while True:
        while frame[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        code, size = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if code in (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7):
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return rows, columns, components, bits
        if frame[at] != 0xFF or code < 0xC0:
            raise ValueError("no marker")
        at += 2 + size


def _image_and_tile_size(frame: bytes) -> tuple[int, int, int, int]:
    at = frame.index(b"\xff\x4f\xff\x51")
    right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
    (components,) = struct.unpack_from(">H", frame, at + 40)
    bits = max(frame[at + 42 + 3 * number] % 128 + 1 for number in range(components))
    return bottom - top, right - left, components, bits


def rle_planes(frame: bytes, count: int, size: int) -> list[bytes]:
    """The `count` byte planes of a frame, `size` bytes each, in the order of their segments."""
    header = frame[:64]
    if len(header) < 64 or int.from_bytes(header[:4], "little") != count or count > 15:
        raise Undecodable("RLE header")
    bounds = [*struct.unpack(f"<{count}I", header[4 : 4 + 4 * count]), len(frame)]
    return [_packbits(frame[a:b], size) for a, b in pairwise(bounds)]


def _packbits(segment: bytes, size: int) -> bytes:
    out, at = bytearray(), 0
    while at < len(segment) and len(out) < size:
        head = segment[at]
        if head < 128:
            out += segment[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            out += segment[at + 1 : at + 2] * (257 - head if head > 128 else 0)
            at += 2 if head > 128 else 1
    if len(out) < size:
        raise Undecodable("RLE segment too short")
    return bytes(out[:size])
