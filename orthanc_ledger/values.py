"""The value of one element as a fingerprint sees it, whatever the transfer syntax (docs/fingerprint.md, "Values")."""

from array import array
from functools import lru_cache

from pydicom.datadict import dictionary_VR

UNKNOWN = ""

_TEXT = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_PADDING = b" \x00"
_UNITS = {
    **dict.fromkeys(("US", "SS", "OW", "AT", "US or SS", "US or OW", "US or SS or OW"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OF", "OL"), 4),
    **dict.fromkeys(("FD", "OD", "SV", "UV", "OV"), 8),
}
_ARRAY_CODES = {2: "H", 4: "I", 8: "Q"}


@lru_cache(maxsize=16384)
def effective_vr(tag: int) -> str:
    """VR of a public tag by the dictionary (PS3.6, repeating groups included); ``UNKNOWN`` for every other tag.

    Where the dictionary names several VRs this is its text, as in ``"US or SS"``.
    """
    if tag >> 16 & 1:
        return UNKNOWN
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return UNKNOWN
    return UNKNOWN if vr == "UN" else vr


@lru_cache(maxsize=16384)
def is_text(tag: int) -> bool:
    """Whether trailing padding of the tag's value means nothing (PS3.5 6.2)."""
    return effective_vr(tag) in _TEXT


def strip_padding(value: bytes) -> bytes:
    """A text value without its trailing spaces and NULs."""
    return value.rstrip(_PADDING)


def swap_unit(tag: int, stream_vr: bytes) -> int:
    """Bytes that change places together when a big-endian value becomes little-endian; 1 when none do (PS3.5 7.3)."""
    if stream_vr == b"UN":
        return 1
    vr = effective_vr(tag)
    if vr == "OB or OW":
        return 2 if stream_vr == b"OW" else 1
    return _UNITS.get(vr, 1)


def swap_bytes(value: bytes, unit: int) -> bytes:
    """``value`` with the bytes of each ``unit`` reversed; a trailing part shorter than the unit stays."""
    if unit == 1:
        return value
    whole = len(value) - len(value) % unit
    units = array(_ARRAY_CODES[unit], value[:whole])
    units.byteswap()
    return units.tobytes() + value[whole:]
