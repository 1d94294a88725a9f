"""Small DICOM files, each for one rule of `docs/fingerprint.md`."""

import struct
import zlib
from collections.abc import Iterator

from tests.second.writer import (
    BASELINE,
    BIG,
    DEFLATED,
    IMPLICIT,
    RLE,
    SEQUENCE_END,
    UNCOMPRESSED,
    UNDEFINED,
    capsule,
    colour_of_bytes,
    element,
    encoded_file,
    file,
    fragments,
    head,
    image,
    item,
    with_value,
    words,
)


def files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every crafted file."""
    yield from _native()
    yield from _encapsulated()
    yield from _sequences()
    yield from _refused()
    yield from _values()


def _native() -> Iterator[tuple[str, bytes]]:
    yield "bits-hidden-above-stored", file(image(words(0xF001, 2, 3, 0x8004), stored=12))
    yield "bits-all-zero-above-stored", file(image(words(0x0FFF, 2, 3, 4), stored=12))
    yield "signed-zero-above-stored", file(image(words(0x0FFF, 2, 3, 4), stored=12, signed=1))
    yield "signed-extended", file(image(words(0xFFFF, 2, 3, 4), stored=12, signed=1))
    yield "signed-some-extended-some-not", file(image(words(0xFFFF, 0x0FFF, 3, 4), stored=12, signed=1))
    yield "high-bit-at-the-top", file(image(words(0xFFF0, 2, 3, 4), stored=12, high=15))
    yield "hidden-bits-in-one-of-two-frames", file(image(words(1, 2, 3, 4, 5, 6, 7, 0xF008), stored=12, frames="2"))
    yield "hidden-bits-of-bytes", file(image(b"\x81\2\3\4", vr="OB", allocated=8, stored=7))
    yield "bytes-behind-last-frame", file(image(words(1, 2, 3, 4, 5)))
    yield "zeros-behind-last-frame", file(image(words(1, 2, 3, 4, 0)))
    yield "big-endian-behind-last-frame", file(image(words(1, 2, 3, 4, 0x1234), BIG), BIG)
    yield "too-short", file(image(words(1, 2, 3)))
    yield "too-short-big-endian", file(image(words(1, 2, 3), BIG), BIG)
    yield "empty-pixel-data", file(image(b""))
    for name in ("samples", "photometric", "rows", "columns", "allocated", "stored", "signed"):
        yield f"without-{name}", file(image(words(1, 2, 3, 4), **{name: None}))
    yield "frames-empty", file(image(words(1, 2, 3, 4), frames=""))
    yield "frames-padded", file(image(words(1, 2, 3, 4, 5, 6, 7, 8), frames=" 2 "))
    yield "one-bit", file(image(b"\x55\xaa\x55\x05", vr="OB", allocated=1, stored=1, rows=3, columns=3, frames="3"))
    yield "one-bit-tail", file(image(b"\x55\x01\0\7", vr="OB", allocated=1, stored=1, rows=3, columns=3))
    by_plane = {"vr": "OB", "allocated": 1, "stored": 1, "samples": 3, "photometric": "RGB"}
    yield "one-bit-colour-by-plane", file(image(b"\x55\x01", planar=1, **by_plane))
    yield (
        "one-bit-colour-by-plane-two-frames",
        file(image(b"\x55\x01\xe3", planar=1, frames="2", **by_plane)),
    )
    by_pixel = by_plane | {"photometric": "YBR_FULL_422"}
    yield "one-bit-422", file(image(b"\x9a", **by_pixel))
    yield "bits-stored-none", file(image(words(0xF001, 2, 3, 4), stored=0, high=0))
    yield "bits-stored-more-than-allocated", file(image(words(0xF001, 2, 3, 4), stored=17, signed=1))
    yield "planar-of-one-byte", file(with_value(image(bytes(range(12)), planar=1, **colour_of_bytes()), 6, b"\1"))
    yield (
        "planar-of-four-bytes",
        file(with_value(image(bytes(range(12)), planar=1, **colour_of_bytes()), 6, b"\1\0\0\0")),
    )
    yield "rows-of-four-bytes", file(with_value(image(words(1, 2, 3, 4)), 0x10, b"\2\0\1\0"))
    yield "rows-of-one-byte", file(with_value(image(words(1, 2, 3, 4)), 0x10, b"\2"))
    for name, frames in (
        ("signed", "+2"), ("long", "0" * 16 + "2"), ("none", "0"), ("negative", "-1"), ("underscore", "1_0"),
        ("two", "1\\2"), ("over-1024", " " * 1024 + "7 "), ("under-1024", " " * 1020 + "2 "),
    ):  # fmt: skip
        yield f"frames-{name}", file(image(words(*range(8)), frames=frames))
    yield "one-bit-big-endian", file(image(b"\x55\x01", BIG, allocated=1, stored=1, rows=3, columns=3), BIG)
    yield (
        "float",
        file(image(struct.pack("<8f", *range(8)), vr="OF", tag=8, allocated=32, frames="2", **_no_integers())),
    )
    yield "double", file(image(struct.pack("<4d", *range(4)), vr="OD", tag=9, allocated=64, **_no_integers()))
    yield (
        "float-big-endian",
        file(image(struct.pack(">4f", *range(4)), BIG, "OF", 8, allocated=32, **_no_integers()), BIG),
    )
    yield "float-tail", file(image(struct.pack("<5f", *range(5)), vr="OF", tag=8, allocated=32, **_no_integers()))
    colour = {"samples": 3, "allocated": 8, "stored": 8, "vr": "OB"}
    yield "colour-by-pixel", file(image(bytes(range(12)), photometric="RGB", planar=0, **colour))
    yield (
        "colour-by-plane",
        file(image(bytes([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]), photometric="RGB", planar=1, **colour)),
    )
    yield "colour-no-planar", file(image(bytes(range(12)), photometric="RGB", **colour))
    yield "ybr-422", file(image(bytes(range(8)), photometric="YBR_FULL_422", planar=0, **colour))
    yield (
        "ybr-422-odd-columns",
        file(image(bytes(range(12)), photometric="YBR_FULL_422", planar=0, columns=3, **colour)),
    )
    yield "bytes-in-words-big-endian", file(image(b"\2\1\4\3", BIG, allocated=8, stored=8), BIG)
    yield "bytes-big-endian", file(image(b"\1\2\3\4", BIG, "OB", allocated=8, stored=8), BIG)
    yield "words-big-endian", file(image(b"\0\1\0\2\0\3\0\4", BIG), BIG)
    wide = struct.pack("<4I", 1, 2, 3, 0x01020304)
    yield "32-bit", file(image(wide, allocated=32, stored=32))
    swapped = struct.pack(">8H", *struct.unpack("<8H", wide))
    yield "32-bit-big-endian-words", file(image(swapped, BIG, allocated=32, stored=32), BIG)
    both = image(words(1, 2, 3, 4))
    yield "two-kinds-of-pixel-data", file(both[:-20] + element(0x7FE0, 8, "OF", bytes(16)) + both[-20:])
    yield "deflated", file(image(words(1, 2, 3, 4)), DEFLATED)
    yield "deflated-then-zero", file(image(words(1, 2, 3, 4)), DEFLATED) + b"\0"
    yield "deflated-then-other", file(image(words(1, 2, 3, 4)), DEFLATED) + b"\1\0"
    plain = head() + image(words(1, 2, 3, 4))
    trailer = struct.pack("<II", zlib.crc32(plain), len(plain))
    yield "deflated-then-gzip-trailer", file(image(words(1, 2, 3, 4)), DEFLATED) + trailer
    yield "deflated-then-gzip-trailer-and-zeros", file(image(words(1, 2, 3, 4)), DEFLATED) + trailer + b"\0\0"
    yield "deflated-then-gzip-trailer-of-another", file(image(words(1, 2, 3, 4)), DEFLATED) + trailer[::-1]
    yield "deflated-then-gzip-trailer-twice", file(image(words(1, 2, 3, 4)), DEFLATED) + trailer * 2
    yield "deflated-cut", file(image(words(1, 2, 3, 4)), DEFLATED)[:-4]
    yield "no-pixel-data", file(b"")


def _no_integers() -> dict[str, int | str | None]:
    return {"stored": None, "high": None, "signed": None}


def _encapsulated() -> Iterator[tuple[str, bytes]]:
    one, two = b"\xff\xd8one\xff\xd9", b"\xff\xd8two2\xff\xd9\0\0"
    halves = (one[:4], one[4:], two[:4], two[4:])
    table = struct.pack("<2I", 0, 8 + 4 + 8 + len(one[4:]))
    lossy = {"syntax": BASELINE, "frames": "2"}
    yield "encoded-one-each", capsule(one, two, **lossy)
    yield "encoded-one-frame-all-fragments", capsule(*halves, syntax=BASELINE)
    yield "encoded-by-table", capsule(*halves, table=table, **lossy)
    yield "encoded-by-end-of-image", capsule(*halves, **lossy)
    yield "encoded-wrong-table", capsule(*halves, table=struct.pack("<2I", 0, 3), **lossy)
    yield "encoded-table-not-from-zero", capsule(*halves, table=struct.pack("<2I", 12, 23), **lossy)
    yield "encoded-more-ends-than-frames", capsule(one, one, two, **lossy)
    yield "encoded-no-rule", capsule(b"ab", b"cd", b"ef", **lossy)
    yield "encoded-fewer-fragments", capsule(one, syntax=BASELINE, frames="3")
    yield "uncompressed", capsule(words(1, 2, 3, 4), words(5, 6, 7, 8), syntax=UNCOMPRESSED, frames="2")
    yield "uncompressed-more-than-a-frame", capsule(words(1, 2, 3, 4, 5), syntax=UNCOMPRESSED)
    yield "uncompressed-short", capsule(words(1, 2, 3), syntax=UNCOMPRESSED)
    small = {"allocated": 8, "stored": 8, "rows": 3, "columns": 3}
    yield "uncompressed-odd", capsule(bytes(range(9)) + b"\0", syntax=UNCOMPRESSED, **small)
    header = struct.pack("<16I", 2, 64, 70, *[0] * 13)
    yield "rle", capsule(header + b"\x03\0\0\0\x10\0" + b"\x03\1\2\3\4\0", syntax=RLE)
    yield "rle-short", capsule(header + b"\x03\0\0\0\x10\0" + b"\x01\1\2\0", syntax=RLE)
    yield "rle-hidden-bits", capsule(header + b"\x03\xf0\0\0\x80\0" + b"\x03\1\2\3\4\0", syntax=RLE, stored=12)
    yield (
        "rle-photometric-unknown",
        capsule(header + b"\x03\0\0\0\x10\0" + b"\x03\1\2\3\4\0", syntax=RLE, photometric="X"),
    )
    yield (
        "rle-bits-stored-none",
        capsule(header + b"\x03\0\0\0\x10\0" + b"\x03\1\2\3\4\0", syntax=RLE, stored=0, high=0),
    )
    yield (
        "rle-bits-stored-more-than-allocated",
        capsule(header + b"\x03\0\0\0\x10\0" + b"\x03\1\2\3\4\0", syntax=RLE, stored=17),
    )
    colour = struct.pack("<16I", 3, 64, 68, 72, *[0] * 12) + b"\xfb\1\0\0" + b"\xfb\2\0\0" + b"\xfb\3\0\0"
    for photometric in ("RGB", "YBR_FULL_422"):
        fields = {"samples": 3, "allocated": 8, "stored": 8, "columns": 3, "photometric": photometric}
        yield f"rle-{photometric}-odd-columns", capsule(colour, syntax=RLE, **fields)
    pair = struct.pack("<16I", 2, 64, 70, *[0] * 13) + b"\x03\1\2\3\4\0" + b"\x03\5\6\7\x08\0"
    two_samples = {"samples": 2, "allocated": 8, "stored": 8}
    yield "rle-two-samples", capsule(pair, syntax=RLE, **two_samples)
    yield "two-samples", file(image(bytes([1, 5, 2, 6, 3, 7, 4, 8]), **two_samples))
    yield "rle-runs", capsule(header + b"\x80\xfd\0\x80\x80\0" + b"\xff\1\xff\2\0\0", syntax=RLE)
    bomb = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\0" + b"\x81\7" * 512
    yield "rle-unpacks-to-more", capsule(bomb, syntax=RLE)
    yield "rle-other-segments", capsule(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x03\1\2\3\4\0", syntax=RLE)
    yield "rle-one-bit", capsule(struct.pack("<16I", 1, 64, *[0] * 14) + b"\0\5", syntax=RLE, allocated=1, stored=1)
    yield "no-offset-table", capsule(syntax=BASELINE).replace(item(b"") + SEQUENCE_END, SEQUENCE_END)
    offsets = [element(0x7FE0, number, "OV", struct.pack("<2Q", 0, 20)) for number in (1, 2)]
    total = element(0x7FE0, 3, "UV", struct.pack("<Q", 6))
    for name, tables in (
        ("", offsets[0] + offsets[1] + total), ("-too-long", element(0x7FE0, 1, "OV", bytes(32))),
        ("-total-too-long", element(0x7FE0, 3, "UV", bytes(16))),
    ):  # fmt: skip
        body = image(b"", frames="2")[:-12] + tables
        body += element(0x7FE0, 0x10, "OB", fragments(b"ab", b"cd", b"ef"), length=UNDEFINED)
        yield f"encoded-extended-table{name}", file(body, BASELINE)
    native = image(words(1, 2, 3, 4))
    yield "extended-table-of-native", file(native[:-20] + offsets[0] + native[-20:])
    not_from_zero = element(0x7FE0, 1, "OV", struct.pack("<2Q", 10, 20))
    body = image(b"", frames="2")[:-12] + not_from_zero
    body += element(0x7FE0, 0x10, "OB", fragments(b"ab", b"cd", b"ef"), length=UNDEFINED)
    yield "encoded-extended-table-not-from-zero", file(body, BASELINE)
    yield "no-fragments", capsule(syntax=BASELINE)
    yield "no-fragments-lossless", capsule(syntax=RLE)


def _sequences() -> Iterator[tuple[str, bytes]]:
    inner = element(0x0009, 0x1002, "LO", b"in ")
    implicit = element(0x0009, 0x1002, "LO", b"in ", IMPLICIT)
    creator = element(0x0009, 0x0010, "LO", b"SECOND")
    private = 0x0009, 0x1001
    yield "private-sq", file(creator + element(*private, "SQ", item(inner)))
    yield (
        "private-sq-delimited",
        file(creator + element(*private, "SQ", item(inner, True) + SEQUENCE_END, length=UNDEFINED)),
    )
    yield "private-un", file(creator + element(*private, "UN", item(implicit)))
    yield (
        "private-un-undefined",
        file(creator + element(*private, "UN", item(implicit) + SEQUENCE_END, length=UNDEFINED)),
    )
    yield "private-ob", file(creator + element(*private, "OB", item(implicit)))
    body = element(0x0009, 0x0010, "LO", b"SECOND", IMPLICIT) + element(*private, "", item(implicit), IMPLICIT)
    yield "private-implicit", file(body, IMPLICIT)
    big = element(0x0009, 0x0010, "LO", b"SECOND", BIG)
    yield "private-un-big-endian", file(big + element(*private, "UN", item(implicit), BIG), BIG)
    nested = element(0x0009, 0x1002, "LO", b"in ", BIG)
    yield "private-sq-big-endian", file(big + element(*private, "SQ", item(nested, big=True), BIG), BIG)
    yield "private-looks-like-items", file(creator + element(*private, "UN", item(implicit) + b"\1\2"))
    yield "private-items-out-of-order", file(creator + element(*private, "UN", item(implicit + implicit)))
    yield "private-items-then-delimiter", file(creator + element(*private, "UN", item(implicit) + SEQUENCE_END))
    yield "private-item-header-only", file(creator + element(*private, "UN", b"\xfe\xff\0\xe0\0\0\0\0"))
    yield "private-item-short", file(creator + element(*private, "UN", b"\xfe\xff\0\xe0"))
    yield "private-sq-empty", file(creator + element(*private, "SQ", b""))
    yield "private-lo-empty", file(creator + element(*private, "LO", b""))
    yield "private-sq-no-items", file(creator + element(*private, "SQ", SEQUENCE_END, length=UNDEFINED))
    public = element(0x0008, 0x0100, "SH", b"x")
    for name, vr, content in (("sq", "SQ", public), ("un", "UN", element(0x0008, 0x0100, "", b"x", IMPLICIT))):
        yield f"public-sequence-as-{name}", file(element(0x0008, 0x1032, vr, item(content)))
    yield "public-sequence-empty", file(element(0x0008, 0x1032, "SQ", b""))
    yield "public-sequence-empty-un", file(element(0x0008, 0x1032, "UN", b""))
    yield "public-sequence-empty-item", file(element(0x0008, 0x1032, "SQ", item(b"")))
    yield "unknown-public-sq", file(element(0x0008, 0x0FF1, "SQ", item(public)))
    yield (
        "text-undefined-length",
        file(
            element(0x0008, 0x1030, "UN", item(element(8, 0x100, "", b"x", IMPLICIT)) + SEQUENCE_END, length=UNDEFINED)
        ),
    )
    for vr, value, length in (("OW", b"\1\2", None), ("OB", fragments(b"ab", b"cd", table=b"\0" * 4), UNDEFINED)):
        icon = element(0x7FE0, 0x0010, vr, value, length=length)
        yield f"icon-{vr}", file(element(0x0088, 0x0200, "SQ", item(icon)))
    yield (
        "left-out-only-at-top",
        file(element(8, 0x1032, "SQ", item(element(8, 0x54, "AE", b"AE") + element(0xFFFC, 0xFFFC, "OB", b"\0\0")))),
    )
    for depth in (64, 65):
        deep = b""
        for _ in range(depth):
            deep = element(0x0040, 0xA730, "SQ", item(deep, True) + SEQUENCE_END, length=UNDEFINED)
        yield f"nested-{depth}", file(deep)
        deep = implicit
        for _ in range(depth):
            deep = element(*private, "", item(deep), IMPLICIT)
        yield f"nested-private-implicit-{depth}", file(deep, IMPLICIT)


def _refused() -> Iterator[tuple[str, bytes]]:
    name, again = element(0x10, 0x10, "PN", b"A^B "), element(0x10, 0x10, "PN", b"C^D ")
    yield "duplicate-tag", file(name + again)
    yield "tags-out-of-order", file(element(0x10, 0x20, "LO", b"1 ") + name)
    yield "duplicate-tag-in-item", file(element(0x0008, 0x1032, "SQ", item(name + again)))
    yield "value-past-end", file(element(0x10, 0x10, "PN", b"A^B ", length=40))
    yield (
        "value-past-item",
        file(element(0x8, 0x1032, "SQ", item(element(0x10, 0x10, "PN", b"A^", length=4)) + b"\0\0")),
    )
    yield "item-past-sequence", file(element(0x0008, 0x1032, "SQ", item(name)[:-2]) + name)
    yield "sequence-without-delimiter", file(element(0x0008, 0x1032, "SQ", item(name), length=UNDEFINED))
    yield "item-without-delimiter", file(element(0x0008, 0x1032, "SQ", item(name, True)[:-8]))
    yield "item-outside-sequence", file(item(b""))
    yield "delimiter-outside-sequence", file(SEQUENCE_END)
    yield "header-cut-off", file(name + b"\x10\0\x20\0")
    yield (
        "fragments-without-delimiter",
        file(element(0x7FE0, 0x10, "OB", item(b"") + item(b"ab"), length=UNDEFINED), RLE),
    )
    yield "public-sequence-does-not-parse", file(element(0x0008, 0x1032, "UN", b"\1\2\3\4"))

    short, long = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 2)
    delimited = element(0x0008, 0x1032, "SQ", item(name, True) + short, length=UNDEFINED)
    yield "sequence-delimiter-with-length", file(delimited.replace(short, long + b"\0\0"))
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    yield "item-delimiter-with-length", file(delimited.replace(end, struct.pack("<HHI", 0xFFFE, 0xE00D, 2) + b"\0\0"))
    yield "fragments-delimiter-with-length", capsule(b"ab", syntax=BASELINE)[:-8] + long + b"\0\0"
    meta = element(0x0002, 0x0016, "AE", b"HIDDEN")
    yield "file-meta-in-an-item", file(element(0x0008, 0x1032, "SQ", item(meta)))
    yield "file-meta-in-a-deflated-data-set", encoded_file(meta + head(), DEFLATED)
    for tag in ((0x8, 0x16), (0x8, 0x18), (0x20, 0x0D), (0x20, 0x0E)):
        others = [element(*other, "UI", b"1.2\0") for other in ((0x8, 0x16), (0x8, 0x18)) if other < tag]
        yield (
            f"uid-not-ascii-{tag[0]:02x}{tag[1]:02x}",
            encoded_file(b"".join(others) + element(*tag, "UI", b"1.\xb2\0")),
        )
    yield "uid-over-1024", file(element(0x20, 0x0E, "UI", b"1" * 1026))


def _values() -> Iterator[tuple[str, bytes]]:
    yield "text-padded", file(element(0x10, 0x10, "PN", b" A ^B \0 \0"))
    yield "text-not-padded", file(element(0x10, 0x10, "PN", b" A ^B"))
    yield "text-as-un", file(element(0x10, 0x10, "UN", b" A ^B "))
    yield "binary-with-trailing-zeros", file(element(0x20, 0x9057, "UL", b" \0\0\0"))
    yield "private-text-keeps-padding", file(element(0x9, 0x10, "LO", b"SECOND  "))
    yield "group-lengths", file(element(0x9, 0, "UL", b"\4\0\0\0") + element(0x9, 0x10, "LO", b"SECOND"))
    yield "group-lengths-longer", file(element(0x9, 0, "UL", b"\4\0\0\0\0\0") + element(0x9, 0x10, "LO", b"SECOND"))
    yield "group-length-in-an-item-longer", file(element(0x8, 0x1032, "SQ", item(element(0x8, 0, "OB", bytes(6)))))
    yield "group-length-empty", file(element(0x9, 0, "UL", b""))
    for tag, most in (
        ((0x08, 0x01), 4), ((0x08, 0x54), 1024), ((0x08, 0x56), 16), ((0x88, 0x130), 16), ((0x88, 0x140), 64),
    ):  # fmt: skip
        for size in (most, most + 2):
            content = element(*tag, "UN", b"1" * size)
            body = content + head() if tag == (0x08, 0x01) else head() + content
            yield f"left-out-{tag[0]:02x}{tag[1]:02x}-of-{size}", encoded_file(body)
    yield "no-instance-uid", encoded_file(element(0x10, 0x10, "PN", b"A^B "))
    yield "instance-uid-empty", encoded_file(element(0x08, 0x18, "UI", b"") + element(0x10, 0x10, "PN", b"A^B "))
    hidden = item(element(0x10, 0x10, "PN", b"A^B "))
    yield "sequence-as-group-length", file(element(0x9, 0, "SQ", hidden))
    yield "sequence-as-retrieve-ae-title", file(element(0x8, 0x54, "SQ", hidden))
    yield "trailing-padding-zero", file(element(0xFFFC, 0xFFFC, "OB", b"\0\0\0\0"))
    yield "trailing-padding-payload", file(element(0xFFFC, 0xFFFC, "OB", b"MZ\0\0"))
    yield "overlay", file(element(0x6002, 0x3000, "OW", b"\1\2\3\4"))
    yield "overlay-big-endian", file(element(0x6002, 0x3000, "OW", b"\2\1\4\3", BIG), BIG)
    yield "overlay-bytes-big-endian", file(element(0x6002, 0x3000, "OB", b"\1\2\3\4", BIG), BIG)
    big = element(0x18, 0x9087, "FD", struct.pack(">d", 1.5), BIG) + element(0x20, 0x5000, "AT", b"\0\x10\0\x20", BIG)
    big += element(0x28, 0x0009, "AT", b"\0\x18\x10\x63", BIG) + element(0x28, 0x0106, "SS", b"\xff\xfe", BIG)
    big += element(0x28, 0x1101, "UN", b"\1\0\0\0\x10\0", BIG) + element(0x5600, 0x20, "OF", b"\0\0\x80\x3f\1", BIG)
    yield "big-endian-values", file(big, BIG)
    yield "uid-with-space", file(element(0x20, 0x0D, "UI", b"1.2.3 "))
