"""The attributes C-FIND can be asked for, decoded by the object's own Specific Character Set (PS3.3 C.12.1.1.2)."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword

from orthanc_ledger.instance import Instance

STUDY = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
)
SERIES = ("Modality", "SeriesDescription", "BodyPartExamined", "SeriesInstanceUID", "SeriesNumber")
INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber")

_CHARSET_TAG = 0x00080005
_CHARSET_VRS = frozenset(("SH", "LO", "ST", "PN", "LT", "UC", "UT"))
_DEFINED_TERM = re.compile(r"ISO[ _-]?(2022[ _-]?)?IR[ _-]?[0-9]{1,3}|GB18030|GBK")
_PN_DELIMITERS = {ord("^"), ord("=")}
_TAGS = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in (*STUDY, *SERIES, *INSTANCE)}

WANTED = frozenset(_TAGS.values()) | {_CHARSET_TAG}
"""Pass these tags to ``open_instance``."""


@dataclass(frozen=True)
class Attributes:
    """Keyword → decoded text, by level."""

    study: Mapping[str, str]
    series: Mapping[str, str]
    instance: Mapping[str, str]


def read_attributes(instance: Instance) -> Attributes:
    """Attributes of an instance opened with ``WANTED``; absent is an empty text, undecodable bytes are U+FFFD."""
    terms = (instance.short_value(_CHARSET_TAG) or b"").decode("ascii", "replace").split("\\")
    # What is no defined term becomes the default: pydicom would take it for the name of any Python codec, "rot13" even.
    charsets = [term if _DEFINED_TERM.fullmatch(term) else "" for term in map(str.strip, terms)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what it decodes by the default character set instead
        encodings = convert_encodings(charsets)

        def text(keyword: str) -> str:
            value = instance.short_value(_TAGS[keyword])
            if not value:
                return ""
            vr = dictionary_VR(_TAGS[keyword])
            if vr not in _CHARSET_VRS:
                return value.decode("ascii", "replace").strip()
            return decode_bytes(value, encodings, _PN_DELIMITERS if vr == "PN" else set()).strip()

        return Attributes(*({keyword: text(keyword) for keyword in level} for level in (STUDY, SERIES, INSTANCE)))
