"""The rules of docs/fingerprint.md one by one, on objects made for them."""

import hashlib
import hmac
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from dicom_make import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    JPEG_BASELINE,
    SOP_INSTANCE,
    UNCOMPRESSED,
    WRITERS,
    Sequence_,
    Value,
    Writer,
    compressed_file,
    encapsulated,
    file_of,
    fingerprint,
    image,
    native,
    opened,
    part10,
    swapped,
    text,
)
from pydicom.datadict import DicomDictionary, RepeatersDictionary
from pydicom.pixels import get_encoder
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from orthanc_ledger import decoders
from orthanc_ledger.elements import Reader
from orthanc_ledger.errors import ConfigError, Unreadable
from orthanc_ledger.fingerprint import LEFT_OUT, OFFSET_TABLES, PIXELS, Fingerprint, fingerprints, metadata_leaves
from orthanc_ledger.leaves import Leaf
from orthanc_ledger.pixel_layout import NotDecoded
from orthanc_ledger.pixels import decoded_leaves, encoded_leaves, pixel_element

RLE = "1.2.840.10008.1.2.5"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"


def whole(leaf: Leaf) -> Leaf:
    value = leaf.value if isinstance(leaf.value, bytes) else b"".join(leaf.value)
    assert len(value) == leaf.length
    return leaf._replace(value=value)


def pixel_leaves(content: bytes) -> list[tuple[bytes, int, bytes]]:
    instance = opened(content)
    element = pixel_element(instance)
    assert element is not None
    leaves = map(whole, decoded_leaves(instance, element))
    return [(leaf.path, leaf.kind, leaf.value) for leaf in leaves if isinstance(leaf.value, bytes)]


def encoded_frames(content: bytes) -> list[bytes]:
    instance = opened(content)
    element = pixel_element(instance)
    assert element is not None
    return [leaf.value for leaf in map(whole, encoded_leaves(instance, element)) if isinstance(leaf.value, bytes)]


