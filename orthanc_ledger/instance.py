"""One DICOM object in a file (PS3.10 section 7), read where it lies and never held in memory as a whole."""

import io
import re
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, cast

from orthanc_ledger.elements import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    UNDEFINED,
    Element,
    Encoding,
    Fragments,
    Reader,
    Scan,
    fragments,
    show_tag,
    walk,
)
from orthanc_ledger.errors import Unreadable
from orthanc_ledger.values import is_text, strip_padding, swap_bytes, swap_unit

MAX_INFLATED: Final = 1 << 32

_IMPLICIT: Final = "1.2.840.10008.1.2"
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_DEFLATED: Final = frozenset(("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"))

_TRANSFER_SYNTAX: Final = 0x00020010
_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E
_UIDS: Final = frozenset((_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES))
_IMAGE_PIXEL: Final = frozenset((*range(0x00280002, 0x00280104), *range(0x7FE00001, 0x7FE00011)))
_LONGEST_SHORT_VALUE: Final = 1024
_HEADS: Final = (1 << 16, 1 << 20, 1 << 24)
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Instance:
    """A data set that was parsed to its end without an error.

    UIDs are without padding, and empty when the data set has none. ``data_set_offset`` counts from the file's position
    when it was opened. The file must stay open, and unchanged, while the instance is used.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    reader: Reader
    _scan: Scan
    _start: int

    def elements(self) -> Iterator[Element]:
        """Every element in the order of the data set, a sequence before what its items hold."""
        return walk(self._scan, self._start, self.reader.size)

    def top_level(self, tag: int) -> Element | None:
        """A value of the Image Pixel modules or a UID of the top level; None when absent or a sequence."""
        return self._scan.found.get(tag)

    def short_value(self, tag: int) -> bytes | None:
        """Value of such an element, little-endian, text without padding; None when absent, a sequence or over 1 KiB."""
        return _short_value(self._scan, tag)

    def fragments(self, element: Element) -> Fragments:
        """The fragments of an encapsulated element (PS3.5 A.4)."""
        inner = self.encoding if element.big_endian == self.encoding.big_endian else IMPLICIT_LE
        return fragments(self.reader, element.offset, self.reader.size, inner)

    @property
    def encoding(self) -> Encoding:
        """How the element headers of the top level are written."""
        return self._scan.encoding


class Identifiers(NamedTuple):
    """What a receiver must know before it answers a C-STORE."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str


def open_instance(file: BinaryIO, wanted: frozenset[int] = frozenset()) -> Instance:
    """Parse the Part 10 file, or plain data set, from the file's position to its end.

    ``wanted``: further top-level tags that ``top_level`` and ``short_value`` shall know.
    Raises ``Unreadable`` for everything docs/fingerprint.md calls an error, and for bytes that are not DICOM.
    """
    reader = Reader(file)
    offset, transfer_syntax = _data_set(reader)
    start = offset
    if transfer_syntax in _DEFLATED:
        reader, start = _inflated_reader(reader, offset), 0
    scan = Scan(reader, _encoding(transfer_syntax), _UIDS | _IMAGE_PIXEL | wanted)
    scan.run(start, reader.size)
    return Instance(
        sop_class_uid=_uid(scan, _SOP_CLASS),
        sop_instance_uid=_uid(scan, _SOP_INSTANCE),
        study_instance_uid=_uid(scan, _STUDY),
        series_instance_uid=_uid(scan, _SERIES),
        transfer_syntax_uid=transfer_syntax,
        data_set_offset=offset,
        reader=reader,
        _scan=scan,
        _start=start,
    )


def data_set_at(file: BinaryIO) -> tuple[int, str]:
    """Where the data set of a Part 10 file, or of a plain data set, begins, in bytes from the file's position, and its
    transfer syntax. Raises ``Unreadable``.
    """
    return _data_set(Reader(file, block=_HEADS[0]))


def read_identifiers(file: BinaryIO, transfer_syntax: str) -> Identifiers:
    """UIDs of class, instance and study from the data set at the file's position, reading no further than them.

    Raises ``Unreadable`` when the data set cannot be parsed so far, or when one is missing or no UID (PS3.5 9.1: at
    most 64 characters of digits and points).
    """
    reader = Reader(file, block=_HEADS[0])
    if transfer_syntax not in _DEFLATED:
        return _identifiers(reader, transfer_syntax)
    for head in _HEADS:
        inflated = b"".join(_inflate(reader, 0, at_most=head))
        try:
            return _identifiers(Reader(io.BytesIO(inflated)), transfer_syntax)
        except Unreadable:
            if len(inflated) < head or head == _HEADS[-1]:
                raise
    raise AssertionError("the last head returns or raises")


def _identifiers(reader: Reader, transfer_syntax: str) -> Identifiers:
    scan = Scan(reader, _encoding(transfer_syntax), _UIDS)
    scan.run(0, reader.size, last_tag=_STUDY)
    return Identifiers(
        _required_uid(scan, _SOP_CLASS, "SOP Class UID"),
        _required_uid(scan, _SOP_INSTANCE, "SOP Instance UID"),
        _required_uid(scan, _STUDY, "Study Instance UID"),
    )


