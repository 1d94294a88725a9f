"""Sealing of objects: Tink's AES256_GCM_HKDF_1MB streaming AEAD (docs/manifest.md, "Sealed object").

Only sealing: no files, no keys kept. Memory stays at a few segments of 1 MiB whatever the object's size.
"""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import tink  # type: ignore[import-untyped]
from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2  # type: ignore[import-untyped]

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.tokens import seal_aad

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SEGMENT = 1 << 20
_HEADER = 40
_TAG = 16
_PIECE = 1 << 17  # Tink allocates what it is asked for, however little is left

streaming_aead.register()


def seal(source: BinaryIO, sink: BinaryIO, key: bytes, study_token: bytes, instance_token: bytes, size: int) -> None:
    """Read exactly ``size`` bytes of plaintext from ``source`` and write them sealed to ``sink``.

    ``key`` is :func:`orthanc_ledger.tokens.seal_key`, 32 bytes. Neither stream is closed. Raises ``IntegrityError``
    when the source holds fewer or more bytes than ``size``; what reading or writing raises comes through as it is.
    After any error the sink holds no sealed object: discard what it has.
    """
    guarded = _Guarded(sink)
    try:
        with guarded.errors("sealing"):
            stream = _primitive(key).new_encrypting_stream(guarded, seal_aad(study_token, instance_token))
            left = size
            while left >= 0 and (chunk := source.read(min(_SEGMENT, left + 1))):  # one byte too many shows
                stream.write(chunk)
                left -= len(chunk)
            if left:
                got = "more" if left < 0 else str(size - left)
                raise IntegrityError(f"plaintext to seal: expected {size} bytes, got {got}")
            stream.close()
    finally:
        guarded.detach()


def open_sealed(source: BinaryIO, key: bytes, study_token: bytes, instance_token: bytes) -> BinaryIO:
    """Return a reader of the plaintext of the sealed object in ``source``, which is not closed.

    Raises ``IntegrityError`` here or while reading, as :class:`SealedReader` tells.
    """
    return cast(BinaryIO, SealedReader(source, key, seal_aad(study_token, instance_token)))


class SealedReader(io.RawIOBase):
    """The plaintext of a sealed object, from front to back.

    Reading raises ``IntegrityError`` when the object was sealed with another key or as another instance, was changed,
    lengthened or cut off. A truncated or lengthened object gives its whole segments before the error, so read to the
    end once before using a byte. Errors of the source come through as they are.
    """

    def __init__(self, source: BinaryIO, key: bytes, associated_data: bytes) -> None:
        self._source = _Guarded(source)
        self._size = 0
        with self._source.errors("opening"):
            self._stream = _primitive(key).new_decrypting_stream(self._source, associated_data)

    def readable(self) -> bool:
        """True: an io.BufferedReader may be laid over it."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end; all that are left when ``size`` is negative or None."""
        pieces, left = [], size if size is not None and size >= 0 else sys.maxsize
        while left and (piece := self._piece(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        with self._source.errors("opening"):
            piece: bytes = self._stream.read(size)
        self._size += len(piece)
        if not piece:
            self._check_end()
        return piece

    def _check_end(self) -> None:
        # Tink reads no further than a last segment of full length: it would not see what was appended.
        segments = -(-(_HEADER + self._size) // (_SEGMENT - _TAG))
        expected = _HEADER + self._size + segments * _TAG
        self._source.read(1)
        if self._source.given != expected:
            raise IntegrityError(f"sealed object: expected {expected} bytes, got more; bytes were appended")

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill ``buffer``, short only at the end; returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Guarded(io.RawIOBase):
    """A stream lent to Tink, which closes what it is given and tells foreign errors as text only."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: BinaryIO | None = stream
        self.given = 0
        self._failure: BaseException | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert self._stream is not None
        try:
            data = self._stream.read(size)
        except BaseException as error:
            self._failure = error
            raise
        self.given += len(data)
        return data

    def write(self, data: bytes) -> int:  # type: ignore[override]  # Tink writes bytes only
        if self._stream is None:
            return len(data)
        try:
            return self._stream.write(data)
        except BaseException as error:
            self._failure = error
            raise

    def detach(self) -> None:
        """Let nothing more through: Tink finalises an abandoned stream when it is collected, as a shorter object."""
        self._stream = None

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Give back the stream's own error where there was one; any other of Tink's is about the bytes."""
        try:
            yield
        except tink.TinkError as error:
            if self._failure is not None:
                raise self._failure from error
            raise IntegrityError(
                f"{doing} of a sealed object failed: wrong key, other instance, changed or cut off"
            ) from error


def _primitive(key: bytes) -> streaming_aead.StreamingAead:
    """Tink's primitive with the key as key material: a keyset of one raw key."""
    params = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=_SEGMENT, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    key_data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=key, params=params).SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    raw_key = tink_pb2.Keyset.Key(key_id=1, key_data=key_data, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[raw_key]).SerializeToString()
    return proto_keyset_format.parse(keyset, secret_key_access.TOKEN).primitive(streaming_aead.StreamingAead)
