"""`docs/fingerprint.md`, "Pixels": the pixel leaves of an object.

Where there is a choice, the decoder is not the one the product uses.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from tests.second.dataset import LONGEST_READ, PIXEL_DATA, Element, Refused, Tag
from tests.second.encapsulated import Undecodable, announced, rle_planes, split
from tests.second.values import canonical, swapped

FLOAT, DOUBLE = (0x7FE0, 0x0008), (0x7FE0, 0x0009)
EXTENDED_OFFSETS = (0x7FE0, 0x0001)
NATIVE = frozenset("1.2.840.10008.1.2" + tail for tail in ("", ".1", ".2", ".1.99"))
UNCOMPRESSED, RLE = "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = frozenset("1.2.840.10008.1.2.4." + tail for tail in ("57", "70"))
DECODERS = dict.fromkeys(JPEG_LOSSLESS | {"1.2.840.10008.1.2.4.80"}, ("pylibjpeg", "gdcm"))
DECODERS |= {"1.2.840.10008.1.2.4.90": ("gdcm", "pylibjpeg")}
DECODERS |= dict.fromkeys(["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"], ("pylibjpeg",))
LARGEST = 64 << 20
FRAME, UNUSED = 3, 4
BEHIND = b"\xff\xff\xff\xff"

Leaf = tuple[bytes, int, bytes]
Samples = np.ndarray[Any, np.dtype[Any]]


class Image:
    """The attributes that say what the pixel data means."""

    def __init__(self, top: dict[Tag, Element], kind: Tag) -> None:
        self.floating = kind != PIXEL_DATA
        self.frames = number_of_frames(top)
        self.extended_offsets = _extended_offsets(top)
        self.samples, self.rows, self.columns = (_number(top, element) for element in (0x0002, 0x0010, 0x0011))
        self.photometric = _attribute(top, (0x0028, 0x0004)).decode("ascii", "replace")
        self.planar = self.samples > 1 and _attribute(top, (0x0028, 0x0006))[:2] == b"\1\0"
        if not self.photometric:
            raise Undecodable("Photometric Interpretation")
        if self.floating:
            self.allocated = 32 if kind == FLOAT else 64
            return
        self.allocated = _number(top, 0x0100)
        self.stored, self.high_bit, self.signed = _number(top, 0x0101), _number(top, 0x0102), _number(top, 0x0103) == 1
        if self.allocated not in (1, 8, 16, 32, 64):
            raise Undecodable(f"{self.allocated} bits allocated")
        if self.subsampled and self.columns % 2:
            raise Undecodable("YBR_FULL_422 with odd columns")

    @property
    def width(self) -> int:
        """Bytes of a canonical sample."""
        return max(self.allocated // 8, 1)

    @property
    def subsampled(self) -> bool:
        """Two samples stand for each pixel in native data."""
        return not self.floating and self.samples == 3 and self.photometric == "YBR_FULL_422"

    @property
    def stored_samples(self) -> int:
        """Samples in a native frame as it is encoded."""
        return self.rows * self.columns * (2 if self.subsampled else self.samples)


def number_of_frames(top: dict[Tag, Element]) -> int:
    """Number of Frames (0028,0008), 1 where it is absent or empty."""
    text = _attribute(top, (0x0028, 0x0008)).strip(b" ").decode("latin-1")
    digits = text.removeprefix("+")
    if not text:
        return 1
    if not (digits.isascii() and digits.isdigit()) or int(digits) == 0:
        raise Undecodable("Number of Frames")
    return int(digits)


def _number(top: dict[Tag, Element], element: int) -> int:
    raw = _attribute(top, (0x0028, element))
    if len(raw) < 2:
        raise Undecodable(f"(0028,{element:04X}) missing")
    return int.from_bytes(raw[:2], "little")


def _attribute(top: dict[Tag, Element], tag: Tag) -> bytes:
    """A value of at most 1,024 bytes; nothing where there is none."""
    if tag not in top or len(top[tag].value or b"") > LONGEST_READ:
        return b""
    return canonical(top[tag])


def leaves(elements: list[Element], syntax: str) -> tuple[str, list[Leaf]]:
    """`pixel_form` and the pixel tree's leaves."""
    top = {element.tag: element for element in elements}
    kinds = [tag for tag in (PIXEL_DATA, FLOAT, DOUBLE) if tag in top and top[tag].items is None]
    if not kinds:
        return "none", []
    if len(kinds) > 1:
        raise Refused("two kinds of pixel data")
    kind = kinds[0]
    element = top[kind]
    try:
        return "decoded", _decoded(element, Image(top, kind), syntax)
    except Undecodable:
        return "encoded", [(_u32(number), FRAME, frame) for number, frame in enumerate(_encoded(top, element))]


def _decoded(element: Element, image: Image, syntax: str) -> list[Leaf]:
    if syntax in NATIVE and element.value is not None:
        return _native(element, element.value, image)
    if syntax in DECODERS or syntax in (RLE, UNCOMPRESSED):
        if element.fragments is None:
            raise Undecodable("not encapsulated")
        if image.rows * image.columns * image.samples * image.width > LARGEST:
            raise Undecodable("frame too large")
        frames = split(element.fragments, image.frames, image.extended_offsets)
        if len(frames) != image.frames or max(map(len, frames)) > LARGEST:
            raise Undecodable("frames cannot be told apart")
        decode: Callable[[bytes, Image, str], Samples] = {RLE: _rle, UNCOMPRESSED: _uncompressed}.get(syntax, _codec)
        result: list[Leaf] = []
        for number, frame in enumerate(frames):
            result += _frame_leaves(number, decode(frame, image, syntax), image)
        return result
    raise Undecodable("not a lossless syntax")


