"""Data sets that are broken or hostile are refused, in bounded memory; what a receiver needs is read from the head."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from dicom_make import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    WRITERS,
    Node,
    Sequence_,
    Value,
    Writer,
    deflate,
    encapsulated,
    file_of,
    fingerprint,
    image,
    native,
    opened,
    part10,
    text,
)

from orthanc_ledger import instance as instance_module
from orthanc_ledger.errors import Unreadable
from orthanc_ledger.instance import Identifiers, open_instance, read_identifiers

IMPLICIT_WRITER = WRITERS[IMPLICIT]
PATIENT = Value(0x00100010, "PN", b"A^B ")
SOP_CLASS, SOP_INSTANCE, STUDY = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4", "1.2.3"
HEAD: list[Node] = [
    Value(0x00080016, "UI", text(SOP_CLASS, b"\0")),
    Value(0x00080018, "UI", text(SOP_INSTANCE, b"\0")),
    Sequence_(0x00081140, ((Value(0x00081155, "UI", b"9.9\0"),),)),
    Value(0x0020000D, "UI", text(STUDY, b"\0")),
]
TAIL: list[Node] = [Value(0x0020000E, "UI", b"1.2.3.9\0"), native(bytes(64))]
IDENTIFIERS = Identifiers(SOP_CLASS, SOP_INSTANCE, STUDY)


def nested(depth: int) -> Node:
    node: Node = PATIENT
    for _ in range(depth):
        node = Sequence_(0x0040A730, ((node,),))
    return node


def private_nested(depth: int) -> bytes:
    """Items in items of private elements of defined length, which only their content shows to be sequences."""
    value = b"deepest value "
    for _ in range(depth):
        element = IMPLICIT_WRITER.data_set([Value(0x00291010, "UN", value)])
        value = IMPLICIT_WRITER.header(0xFFFEE000, "", len(element)) + element
    return value


@pytest.mark.parametrize("transfer_syntax", WRITERS)
def test_uids_and_offset_of_a_part_10_file(transfer_syntax: str) -> None:
    content = file_of(HEAD + TAIL, transfer_syntax)
    read = opened(content)
    assert (read.sop_class_uid, read.sop_instance_uid, read.study_instance_uid) == IDENTIFIERS
    assert read.series_instance_uid == "1.2.3.9"
    assert read.transfer_syntax_uid == transfer_syntax
    data_set = content[read.data_set_offset :]
    assert (zlib.decompress(data_set, -15) if transfer_syntax == DEFLATED else data_set).startswith(
        WRITERS[transfer_syntax].data_set(HEAD)
    )


def test_a_file_within_a_file_is_read_from_the_current_position() -> None:
    content = file_of(HEAD + TAIL)
    file = io.BytesIO(b"in front of it" + content)
    file.seek(14)
    read = open_instance(file)
    assert read.data_set_offset == opened(content).data_set_offset
    assert [element.path for element in read.elements()] == [element.path for element in opened(content).elements()]
    assert not file.closed


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_a_data_set_without_file_meta_is_recognised(transfer_syntax: str) -> None:
    read = opened(WRITERS[transfer_syntax].data_set(HEAD))
    assert read.transfer_syntax_uid == transfer_syntax
    assert read.sop_instance_uid == SOP_INSTANCE


@pytest.mark.parametrize("content", [b"", b"\x08\x00", b"%PDF-1.7 not DICOM", bytes(400), b"PK\3\4" + bytes(60)])
def test_what_is_not_dicom_is_refused(content: bytes) -> None:
    with pytest.raises(Unreadable, match="not DICOM"):
        opened(content)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_every_truncation_is_refused(transfer_syntax: str, undefined: bool) -> None:
    whole = file_of(HEAD + TAIL, transfer_syntax, undefined)
    start = opened(whole).data_set_offset
    ends = {start + len(WRITERS[transfer_syntax].data_set((HEAD + TAIL)[:count])) for count in range(7)}
    if undefined:  # the sequence is 16 bytes of delimiters longer
        ends |= {end + 16 for end in ends}
    for end in range(start, len(whole)):
        if end in ends:
            continue  # between two elements
        with pytest.raises(Unreadable):
            opened(whole[:end])


@pytest.mark.parametrize(
    "elements", [[PATIENT, PATIENT], [Value(0x00100020, "LO", b"1 "), PATIENT]], ids=["duplicate", "out of order"]
)
@pytest.mark.parametrize("where", ["top level", "item", "item in a UN"])
def test_tags_must_rise_strictly(elements: list[Node], where: str) -> None:
    item = Sequence_(0x0040A730, (tuple(elements),), as_un=where == "item in a UN")
    nodes = elements if where == "top level" else [item]
    with pytest.raises(Unreadable, match="must rise strictly"):
        opened(file_of(nodes))


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
def test_nesting_is_bounded(transfer_syntax: str, undefined: bool) -> None:
    assert sum(1 for _ in opened(file_of([nested(64)], transfer_syntax, undefined)).elements()) == 65
    for depth in (65, 3000 if undefined else 300):
        with pytest.raises(Unreadable, match="nested deeper than 64"):
            opened(_deep(depth, transfer_syntax, undefined))


def _deep(depth: int, transfer_syntax: str, undefined: bool) -> bytes:
    """Like ``nested``, built without recursion."""
    writer = WRITERS[transfer_syntax]
    content = b""
    for _ in range(depth):
        length = UNDEFINED if undefined else len(content)
        content = (
            writer.header(0xFFFEE000, "", length) + content + (writer.header(0xFFFEE00D, "", 0) if undefined else b"")
        )
        length = UNDEFINED if undefined else len(content)
        content = (
            writer.header(0x0040A730, "SQ", length) + content + (writer.header(0xFFFEE0DD, "", 0) if undefined else b"")
        )
    return part10(content, transfer_syntax)


def test_nesting_hidden_in_private_values_is_bounded() -> None:
    opened(file_of([Value(0x00291010, "UN", private_nested(64))]))
    with pytest.raises(Unreadable, match="nested deeper than 64"):
        opened(file_of([Value(0x00291010, "UN", private_nested(65))]))


@pytest.mark.parametrize("tag", [0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD])
def test_item_tags_outside_a_sequence_are_refused(tag: int) -> None:
    with pytest.raises(Unreadable, match="outside a sequence"):
        opened(part10(Writer().data_set([PATIENT]) + Writer().header(tag, "", 0)))


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("delimiter", [0xFFFEE00D, 0xFFFEE0DD])
def test_a_delimiter_with_a_length_is_refused(delimiter: int, transfer_syntax: str) -> None:
    writer = replace(WRITERS[transfer_syntax], undefined=True)
    data_set = writer.data_set([Sequence_(0x0040A730, ((PATIENT,),))])
    opened(part10(data_set, transfer_syntax))
    hiding = data_set.replace(writer.header(delimiter, "", 0), writer.header(delimiter, "", 4) + b"hide")
    with pytest.raises(Unreadable, match="length 0 expected, got 4"):
        opened(part10(hiding, transfer_syntax))


def test_fragments_that_end_with_a_length_are_refused() -> None:
    pixel_data = encapsulated(b"fragment")[:-4] + struct.pack("<I", 4) + b"hide"
    with pytest.raises(Unreadable, match="length 0 expected, got 4"):
        opened(part10(Writer().data_set(HEAD) + pixel_data))


FILE_META = Value(0x00020016, "AE", b"HIDDEN")


@pytest.mark.parametrize("as_un", [False, True])
def test_file_meta_in_an_item_is_refused(as_un: bool) -> None:
    with pytest.raises(Unreadable, match=r"\(0002,0016\) .* outside the file meta"):
        opened(file_of([Sequence_(0x0040A730, ((FILE_META,),), as_un)]))


def test_file_meta_in_a_data_set_that_arrives_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"\(0002,0016\) .* outside the file meta"):
        read_identifiers(io.BytesIO(Writer().data_set([FILE_META, *HEAD])), EXPLICIT)


@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
@pytest.mark.parametrize("uid", [b"1.\xb2\0", b"1" * 1026])
def test_identifying_uids_that_are_not_ascii_or_endless_are_refused(tag: int, uid: bytes) -> None:
    with pytest.raises(Unreadable, match="a UID"):
        opened(file_of([Value(tag, "UI", uid)]))


def test_huge_length_without_data_is_refused_without_allocating_it() -> None:
    content = part10(Writer().data_set(HEAD) + Writer().header(0x7FE00010, "OW", 0xFFFFFFF0) + b"few bytes")
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="past the end"):
            opened(content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "pixel_data",
    [
        encapsulated(b"fragment")[:-8],
        Writer().header(0x7FE00010, "OB", UNDEFINED) + Writer().header(0xFFFEE0DD, "", 0),
        Writer().header(0x7FE00010, "OB", UNDEFINED) + Writer().header(0xFFFEE000, "", UNDEFINED),
        Writer().header(0x7FE00010, "OB", UNDEFINED) + Writer().data_set([PATIENT]),
    ],
    ids=["no delimiter", "no offset table", "undefined fragment", "element among fragments"],
)
def test_broken_fragments_are_refused(pixel_data: bytes) -> None:
    with pytest.raises(Unreadable):
        opened(part10(Writer().data_set(HEAD) + pixel_data))


@pytest.mark.parametrize("vr", [b"\0\0", b"o1", b"  ", b"ob"])
def test_an_impossible_vr_is_refused(vr: bytes) -> None:
    with pytest.raises(Unreadable, match="VR is two capital letters"):
        opened(part10(Writer().data_set(HEAD) + struct.pack("<HH2sH", 0x0028, 0x0010, vr, 0)))


def test_a_vr_of_the_future_has_a_long_length() -> None:
    content = part10(Writer().data_set(HEAD) + struct.pack("<HH2sHI", 0x0029, 0x1010, b"ZZ", 0, 4) + b"1234")
    assert list(opened(content).elements())[-1].length == 4


def test_deflate_bomb_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_module, "MAX_INFLATED", 1 << 22)
    bomb = part10(Writer().data_set([*HEAD, native(bytes(1 << 23))]), DEFLATED)
    assert len(bomb) < 1 << 15
    with pytest.raises(Unreadable, match="inflates to more than"):
        opened(bomb)


@pytest.mark.parametrize("behind", [b"", bytes(9), b"gzip", b"gzip" + bytes(2)])
def test_only_zeros_or_a_gzip_trailer_may_follow_a_deflated_data_set(behind: bytes) -> None:
    data_set = Writer().data_set(HEAD + TAIL)
    trailer = struct.pack("<II", zlib.crc32(data_set), len(data_set))
    content = part10(data_set, DEFLATED) + behind.replace(b"gzip", trailer)
    assert fingerprint(content) == fingerprint(file_of(HEAD + TAIL))


@pytest.mark.parametrize("behind", [b"MZ", bytes(8) + b"\1", bytes(7) + b"\1", b"\1" + bytes(7)])
def test_payload_behind_a_deflated_data_set_is_refused(behind: bytes) -> None:
    with pytest.raises(Unreadable, match="not zero"):
        opened(part10(Writer().data_set(HEAD + TAIL), DEFLATED) + behind)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_truncated_deflate_stream_is_refused(cut: int) -> None:
    with pytest.raises(Unreadable, match="breaks off"):
        opened(part10(Writer().data_set(HEAD + TAIL), DEFLATED)[:-cut])


@pytest.mark.parametrize("transfer_syntax", WRITERS)
@pytest.mark.parametrize("undefined", [False, True])
def test_identifiers_are_read_from_the_head(transfer_syntax: str, undefined: bool) -> None:
    content = file_of(HEAD + TAIL, transfer_syntax, undefined)
    data_set = content[opened(content).data_set_offset :]
    file = io.BytesIO(b"in front" + data_set)
    file.seek(8)
    assert read_identifiers(file, transfer_syntax) == IDENTIFIERS


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_what_follows_the_identifiers_is_not_read(transfer_syntax: str) -> None:
    data_set = WRITERS[transfer_syntax].data_set(HEAD) + b"\xff" * 64
    assert read_identifiers(io.BytesIO(data_set), transfer_syntax) == IDENTIFIERS


def test_identifiers_behind_a_long_deflated_element() -> None:
    nodes = [*HEAD[:3], Value(0x00091010, "UN", bytes(3 << 20)), HEAD[3]]
    data_set = deflate(Writer().data_set(nodes))
    assert read_identifiers(io.BytesIO(data_set), DEFLATED) == IDENTIFIERS


def test_identifiers_behind_a_deflate_bomb_are_not_searched_for() -> None:
    nodes = [*HEAD[:3], Value(0x00091010, "UN", bytes(40 << 20)), HEAD[3]]
    file = io.BytesIO(deflate(Writer().data_set(nodes)))
    del nodes
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            read_identifiers(file, DEFLATED)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("missing", [0x00080016, 0x00080018, 0x0020000D])
def test_a_missing_identifier_is_refused(missing: int) -> None:
    with pytest.raises(Unreadable, match="is missing"):
        read_identifiers(io.BytesIO(Writer().data_set([node for node in HEAD if node.tag != missing])), EXPLICIT)


@pytest.mark.parametrize("uid", [b"", b"../../etc/passwd", b"1.2\\1.3 ", b"1." * 33, b"1.2\n", "1.٢".encode()])
def test_what_is_no_uid_is_refused(uid: bytes) -> None:
    nodes = [HEAD[0], Value(0x00080018, "UI", uid), HEAD[3]]
    with pytest.raises(Unreadable, match="SOP Instance UID"):
        read_identifiers(io.BytesIO(Writer().data_set(nodes)), EXPLICIT)


@pytest.mark.parametrize("data_set", [b"", b"\x08\x00", b"\x08\x00\x16\x00UI\xff\x00" + b"1.2"])
def test_identifiers_of_a_broken_data_set_are_refused(data_set: bytes) -> None:
    with pytest.raises(Unreadable):
        read_identifiers(io.BytesIO(data_set), EXPLICIT)


LARGE = """
import sys
from pathlib import Path
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance
with open(sys.argv[1], "rb") as file:
    result = fingerprints(open_instance(file), [None, bytes(32)])[0]
# Not ru_maxrss: a child inherits its parent's.
peak_kib = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(result.pixel_form, result.frames, int(peak_kib) // 1024)
"""


def test_a_large_multi_frame_object_takes_little_memory(tmp_path: Path) -> None:
    rows = columns = 2048
    frames = 60
    head = Writer().data_set(image(native(b""), frames=str(frames), rows=rows, columns=columns, stored=12)[:-1])
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        size = rows * columns * 2 * frames
        file.write(part10(head + Writer().header(0x7FE00010, "OW", size)))
        file.truncate(file.tell() + size)
    measured = subprocess.run(
        [sys.executable, "-c", LARGE, path], capture_output=True, text=True, check=True, timeout=120
    )
    form, count, peak_mib = measured.stdout.split()
    assert (form, int(count)) == ("decoded", frames)
    assert int(peak_mib) < 200
    assert size > 400 << 20
