"""Pixel data as leaves: canonical samples frame by frame, or the encoded frames (docs/fingerprint.md, "Pixels").

Native pixel data is streamed; of compressed pixel data one frame at a time is held.
"""

from collections.abc import Callable, Iterator
from typing import Final, Literal

import numpy as np

from orthanc_ledger.decoders import ENCAPSULATED_UNCOMPRESSED, NATIVE, Samples, decompress
from orthanc_ledger.elements import PIXEL_DATA, UNDEFINED, Element
from orthanc_ledger.encapsulated import EncodedFrames
from orthanc_ledger.errors import Unreadable
from orthanc_ledger.instance import Instance
from orthanc_ledger.leaves import FRAME, UNUSED_BITS, Leaf
from orthanc_ledger.pixel_layout import (
    DOUBLE_FLOAT_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    Layout,
    NotDecoded,
    number_of_frames,
    pixel_layout,
)
from orthanc_ledger.values import swap_bytes, swap_unit

PixelForm = Literal["none", "decoded", "encoded"]

MAX_FRAME: Final = 1 << 26

BYTES_BEHIND_LAST_FRAME: Final = b"\xff\xff\xff\xff"
_CHUNK: Final = 1 << 20


def pixel_element(instance: Instance) -> Element | None:
    """The top-level element that holds the pixels (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25); None without pixels.

    Raises ``Unreadable`` when several stand side by side.
    """
    tags = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA)
    present = [element for tag in tags if (element := instance.top_level(tag))]
    if len(present) > 1:
        raise Unreadable("the data set has more than one of Pixel Data, Float and Double Float Pixel Data")
    return present[0] if present else None


def decoded_leaves(instance: Instance, element: Element) -> Iterator[Leaf]:
    """Leaves of the canonical samples.

    Raises ``NotDecoded``, possibly after some leaves; ``ConfigError`` when the pinned decoder is not installed.
    """
    layout = pixel_layout(instance, element.tag)
    encapsulated = instance.transfer_syntax_uid not in NATIVE
    if encapsulated != (element.length == UNDEFINED):
        raise NotDecoded("decoder-failed", "fragments under a native transfer syntax, or none under another one")
    if not encapsulated:
        return _native_leaves(instance, element, layout)
    return _encapsulated_leaves(instance, element, layout)


def encoded_leaves(instance: Instance, element: Element) -> Iterator[Leaf]:
    """One leaf for each encoded frame; a value without fragments is one leaf as it is in the stream."""
    if element.length != UNDEFINED:
        yield Leaf(_frame_path(0), FRAME, element.length, instance.reader.chunks(element.offset, element.length))
        return
    frames = EncodedFrames(instance, element, number_of_frames(instance) or 1)
    for index in range(len(frames)):
        yield Leaf(_frame_path(index), FRAME, frames.length(index), frames.chunks(index))


def canonical_attributes(instance: Instance) -> dict[int, bytes]:
    """Values that top-level attributes have for the canonical samples, where that is not the value in the data set."""
    canonical = {}
    photometric = instance.short_value(PHOTOMETRIC_INTERPRETATION)
    if photometric in (b"YBR_RCT", b"YBR_ICT"):
        canonical[PHOTOMETRIC_INTERPRETATION] = b"RGB"
    if photometric == b"YBR_FULL_422":
        canonical[PHOTOMETRIC_INTERPRETATION] = b"YBR_FULL"
    if instance.top_level(PLANAR_CONFIGURATION) is not None:
        canonical[PLANAR_CONFIGURATION] = b"\x00\x00"
    return canonical


def _frame_path(index: int) -> bytes:
    return index.to_bytes(4, "big")


