"""The connection below an association: whole PDUs, in one reused buffer, to a peer that may be slow (PS3.8 9.3)."""

import math
import select
import socket
import struct
import time
from contextlib import suppress
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from orthanc_ledger.errors import DataError, ServiceAway

MAXIMUM_PDU = 1 << 17  # bytes; what this node offers to receive, and the most it sends whatever the peer would take
PDU_HEADER = 6  # bytes of a PDU before its variable part (PS3.8 9.3)

_LARGEST_PDU = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts fits; a length beyond it is an attack or noise
_BUFFER = MAXIMUM_PDU + 4096  # bytes; a PDU of that size, and the beginning of another
_PDU_TYPES = range(0x01, 0x08)
_NOT_ASSOCIATED, _AWAITING_CLOSE = ("Sta1", "Sta2", "Sta3", "Sta4", "Sta5"), "Sta13"  # PS3.8 9.2.1
_CONNECTION_CLOSED = "Evt17"  # PS3.8 9.2.2


class AssociationLost(ServiceAway):
    """The peer is gone, aborted, silent beyond the timeout, or broke the protocol; nothing more can be sent to it."""


class UnrecognisedPdu(DataError):
    """A PDU of a type that PS3.8 9.3.1 does not have."""


class PduSocket(AssociationSocket):
    """pynetdicom's socket with one reused buffer for what arrives, bounded PDUs and no Nagle delay.

    One thread reads and writes; any may call `hang_up`.
    """

    def __init__(
        self,
        assoc: Association,
        client_socket: socket.socket | None = None,
        address: AddressInformation | None = None,
    ) -> None:
        super().__init__(assoc, client_socket, address)
        self._buffer = bytearray()
        self._begin = self._end = 0  # of what arrived and was not taken, in the buffer
        self._pdu_begun_s: float | None = None  # when the PDU that is not whole yet was first seen
        self._heard_s = 0.0
        self.hung_up = False
        if client_socket is not None:
            self._tune()

    def _tune(self) -> None:
        if self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.setblocking(False)
            self._connected_s = self._heard_s = time.monotonic()

    def connect(self, primitive: Any) -> None:
        super().connect(primitive)
        self._tune()

    def next_pdu(self) -> memoryview | None:
        """The next PDU if it is here as a whole, valid until `receive` is called.

        Raises UnrecognisedPdu, skipping six bytes of it as pynetdicom does; OSError for a PDU beyond all reason.
        """
        held = self._end - self._begin
        if held >= PDU_HEADER:
            kind, length = struct.unpack_from(">BxL", self._buffer, self._begin)
            if kind not in _PDU_TYPES:
                self._take(PDU_HEADER)
                raise UnrecognisedPdu(f"a PDU of type 0x{kind:02X}")
            if length > _LARGEST_PDU:
                raise OSError(f"a PDU of {length} bytes was announced, at most {_LARGEST_PDU} are taken")
            if held >= PDU_HEADER + length:
                return self._take(PDU_HEADER + length)
            self._make_room(PDU_HEADER + length)
        if held and self._pdu_begun_s is None:
            self._pdu_begun_s = time.monotonic()
        return None

    def _take(self, size: int) -> memoryview:
        taken = memoryview(self._buffer)[self._begin : self._begin + size]
        self._begin += size
        self._pdu_begun_s = None
        return taken

    def _make_room(self, size: int) -> None:
        """Room for ``size`` bytes from the first on that was not taken."""
        if self._begin + size <= len(self._buffer):
            return
        held = self._buffer[self._begin : self._end]
        if size > len(self._buffer):
            self._buffer = bytearray(max(size, _BUFFER))
        self._buffer[: len(held)] = held
        self._begin, self._end = 0, len(held)

    def receive(self, timeout_s: float) -> None:
        """Read what has arrived, waiting ``timeout_s`` for it at most. Raises OSError when the connection is closed."""
        if self._begin == self._end:
            self._begin = self._end = 0
        self._make_room(PDU_HEADER)
        room = memoryview(self._buffer)[self._end :]
        try:
            count = self._open_socket.recv_into(room)
        except BlockingIOError:
            if timeout_s <= 0 or not self._poll(select.POLLIN, timeout_s):
                return
            count = self._open_socket.recv_into(room)
        if not count:
            raise ConnectionResetError("the peer closed the connection")
        self._end += count
        self._heard_s = time.monotonic()

    @property
    def pdu_due_s(self) -> float:
        """Seconds the unfinished PDU still has to go on, and to be here however its bytes drip; endless without one.

        A peer that has not associated has the ACSE timeout from its connection on; in an association, a PDU has the
        network timeout, as silence has.
        """
        if self._pdu_begun_s is None:
            return math.inf
        state = self.assoc.dul.state_machine.current_state
        if state in _NOT_ASSOCIATED:
            ends_s = self._connected_s + cast(float, self.assoc.acse_timeout)
        elif state == _AWAITING_CLOSE:
            ends_s = self._pdu_begun_s + cast(float, self.assoc.acse_timeout)
        else:
            ends_s = self._pdu_begun_s + cast(float, self.assoc.network_timeout)
        return min(ends_s, self._heard_s + cast(float, self.assoc.dimse_timeout)) - time.monotonic()

    @property
    def _open_socket(self) -> socket.socket:
        if self.socket is None or self.hung_up:
            raise ConnectionAbortedError("the connection was closed by this side")
        return self.socket

    def _poll(self, events: int, timeout_s: float) -> bool:
        poller = select.poll()
        try:
            poller.register(self._open_socket, events)
        except ValueError as error:
            raise ConnectionAbortedError("the connection was closed by this side") from error
        return bool(poller.poll(None if timeout_s == math.inf else max(0, math.ceil(timeout_s * 1000))))

    def send(self, bytestream: bytes) -> None:
        try:
            self.write(bytestream)
        except AssociationLost:
            self.event_queue.put(_CONNECTION_CLOSED)

    def write(self, *parts: bytes | memoryview) -> None:
        """Write whole PDUs, given in any number of parts.

        Raises AssociationLost; the connection is closed then, as half a PDU may be out.
        """
        rest = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        try:
            while rest:
                try:
                    rest = rest[self._open_socket.send(rest) :]
                except BlockingIOError:
                    if not self._poll(select.POLLOUT, cast(float, self.assoc.dimse_timeout)):
                        raise TimeoutError(f"the peer took nothing for {self.assoc.dimse_timeout} s") from None
        except OSError as error:
            self.hang_up()
            raise AssociationLost(f"writing to the peer failed: {error}") from error

    def hang_up(self) -> None:
        """End the connection without a word: who waits for it wakes (Evt17), and the association's thread closes it."""
        self.hung_up = True
        sock = self.socket  # its own thread may forget it meanwhile
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _shutdown_socket(self) -> None:
        """Close the socket also when the peer was faster, where pynetdicom's own leaves it open."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
