"""Identifiers: the data sets of C-FIND, C-GET and C-MOVE, decoded with suspicion and encoded for the context."""

import re
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from dicom_scp.contexts import PATIENT_ROOT
from dicom_scp.ports import Level, Query
from orthanc_ledger.errors import DataError

LEVELS: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")  # PS3.4 C.6.1.1, one a level
_UID = re.compile(r"[0-9.]{1,64}")
_PATIENT_ID = re.compile(r"[^*?\\]{1,64}")


class BadIdentifier(DataError):
    """The identifier cannot be decoded, or its level and unique keys do not fit its SOP class."""


def read_identifier(encoded: BytesIO, context: PresentationContext) -> Dataset:
    """Decode an identifier to its last element. Raises BadIdentifier."""
    syntax = _syntax(context)
    try:
        identifier = decode(encoded, syntax.is_implicit_VR, syntax.is_little_endian)
        identifier.decode()  # reads every value
    except Exception as error:  # pydicom raises many types on bytes that are no data set, and only when a value is read
        raise BadIdentifier(f"the identifier cannot be decoded: {type(error).__name__}") from error
    return identifier


def encode_identifier(identifier: Dataset, context: PresentationContext) -> BytesIO:
    """Encode a response's identifier; text that is not ASCII goes out as UTF-8 (PS3.3 C.12.1.1.2)."""
    if not all(text(element.value).isascii() for element in identifier):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    syntax = _syntax(context)
    encoded = encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian)
    if encoded is None:
        raise ValueError("an identifier of this node cannot be encoded")
    return BytesIO(encoded)


def text(value: Any) -> str:
    """A value as DICOM text: multiple values joined by a backslash, nothing as the empty string."""
    values = value if isinstance(value, MultiValue | list) else [value]
    return "\\".join("" if each is None else str(each) for each in values)


def level_of(identifier: Dataset, context: PresentationContext) -> Level:
    """Query/Retrieve Level (0008,0052), one that the context's information model has. Raises BadIdentifier."""
    named = text(identifier.get("QueryRetrieveLevel")).strip()
    levels = LEVELS if context.abstract_syntax in PATIENT_ROOT else LEVELS[1:]
    if named not in levels:
        raise BadIdentifier(f"Query/Retrieve Level is {named!r}, expected one of {', '.join(levels)}")
    return named


def unique_keys(identifier: Dataset, context: PresentationContext) -> tuple[Level, Query]:
    """The level and unique keys of a C-GET or C-MOVE (PS3.4 C.4.2.1.4, C.4.3.1.4).

    Raises BadIdentifier unless the level's own key has values and every key above it exactly one, none with wildcards.
    """
    level = level_of(identifier, context)
    depth = LEVELS.index(level)
    top = 0 if context.abstract_syntax in PATIENT_ROOT else 1
    keys: list[tuple[str, ...]] = [(), (), (), ()]
    for index in range(top, depth + 1):
        keys[index] = key_values(identifier, UNIQUE_KEYS[index], single=index < depth or level == "PATIENT")
    return level, Query(*keys)


def key_values(identifier: Dataset, keyword: str, *, single: bool) -> tuple[str, ...]:
    """The values of a unique key. Raises BadIdentifier for none, several where ``single``, or any that is no key."""
    values = tuple(value.strip() for value in text(identifier.get(keyword)).split("\\"))
    pattern = _PATIENT_ID if keyword == "PatientID" else _UID
    if not all(pattern.fullmatch(value) for value in values) or (single and len(values) > 1):
        raise BadIdentifier(f"{keyword} must hold {'one value' if single else 'values'} without wildcards")
    return values


def _syntax(context: PresentationContext) -> UID:
    return context.transfer_syntax[0]