def _native_leaves(instance: Instance, element: Element, layout: Layout) -> Iterator[Leaf]:
    end = -(-layout.stored_frame_samples * layout.frames * layout.bits_allocated // 8)
    if element.length < end:
        raise NotDecoded("too-short", f"{end} bytes of pixel data expected, got {element.length}")
    read = _little_endian(instance, element)
    for index in range(layout.frames):
        yield from _frame_leaves(index, _stored_samples(read, index, layout), layout)
    if any(any(read(at, min(_CHUNK, element.length - at))) for at in range(end, element.length, _CHUNK)):
        behind = (read(at, min(_CHUNK, element.length - at)) for at in range(end, element.length, _CHUNK))
        yield Leaf(BYTES_BEHIND_LAST_FRAME, UNUSED_BITS, element.length - end, behind)


def _little_endian(instance: Instance, element: Element) -> Callable[[int, int], bytes]:
    """Reads ``length`` bytes at an offset of the value, swapped as any value of its VR."""
    reader, unit = instance.reader, swap_unit(element.tag, element.vr) if element.big_endian else 1
    if unit == 1:
        return lambda offset, length: reader.read(element.offset + offset, length)

    def read(offset: int, length: int) -> bytes:
        start = offset - offset % unit
        stop = min(element.length, offset + length + -(offset + length) % unit)
        value = swap_bytes(reader.read(element.offset + start, stop - start), unit)
        return value[offset - start : offset - start + length]

    return read


_Range = Callable[[int, int], Samples]


def _stored_samples(read: Callable[[int, int], bytes], frame: int, layout: Layout) -> _Range:
    """Gives the stored samples of pixels [first, last), shape (pixels, samples); ``first`` is a multiple of 8."""
    dtype = np.dtype(f"<u{layout.sample_bytes}")
    origin = frame * layout.stored_frame_samples

    def run(first: int, last: int) -> Samples:
        start, stop = origin + first, origin + last
        if layout.bits_allocated > 1:
            width = layout.sample_bytes
            return np.frombuffer(read(start * width, (stop - start) * width), dtype)
        packed = np.frombuffer(read(start // 8, -(-stop // 8) - start // 8), np.uint8)
        return np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + stop - start]

    def planes(first: int, last: int) -> Samples:
        starts = range(0, layout.samples * layout.pixels, layout.pixels)
        return np.stack([run(start + first, start + last) for start in starts], axis=1)

    def pairs(first: int, last: int) -> Samples:
        return run(first * 2, last * 2).reshape(-1, 4)[:, [0, 2, 3, 1, 2, 3]].reshape(-1, 3)

    def pixels(first: int, last: int) -> Samples:
        return run(first * layout.samples, last * layout.samples).reshape(-1, layout.samples)

    if layout.subsampled:
        return pairs
    return planes if layout.planar and layout.samples > 1 else pixels


def _frame_leaves(index: int, stored: _Range, layout: Layout) -> Iterator[Leaf]:
    """The frame's leaf, and a second one when it has unused bits that say something."""
    unused = _UnusedBits(layout)
    path, length = _frame_path(index), layout.canonical_frame_bytes
    step = max(8, _CHUNK // (layout.samples * layout.sample_bytes) & ~7)
    ranges = [(first, min(first + step, layout.pixels)) for first in range(0, layout.pixels, step)]
    if len(ranges) == 1:
        yield Leaf(path, FRAME, length, unused.canonical(stored(0, layout.pixels)).tobytes())
    else:
        yield Leaf(path, FRAME, length, (unused.canonical(stored(*part)).tobytes() for part in ranges))
    if unused.hidden:
        yield Leaf(path, UNUSED_BITS, length, (unused.difference(stored(*part)).tobytes() for part in ranges))


class _UnusedBits:
    """Separates the used bits of stored samples from the high bits, and remembers whether those hide anything."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._any_set = False
        self._any_unlike_sign = False

    @property
    def hidden(self) -> bool:
        return self._any_set and (self._any_unlike_sign or not self._layout.signed)

    def canonical(self, stored: Samples) -> Samples:
        """The used bits, sign- or zero-extended; the frame's samples pass through here once, in order."""
        if not self._layout.has_unused_bits:
            return stored
        used = (1 << self._layout.bits_stored) - 1
        low: Samples = stored & stored.dtype.type(used)
        self._any_set = self._any_set or not np.array_equal(low, stored)
        if not self._layout.signed:
            return low
        sign = stored.dtype.type(1 << (self._layout.bits_stored - 1))
        extended: Samples = (low ^ sign) - sign
        self._any_unlike_sign = self._any_unlike_sign or not np.array_equal(extended, stored)
        return extended

    def difference(self, stored: Samples) -> Samples:
        """Stored samples XOR canonical samples."""
        difference: Samples = stored ^ self.canonical(stored)
        return difference


def _encapsulated_leaves(instance: Instance, element: Element, layout: Layout) -> Iterator[Leaf]:
    if layout.canonical_frame_bytes > MAX_FRAME:
        raise NotDecoded("frame-too-large", f"{layout.canonical_frame_bytes} bytes a frame, at most {MAX_FRAME}")
    frames = EncodedFrames(instance, element, layout.frames)
    if len(frames) != layout.frames:
        raise NotDecoded("too-short", f"{layout.frames} frames expected, fragments make up {len(frames)}")
    for index in range(layout.frames):
        if frames.length(index) > MAX_FRAME:
            raise NotDecoded("frame-too-large", f"{frames.length(index)} encoded bytes in frame {index}")
        encoded = b"".join(frames.chunks(index))
        if instance.transfer_syntax_uid == ENCAPSULATED_UNCOMPRESSED:
            stored = _uncompressed(encoded, layout)
        else:
            stored = _held(decompress(instance.transfer_syntax_uid, encoded, layout))
        yield from _frame_leaves(index, stored, layout)


def _held(samples: Samples) -> _Range:
    return lambda first, last: samples[first:last]


def _uncompressed(encoded: bytes, layout: Layout) -> _Range:
    end = -(-layout.stored_frame_samples * layout.bits_allocated // 8)
    if len(encoded) < end:
        raise NotDecoded("too-short", f"{end} bytes a frame expected, got {len(encoded)}")
    if any(encoded[end:]):
        raise NotDecoded("decoder-failed", f"{len(encoded) - end} bytes behind an uncompressed frame")
    return _stored_samples(lambda offset, length: encoded[offset : offset + length], 0, layout)
