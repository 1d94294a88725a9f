"""A DICOM SCU over a plain socket, without threads and with little work of its own: for load, and for nodes that die.

Whatever ends the association is an OSError: refused, reset, aborted, silent for too long. PS3.8 9.3 (PDUs), PS3.7 E.1
(command sets), all in the client's one transfer syntax, Explicit VR Little Endian.
"""

import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
SUCCESS, PENDING = 0x0000, (0xFF00, 0xFF01)

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_MAXIMUM_PDU = 1 << 17
_ASSOCIATE_AC, _P_DATA, _RELEASE_RP = 2, 4, 6
_COMMAND, _LAST = 1, 2  # bits of a Message Control Header (PS3.8 E.2)
_STORE, _GET, _FIND, _ECHO, _RESPONSE = 0x0001, 0x0010, 0x0020, 0x0030, 0x8000
_CLASS, _FIELD, _ID, _RESPONDED = 0x0002, 0x0100, 0x0110, 0x0120  # elements of group 0000 (PS3.7 E.1)
_PRIORITY, _DATA, _STATUS, _INSTANCE = 0x0700, 0x0800, 0x0900, 0x1000
_HAS_DATA, _NO_DATA = 1, 0x0101


@dataclass(frozen=True)
class Answer:
    """The final response: its status, and the SOP Instance UIDs it says failed."""

    status: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Message:
    command: Mapping[int, bytes]
    data: bytes

    def number(self, element: int) -> int:
        value: int = struct.unpack("<H", self.command[element])[0]
        return value

    def uid(self, element: int) -> str:
        return self.command[element].rstrip(b"\0").decode()


class PlainScu:
    """One association; a context manager that releases it, or closes the socket when something was raised."""

    def __init__(
        self,
        port: int,
        calling: str,
        abstract_syntaxes: Sequence[str],
        storage: str | None = None,
        timeout_s: float = 30,
        called: str = "NODE",
    ) -> None:
        """``storage``: the SOP class that is received by C-GET. Raises OSError."""
        contexts = [*abstract_syntaxes, *([storage] if storage else [])]
        self._contexts = {uid: 2 * n + 1 for n, uid in enumerate(contexts)}
        self._message_id = 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(_associate_rq(calling, called, self._contexts, storage))
            kind, content = self._pdu()
            if kind != _ASSOCIATE_AC:
                raise ConnectionRefusedError(f"expected A-ASSOCIATE-AC, got PDU {kind}: {content[:4].hex()}")
            self._most = _taken(content)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._socket:
            if kind is None:
                self._socket.sendall(struct.pack(">BBL4x", 5, 0, 4))
                while self._pdu()[0] != _RELEASE_RP:
                    pass

    def echo(self) -> int:
        """C-ECHO; its status."""
        self._request(_ECHO, VERIFICATION)
        return self._receive().number(_STATUS)

    def store(self, sop_class: str, sop_instance: str, data_set: bytes) -> int:
        """C-STORE; its status."""
        self._request(_STORE, sop_class, data_set, {_INSTANCE: _padded(sop_instance)})
        return self._receive().number(_STATUS)

    def find(self, **keys: str) -> tuple[int, list[Dataset]]:
        """C-FIND, Study Root; the final status, and the answers."""
        self._request(_FIND, STUDY_ROOT_FIND, _identifier(keys))
        answers = []
        while (message := self._receive()).number(_STATUS) in PENDING:
            answers.append(_decoded(message.data))
        return message.number(_STATUS), answers

    def get(self, take: Callable[[str, bytes], None], **keys: str | list[str]) -> Answer:
        """C-GET, Study Root; ``take`` is given each SOP Instance UID with its encoded data set."""
        self._request(_GET, STUDY_ROOT_GET, _identifier(keys))
        while (message := self._receive()).number(_FIELD) == _STORE or message.number(_STATUS) in PENDING:
            if message.number(_FIELD) == _STORE:
                take(message.uid(_INSTANCE), message.data)
                self._respond(message)
        failed = _decoded(message.data).get("FailedSOPInstanceUIDList", []) if message.data else []
        return Answer(message.number(_STATUS), (failed,) if isinstance(failed, str) else tuple(failed))

    def _request(
        self, field: int, sop_class: str, data: bytes | None = None, more: Mapping[int, bytes] | None = None
    ) -> None:
        self._message_id = self._message_id % 0xFFFF + 1
        command = {
            _CLASS: _padded(sop_class),
            _FIELD: _us(field),
            _ID: _us(self._message_id),
            _DATA: _us(_NO_DATA if data is None else _HAS_DATA),
            **({} if field == _ECHO else {_PRIORITY: _us(0)}),
            **(more or {}),
        }
        self._send(self._contexts[sop_class], command, data)

    def _respond(self, message: _Message) -> None:
        command = {
            _CLASS: message.command[_CLASS],
            _FIELD: _us(message.number(_FIELD) | _RESPONSE),
            _RESPONDED: message.command[_ID],
            _DATA: _us(_NO_DATA),
            _STATUS: _us(SUCCESS),
            _INSTANCE: message.command[_INSTANCE],
        }
        self._send(self._contexts[message.uid(_CLASS)], command, None)

    def _send(self, context_id: int, command: Mapping[int, bytes], data: bytes | None) -> None:
        elements = b"".join(
            struct.pack("<HHL", 0, element, len(value)) + value for element, value in sorted(command.items())
        )
        group = struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements
        pdus = _p_data(context_id, group, _COMMAND, self._most)
        self._socket.sendall(pdus if data is None else pdus + _p_data(context_id, data, 0, self._most))

    def _receive(self) -> _Message:
        """The next message, whole."""
        command: dict[int, bytes] = {}
        parts: dict[int, list[bytes]] = {0: [], _COMMAND: []}
        while True:
            kind, content = self._pdu()
            if kind != _P_DATA:
                raise ConnectionAbortedError(f"expected P-DATA-TF, got PDU {kind}: {content[:4].hex()}")
            for header, value in _pdvs(content):
                parts[header & _COMMAND].append(value)
                if header & _LAST and header & _COMMAND:
                    command = _elements(b"".join(parts[_COMMAND]))
                if header & _LAST and (not header & _COMMAND or command[_DATA] == _us(_NO_DATA)):
                    return _Message(command, b"".join(parts[0]))

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._read(6))
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        chunks = []
        while count:
            chunk = self._socket.recv(count)
            if not chunk:
                raise ConnectionResetError("the peer closed the connection")
            chunks.append(chunk)
            count -= len(chunk)
        return b"".join(chunks)


