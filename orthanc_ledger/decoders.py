"""Compressed frames to samples, each transfer syntax by one pinned decoder (docs/fingerprint.md, "Pixels")."""

import struct
import warnings
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from orthanc_ledger.errors import ConfigError
from orthanc_ledger.pixel_layout import Layout, NotDecoded

Samples = NDArray[np.unsignedinteger[Any]]

OWN: Final = "own"
NATIVE: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
ENCAPSULATED_UNCOMPRESSED: Final = "1.2.840.10008.1.2.1.98"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
DECODERS: Final = {
    **dict.fromkeys((*NATIVE, ENCAPSULATED_UNCOMPRESSED, RLE_LOSSLESS), OWN),
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg-openjpeg",
}
_PLUGINS: Final = {"pylibjpeg-openjpeg": "pylibjpeg", OWN: "pydicom"}
# What a third-party decoder raises on hostile bytes; running out of memory or a missing decoder is not among them.
_DECODER_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)


def check_installed(transfer_syntax: str) -> None:
    """Raises ``ConfigError`` when the decoder pinned for a compressed transfer syntax is not installed."""
    if pydicom_plugin(transfer_syntax) not in get_decoder(UID(transfer_syntax)).available_plugins:
        name = DECODERS[transfer_syntax]
        raise ConfigError(f"decoder {name} for {transfer_syntax} is not installed; install the project's requirements")


def pydicom_plugin(transfer_syntax: str) -> str:
    """What pydicom calls the decoder pinned for a compressed transfer syntax."""
    name = DECODERS[transfer_syntax]
    return _PLUGINS.get(name, name)


def decompress(transfer_syntax: str, encoded: bytes, layout: Layout) -> Samples:
    """Stored samples of one encoded frame, shape (pixels, samples), Bits Allocated wide.

    Raises ``NotDecoded`` when the decoder fails or the frame holds other samples than the data set announces,
    ``ConfigError`` when the decoder is not installed.
    """
    if transfer_syntax == RLE_LOSSLESS:
        return _rle(encoded, layout)
    check_installed(transfer_syntax)
    name = DECODERS[transfer_syntax]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on attributes that do not fit the codestream
            array, _ = get_decoder(UID(transfer_syntax)).as_array(
                encapsulate([encoded]),
                index=0,
                raw=True,
                decoding_plugin=pydicom_plugin(transfer_syntax),
                **_options(_precision(encoded, layout), layout),
            )
    except _DECODER_ERRORS as error:
        raise NotDecoded("decoder-failed", f"{name}: {error}") from error
    if array.size != layout.pixels * layout.samples:
        raise NotDecoded("decoder-failed", f"{name} gives {array.shape} samples")
    wide = array.astype(f"<{array.dtype.kind}{layout.sample_bytes}").view(f"<u{layout.sample_bytes}")
    stored: Samples = wide.reshape(-1, layout.samples)
    return stored


def _options(precision: int, layout: Layout) -> dict[str, Any]:
    """What the decoder is told: nothing that the codestream knows better, so that no attribute makes it refuse."""
    return {
        "pixel_keyword": "PixelData",
        "number_of_frames": 1,
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": "MONOCHROME2" if layout.samples == 1 else "RGB",
        "planar_configuration": 0,
        "bits_allocated": next(bits for bits in (8, 16, 32) if precision <= bits),
        "bits_stored": precision,
        "pixel_representation": int(layout.signed),
        # Unused high bits are told apart later; pydicom would clear them here.
        "correct_unused_bits": False,
        "apply_j2k_sign_correction": False,
        "apply_jls_sign_correction": False,
    }


