"""Shape of the stored samples, by the attributes of the Image Pixel modules (PS3.3 C.7.6.3)."""

import re
from dataclasses import dataclass
from typing import Final

from orthanc_ledger.errors import DataError
from orthanc_ledger.instance import Instance

FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
PLANAR_CONFIGURATION: Final = 0x00280006
NUMBER_OF_FRAMES: Final = 0x00280008

_DIGITS = re.compile(rb"\+?[0-9]+")


class NotDecoded(DataError):
    """Pixel data has no canonical samples; ``reason`` is one of the four of docs/fingerprint.md, "A failed decode"."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class Layout:
    """Shape of the stored samples (PS3.3 C.7.6.3.1)."""

    frames: int
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: bool

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    @property
    def subsampled(self) -> bool:
        """Two pixels share their chrominance: Y Y Cb Cr (PS3.3 C.7.6.3.1.2)."""
        return self.photometric == "YBR_FULL_422" and self.samples == 3

    @property
    def stored_frame_samples(self) -> int:
        return self.pixels * (2 if self.subsampled else self.samples)

    @property
    def sample_bytes(self) -> int:
        return max(1, self.bits_allocated // 8)

    @property
    def canonical_frame_bytes(self) -> int:
        return self.pixels * self.samples * self.sample_bytes

    @property
    def has_unused_bits(self) -> bool:
        return self.bits_stored < self.bits_allocated and self.high_bit == self.bits_stored - 1


def pixel_layout(instance: Instance, tag: int) -> Layout:
    frames = number_of_frames(instance)
    if frames is None:
        raise NotDecoded("missing-attribute", "(0028,0008) is no number of frames")
    floating = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}.get(tag)
    allocated = floating or _unsigned(instance, 0x00280100)
    layout = Layout(
        frames=frames,
        rows=_unsigned(instance, 0x00280010),
        columns=_unsigned(instance, 0x00280011),
        samples=_unsigned(instance, 0x00280002),
        photometric=(instance.short_value(PHOTOMETRIC_INTERPRETATION) or b"").decode("latin-1"),
        bits_allocated=allocated,
        bits_stored=floating or _unsigned(instance, 0x00280101),
        high_bit=allocated - 1 if floating else _unsigned(instance, 0x00280102),
        signed=floating is None and _unsigned(instance, 0x00280103) == 1,
        planar=(instance.short_value(PLANAR_CONFIGURATION) or b"")[:2] == b"\x01\x00",
    )
    if not layout.photometric:
        raise NotDecoded("missing-attribute", "(0028,0004) is missing")
    if not layout.pixels * layout.samples:
        raise NotDecoded("missing-attribute", "rows, columns or samples per pixel are 0")
    if layout.bits_allocated not in (1, 8, 16, 32, 64) or (layout.subsampled and layout.columns % 2):
        raise NotDecoded(
            "decoder-failed", f"{allocated} bits allocated, {layout.photometric}, {layout.columns} columns"
        )
    return layout


def _unsigned(instance: Instance, tag: int) -> int:
    value = instance.short_value(tag)
    if value is None or len(value) < 2:
        raise NotDecoded("missing-attribute", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing")
    return int.from_bytes(value[:2], "little")


def number_of_frames(instance: Instance) -> int | None:
    """Number of Frames, 1 when absent or empty; None when it is no positive integer."""
    value = (instance.short_value(NUMBER_OF_FRAMES) or b"").strip(b" ")
    if not value:
        return 1
    return int(value) or None if _DIGITS.fullmatch(value) else None
