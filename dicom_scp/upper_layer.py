"""The upper layer below an association: whole PDUs on the socket, written by whoever has them (PS3.8 9).

pynetdicom hands every outgoing P-DATA-TF to a queue without bound. Here it is written to the socket by the calling
thread, so that a slow peer slows the reader of a 2 GB object down instead of filling memory.
"""

import queue
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import A_RELEASE, P_DATA
from pynetdicom.transport import AddressInformation, AssociationSocket

from orthanc_ledger.errors import ServiceAway

_LARGEST_PDU = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts fits; a length beyond it is an attack or noise
_POLL_MS = 1
_IDLE_POLL_MS = 100

# States of the upper layer (PS3.8 9.2.1). The reactor may read before it has entered the state of a new connection.
_AWAITING_REQUEST, _DATA_TRANSFER, _AWAITING_CLOSE = "Sta2", "Sta6", "Sta13"
_NOT_ASSOCIATED = ("Sta1", _AWAITING_REQUEST, "Sta3", "Sta4", "Sta5")


class AssociationLost(ServiceAway):
    """The peer is gone, aborted, silent beyond the timeout, or broke the protocol; nothing more can be sent to it."""


class PduSocket(AssociationSocket):
    """pynetdicom's socket with whole-PDU writes from several threads, bounded reads and no Nagle delay."""

    def __init__(
        self,
        assoc: Association,
        client_socket: socket.socket | None = None,
        address: AddressInformation | None = None,
    ) -> None:
        super().__init__(assoc, client_socket, address)
        self._writing = threading.Lock()
        self._pdu_ends_s = 0.0
        if client_socket is not None:
            self._tune()

    def _tune(self) -> None:
        if self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(self.assoc.dimse_timeout)
            self._connected_s = time.monotonic()

    def connect(self, primitive: Any) -> None:
        super().connect(primitive)
        self._tune()

    @property
    def ready(self) -> bool:
        """Whether data can be read, waiting a moment for it: the reactor wakes with the data, not after a sleep."""
        if self.socket is None or not self._is_connected:
            return False
        poller = select.poll()
        try:
            poller.register(self.socket, select.POLLIN)
            # In these states nothing of this side passes through the reactor, which may sleep longer.
            idle = self._state in (_AWAITING_REQUEST, _DATA_TRANSFER)
            return bool(poller.poll(_IDLE_POLL_MS if idle else _POLL_MS))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    @property
    def _state(self) -> str:
        return self.assoc.dul.state_machine.current_state

    def begin_pdu(self) -> None:
        """Set the moment by which the PDU that now begins must be here, however slowly its bytes drip.

        A peer that has not associated has the ACSE timeout from its connection on; in an association, a PDU has the
        network timeout, as silence has.
        """
        if self._state in _NOT_ASSOCIATED:
            begun_s, timeout_s = self._connected_s, self.assoc.acse_timeout
        elif self._state == _AWAITING_CLOSE:
            begun_s, timeout_s = time.monotonic(), self.assoc.acse_timeout
        else:
            begun_s, timeout_s = time.monotonic(), self.assoc.network_timeout
        self._pdu_ends_s = begun_s + cast(float, timeout_s)

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly ``nr_bytes``, fewer if the connection was closed.

        Raises OSError for a PDU beyond all reason; TimeoutError after silence, or when the PDU's time is over.
        """
        if nr_bytes > _LARGEST_PDU:
            raise OSError(f"a PDU of {nr_bytes} bytes was announced, at most {_LARGEST_PDU} are taken")
        received = bytearray(nr_bytes)
        view, filled = memoryview(received), 0
        while filled < nr_bytes:
            count = self._receive_some(view[filled:])
            if not count:
                break
            filled += count
        view.release()
        del received[filled:]
        return received

    def _receive_some(self, buffer: memoryview) -> int:
        sock, poller = cast(socket.socket, self.socket), select.poll()
        left_s = min(self._pdu_ends_s - time.monotonic(), cast(float, self.assoc.dimse_timeout))
        try:
            poller.register(sock, select.POLLIN)
        except ValueError as error:
            raise OSError("the connection was closed by this side") from error
        if left_s <= 0 or not poller.poll(left_s * 1000):
            raise TimeoutError("the peer stopped in the middle of a PDU, or was too slow")
        return sock.recv_into(buffer)

    def send(self, bytestream: bytes) -> None:
        try:
            self.write(bytestream)
        except AssociationLost:
            self.event_queue.put("Evt17")

    def write(self, pdu: bytes | memoryview) -> None:
        """Write one whole PDU. Raises AssociationLost; the connection is closed then, as half a PDU may be out."""
        sock = self.socket
        if sock is None:
            raise AssociationLost("the association is closed")
        try:
            with self._writing:
                sock.sendall(pdu)
        except OSError as error:
            self.hang_up()
            raise AssociationLost(f"writing to the peer failed: {error}") from error

    def hang_up(self) -> None:
        """Close the connection without a word; the upper layer notices (Evt17) and ends the association."""
        self._shutdown_socket()

    def _shutdown_socket(self) -> None:
        """Close the socket also when the peer was faster, where pynetdicom's own leaves it open."""
        sock = self.socket  # the reactor's thread may forget it meanwhile
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class _Indications(queue.Queue[Any]):
    """What the upper layer tells its user. A release wakes who waits for messages, as pynetdicom's aborts do."""

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if isinstance(item, A_RELEASE):
            self._assoc.dimse.msg_queue.put((None, None))


class UpperLayer(DULServiceProvider):
    """pynetdicom's reactor, except that P-DATA is written at once by the calling thread (PS3.8 9.3.5)."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._run_loop_delay = 0.0001  # the waiting is done in PduSocket.ready
        self.to_user_queue = _Indications(assoc)

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            # Wakes an acceptor that still waits for the A-ASSOCIATE-RQ of a connection that is gone.
            self.to_user_queue.put(None)  # read as "nothing came"

    def _read_pdu_data(self) -> None:
        cast(PduSocket, self.socket).begin_pdu()
        super()._read_pdu_data()

    def send_pdu(self, primitive: Any) -> None:
        if isinstance(primitive, P_DATA):
            cast(PduSocket, self.socket).write(P_DATA_TF(primitive).encode())
        else:
            super().send_pdu(primitive)