def metadata(content: bytes) -> dict[str, bytes]:
    leaves = map(whole, metadata_leaves(opened(content), "none"))
    return {leaf.path.hex(): leaf.value for leaf in leaves if isinstance(leaf.value, bytes)}


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def frame(index: int, value: bytes, kind: int = 3) -> tuple[bytes, int, bytes]:
    return struct.pack(">I", index), kind, value


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_fingerprint_of_a_tree_computed_by_hand(key: bytes | None) -> None:
    def label(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    def leaf(tree: int, path: bytes, kind: int, value: bytes) -> bytes:
        context = label("leaf/v1") + bytes([tree]) + label(SOP_INSTANCE) + struct.pack(">I", len(path)) + path
        salt = bytes(32) if key is None else hmac.new(key, context, hashlib.sha256).digest()
        head = struct.pack(">I", len(path)) + path + struct.pack(">BQ", kind, len(value))
        return hashlib.sha256(b"\0" + salt + head + value).digest()

    content = part10(
        Writer().data_set(
            [
                Value(0x00080018, "UI", text(SOP_INSTANCE, b"\0")),
                Sequence_(0x00081140, ((Value(0x00081155, "UI", b"9\0"),),)),
            ]
        )
    )
    uid = leaf(2, bytes.fromhex("00080018"), 1, SOP_INSTANCE.encode())
    count = leaf(2, bytes.fromhex("00081140"), 2, b"\0\0\0\1")
    item = leaf(2, bytes.fromhex("000811400000000000081155"), 1, b"9")
    root = hashlib.sha256(b"\1" + hashlib.sha256(b"\1" + uid + count).digest() + item).digest()
    empty = hashlib.sha256(b"").digest()
    expected = label("fp/v1") + label("none") + bytes(8) + empty + struct.pack(">Q", 3) + root
    assert fingerprint(content, key) == Fingerprint(
        hashlib.sha256(expected).digest(), empty, 0, root, 3, "none", 0, None, None
    )


def test_each_salt_key_gives_what_it_gives_alone() -> None:
    content = file_of(image(native(bytes(range(32)))))
    keys = [None, b"a" * 32, b"b" * 32]
    together = fingerprints(opened(content), keys)
    assert together == tuple(fingerprint(content, key) for key in keys)
    assert len({result.fingerprint for result in together} | {result.pixel_root for result in together}) == 6


@pytest.mark.parametrize("tag", [*LEFT_OUT, *PIXELS])
def test_left_out_at_the_top_level_only(tag: int) -> None:
    element = Value(tag, "OB", b"1234")
    assert metadata(file_of([element])) == {}
    assert len(metadata(file_of([Sequence_(0x0040A730, ((element,),))]))) == 2


@pytest.mark.parametrize(("tag", "most"), LEFT_OUT.items())
def test_a_payload_under_a_left_out_tag_is_hashed(tag: int, most: int) -> None:
    assert metadata(file_of([Value(tag, "UN", b"1" * most)])) == {}
    assert len(metadata(file_of([Value(tag, "UN", b"1" * (most + 2))]))) == 1


@pytest.mark.parametrize("tag", OFFSET_TABLES)
@pytest.mark.parametrize(("size", "leaves"), [(16, 0), (18, 1)])
def test_a_payload_in_an_extended_offset_table_is_hashed(tag: int, size: int, leaves: int) -> None:
    table = Writer().data_set([Value(tag, "OV", bytes(size))])
    assert len(metadata(part10(table + encapsulated(b"ab", b"cd"), JPEG_BASELINE))) == leaves
    assert len(metadata(part10(table))) == 1


def test_group_lengths_are_left_out_everywhere() -> None:
    elements = (Value(0x00080000, "UL", b"1234"), Value(0x00100000, "UL", b"123456"), Value(0x00100020, "LO", b"x "))
    inside = metadata(file_of([Sequence_(0x0040A730, (elements,))]))
    assert [path[-8:] for path in inside] == ["0040a730", "00100000", "00100020"]


def test_the_dictionary_is_the_one_fingerprints_are_made_with() -> None:
    tables = [
        sorted((tag, entry[0]) for tag, entry in table.items()) for table in (DicomDictionary, RepeatersDictionary)
    ]
    digest = hashlib.sha256(repr(tables).encode()).hexdigest()
    assert digest == "9e6200e2a93930e0fac0946b3d8dece37199a9dde1c28789f10157c5e44db1a8", (
        "another dictionary changes fingerprints: it needs a new fingerprint version"
    )


def test_trailing_padding_counts_when_it_says_something() -> None:
    assert metadata(file_of([Value(0xFFFCFFFC, "OB", bytes(8))])) == {}
    assert metadata(file_of([Value(0xFFFCFFFC, "OB", bytes(6) + b"MZ")])) == {"fffcfffc": bytes(6) + b"MZ"}


def test_a_sequence_under_a_left_out_tag_is_not_left_out() -> None:
    hidden = Sequence_(0x00080054, ((Value(0x00100020, "LO", b"x "),),))
    assert len(metadata(file_of([hidden]))) == 2


@pytest.mark.parametrize(
    ("vr", "tag", "value", "expected"),
    [
        ("LO", 0x00100020, b" a b \0 ", b" a b"),
        ("UI", 0x00080018, b"1.2\0", b"1.2"),
        ("UT", 0x0040A160, b"text  ", b"text"),
        ("US", 0x00280010, b"\x20\x00", b"\x20\x00"),
        ("OB", 0x00282000, b"icc ", b"icc "),
        ("UN", 0x00100020, b"x ", b"x"),
        ("LO", 0x00291010, b"private ", b"private "),
        ("LO", 0x00290010, b"CREATOR ", b"CREATOR "),
        ("LO", 0x0010FE22, b"no such tag ", b"no such tag "),
    ],
)
def test_padding_is_stripped_from_public_text_only(vr: str, tag: int, value: bytes, expected: bytes) -> None:
    assert list(metadata(file_of([Value(tag, vr, value)])).values()) == [expected]


@pytest.mark.parametrize(
    ("stream_vr", "tag", "stored", "expected"),
    [
        ("US", 0x00280010, "0102", "0201"),
        ("SS", 0x00280106, "0102", "0201"),
        ("AT", 0x00280009, "00181063", "18006310"),
        ("UL", 0x00081161, "01020304", "04030201"),
        ("OW", 0x54001010, "0102", "0201"),
        ("OB", 0x54001010, "0102", "0102"),
        ("UN", 0x00280010, "0102", "0102"),
        ("LO", 0x00280010, "0102", "0201"),
        ("FD", 0x00189087, "0102030405060708", "0807060504030201"),
        ("US", 0x00291010, "0102", "0102"),
        ("OW", 0x00281201, "010203", "020103"),
    ],
)
def test_big_endian_values_by_their_effective_vr(stream_vr: str, tag: int, stored: str, expected: str) -> None:
    header = Writer(big_endian=True).header(tag, stream_vr, len(stored) // 2)
    content = part10(header + bytes.fromhex(stored), BIG_ENDIAN)
    assert [value.hex() for value in metadata(content).values()] == [expected]


PRIVATE_ITEMS = Sequence_(0x00291010, ((Value(0x00291020, "LO", b"x "), Value(0x00291021, "UN", b"yz")), ()))


@pytest.mark.parametrize("undefined", [False, True])
def test_private_sequence_however_it_is_written(undefined: bool) -> None:
    forms = [
        file_of([PRIVATE_ITEMS], EXPLICIT, undefined),
        file_of([PRIVATE_ITEMS], IMPLICIT, undefined),
        file_of([PRIVATE_ITEMS], BIG_ENDIAN, undefined),
        file_of([replace(PRIVATE_ITEMS, as_un=True)], EXPLICIT, undefined),
        file_of([replace(PRIVATE_ITEMS, as_un=True)], BIG_ENDIAN, undefined),
    ]
    assert len({fingerprint(form).metadata_root for form in forms}) == 1
    assert fingerprint(forms[0]).metadata_leaves == 3


@pytest.mark.parametrize("behind", [b"x", b"\xfe\xff\x00\xe0\xff\xff", bytes(8)])
def test_private_value_that_only_begins_like_items_is_a_value(behind: bytes) -> None:
    value = IMPLICIT_ITEM + behind
    assert metadata(file_of([Value(0x00291010, "UN", value)])) == {"00291010": value}


IMPLICIT_ITEM = WRITERS[IMPLICIT].item([Value(0x00291020, "LO", b"x ")])


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT])
def test_empty_sequences(transfer_syntax: str, undefined: bool) -> None:
    nodes = [Sequence_(0x00081140, ()), Sequence_(0x00291010, ())]
    assert metadata(file_of(nodes, transfer_syntax, undefined)) == {"00081140": bytes(4), "00291010": b""}


