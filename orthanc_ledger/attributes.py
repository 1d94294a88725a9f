"""The attributes C-FIND can be asked for, by level (PS3.4 C.6.1.1, C.6.2.1), as one object has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.datadict import dictionary_VR, tag_for_keyword

from orthanc_ledger import charsets
from orthanc_ledger.instance import Instance

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "StudyInstanceUID",
    "StudyID",
)
SERIES = ("Modality", "SeriesDescription", "BodyPartExamined", "SeriesInstanceUID", "SeriesNumber")
INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber")

_CHARSET_TAG = 0x00080005
_TAGS = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in (*PATIENT, *STUDY, *SERIES, *INSTANCE)}
VRS: Mapping[str, str] = MappingProxyType({keyword: dictionary_VR(tag) for keyword, tag in _TAGS.items()})
"""Keyword → value representation."""

WANTED = frozenset(_TAGS.values()) | {_CHARSET_TAG}
"""Pass these tags to ``open_instance``."""


@dataclass(frozen=True)
class Attributes:
    """Keyword → decoded text, by level; the patient's are kept with the study."""

    study: Mapping[str, str]
    series: Mapping[str, str]
    instance: Mapping[str, str]


def read_attributes(instance: Instance) -> Attributes:
    """Attributes of an instance opened with ``WANTED``; absent is an empty text, undecodable bytes are U+FFFD."""
    charset = charsets.charset(instance.short_value(_CHARSET_TAG) or b"")

    def texts(*keywords: str) -> dict[str, str]:
        return {
            keyword: charsets.decode(instance.short_value(_TAGS[keyword]) or b"", VRS[keyword], charset)
            for keyword in keywords
        }

    return Attributes(texts(*PATIENT, *STUDY), texts(*SERIES), texts(*INSTANCE))