def _native(element: Element, value: bytes, image: Image) -> list[Leaf]:
    if element.big and element.vr != "UN":
        value = swapped(value, {"OW": 2, "OF": 4, "OD": 8}.get(element.vr or "", 1))
    if image.allocated == 1:
        size, used = image.stored_samples, -(-image.stored_samples * image.frames // 8)
        stored = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")
    else:
        size, used = image.stored_samples, image.stored_samples * image.frames * image.width
        stored = np.frombuffer(value[: len(value) // image.width * image.width], f"<u{image.width}")
    if len(value) < used or not used:
        raise Undecodable("too short")
    result: list[Leaf] = []
    for number in range(image.frames):
        result += _frame_leaves(number, _interleaved(stored[number * size : (number + 1) * size], image), image)
    return result + ([(BEHIND, UNUSED, value[used:])] if any(value[used:]) else [])


def _interleaved(stored: Samples, image: Image) -> Samples:
    """A native frame's samples, all samples of a pixel together."""
    if image.subsampled:
        pairs = stored.reshape(-1, 4)  # Y1 Y2 Cb Cr for two pixels, PS3.3 C.7.6.3.1.2
        return pairs[:, [0, 2, 3, 1, 2, 3]].reshape(-1)
    if image.planar:
        return stored.reshape(image.samples, -1).T.reshape(-1)
    return stored


def _frame_leaves(number: int, stored: Samples, image: Image) -> list[Leaf]:
    used = stored
    if not image.floating and image.stored < image.allocated and image.high_bit == image.stored - 1:
        low = stored & stored.dtype.type((1 << image.stored) - 1)
        sign = stored.dtype.type(1 << image.high_bit)
        extended = (low ^ sign) - sign
        used = extended if image.signed else low
        if np.array_equal(stored, low) or np.array_equal(stored, used):
            return [(_u32(number), FRAME, used.tobytes())]
        return [(_u32(number), FRAME, used.tobytes()), (_u32(number), UNUSED, (stored ^ used).tobytes())]
    return [(_u32(number), FRAME, used.tobytes())]


def _uncompressed(frame: bytes, image: Image, syntax: str) -> Samples:
    if image.allocated == 1:
        size = -(-image.stored_samples // 8)
        stored = np.unpackbits(np.frombuffer(frame[:size], np.uint8), bitorder="little")[: image.stored_samples]
    else:
        size = image.stored_samples * image.width
        stored = np.frombuffer(frame[: size if len(frame) >= size else 0], f"<u{image.width}")
    if len(frame) < size or any(frame[size:]):
        raise Undecodable("not one frame and zeros")
    return _interleaved(stored, image)


def _rle(frame: bytes, image: Image, syntax: str) -> Samples:
    size = image.rows * image.columns
    if image.allocated < 8 or not size:
        raise Undecodable("no whole bytes")
    planes = rle_planes(frame, image.samples * image.width, size)
    # a sample's bytes come most significant first
    little = [planes[s * image.width + image.width - 1 - b] for s in range(image.samples) for b in range(image.width)]
    return np.stack([np.frombuffer(plane, np.uint8) for plane in little], axis=-1).reshape(-1).view(f"<u{image.width}")


def _codec(frame: bytes, image: Image, syntax: str) -> Samples:
    rows, columns, components, precision = announced(frame)
    if (rows, columns, components) != (image.rows, image.columns, image.samples) or components not in (1, 3):
        raise Undecodable("another size")
    if not 0 < precision <= min(image.allocated, 32):
        raise Undecodable("samples wider than Bits Allocated")
    decoder = get_decoder(syntax)
    plugin = next(name for name in DECODERS[syntax] if name in decoder.available_plugins)
    options: dict[str, Any] = {
        "rows": image.rows,
        "columns": image.columns,
        "samples_per_pixel": image.samples,
        "photometric_interpretation": "RGB" if image.samples > 1 else "MONOCHROME2",
        "planar_configuration": 0,
        "bits_allocated": 8 if precision <= 8 else 16 if precision <= 16 else 32,
        "bits_stored": precision,
        "pixel_representation": int(image.signed),
        "pixel_keyword": "PixelData",
        "number_of_frames": 1,
        # samples as decoded: the rules for sign and unused bits are applied to them here
        "apply_j2k_sign_correction": False,
        "apply_jls_sign_correction": False,
        "correct_unused_bits": False,
    }
    try:
        array, _ = decoder.as_array(encapsulate([frame]), raw=True, validate=False, decoding_plugin=plugin, **options)
    except Exception as error:  # whatever a foreign decoder raises means the same
        raise Undecodable(str(error)) from error
    if array.size != image.rows * image.columns * image.samples:
        raise Undecodable("decoded to another size")
    return np.ascontiguousarray(array).reshape(-1).astype(f"<{array.dtype.kind}{image.width}").view(f"<u{image.width}")


def _encoded(top: dict[Tag, Element], element: Element) -> list[bytes]:
    if element.fragments is None:
        return [element.value or b""]
    try:
        return split(element.fragments, number_of_frames(top), _extended_offsets(top))
    except Undecodable:
        return [b"".join(element.fragments[1:])]


def _extended_offsets(top: dict[Tag, Element]) -> bytes:
    return (top[EXTENDED_OFFSETS].value or b"") if EXTENDED_OFFSETS in top else b""


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")