def test_large_values_are_read_in_pieces() -> None:
    string = b"long text" * (Reader.CHUNK // 4)
    padded = string + b" " * (Reader.CHUNK + 2)
    assert metadata(file_of([Value(0x0040A160, "UT", padded)])) == {"0040a160": string}
    table = bytes(range(256)) * (Reader.CHUNK // 128)
    assert metadata(file_of([Value(0x00281201, "OW", table)], BIG_ENDIAN)) == {"00281201": table}
    padding = bytes(2 * Reader.CHUNK)
    assert metadata(file_of([Value(0x0040A160, "UT", padding)])) == {"0040a160": b""}


def test_fragments_of_an_icon_are_joined() -> None:
    icon = Writer().header(0x00880200, "SQ", 0xFFFFFFFF) + Writer().header(0xFFFEE000, "", 0xFFFFFFFF)
    icon += encapsulated(b"one ", b"two ", table=bytes(8))
    icon += Writer().header(0xFFFEE00D, "", 0) + Writer().header(0xFFFEE0DD, "", 0)
    assert metadata(part10(icon))["0088020000000000" + "7fe00010"] == b"one two "


def test_native_frames() -> None:
    pixels = bytes(range(64))
    leaves = pixel_leaves(file_of(image(native(pixels), frames="2")))
    assert leaves == [frame(0, pixels[:32]), frame(1, pixels[32:])]


@pytest.mark.parametrize(
    ("allocated", "vr", "unit"), [(8, "OB", 1), (8, "OW", 2), (16, "OW", 2), (32, "OW", 2), (64, "OW", 2)]
)
def test_big_endian_pixels_are_words(allocated: int, vr: str, unit: int) -> None:
    pixels = bytes(range(16)) * (allocated // 8)
    given = image(native(b""), allocated=allocated, stored=allocated)[:-1]
    writer = Writer(big_endian=True)
    stored = writer.data_set(given) + writer.header(0x7FE00010, vr, len(pixels)) + swapped(pixels, unit)
    assert pixel_leaves(part10(stored, BIG_ENDIAN)) == [frame(0, pixels)]


def test_planes_are_interleaved() -> None:
    nodes = image(
        native(b"RRRRGGGGBBBB", "OB"), samples=3, photometric="RGB", planar=1, rows=2, columns=2, allocated=8, stored=8
    )
    assert pixel_leaves(file_of(nodes)) == [frame(0, b"RGB" * 4)]
    interleaved = image(
        native(b"RGB" * 4, "OB"), samples=3, photometric="RGB", planar=0, rows=2, columns=2, allocated=8, stored=8
    )
    assert fingerprint(file_of(nodes)) == fingerprint(file_of(interleaved))


def test_subsampled_chrominance_is_expanded() -> None:
    colour = {"samples": 3, "rows": 1, "columns": 4, "allocated": 8, "stored": 8, "planar": 0}
    subsampled = image(native(b"12br34BR", "OB"), photometric="YBR_FULL_422", **colour)
    assert pixel_leaves(file_of(subsampled)) == [frame(0, b"1br2br3BR4BR")]
    full = image(native(b"1br2br3BR4BR", "OB"), photometric="YBR_FULL", **colour)
    assert fingerprint(file_of(subsampled)) == fingerprint(file_of(full))


def test_planes_of_single_bits_are_interleaved() -> None:
    bits = [1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1]
    packed = np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()
    nodes = image(
        native(packed, "OB"), samples=3, photometric="RGB", planar=1, rows=2, columns=2, allocated=1, stored=1
    )
    assert pixel_leaves(file_of(nodes)) == [frame(0, bytes([1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]))]


def test_single_bits_become_bytes_across_frames() -> None:
    bits = [1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1]
    packed = np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes() + b"\0"
    nodes = image(native(packed, "OB"), rows=3, columns=3, frames="2", allocated=1, stored=1)
    assert pixel_leaves(file_of(nodes)) == [frame(0, bytes(bits[:9])), frame(1, bytes(bits[9:]))]


@pytest.mark.parametrize("chunk_pixels", [8, 1 << 20])
@pytest.mark.parametrize(
    ("signed", "high", "stored", "canonical", "hidden"),
    [
        (0, 11, [1, 2, 0x0FFF], [1, 2, 0x0FFF], None),
        (0, 11, [1, 2, 0x8FFF], [1, 2, 0x0FFF], [0, 0, 0x8000]),
        (1, 11, [1, 0xF800, 0xFFFF], [1, 0xF800, 0xFFFF], None),
        (1, 11, [1, 0x0800, 0x0FFF], [1, 0xF800, 0xFFFF], None),
        (1, 11, [1, 0x0800, 0xFFFF], [1, 0xF800, 0xFFFF], [0, 0xF000, 0]),
        (1, 11, [0x1001, 2, 3], [1, 2, 3], [0x1000, 0, 0]),
        (0, 15, [0x8001, 2, 3], [0x8001, 2, 3], None),
    ],
)
def test_unused_high_bits(
    monkeypatch: pytest.MonkeyPatch,
    chunk_pixels: int,
    signed: int,
    high: int,
    stored: list[int],
    canonical: list[int],
    hidden: list[int] | None,
) -> None:
    monkeypatch.setattr("orthanc_ledger.pixels._CHUNK", chunk_pixels * 2)
    rest = [0] * 13
    nodes = image(native(words(*rest, *stored)), stored=12, high=high, signed=signed)
    expected = [frame(0, words(*rest, *canonical))]
    expected += [frame(0, words(*rest, *hidden), kind=4)] if hidden else []
    assert pixel_leaves(file_of(nodes)) == expected


def test_unused_bits_survive_rle() -> None:
    pixels = words(*[0x1003] * 1024)
    nodes = image(native(pixels), rows=32, columns=32, stored=12)
    content = compressed_file(nodes, encapsulated(compressed(RLELossless, pixels)), RLE)
    assert fingerprint(content).pixel_root == fingerprint(file_of(nodes)).pixel_root
    assert fingerprint(content).pixel_leaves == 2


@pytest.mark.parametrize("encoder", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"photometric": "X"},
        {"stored": 0, "high": 0},
        {"stored": 17},
        {"photometric": "PALETTE COLOR", "stored": 12},
    ],
)
def test_a_codec_decodes_under_the_attributes_native_pixels_decode_under(
    encoder: UID, attributes: dict[str, int | str]
) -> None:
    pixels = words(*range(0x200, 0x600))
    encoded = compressed(encoder, pixels)
    nodes = image(native(pixels), rows=32, columns=32, **attributes)
    result = fingerprint(compressed_file(nodes, encapsulated(encoded), encoder))
    assert (result.pixel_form, result.decode_error) == ("decoded", None)
    assert replace(result, decoder="own") == fingerprint(file_of(nodes))


@pytest.mark.parametrize("encoder", [JPEGLSLossless, JPEG2000Lossless])
def test_samples_wider_than_bits_allocated_are_not_cut(encoder: UID) -> None:
    encoded = compressed(encoder, words(*range(0x1200, 0x1600)))
    nodes = image(native(b""), rows=32, columns=32, allocated=8, stored=8)
    assert fingerprint(compressed_file(nodes, encapsulated(encoded), encoder)).decode_error == "decoder-failed"


def compressed(encoder: UID, pixels: bytes) -> bytes:
    """A frame of 32 × 32 words; smaller ones some encoders do not take."""
    return get_encoder(encoder).encode(
        pixels, rows=32, columns=32, number_of_frames=1, samples_per_pixel=1, bits_allocated=16, bits_stored=16,
        pixel_representation=0, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip


def test_an_rle_bomb_is_not_unpacked_beyond_its_plane() -> None:
    segment = b"\x81\7" * (1 << 21)  # 256 MiB of sevens
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + segment
    content = compressed_file(image(native(b""), allocated=8, stored=8), encapsulated(bomb), RLE)
    instance = opened(content)
    tracemalloc.start()
    try:
        assert fingerprints(instance, [None])[0].pixel_form == "decoded"
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_bytes_behind_the_last_frame() -> None:
    assert len(pixel_leaves(file_of(image(native(bytes(range(32)) + bytes(4)))))) == 1
    behind = pixel_leaves(file_of(image(native(bytes(range(32)) + b"\0\0PK"))))[1]
    assert behind == (b"\xff\xff\xff\xff", 4, b"\0\0PK")


@pytest.mark.parametrize(("tag", "vr", "width"), [(0x7FE00008, "OF", 4), (0x7FE00009, "OD", 8)])
def test_floats_as_they_are(tag: int, vr: str, width: int) -> None:
    pixels = bytes(range(16)) * width
    for transfer_syntax in (EXPLICIT, BIG_ENDIAN):
        nodes = image(Value(tag, vr, pixels), without=(0x00280100, 0x00280101, 0x00280102, 0x00280103))
        assert pixel_leaves(file_of(nodes, transfer_syntax)) == [frame(0, pixels)]


def test_two_kinds_of_pixel_data_are_refused() -> None:
    nodes = [*image(Value(0x7FE00008, "OF", bytes(64))), native(bytes(32))]
    with pytest.raises(Unreadable, match="more than one"):
        fingerprint(file_of(nodes))


def test_encapsulated_uncompressed_equals_native() -> None:
    frames = [bytes([value]) * 32 for value in (1, 2)]
    nodes = image(native(b"".join(frames)), frames="2")
    uncompressed = compressed_file(nodes, encapsulated(*frames), UNCOMPRESSED)
    assert fingerprint(uncompressed) == fingerprint(file_of(nodes))


ONE, TWO = b"\xff\xd8one1\xff\xd9", b"\xff\xd8second\xff\xd9\0\0"
HALVES = (ONE[:4], ONE[4:], TWO[:4], TWO[4:])
BASIC_TABLE = struct.pack("<2I", 0, len(ONE) + 16)


@pytest.mark.parametrize(
    ("fragments", "table", "frames", "expected"),
    [
        (HALVES, b"", "", [ONE + TWO]),
        ((ONE, TWO), b"", "2", [ONE, TWO]),
        (HALVES, BASIC_TABLE, "2", [ONE, TWO]),
        (HALVES, b"", "2", [ONE, TWO]),
        (HALVES, struct.pack("<2I", 0, 7), "2", [ONE, TWO]),
        (HALVES, struct.pack("<2I", len(HALVES[0]) + 8, len(ONE) + 16), "2", [ONE, TWO]),
        ((b"hidden", b"cd", b"ef"), struct.pack("<2I", 14, 24), "2", [b"hiddencdef"]),
        ((b"ab", b"cd", b"ef"), b"", "2", [b"abcdef"]),
        ((ONE,), b"", "2", [ONE]),
        ((), b"", "", [b""]),
    ],
    ids=[
        "one frame",
        "one each",
        "basic table",
        "end of image",
        "wrong table",
        "not from zero",
        "not from zero, no rule",
        "no rule",
        "too few",
        "none",
    ],
)
def test_encoded_frames_are_told_apart(
    fragments: tuple[bytes, ...], table: bytes, frames: str, expected: list[bytes]
) -> None:
    content = compressed_file(image(native(b""), frames=frames), encapsulated(*fragments, table=table), JPEG_BASELINE)
    assert encoded_frames(content) == expected
    assert fingerprint(content).pixel_form == "encoded"
    assert fingerprint(content).decoder is None


def test_encoded_frames_by_the_extended_offset_table() -> None:
    parts = (b"ab", b"cd", b"ef")
    table = Value(0x7FE00001, "OV", struct.pack("<2Q", 0, 20))
    nodes = [*image(native(b""), frames="2")[:-1], table]
    assert encoded_frames(compressed_file(nodes, encapsulated(*parts), JPEG_BASELINE)) == [b"abcd", b"ef"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (file_of(image(native(bytes(30)))), "too-short"),
        (file_of(image(native(bytes(32)), frames="99999999")), "too-short"),
        (file_of(image(native(bytes(32)), without=[0x00280010])), "missing-attribute"),
        (file_of(image(native(bytes(32)), without=[0x00280004])), "missing-attribute"),
        (file_of(image(native(bytes(32)), frames="0")), "missing-attribute"),
        (file_of(image(native(bytes(32)), rows=0)), "missing-attribute"),
        (file_of(image(native(bytes(32)), allocated=12, stored=12)), "decoder-failed"),
        (compressed_file(image(native(b"")), encapsulated(b"no RLE"), RLE), "decoder-failed"),
        (compressed_file(image(native(b"")), encapsulated(b"\xff\x4f\xff\x51"), JPEG_2000), "decoder-failed"),
        (compressed_file(image(native(b""), frames="3"), encapsulated(b"a"), RLE), "too-short"),
        (compressed_file(image(native(b""), rows=65535, columns=65535), encapsulated(b"a"), RLE), "frame-too-large"),
        (compressed_file(image(native(b"")), encapsulated(bytes(30)), UNCOMPRESSED), "too-short"),
        (compressed_file(image(native(b"")), encapsulated(bytes(32) + b"PK"), UNCOMPRESSED), "decoder-failed"),
        (compressed_file(image(native(b"")), encapsulated(bytes(32)), EXPLICIT), "decoder-failed"),
    ],
)
def test_a_failed_decode_falls_back_to_encoded(content: bytes, reason: str) -> None:
    result = fingerprint(content)
    assert (result.pixel_form, result.frames, result.decode_error) == ("encoded", 1, reason)
    assert result.decoder is not None


@pytest.mark.parametrize(
    ("transfer_syntax", "codestream"),
    [
        (JPEG_2000, b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", 41, 0, 65535, 65535, 0, 0, 65535, 65535, 0, 0, 1)),
        (JPEG_LOSSLESS, b"\xff\xd8\xff\xfe\0\4ab\xff\xc3\0\x0b\x10\xff\xff\xff\xff\1"),
    ],
)
def test_a_codestream_that_announces_another_size_is_not_given_to_its_decoder(
    transfer_syntax: str, codestream: bytes
) -> None:
    bomb = compressed_file(image(native(b"")), encapsulated(codestream + bytes(64)), transfer_syntax)
    assert fingerprint(bomb).decode_error == "decoder-failed"
    with pytest.raises(NotDecoded, match=r"the codestream holds \(65535, 65535, 1\)"):
        pixel_leaves(bomb)


def test_a_missing_decoder_is_not_taken_for_bad_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decoders.DECODERS, JPEG_2000, "absent")
    with pytest.raises(ConfigError, match="absent"):
        fingerprint(compressed_file(image(native(b"")), encapsulated(b"any"), JPEG_2000))


def test_every_pinned_decoder_is_installed() -> None:
    for transfer_syntax, name in decoders.DECODERS.items():
        if name != decoders.OWN:
            decoders.check_installed(transfer_syntax)
