"""Text is decoded before anything looks for a backslash, `^`, `=` or a wildcard in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ledger.attributes import WANTED, read_attributes
from orthanc_ledger.charsets import charset, decode
from orthanc_ledger.instance import open_instance

KANJI = b"\\ISO 2022 IR 87"
SPECIAL = "\\^=*?"

# What the files were made to say, by pydicom's own account of them.
NAMES = {
    "chrArab.dcm": "قباني^لنزار",
    "chrFren.dcm": "Buc^Jérôme",
    "chrFrenMulti.dcm": "Buc^Jérôme",
    "chrGerm.dcm": "Äneas^Rüdiger",
    "chrGreek.dcm": "Διονυσιος",
    "chrH31.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrH32.dcm": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrHbrw.dcm": "שרון^דבורה",
    "chrI2.dcm": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrJapMulti.dcm": "やまだ^たろう",
    "chrJapMultiExplicitIR6.dcm": "やまだ^たろう",
    "chrKoreanMulti.dcm": "김희중",
    "chrRuss.dcm": "Люкceмбypг",  # noqa: RUF001
    "chrX1.dcm": "Wang^XiaoDong=王^小東=",
    "chrX2.dcm": "Wang^XiaoDong=王^小东=",
}


@pytest.mark.parametrize("file", NAMES)
def test_real_names_of_many_languages(dicom_dir: Path, file: str) -> None:
    with (dicom_dir / "pydicom-charsets" / file).open("rb") as unit:
        assert read_attributes(open_instance(unit, WANTED)).study["PatientName"] == NAMES[file]


def deceptive(encoding: str) -> Iterator[str]:
    """For each byte that looks like a character with a meaning, a character that has it inside."""
    for special in SPECIAL.encode():
        for character in map(chr, range(0x3000, 0xA000)):
            try:
                encoded = character.encode(encoding)
            except UnicodeEncodeError:
                continue
            if special in encoded.removeprefix(b"\x1b$B").removesuffix(b"\x1b(B"):
                yield character
                break


@pytest.mark.parametrize(
    ("terms", "encoding", "least"), [(KANJI, "iso2022_jp", 5), (b"GB18030", "gb18030", 2), (b"GBK", "gbk", 2)]
)
def test_a_byte_inside_a_character_has_no_meaning(terms: bytes, encoding: str, least: int) -> None:
    characters = list(deceptive(encoding))
    assert len(characters) >= least
    for character in characters:
        text = f"{character}^{character}\\{character}={character}"
        assert decode(text.encode(encoding), "PN", charset(terms)) == text


@pytest.mark.parametrize(
    ("terms", "vr", "value", "text"),
    [
        (b"ISO_IR 100", "LO", b"M\xfcller\\J\xf6rg", "Müller\\Jörg"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 126", "LO", b"\x1b-F\xc4\xe9\\A\xe9", "Δι\\A\xe9"),  # a backslash resets
        (b"ISO 2022 IR 6\\ISO 2022 IR 126", "PN", b"\x1b-F\xc4\xe9^A\xe9", "Δι^A\xe9"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 126", "ST", b"\x1b-F\xc4\xe9\\\xe9", "Δι\\ι"),  # noqa: RUF001 - text has one value
        (b"ISO 2022 IR 6\\ISO 2022 IR 126", "ST", b"\x1b-F\xc4\r\n\xe9", "Δ\r\n\xe9"),
        (b"ISO_IR 192 ", "LO", "é ".encode(), "é"),
        (b"ISO_IR 192", "CS", b"MR\xe9 ", "MR\ufffd"),  # only text depends on the character set
        (b"ISO_IR 192", "UI", b"1.2.3\0", "1.2.3"),
        (b"ISO_IR 192", "LO", b"\xff", "\ufffd"),
        (b"rot13", "LO", b"Nyvpr", "Nyvpr"),
        (b"", "LO", b" A B \0", "A B"),
    ],
)
def test_values(terms: bytes, vr: str, value: bytes, text: str) -> None:
    assert decode(value, vr, charset(terms)) == text


@given(st.binary(max_size=20), st.sampled_from(("PN", "LO", "ST", "UI")), st.binary(max_size=40))
def test_no_bytes_are_a_reason_to_fail(terms: bytes, vr: str, value: bytes) -> None:
    assert isinstance(decode(value, vr, charset(terms)), str)