def _rle(encoded: bytes, layout: Layout) -> Samples:
    """PS3.5 annex G: a segment for each byte of a sample, most significant first, and for each sample in turn."""
    width = layout.sample_bytes
    segments = layout.samples * width
    if (
        layout.bits_allocated == 1
        or segments > 15
        or len(encoded) < 64
        or encoded[:4] != segments.to_bytes(4, "little")
    ):
        raise NotDecoded("decoder-failed", f"{segments} RLE segments of whole bytes expected, header {encoded[:4]!r}")
    bounds = (*struct.unpack_from(f"<{segments}I", encoded, 4), len(encoded))
    stored = np.empty((layout.pixels, layout.samples, width), np.uint8)
    for index, (start, stop) in enumerate(pairwise(bounds)):
        sample, byte = divmod(index, width)
        stored[:, sample, width - 1 - byte] = np.frombuffer(
            _unpacked_bits(encoded[start:stop], layout.pixels), np.uint8
        )
    return stored.view(f"<u{width}").reshape(-1, layout.samples)


def _unpacked_bits(segment: bytes, size: int) -> bytearray:
    """The first ``size`` bytes of a segment (PS3.5 G.3.2). No more is ever unpacked, whatever the segment holds."""
    plane = bytearray()
    at = 0
    while len(plane) < size and at < len(segment):
        head = segment[at]
        if head < 128:
            plane += segment[at + 1 : at + 2 + head]
            at += 2 + head
        elif head > 128:
            plane += segment[at + 1 : at + 2] * (257 - head)
            at += 2
        else:
            at += 1
    if len(plane) < size:
        raise NotDecoded("decoder-failed", f"an RLE segment unpacks to {len(plane)} bytes, {size} expected")
    del plane[size:]
    return plane


class _Codestream(NamedTuple):
    """What a codestream says of itself; ``precision`` is the largest of its components', in bits."""

    rows: int
    columns: int
    components: int
    precision: int


def _precision(encoded: bytes, layout: Layout) -> int:
    """Bits of the codestream's samples.

    Raises ``NotDecoded`` when it announces another size than the data set, which its decoder would allocate, or samples
    wider than Bits Allocated, which would lose their high bits.
    """
    try:
        found = _jpeg_header(encoded) if encoded.startswith(b"\xff\xd8") else _jpeg2000_header(encoded)
    except (LookupError, ValueError, struct.error) as error:
        raise NotDecoded("decoder-failed", "the codestream has no frame header") from error
    if found[:3] != (layout.rows, layout.columns, layout.samples):
        raise NotDecoded("decoder-failed", f"the codestream holds {found[:3]} rows, columns, samples")
    if layout.samples not in (1, 3):
        raise NotDecoded("decoder-failed", f"1 or 3 samples per pixel expected, got {layout.samples}")
    if not 1 <= found.precision <= min(32, layout.bits_allocated):
        raise NotDecoded("decoder-failed", f"samples of {found.precision} bits, {layout.bits_allocated} allocated")
    return found.precision


def _jpeg2000_header(encoded: bytes) -> _Codestream:
    """The SIZ marker segment (ISO/IEC 15444-1 A.5.1), in a JP2 file too (I.4)."""
    start = 0
    while encoded[start : start + 4] != b"\xff\x4f\xff\x51":
        length, box = struct.unpack_from(">I4s", encoded, start)
        if length < 8 and box != b"jp2c":
            raise LookupError(f"no codestream at byte {start}")
        start += 8 if box == b"jp2c" else length
    width, height, left, top = struct.unpack_from(">4I", encoded, start + 8)
    components: int = struct.unpack_from(">H", encoded, start + 40)[0]
    depths = encoded[start + 42 : start + 42 + 3 * components : 3]
    return _Codestream(height - top, width - left, components, max(depth & 0x7F for depth in depths) + 1)


def _jpeg_header(encoded: bytes) -> _Codestream:
    """The frame header (ISO/IEC 10918-1 B.2.2, ISO/IEC 14495-1 C.2.2)."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", encoded, at)
        if marker == 0xFFFF:
            at += 1
            continue
        if marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)):
            precision, rows, columns, components = struct.unpack_from(">BHHB", encoded, at + 4)
            return _Codestream(rows, columns, components, precision)
        if marker < 0xFFC0:
            raise LookupError(f"no marker at byte {at}")
        at += 2 + length
