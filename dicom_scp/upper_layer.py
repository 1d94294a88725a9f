"""The upper layer below an association, without a thread of its own (PS3.8 9).

pynetdicom polls the socket in a second thread and hands everything over by queues; between two threads of Python each
hand-over costs more than a slice. Here whoever waits for something pumps: waits for the socket, takes one PDU, and lets
pynetdicom's state machine act upon it. What is sent is written by the calling thread, so that a slow peer slows the
reader of a 2 GB object down instead of filling memory.
"""

import math
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.transport import AddressInformation, AssociationSocket

from orthanc_ledger.errors import DataError, ServiceAway

_LARGEST_PDU = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts fits; a length beyond it is an attack or noise
MAXIMUM_PDU = 1 << 17  # bytes; what this node offers to receive, and the most it sends whatever the peer would take
_BUFFER = MAXIMUM_PDU + 4096  # bytes; a PDU of that size, and the beginning of another
_HEADER = 6  # bytes of a PDU before its variable part (PS3.8 9.3)
_LINGER_S = 0.001  # what pynetdicom gives a peer in Sta13 to say more before the connection is closed

# States of the upper layer (PS3.8 9.2.1)
_IDLE, _AWAITING_REQUEST, _DATA_TRANSFER, _AWAITING_CLOSE = "Sta1", "Sta2", "Sta6", "Sta13"
_NOT_ASSOCIATED = (_IDLE, _AWAITING_REQUEST, "Sta3", "Sta4", "Sta5")
_ARTIM_RUNS = (_AWAITING_REQUEST, _AWAITING_CLOSE)

# Events (PS3.8 9.2.2)
_CONNECTION_CLOSED, _ARTIM_EXPIRED, _INVALID_PDU = "Evt17", "Evt18", "Evt19"

_P_DATA_TYPE = 0x04
_PDU_TYPES = range(0x01, 0x08)


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
        if held >= _HEADER:
            kind, length = struct.unpack_from(">BxL", self._buffer, self._begin)
            if kind not in _PDU_TYPES:
                self._take(_HEADER)
                raise UnrecognisedPdu(f"a PDU of type 0x{kind:02X}")
            if length > _LARGEST_PDU:
                raise OSError(f"a PDU of {length} bytes was announced, at most {_LARGEST_PDU} are taken")
            if held >= _HEADER + length:
                return self._take(_HEADER + length)
            self._make_room(_HEADER + length)
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
        self._make_room(_HEADER)
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


class UpperLayer(DULServiceProvider):
    """pynetdicom's upper layer, pumped by the association's thread; its state machine and its negotiation are as they
    were. P-DATA is written and read past them while data are transferred (DT-1 and DT-2 only pass them on).
    """

    _begun = False

    def start(self) -> None:
        """Begin; there is no thread."""
        self._begun = True
        self._idle_timer.start()
        self.assoc._dul_ready.set()

    def is_alive(self) -> bool:
        return self._begun and not self._kill_thread

    def stop_dul(self) -> bool:
        """Called by pynetdicom to end the association: pump until the connection is closed."""
        while self.is_alive() and self.state_machine.current_state != _IDLE:
            self.pump(math.inf)
        self.kill_dul()
        return True

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        if wait:
            self.wait_for(lambda: bool(self.to_user_queue.queue), math.inf if timeout is None else timeout)
        return super().receive_pdu(wait=False)

    def send_pdu(self, primitive: Any) -> None:
        """Send at once what this side asks for, unless the association's state has gone past it."""
        super().send_pdu(primitive)
        self._act()

    def wait_for(self, came: Callable[[], bool], timeout_s: float) -> None:
        """Pump until ``came()``, the end of the association, or ``timeout_s``; without time, look at one PDU."""
        until_s = time.monotonic() + timeout_s
        while not came() and self.is_alive():
            self.pump(until_s - time.monotonic())
            if time.monotonic() >= until_s:
                return

    def pump(self, timeout_s: float) -> None:
        """Wait for one PDU or one timer, ``timeout_s`` at most, and act upon it."""
        self._act()
        if not self.is_alive():
            return
        sock = cast(PduSocket, self.socket)
        try:
            if not self._take_pdu(sock):
                sock.receive(min(timeout_s, self._patience_s(sock)))
                if not self._take_pdu(sock):
                    self._check_timers(sock)
        except UnrecognisedPdu:
            self.event_queue.put(_INVALID_PDU)
        except OSError:
            self.event_queue.put(_CONNECTION_CLOSED)
        self._act()

    def _patience_s(self, sock: PduSocket) -> float:
        """Seconds until something has to happen although nothing arrives."""
        state, due_s = self.state_machine.current_state, sock.pdu_due_s
        if state == _AWAITING_CLOSE and due_s == math.inf:
            return _LINGER_S
        return min(due_s, self.artim_timer.remaining) if state in _ARTIM_RUNS else due_s

    def _check_timers(self, sock: PduSocket) -> None:
        state, due_s = self.state_machine.current_state, sock.pdu_due_s
        if due_s <= 0:
            raise TimeoutError("the peer stopped in the middle of a PDU, or was too slow")
        if state == _AWAITING_CLOSE and due_s == math.inf:
            sock.close()  # Evt17
        elif state in _ARTIM_RUNS and self.artim_timer.expired:
            self.event_queue.put(_ARTIM_EXPIRED)

    def _take_pdu(self, sock: PduSocket) -> bool:
        if sock.hung_up:
            raise ConnectionAbortedError("the connection was closed by this side")
        pdu = sock.next_pdu()
        if pdu is None:
            return False
        self._idle_timer.restart()
        if pdu[0] == _P_DATA_TYPE and self.state_machine.current_state == _DATA_TRANSFER:
            cast(Any, self.assoc.dimse).receive_values(_data_values(pdu))
        else:
            self._take_control(bytearray(pdu))
        return True

    def _take_control(self, encoded: bytearray) -> None:
        try:
            pdu, event = self._decode_pdu(encoded)
            pdu.to_primitive()
        except Exception:  # pynetdicom raises anything on bytes that are no PDU; its own reactor does the same
            self.event_queue.put(_INVALID_PDU)
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _act(self) -> None:
        """Let the state machine do what has happened, then what this side asks for."""
        while self.is_alive() and (self.event_queue.queue or self._asked()):
            self.state_machine.do_action(self.event_queue.get_nowait())

    def _asked(self) -> bool:
        """Turn the first primitive of this side into its event; drop those that come too late for the state."""
        while self._process_recv_primitive():
            event = self.event_queue.queue[-1]
            if (event, self.state_machine.current_state) in TRANSITION_TABLE:
                return True
            self.event_queue.get_nowait()
            self.to_provider_queue.get_nowait()
        return False


def _data_values(pdu: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The presentation data values of a P-DATA-TF PDU: context ID, then control header and fragment (PS3.8 9.3.5).

    Raises ValueError when they do not fill it.
    """
    at = _HEADER
    while at < len(pdu):
        end = at + 4 + int.from_bytes(pdu[at : at + 4], "big")
        if end < at + 6 or end > len(pdu):
            raise ValueError("presentation data values do not fit their PDU")
        yield pdu[at + 4], pdu[at + 5 : end]
        at = end
