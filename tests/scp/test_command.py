"""Command sets are byte for byte what pynetdicom writes, and are read as it reads them."""

import struct
from io import BytesIO

import pytest
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE

from dicom_scp.command import Primitive, data_set_keyword, decode_command, encode_command

MR, INSTANCE = "1.2.840.10008.5.1.4.1.1.4", "1.2.826.0.1.3680043.8.498.1"
MODEL = "1.2.840.10008.5.1.4.1.2.2.1"
COUNTS = {f"NumberOf{name}Suboperations": number for number, name in enumerate(("Completed", "Failed", "Warning"))}


def message(kind: type, **values: object) -> Primitive:
    made = kind()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


MESSAGES = {
    "C-ECHO-RQ": message(C_ECHO, MessageID=1, AffectedSOPClassUID="1.2.840.10008.1.1"),
    "C-ECHO-RSP": message(C_ECHO, MessageIDBeingRespondedTo=1, AffectedSOPClassUID="1.2.840.10008.1.1", Status=0),
    "C-STORE-RQ": message(
        C_STORE, MessageID=65535, AffectedSOPClassUID=MR, AffectedSOPInstanceUID=INSTANCE, Priority=0
    ),
    "C-STORE-RQ of a move": message(
        C_STORE,
        MessageID=7,
        AffectedSOPClassUID=MR,
        AffectedSOPInstanceUID=INSTANCE + "2",
        Priority=2,
        MoveOriginatorApplicationEntityTitle="WORKSTATION",
        MoveOriginatorMessageID=3,
    ),
    "C-STORE-RSP": message(
        C_STORE,
        MessageIDBeingRespondedTo=2,
        AffectedSOPClassUID=MR,
        AffectedSOPInstanceUID=INSTANCE,
        Status=0xA700,
        ErrorComment="spool full",
    ),
    "C-FIND-RQ": message(C_FIND, MessageID=2, AffectedSOPClassUID=MODEL, Priority=1),
    "C-FIND-RSP": message(C_FIND, MessageIDBeingRespondedTo=2, AffectedSOPClassUID=MODEL, Status=0xFF01),
    "C-GET-RQ": message(C_GET, MessageID=2, AffectedSOPClassUID=MODEL, Priority=1),
    "C-GET-RSP": message(
        C_GET,
        MessageIDBeingRespondedTo=2,
        AffectedSOPClassUID=MODEL,
        Status=0xFF00,
        **COUNTS,
        NumberOfRemainingSuboperations=9,
    ),
    "C-MOVE-RQ": message(C_MOVE, MessageID=2, AffectedSOPClassUID=MODEL, Priority=2, MoveDestination="ARCHIVE"),
    "C-MOVE-RSP": message(C_MOVE, MessageIDBeingRespondedTo=2, AffectedSOPClassUID=MODEL, Status=0xB000, **COUNTS),
}
KEYWORDS = (
    "MessageID", "MessageIDBeingRespondedTo", "AffectedSOPClassUID", "AffectedSOPInstanceUID", "Priority", "Status",
    "MoveDestination", "MoveOriginatorApplicationEntityTitle", "MoveOriginatorMessageID",
)  # fmt: skip


def as_pynetdicom_writes(primitive: Primitive, data_set: bool) -> bytes:
    name = type(primitive).__name__ + ("_RQ" if primitive.MessageIDBeingRespondedTo is None else "_RSP")
    theirs = getattr(dimse_messages, name)()
    keyword = data_set_keyword(primitive)
    if keyword is not None:
        setattr(primitive, keyword, BytesIO(b"ab") if data_set else None)
    theirs.primitive_to_message(primitive)
    first, *_ = theirs.encode_msg(1, 0)
    return bytes(first.presentation_data_value_list[0][1][1:])


@pytest.mark.parametrize("primitive", MESSAGES.values(), ids=MESSAGES.keys())
@pytest.mark.parametrize("data_set", [False, True])
def test_command_is_written_as_pynetdicom_writes_it(primitive: Primitive, data_set: bool) -> None:
    answers_a_store = isinstance(primitive, C_STORE) and primitive.MessageIDBeingRespondedTo is not None
    follows = data_set and data_set_keyword(primitive) is not None and not answers_a_store
    assert encode_command(primitive, follows) == as_pynetdicom_writes(primitive, follows)


@pytest.mark.parametrize("primitive", MESSAGES.values(), ids=MESSAGES.keys())
@pytest.mark.parametrize("follows", [False, True])
def test_what_is_used_of_a_command_is_read(primitive: Primitive, follows: bool) -> None:
    read, data_set_follows = decode_command(encode_command(primitive, follows))
    assert (type(read), data_set_follows) == (type(primitive), follows)
    responds = primitive.MessageIDBeingRespondedTo is not None
    for keyword in ("MessageIDBeingRespondedTo", "Status") if responds else KEYWORDS:
        assert getattr(read, keyword, None) == getattr(primitive, keyword, None), keyword


def test_padding_of_text_is_no_part_of_it() -> None:
    odd = message(C_MOVE, MessageID=2, AffectedSOPClassUID="1.2.3", Priority=2, MoveDestination="ARCHIVE")
    read, _ = decode_command(encode_command(odd, True))
    assert (read.AffectedSOPClassUID, read.MoveDestination) == ("1.2.3", "ARCHIVE")


def test_cancel_names_the_message_it_ends() -> None:
    cancel = element(0x0100, b"\xff\x0f") + element(0x0120, b"\x05\0") + element(0x0800, b"\x01\x01")
    read, follows = decode_command(cancel)
    assert isinstance(read, C_CANCEL)
    assert (read.MessageIDBeingRespondedTo, follows) == (5, False)


def element(number: int, value: bytes, group: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\0\0\0\4", id="half an element"),
        pytest.param(element(0x0100, b"\x30\0", group=8), id="another group"),
        pytest.param(element(0x0100, b"\x30\0", length=0xFFFFFFFF), id="a value longer than all"),
        pytest.param(element(0x0800, b"\x01\x01"), id="no command field"),
        pytest.param(element(0x0100, b"\x30") + element(0x0800, b"\x01\x01"), id="a command field of one byte"),
        pytest.param(element(0x0100, b"\x77\x77") + element(0x0800, b"\x01\x01"), id="an unknown service"),
        pytest.param(element(0x0100, b"\x30\0"), id="nothing of a data set"),
        pytest.param(element(0x0100, b"\x21\0") + element(0x0600, b"\xff\xff"), id="a title that is no ASCII"),
        pytest.param(element(0x0100, b"\x21\0") + element(0x0700, b"\xff\xff"), id="a priority that is none"),
    ],
)
def test_what_is_no_command_set_is_refused(encoded: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_command(encoded)
