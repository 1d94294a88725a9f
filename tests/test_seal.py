"""Sealing against its wire format opened by hand, and against whoever cuts, flips or mixes up sealed objects."""

import gc
import hashlib
import io
import tracemalloc
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orthanc_ledger.errors import ContentAway, IntegrityError
from orthanc_ledger.seal import open_sealed, seal

KEY = bytes(range(32))
STUDY = bytes(range(16))
INSTANCE = bytes(range(100, 132))
SEGMENT = 1 << 20
HEADER = 40  # length, salt and nonce prefix; the first segment is shorter by it
TAG = 16
FIRST = SEGMENT - HEADER - TAG
LATER = SEGMENT - TAG
SIZES = [0, 1, 131_072, FIRST - 1, FIRST, FIRST + 1, FIRST + LATER, FIRST + LATER + 1, 3_000_000]


def plaintext(size: int) -> bytes:
    return (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]


def sealed(plain: bytes) -> bytes:
    sink = io.BytesIO()
    seal(io.BytesIO(plain), sink, KEY, STUDY, INSTANCE, len(plain))
    return sink.getvalue()


def opened(data: bytes, key: bytes = KEY, study: bytes = STUDY, instance: bytes = INSTANCE) -> bytes:
    return open_sealed(io.BytesIO(data), key, study, instance).read()


def drain(reader: BinaryIO) -> int:
    size = 0
    while piece := reader.read(100_000):
        size += len(piece)
    return size


def opened_by_hand(data: bytes) -> bytes:
    """Tink's published format for AES-GCM-HKDF streams, with one-shot AES-GCM."""
    assert data[0] == HEADER
    salt, prefix = data[1:33], data[33:40]
    info = b"\x00\x07seal/v1" + STUDY + INSTANCE
    aead = AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(KEY))
    segments = [data[HEADER:SEGMENT], *(data[at : at + SEGMENT] for at in range(SEGMENT, len(data), SEGMENT))]
    last = len(segments) - 1
    return b"".join(
        aead.decrypt(prefix + number.to_bytes(4, "big") + bytes([number == last]), segment, None)
        for number, segment in enumerate(segments)
    )


@pytest.mark.parametrize("size", SIZES)
def test_sealed_object_opens_to_its_plaintext(size: int) -> None:
    assert opened(sealed(plaintext(size))) == plaintext(size)


@pytest.mark.parametrize("size", SIZES)
def test_sealed_object_has_tinks_wire_format(size: int) -> None:
    assert opened_by_hand(sealed(plaintext(size))) == plaintext(size)


def test_sealing_twice_gives_other_bytes() -> None:
    assert sealed(b"same") != sealed(b"same")


@pytest.mark.parametrize("step", [1, 1000, SEGMENT, 5_000_000])
def test_reader_gives_what_was_asked_for_short_only_at_the_end(step: int) -> None:
    plain = plaintext(3000 if step == 1 else 3_000_000)
    reader = open_sealed(io.BytesIO(sealed(plain)), KEY, STUDY, INSTANCE)
    got = []
    while piece := reader.read(step):
        got.append(piece)
    assert {len(piece) for piece in got[:-1]} <= {step}
    assert b"".join(got) == plain
    assert reader.read(0) == reader.read() == b""


def test_reader_may_lie_under_a_buffered_one() -> None:
    plain = plaintext(3_000_000)
    reader = open_sealed(io.BytesIO(sealed(plain)), KEY, STUDY, INSTANCE)
    assert io.BufferedReader(cast(io.RawIOBase, reader)).read() == plain


def test_neither_stream_is_closed() -> None:
    source, sink = io.BytesIO(b"plain"), io.BytesIO()
    seal(source, sink, KEY, STUDY, INSTANCE, 5)
    sink.seek(0)
    reader = open_sealed(sink, KEY, STUDY, INSTANCE)
    assert reader.read() == b"plain"
    reader.close()
    del reader
    gc.collect()
    assert not source.closed
    assert not sink.closed


@pytest.mark.parametrize(
    ("key", "study", "instance"),
    [(bytes(32), STUDY, INSTANCE), (KEY, bytes(16), INSTANCE), (KEY, STUDY, bytes(32))],
    ids=["other-key", "other-study", "other-instance"],
)
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_object_opens_as_nothing_else(size: int, key: bytes, study: bytes, instance: bytes) -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(plaintext(size)), key, study, instance)


@pytest.mark.parametrize("position", [0, 1, 33, 39, 40, FIRST, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 5, -1])
def test_flipped_byte_is_found(position: int) -> None:
    data = bytearray(sealed(plaintext(3_000_000)))
    data[position] ^= 0x80
    with pytest.raises(IntegrityError):
        opened(bytes(data))


