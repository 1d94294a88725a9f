"""Text values decoded by a data set's Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1).

Decoded first, split and compared afterwards: in ISO 2022 kanji, GBK and GB18030 the second byte of a character may be
that of a backslash, `^`, `=` or `*`.
"""

import re
import warnings
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes

Charset = tuple[str, ...]
"""Python's names of the encodings, the initial one first."""

# By Specific Character Set (PS3.5 6.1.2.3); other text is of the default repertoire.
_VRS = frozenset(("SH", "LO", "ST", "PN", "LT", "UC", "UT"))
_DEFINED_TERM = re.compile(r"ISO[ _-]?(2022[ _-]?)?IR[ _-]?[0-9]{1,3}|GB18030|(ISO 2022 )?GBK")
# After one of these the initial character set is active again (PS3.5 6.1.2.5.3).
_DELIMITERS = {"PN": set(b"\\^="), "SH": set(b"\\"), "LO": set(b"\\"), "UC": set(b"\\")}
_LINE_DELIMITERS = set(b"\t\n\f\r")


@lru_cache(maxsize=64)
def charset(terms: bytes) -> Charset:
    """The encodings that a value of Specific Character Set (0008,0005) names; the default one for what is no term."""
    named = [term.strip(" \0") for term in terms.decode("ascii", "replace").split("\\")]
    # pydicom would take what is no defined term for the name of any Python codec, "rot13" even.
    defined = [term if _DEFINED_TERM.fullmatch(term) else "" for term in named]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of misspelt terms, which pydicom understands
        return tuple(convert_encodings(defined))


def decode(value: bytes, vr: str, encodings: Charset) -> str:
    """A text value, several values still joined by a backslash, without padding; undecodable bytes are U+FFFD."""
    if vr not in _VRS:
        return value.decode("ascii", "replace").strip(" \0")
    if value.isascii() and b"\x1b" not in value:  # most are, and mean the same in every encoding
        return value.decode("ascii").strip("\0").strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bytes that it replaces
        text = decode_bytes(value, encodings, _DELIMITERS.get(vr, _LINE_DELIMITERS))
    return text.strip("\0").strip()