def _associate_rq(calling: str, called: str, contexts: Mapping[str, int], storage: str | None) -> bytes:
    items = _item(0x10, _APPLICATION_CONTEXT)
    for abstract_syntax, context_id in contexts.items():
        syntaxes = _item(0x30, abstract_syntax.encode()) + _item(0x40, EXPLICIT.encode())
        items += _item(0x20, struct.pack(">Bxxx", context_id) + syntaxes)
    user = _item(0x51, struct.pack(">L", _MAXIMUM_PDU)) + _item(0x52, b"1.2.826.0.1.3680043.10.9")
    if storage:  # SCP/SCU Role Selection (PS3.7 D.3.3.4)
        user += _item(0x54, struct.pack(">H", len(storage)) + storage.encode() + b"\0\1")
    titles = (title.encode().ljust(16) for title in (called, calling))
    content = struct.pack(">HH16s16s32x", 1, 0, *titles) + items + _item(0x50, user)
    return struct.pack(">BBL", 1, 0, len(content)) + content


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _taken(accepted: bytes) -> int:
    """The bytes of a PDU that the acceptor takes: the Maximum Length Sub-Item of its A-ASSOCIATE-AC (PS3.8 D.1.1)."""
    start = accepted.index(b"\x51\0\0\4") + 4
    return min(_MAXIMUM_PDU, int.from_bytes(accepted[start : start + 4], "big") or _MAXIMUM_PDU)


def _p_data(context_id: int, content: bytes, header: int, pdu: int) -> bytes:
    """The P-DATA-TF PDUs of a command set or data set, of one PDV each."""
    most, pdus = pdu - 6, []
    for start in range(0, len(content), most):
        value = content[start : start + most]
        last = _LAST if start + most >= len(content) else 0
        pdus.append(
            struct.pack(">BBLLBB", _P_DATA, 0, len(value) + 6, len(value) + 2, context_id, header | last) + value
        )
    return b"".join(pdus)


def _pdvs(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        length, header = struct.unpack_from(">LxB", content, at)
        yield header, content[at + 6 : at + 4 + length]
        at += 4 + length


def _elements(command_set: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(command_set):
        element, length = struct.unpack_from("<2xHL", command_set, at)
        found[element] = command_set[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def _identifier(keys: Mapping[str, str | list[str]]) -> bytes:
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    encoded = encode(identifier, False, True)
    assert encoded is not None
    return encoded


def _decoded(data: bytes) -> Dataset:
    return decode(BytesIO(data), False, True)


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _us(number: int) -> bytes:
    return struct.pack("<H", number)