@pytest.mark.parametrize("left", [0, 1, 39, 40, 41, 56, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, -1])
def test_truncated_object_is_found_at_the_latest_at_its_end(left: int) -> None:
    reader = open_sealed(io.BytesIO(sealed(plaintext(3_000_000))[:left]), KEY, STUDY, INSTANCE)
    with pytest.raises(IntegrityError):
        drain(reader)


def test_truncated_empty_object_is_found() -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(b"")[:HEADER])


@pytest.mark.parametrize("size", [0, 3_000_000, FIRST, FIRST + LATER])  # the last two end on a segment of full length
@pytest.mark.parametrize("more", [b"\x00", bytes(TAG), bytes(SEGMENT)])
def test_lengthened_object_is_found(more: bytes, size: int) -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(plaintext(size)) + more)
    with pytest.raises(IntegrityError):
        drain(open_sealed(io.BytesIO(sealed(plaintext(size)) + more), KEY, STUDY, INSTANCE))


class Trickling(io.BytesIO):
    """Gives fewer bytes than it is asked for, as a socket does."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None else min(size, 99_991))


def test_lengthened_object_is_found_where_reads_are_short() -> None:
    whole = sealed(plaintext(FIRST))
    assert open_sealed(Trickling(whole), KEY, STUDY, INSTANCE).read() == plaintext(FIRST)
    with pytest.raises(IntegrityError):
        open_sealed(Trickling(whole + b"appended"), KEY, STUDY, INSTANCE).read()


def test_exchanged_segments_are_found() -> None:
    data = sealed(plaintext(4_000_000))
    with pytest.raises(IntegrityError):
        opened(data[:SEGMENT] + data[2 * SEGMENT : 3 * SEGMENT] + data[SEGMENT : 2 * SEGMENT] + data[3 * SEGMENT :])


@pytest.mark.parametrize("size", [0, 10, 99, 101, 3_000_000])
def test_source_of_another_size_is_refused_and_leaves_no_object(size: int) -> None:
    sink = io.BytesIO()
    with pytest.raises(IntegrityError, match="expected 100 bytes"):
        seal(io.BytesIO(plaintext(size)), sink, KEY, STUDY, INSTANCE, 100)
    gc.collect()  # would finalise an abandoned stream into the sink
    with pytest.raises(IntegrityError):
        opened(sink.getvalue())


class Failing(io.BytesIO):
    """Fails with a given error at its third read or write."""

    def __init__(self, error: BaseException, content: bytes = b"") -> None:
        super().__init__(content)
        self.error = error
        self.calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == 3:
            raise self.error

    def read(self, size: int | None = -1) -> bytes:
        self._count()
        return super().read(size)

    def write(self, data: object) -> int:
        self._count()
        return super().write(data)  # type: ignore[arg-type]


ERRORS = [OSError(28, "No space left on device"), ContentAway("store"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_of_the_source_comes_through_and_leaves_no_object(error: BaseException) -> None:
    sink = io.BytesIO()
    with pytest.raises(type(error)) as caught:
        seal(Failing(error, plaintext(3_000_000)), sink, KEY, STUDY, INSTANCE, 3_000_000)
    assert caught.value is error
    gc.collect()
    with pytest.raises(IntegrityError):
        opened(sink.getvalue())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_of_the_sink_comes_through_and_leaves_no_object(error: BaseException) -> None:
    sink = Failing(error)
    with pytest.raises(type(error)) as caught:
        seal(io.BytesIO(plaintext(3_000_000)), sink, KEY, STUDY, INSTANCE, 3_000_000)
    assert caught.value is error
    gc.collect()
    with pytest.raises(IntegrityError):
        opened(sink.getvalue())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_of_a_sealed_source_comes_through_the_reader(error: BaseException) -> None:
    reader = open_sealed(Failing(error, sealed(plaintext(3_000_000))), KEY, STUDY, INSTANCE)
    with pytest.raises(type(error)) as caught:
        reader.read()
    assert caught.value is error


class Zeros(io.RawIOBase):
    """A source of many zero bytes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        piece = bytes(min(size, self.left))
        self.left -= len(piece)
        return piece


def test_sealing_and_opening_keep_memory_small(tmp_path: Path) -> None:
    size = 64 << 20
    tracemalloc.start()
    try:
        with open(tmp_path / "object", "w+b") as file:
            seal(cast(BinaryIO, Zeros(size)), cast(BinaryIO, file), KEY, STUDY, INSTANCE, size)
            file.seek(0)
            assert drain(open_sealed(cast(BinaryIO, file), KEY, STUDY, INSTANCE)) == size
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
