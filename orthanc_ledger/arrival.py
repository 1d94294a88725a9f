"""The spool unit: u32 length ‖ arrival record (dag-cbor) ‖ Part 10 file. Layout in docs/manifest.md."""

import io
import struct
from dataclasses import dataclass, fields
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

from orthanc_ledger.content import cbor
from orthanc_ledger.errors import IntegrityError

ADDRESSED_AE, REST_USER, STOW, RECONCILED, BACKFILL = "addressed-ae", "rest-user", "stow", "reconciled", "backfill"
"""Origins of what comes in here (docs/manifest.md)."""

IMPLEMENTATION_CLASS_UID = "2.25.313948262474013817325408513211839221943"
IMPLEMENTATION_VERSION = "ORTHANC-LEDGER"

_DIGEST_BYTES = 32
_META_START = 132 + 12  # preamble, DICM, the group length element (PS3.10 7.1)


@dataclass(frozen=True)
class Arrival:
    """How one object came here.

    ``received_us``: when all of it was here, microseconds of UTC since 1970; ``sha256``: of the data set as it arrived.
    """

    received_us: int
    calling_ae: str
    called_ae: str
    peer: str
    association: bytes
    tls: str | None
    origin: str
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    sha256: bytes = bytes(_DIGEST_BYTES)

    @property
    def sender(self) -> str:
        """Who sent it, for people: a user or AE title, and the address without its port."""
        peer = urlsplit(self.peer)
        name = unquote(peer.username or "") or self.calling_ae
        return " at ".join(part for part in (name, peer.hostname) if part)


_TYPES = {field.name: field.type for field in fields(Arrival)}


@dataclass(frozen=True)
class Unit:
    """A spool unit's record and where its parts begin, in bytes from the unit's start."""

    arrival: Arrival
    part10_offset: int
    data_set_offset: int


def encode_head(arrival: Arrival, called_address: str) -> bytes:
    """Everything of a unit before the data set; its length does not depend on ``arrival.sha256``."""
    record = cbor.encode({"v": 1, **vars(arrival)})
    return struct.pack(">I", len(record)) + record + _part10_head(arrival, called_address)


def read_head(unit: BinaryIO) -> Unit:
    """Read a unit from its first byte up to its data set; the stream then stands at the data set.

    Raises IntegrityError when the bytes are not a unit.
    """
    arrival, start = read_arrival(unit)
    head = _exactly(unit, _META_START)
    if head[128:132] != b"DICM":
        raise IntegrityError("spool unit: no Part 10 file behind the arrival record")
    meta_length = struct.unpack("<I", head[-4:])[0]
    if meta_length > 65536:
        raise IntegrityError(f"spool unit: file meta of {meta_length} bytes, expected at most 65536")
    _exactly(unit, meta_length)
    return Unit(arrival, start, start + _META_START + meta_length)


def read_arrival(unit: BinaryIO) -> tuple[Arrival, int]:
    """Read a unit from its first byte up to its Part 10 file, where the stream then stands: its record, and the bytes
    read. Raises as ``read_head``.
    """
    size = struct.unpack(">I", _exactly(unit, 4))[0]
    if size > 65536:
        raise IntegrityError(f"spool unit: arrival record of {size} bytes, expected at most 65536")
    record = _exactly(unit, size)
    try:
        values = cbor.decode(record)
    except IntegrityError as error:
        raise IntegrityError("spool unit: the arrival record is not dag-cbor") from error
    if not isinstance(values, dict) or values.pop("v", None) != 1 or values.keys() != _TYPES.keys():
        raise IntegrityError("spool unit: not an arrival record of version 1")
    for name, expected in _TYPES.items():
        if not isinstance(values[name], expected):  # type: ignore[arg-type]
            raise IntegrityError(f"spool unit: arrival record: {name}: expected {expected}, got {type(values[name])}")
    return Arrival(**values), 4 + size


def section(file: BinaryIO, start: int) -> BinaryIO:
    """A read-only, seekable view of a file from ``start`` on, standing at its own byte 0."""
    return cast(BinaryIO, _Section(file, start))


class _Section(io.RawIOBase):
    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file = file
        self._start = start
        file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset + (self._start if whence == io.SEEK_SET else 0), whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: object) -> int:
        return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]  # every BinaryIO used here has it


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise IntegrityError(f"spool unit: ends early, expected {size} bytes, got {len(data)}")
    return data


def _part10_head(arrival: Arrival, called_address: str) -> bytes:
    """Preamble of zeros (no MZ or PK survives, CVE-2019-11687) and file meta in Explicit VR LE (PS3.10 7.1)."""
    meta = b"".join(
        (
            struct.pack("<HH2sHIH", 2, 0x0001, b"OB", 0, 2, 0x0100),
            _element(0x0002, b"UI", arrival.sop_class),
            _element(0x0003, b"UI", arrival.sop_instance),
            _element(0x0010, b"UI", arrival.transfer_syntax),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION),
            _element(0x0016, b"AE", arrival.calling_ae),
            _element(0x0017, b"AE", arrival.calling_ae),
            _element(0x0018, b"AE", arrival.called_ae),
            _uri(0x0027, arrival.peer),
            _uri(0x0028, called_address),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta


def _element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _uri(element: int, text: str) -> bytes:
    value = text.encode("ascii")
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sHI", 2, element, b"UR", 0, len(value)) + value