def _required_uid(scan: Scan, tag: int, name: str) -> str:
    value = _short_value(scan, tag)
    if value is None:
        raise Unreadable(f"{name} is missing")
    uid = value.decode("latin-1")
    if not _UID.fullmatch(uid):
        raise Unreadable(f"{name}: 1 to 64 digits and points expected, got {len(uid)} characters that are not")
    return uid


def _short_value(scan: Scan, tag: int) -> bytes | None:
    element = scan.found.get(tag)
    if element is None or element.length > _LONGEST_SHORT_VALUE:
        return None
    value = scan.reader.read(element.offset, element.length)
    if element.big_endian:
        value = swap_bytes(value, swap_unit(tag, element.vr))
    return strip_padding(value) if is_text(tag) else value


def _uid(scan: Scan, tag: int) -> str:
    element = scan.found.get(tag)
    if element and element.length > _LONGEST_SHORT_VALUE:
        raise Unreadable(f"{show_tag(tag)}: a UID has at most 64 characters, got {element.length}")
    return _ascii(_short_value(scan, tag) or b"", tag)


def _ascii(value: bytes, tag: int) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{show_tag(tag)}: a UID is ASCII, got byte {value[error.start]:#04x}") from error


def _encoding(transfer_syntax: str) -> Encoding:
    if transfer_syntax == _IMPLICIT:
        return IMPLICIT_LE
    return EXPLICIT_BE if transfer_syntax == _BIG_ENDIAN else EXPLICIT_LE


def _data_set(reader: Reader) -> tuple[int, str]:
    offset, transfer_syntax = _file_meta(reader)
    return offset, transfer_syntax or _guessed_transfer_syntax(reader, offset)


def _file_meta(reader: Reader) -> tuple[int, str]:
    """Offset of the data set, and the transfer syntax the file meta names (empty when it names none)."""
    offset = 132 if reader.size >= 132 and reader.read(128, 4) == b"DICM" else 0
    transfer_syntax = ""
    while offset + 8 <= reader.size and reader.read(offset, 2) == b"\x02\x00":
        tag, _, length, value = EXPLICIT_LE.header(reader, offset, reader.size)
        if length == UNDEFINED:
            raise Unreadable(f"file meta: {show_tag(tag)} has undefined length")
        if tag == _TRANSFER_SYNTAX and length <= _LONGEST_SHORT_VALUE:
            transfer_syntax = _ascii(strip_padding(reader.read(value, length)), tag)
        offset = value + length
    return offset, transfer_syntax


def _guessed_transfer_syntax(reader: Reader, offset: int) -> str:
    """Transfer syntax of a data set nobody named, by its first element: a low group, then a VR or a length."""
    if offset + 8 > reader.size:
        raise Unreadable(f"not DICOM: {reader.size} bytes without file meta and data set")
    first = reader.read(offset, 8)
    explicit = first[4:6].isalpha() and first[4:6].isupper()
    if first[1] == 0 and 0x02 < first[0] < 0x60:
        return _EXPLICIT if explicit else _IMPLICIT
    if first[0] == 0 and 0x02 < first[1] < 0x60 and explicit:
        return _BIG_ENDIAN
    raise Unreadable(f"not DICOM: file meta or a first element expected at byte {offset}, got {first.hex(' ')}")


def _inflated_reader(reader: Reader, offset: int) -> Reader:
    spool = tempfile.SpooledTemporaryFile(max_size=1 << 23)  # noqa: SIM115 - lives as long as its reader
    inflated = cast(BinaryIO, spool)
    try:
        for chunk in _inflate(reader, offset):
            spool.write(chunk)
        spool.seek(0)
        result = Reader(inflated)
    except BaseException:
        spool.close()
        raise
    weakref.finalize(result, spool.close)
    return result


def _inflate(reader: Reader, offset: int, at_most: int | None = None) -> Iterator[bytes]:
    """The data set behind a deflate stream (PS3.5 A.5), whole or its first ``at_most`` bytes.

    Raises ``Unreadable`` when the stream is broken, inflates to more than MAX_INFLATED, or is followed by anything but
    zeros; old writers' gzip trailer of CRC-32 and length may stand before those.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = checksum = read = 0
    for deflated in reader.chunks(offset, reader.size - offset):
        read += len(deflated)
        more = True
        while more and not inflater.eof:
            try:
                chunk = inflater.decompress(deflated, Reader.CHUNK)
            except zlib.error as error:
                raise Unreadable(f"the deflated data set is broken: {error}") from error
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
            if at_most is not None and size >= at_most:
                yield chunk[: len(chunk) - (size - at_most)]
                return
            if size > MAX_INFLATED:
                raise Unreadable(f"the deflated data set inflates to more than {MAX_INFLATED} bytes")
            yield chunk
            deflated = inflater.unconsumed_tail
            more = bool(deflated) or len(chunk) == Reader.CHUNK
        if inflater.eof:
            break
    else:
        if at_most is None:
            raise Unreadable("the deflated data set breaks off")
        return
    end = offset + read - len(inflater.unused_data)
    gzip_trailer = struct.pack("<II", checksum, size & 0xFFFFFFFF)
    if reader.read(end, min(8, reader.size - end)) == gzip_trailer:
        end += len(gzip_trailer)
    if any(any(chunk) for chunk in reader.chunks(end, reader.size - end)):
        raise Unreadable("the deflated data set is followed by bytes that are not zero")
