"""`docs/fingerprint.md`, "Values": an element's bytes as they enter the metadata tree."""

from tests.second.dataset import Element, dictionary_vr

TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
UNITS = dict.fromkeys(["US", "SS", "OW", "AT", "US or SS", "US or OW", "US or SS or OW"], 2)
UNITS |= dict.fromkeys(["UL", "SL", "FL", "OF", "OL"], 4) | dict.fromkeys(["FD", "OD", "SV", "UV", "OV"], 8)


def canonical(element: Element) -> bytes:
    """A value as it enters the tree."""
    if element.fragments is not None:
        return b"".join(element.fragments[1:])
    value = element.value or b""
    vr = dictionary_vr(element.tag)
    if vr in TEXT:
        return value.rstrip(b"\0 ")
    if not element.big or vr is None or element.vr == "UN":
        return value
    return swapped(value, UNITS.get((element.vr if vr == "OB or OW" else vr) or "", 1))


def swapped(value: bytes, unit: int) -> bytes:
    """Each unit reversed; a trailing part shorter than the unit stays."""
    whole = len(value) - len(value) % unit
    return b"".join(value[at : at + unit][::-1] for at in range(0, whole, unit)) + value[whole:]
