"""Compressed frames to samples, each transfer syntax by one pinned decoder (docs/fingerprint.md, "Pixels")."""

import struct
import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from orthanc_ledger.errors import ConfigError
from orthanc_ledger.pixel_layout import Layout, NotDecoded

Samples = NDArray[np.unsignedinteger[Any]]

OWN: Final = "own"
ENCAPSULATED_UNCOMPRESSED: Final = "1.2.840.10008.1.2.1.98"
_RLE: Final = "1.2.840.10008.1.2.5"
DECODERS: Final = {
    "1.2.840.10008.1.2": OWN,
    "1.2.840.10008.1.2.1": OWN,
    "1.2.840.10008.1.2.2": OWN,
    "1.2.840.10008.1.2.1.99": OWN,
    ENCAPSULATED_UNCOMPRESSED: OWN,
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg-openjpeg",
    _RLE: "pydicom",
}
_PLUGINS: Final = {"pylibjpeg-openjpeg": "pylibjpeg"}
# What a third-party decoder raises on hostile bytes; running out of memory or a missing decoder is not among them.
_DECODER_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)


def check_installed(transfer_syntax: str) -> None:
    """Raises ``ConfigError`` when the decoder pinned for a compressed transfer syntax is not installed."""
    name = DECODERS[transfer_syntax]
    if _plugin(name) not in get_decoder(UID(transfer_syntax)).available_plugins:
        raise ConfigError(f"decoder {name} for {transfer_syntax} is not installed; install the project's requirements")


def _plugin(name: str) -> str:
    return _PLUGINS.get(name, name)


def decompress(transfer_syntax: str, encoded: bytes, layout: Layout) -> Samples:
    """Stored samples of one encoded frame, shape (pixels, samples), Bits Allocated wide.

    Raises ``NotDecoded`` when the decoder fails or gives another size, ``ConfigError`` when it is not installed.
    """
    check_installed(transfer_syntax)
    name = DECODERS[transfer_syntax]
    if transfer_syntax != _RLE:
        _check_codestream(encoded, layout)
    options: dict[str, Any] = {
        "pixel_keyword": "PixelData",
        "number_of_frames": 1,
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": int(layout.planar),
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        # Unused high bits are told apart later; pydicom would clear them here.
        "correct_unused_bits": False,
        "apply_j2k_sign_correction": False,
        "apply_jls_sign_correction": False,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on attributes that do not fit the codestream
            array, _ = get_decoder(UID(transfer_syntax)).as_array(
                encapsulate([encoded]), index=0, raw=True, decoding_plugin=_plugin(name), **options
            )
    except _DECODER_ERRORS as error:
        raise NotDecoded("decoder-failed", f"{name}: {error}") from error
    if array.dtype.itemsize > layout.sample_bytes or array.size != layout.pixels * layout.samples:
        raise NotDecoded("decoder-failed", f"{name} gives {array.shape} of {array.dtype}")
    wide = array.astype(f"<{array.dtype.kind}{layout.sample_bytes}").view(f"<u{layout.sample_bytes}")
    stored: Samples = wide.reshape(-1, layout.samples)
    return stored


def _check_codestream(encoded: bytes, layout: Layout) -> None:
    """Refuse a codestream that announces another size than the data set: its decoder would allocate that much."""
    try:
        size = _jpeg_size(encoded) if encoded.startswith(b"\xff\xd8") else _jpeg2000_size(encoded)
    except (LookupError, struct.error) as error:
        raise NotDecoded("decoder-failed", "the codestream has no frame header") from error
    if size != (layout.rows, layout.columns, layout.samples):
        raise NotDecoded("decoder-failed", f"the codestream holds {size} rows, columns, samples")


def _jpeg2000_size(encoded: bytes) -> tuple[int, int, int]:
    """Rows, columns, components by the SIZ marker segment (ISO/IEC 15444-1 A.5.1), in a JP2 file too (I.4)."""
    start = 0
    while encoded[start : start + 4] != b"\xff\x4f\xff\x51":
        length, box = struct.unpack_from(">I4s", encoded, start)
        if length < 8 and box != b"jp2c":
            raise LookupError(f"no codestream at byte {start}")
        start += 8 if box == b"jp2c" else length
    width, height, left, top = struct.unpack_from(">4I", encoded, start + 8)
    components: int = struct.unpack_from(">H", encoded, start + 40)[0]
    return height - top, width - left, components


def _jpeg_size(encoded: bytes) -> tuple[int, int, int]:
    """Rows, columns, components by the frame header (ISO/IEC 10918-1 B.2.2, ISO/IEC 14495-1 C.2.2)."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", encoded, at)
        if marker == 0xFFFF:
            at += 1
            continue
        if marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)):
            rows, columns, components = struct.unpack_from(">HHB", encoded, at + 5)
            return rows, columns, components
        if marker < 0xFFC0:
            raise LookupError(f"no marker at byte {at}")
        at += 2 + length
