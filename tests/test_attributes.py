"""Attributes for C-FIND: decoded as the standard says, and never a reason to fail."""

import encodings
import io
import pkgutil

import pytest
from dicom_make import BIG_ENDIAN, EXPLICIT, Value, file_of, text
from hypothesis import given, settings
from hypothesis import strategies as st
from node_make import real_file

from orthanc_ledger.attributes import INSTANCE, PATIENT, SERIES, STUDY, WANTED, Attributes, read_attributes
from orthanc_ledger.instance import open_instance


def attributes(charset: str, name: bytes, transfer_syntax: str = EXPLICIT) -> Attributes:
    nodes = [Value(0x00080005, "CS", text(charset)), Value(0x00100010, "PN", name), Value(0x00100020, "LO", name)]
    return read_attributes(open_instance(io.BytesIO(file_of(nodes, transfer_syntax)), WANTED))


# PS3.5 Annexes H, I, J
@pytest.mark.parametrize(
    ("charset", "encoded", "decoded"),
    [
        ("", b"Adams^John ", "Adams^John"),
        ("ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东=".encode(), "Wang^XiaoDong=王^小东="),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=",
            "Yamada^Tarou=山田^太郎=",
        ),
        ("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=", "Hong^Gildong=洪^吉洞="),
        ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
        ("ISO IR 100", b"Jos\xe9 ", "José"),
    ],
)
def test_names_are_decoded_by_the_objects_character_set(charset: str, encoded: bytes, decoded: str) -> None:
    assert attributes(charset, encoded).study["PatientName"] == decoded


@pytest.mark.parametrize("charset", ["NONSENSE", "rot13", "hex", "idna", "utf-16", "A\0B", "ISO_IR 999", "ISO_IR 6"])
def test_unknown_character_set_is_read_as_the_default_one(charset: str) -> None:
    assert attributes(charset, b"Adams^John").study["PatientName"] == "Adams^John"


@pytest.mark.parametrize("charset", sorted(module.name for module in pkgutil.iter_modules(encodings.__path__)))
def test_no_name_of_a_python_codec_is_obeyed(charset: str) -> None:
    assert attributes(charset, b"Nyvpr").study["PatientName"] == "Nyvpr"


@settings(deadline=None)  # the first of an encoding is slow
@given(
    st.lists(st.sampled_from(["", "ISO_IR 192", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 13", "GB18030"])),
    st.binary(max_size=60),
)
def test_no_bytes_are_a_reason_to_fail(charsets: list[str], name: bytes) -> None:
    found = attributes("\\".join(charsets), name + b" " * (len(name) % 2))
    assert isinstance(found.study["PatientName"], str)


def test_every_attribute_is_there_and_absent_ones_are_empty() -> None:
    found = attributes("", b"X ")
    assert (tuple(found.study), tuple(found.series), tuple(found.instance)) == ((*PATIENT, *STUDY), SERIES, INSTANCE)
    assert {*found.series.values(), *found.instance.values()} == {""}


def test_big_endian_and_deflated_are_read_alike() -> None:
    assert (
        attributes("", b"Adams ", BIG_ENDIAN)
        == attributes("", b"Adams ")
        == attributes("", b"Adams ", "1.2.840.10008.1.2.1.99")
    )


def test_real_object() -> None:
    with real_file().open("rb") as file:
        found = read_attributes(open_instance(file, WANTED))
    assert (found.study["PatientName"], found.series["Modality"]) == ("CompressedSamples^MR1", "MR")
    assert found.instance["SOPInstanceUID"] == "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457"
