"""Identifiers: the data sets of C-FIND, C-GET and C-MOVE, decoded with suspicion and encoded for the context."""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STR_VR, VR
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from dicom_scp.contexts import PATIENT_ROOT
from dicom_scp.ports import Level, Query
from orthanc_ledger import charsets
from orthanc_ledger.errors import DataError
from orthanc_ledger.retrieve import LEVELS, UNIQUE_KEYS

_MOST = 1024  # bytes of a key, or values of a key of UIDs: each is compared with each row that a search reads
_UID = re.compile(r"[0-9.]{1,64}")
_PATIENT_ID = re.compile(r"[^*?\\]{1,64}")
_CHARSET = BaseTag(0x00080005)
_VRS = frozenset({None, *VR})  # None: the transfer syntax has none


class BadIdentifier(DataError):
    """The identifier cannot be decoded, is too much, or its level and unique keys do not fit its SOP class."""


class Text(NamedTuple):
    """An element of a response: ``value`` as DICOM text, several values joined by a backslash."""

    tag: int
    vr: str
    value: str


def read_identifier(encoded: BytesIO, context: PresentationContext) -> Dataset:
    """Take an identifier apart to its last element; values stay raw. Raises BadIdentifier."""
    syntax = _syntax(context)
    try:
        identifier = decode(encoded, syntax.is_implicit_VR, syntax.is_little_endian)
    except Exception as error:  # pydicom raises many types on bytes that are no data set
        raise BadIdentifier(f"the identifier cannot be decoded: {type(error).__name__}") from error
    if not {element.VR for element in _elements(identifier)} <= _VRS:
        raise BadIdentifier("the identifier has an element of a VR that does not exist")
    return identifier


def texts(identifier: Dataset) -> dict[str, str]:
    """Keyword → text of the standard's text elements, decoded by the identifier's own Specific Character Set.

    From raw bytes: pydicom would split values before it decodes them. Several values stay joined by a backslash.
    Raises BadIdentifier for a key of more than 1,024 bytes, one of UIDs for more than 1,024 values.
    """
    keys = [element for element in _elements(identifier) if _is_text(element.tag)]
    for key in keys:
        size = _raw(key).count(b"\\") + 1 if dictionary_VR(key.tag) == "UI" else len(_raw(key))
        if size > _MOST:
            raise BadIdentifier(f"{dictionary_keyword(key.tag)}: {size} bytes or UIDs, expected at most {_MOST}")
    charset = charsets.charset(_raw(identifier.get_item(_CHARSET)))
    return {dictionary_keyword(key.tag): charsets.decode(_raw(key), dictionary_VR(key.tag), charset) for key in keys}


def others(identifier: Dataset) -> list[Text]:
    """What `texts` leaves out, as it is answered: without a value or items, but for the names of private blocks."""
    found = []
    for element in _elements(identifier):
        tag = element.tag
        if tag.element and not _is_text(tag):  # element 0 is a group's length
            name = _raw(element).decode("ascii", "replace") if tag.is_private_creator else ""
            found.append(Text(tag, element.VR or "UN", name))
    return found


def encode_identifier(identifier: Dataset, context: PresentationContext) -> BytesIO:
    """Encode a retrieve response's identifier."""
    syntax = _syntax(context)
    encoded = encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian)
    if encoded is None:
        raise ValueError("an identifier of this node cannot be encoded")
    return BytesIO(encoded)


def encode_texts(elements: Iterable[Text], context: PresentationContext) -> BytesIO:
    """Encode a match, in UTF-8 (ISO_IR 192). Values need not be valid for their VR: an object's own may not be."""
    syntax = _syntax(context)
    order = "<" if syntax.is_little_endian else ">"
    encoded = bytearray()
    for tag, vr, text in sorted({*elements, Text(_CHARSET, "CS", "ISO_IR 192")}):
        value = text.encode()
        value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
        encoded += struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if syntax.is_implicit_VR:
            encoded += struct.pack(f"{order}L", len(value))
        elif vr in EXPLICIT_VR_LENGTH_32 or len(value) > 0xFFFF:
            vr = vr if vr in EXPLICIT_VR_LENGTH_32 else "UN"  # too long for its VR (PS3.5 6.2.2)
            encoded += struct.pack(f"{order}2s2xL", vr.encode(), len(value))
        else:
            encoded += struct.pack(f"{order}2sH", vr.encode(), len(value))
        encoded += value
    return BytesIO(encoded)


def text_of(keyword: str, value: str) -> Text:
    """The element of a keyword."""
    tag = tag_for_keyword(keyword) or 0
    return Text(tag, dictionary_VR(tag), value)


def level_of(values: Mapping[str, str], model: str) -> Level:
    """Query/Retrieve Level (0008,0052), one that the information model has. Raises BadIdentifier."""
    named = values.get("QueryRetrieveLevel", "")
    levels = LEVELS if model in PATIENT_ROOT else LEVELS[1:]
    if named not in levels:
        raise BadIdentifier(f"Query/Retrieve Level is {named!r}, expected one of {', '.join(levels)}")
    return named


def unique_keys(values: Mapping[str, str], model: str) -> tuple[Level, Query]:
    """The level and unique keys in the `texts` of a C-GET or C-MOVE (PS3.4 C.4.2.1.4, C.4.3.1.4). ``model``: the SOP
    class, by which Patient ID is a unique key or not.

    Raises BadIdentifier unless the level's own key has values and every key above it exactly one, none with wildcards.
    """
    level, above = keys_above(values, model)
    own = _unique_key(values, UNIQUE_KEYS[LEVELS.index(level)], single=level == "PATIENT")
    return level, Query(*(*above, own))


def keys_above(values: Mapping[str, str], model: str) -> tuple[Level, list[tuple[str, ...]]]:
    """The level of an identifier's `texts`, and the unique keys of the levels above (PS3.4 C.4.1.2.2.1), top down; none
    for a level that the model does not have.

    Raises BadIdentifier unless each has exactly one value without wildcards.
    """
    level = level_of(values, model)
    top = 0 if model in PATIENT_ROOT else 1
    named = UNIQUE_KEYS[: LEVELS.index(level)]
    return level, [_unique_key(values, keyword, single=True) if at >= top else () for at, keyword in enumerate(named)]


def _unique_key(values: Mapping[str, str], keyword: str, *, single: bool) -> tuple[str, ...]:
    found = tuple(value.strip() for value in values.get(keyword, "").split("\\"))
    pattern = _PATIENT_ID if keyword == "PatientID" else _UID
    if not all(pattern.fullmatch(value) for value in found) or len(found) > (1 if single else _MOST):
        raise BadIdentifier(f"{keyword} must hold {'one value' if single else 'values'} without wildcards")
    return found


def _elements(identifier: Dataset) -> Iterator[RawDataElement | DataElement]:
    """The top level; all are raw but sequences."""
    return map(identifier.get_item, identifier.keys())


def _is_text(tag: BaseTag) -> bool:
    return dictionary_has_tag(tag) and dictionary_VR(tag) in STR_VR and dictionary_keyword(tag) != ""


def _raw(element: RawDataElement | DataElement | None) -> bytes:
    return (element.value or b"") if isinstance(element, RawDataElement) else b""


def _syntax(context: PresentationContext) -> UID:
    return context.transfer_syntax[0]
