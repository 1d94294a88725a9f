"""Command sets: the elements of group 0000 that begin a DIMSE message, in Implicit VR Little Endian (PS3.7 6.3.1, E.1).

pynetdicom makes a pydicom data set of each command on its way, which took half a millisecond for every object.
"""

import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any

from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE

Primitive = C_CANCEL | C_ECHO | C_FIND | C_GET | C_MOVE | C_STORE

_COMMAND_FIELD, _DATA_SET_TYPE = 0x0100, 0x0800
_NO_DATA_SET, _A_DATA_SET = 0x0101, 0x0001  # PS3.7 E.1: any value but 0101 says that one follows
_RESPONSE = 0x8000  # bit of the Command Field
_CANCEL = 0x0FFF
_SERVICES: Mapping[int, type[Primitive]] = MappingProxyType(
    {0x0001: C_STORE, 0x0010: C_GET, 0x0020: C_FIND, 0x0021: C_MOVE, 0x0030: C_ECHO}
)
_COMMANDS: Mapping[type, int] = MappingProxyType({service: field for field, service in _SERVICES.items()})

# (element, VR, keyword) of what a message may say beside its kind, in the order of their tags
_ELEMENTS = (
    (0x0002, "UI", "AffectedSOPClassUID"),
    (0x0110, "US", "MessageID"),
    (0x0120, "US", "MessageIDBeingRespondedTo"),
    (0x0600, "AE", "MoveDestination"),
    (0x0700, "US", "Priority"),
    (0x0900, "US", "Status"),
    (0x0902, "LO", "ErrorComment"),
    (0x1000, "UI", "AffectedSOPInstanceUID"),
    (0x1020, "US", "NumberOfRemainingSuboperations"),
    (0x1021, "US", "NumberOfCompletedSuboperations"),
    (0x1022, "US", "NumberOfFailedSuboperations"),
    (0x1023, "US", "NumberOfWarningSuboperations"),
    (0x1030, "AE", "MoveOriginatorApplicationEntityTitle"),
    (0x1031, "US", "MoveOriginatorMessageID"),
)
_ANSWERED = tuple(each for each in _ELEMENTS if each[2] in ("MessageIDBeingRespondedTo", "Status"))


def data_set_keyword(primitive: Primitive) -> str | None:
    """The attribute that holds a message's data set, None for a message that never has one."""
    if isinstance(primitive, C_STORE):
        return "DataSet"
    return "Identifier" if isinstance(primitive, C_FIND | C_GET | C_MOVE) else None


def encode_command(primitive: Primitive, data_set_follows: bool) -> bytes:
    """The command set of a request, or of a response where it says to what."""
    responds = primitive.MessageIDBeingRespondedTo is not None
    fields = {
        _COMMAND_FIELD: struct.pack("<H", _COMMANDS[type(primitive)] | (_RESPONSE if responds else 0)),
        _DATA_SET_TYPE: struct.pack("<H", _A_DATA_SET if data_set_follows else _NO_DATA_SET),
    }
    for element, vr, keyword in _ELEMENTS:
        value = getattr(primitive, keyword, None)
        if value is not None and not (responds and keyword == "Priority"):
            fields[element] = _encode_value(vr, value)
    body = b"".join(
        struct.pack("<HHI", 0, element, len(fields[element])) + fields[element] for element in sorted(fields)
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def decode_command(encoded: bytes) -> tuple[Primitive, bool]:
    """The request or response that a command set begins, and whether a data set follows.

    Of a response only what it answers and its status are read: nothing else that a peer says to a C-STORE is used here.
    Raises ValueError or TypeError when it is no command set, or one of a service that no DICOM storage node has.
    """
    values = dict(_elements(encoded))
    field = _number(values.get(_COMMAND_FIELD, b""))
    primitive: Any = C_CANCEL() if field == _CANCEL else _service(field & ~_RESPONSE)()
    for element, vr, keyword in _ANSWERED if field & _RESPONSE else _ELEMENTS:
        if values.get(element) and hasattr(primitive, keyword):
            setattr(primitive, keyword, _decode_value(vr, values[element]))
    if data_set := data_set_keyword(primitive):
        setattr(primitive, data_set, BytesIO())
    return primitive, _number(values.get(_DATA_SET_TYPE, b"")) != _NO_DATA_SET


def _service(field: int) -> type[Primitive]:
    try:
        return _SERVICES[field]
    except KeyError as error:
        raise ValueError(f"Command Field 0x{field:04X} is none of a C- service") from error


def _elements(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(encoded):
        header = encoded[offset : offset + 8]
        if len(header) < 8 or header[:2] != b"\0\0":
            raise ValueError("what should be a command set is none")
        element, length = struct.unpack_from("<HI", header, 2)
        offset += 8 + length
        if offset > len(encoded):
            raise ValueError("an element of a command set is longer than the command set")
        yield element, encoded[offset - length : offset]


def _encode_value(vr: str, value: Any) -> bytes:
    if vr == "US":
        return struct.pack("<H", value)
    text = str(value).encode("ascii")
    return text + (b"\0" if vr == "UI" else b" ") * (len(text) % 2)


def _decode_value(vr: str, value: bytes) -> int | str:
    if vr == "US":
        return _number(value)
    return value.decode("ascii").rstrip("\0 ").lstrip(" ")


def _number(value: bytes) -> int:
    if len(value) < 2:
        raise ValueError(f"a number of a command set has {len(value)} bytes, expected 2")
    return int.from_bytes(value[:2], "little")
