"""The upper layer below an association: whole PDUs on the socket, written by whoever has them (PS3.8 9).

pynetdicom hands every outgoing P-DATA-TF to a queue without bound. Here it is written to the socket by the calling
thread, so that a slow peer slows the reader of a 2 GB object down instead of filling memory.
"""

import queue
import select
import socket
import threading
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
        if client_socket is not None:
            self._tune()

    def _tune(self) -> None:
        if self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A peer that stops in the middle of a PDU must not hold a thread for ever.
            self.socket.settimeout(self.assoc.dimse_timeout)

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
            # Only while data is transferred does nothing of this side pass through the reactor, which may sleep longer.
            transferring = self.assoc.dul.state_machine.current_state == "Sta6"
            return bool(poller.poll(_IDLE_POLL_MS if transferring else _POLL_MS))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly ``nr_bytes``, fewer if the connection was closed. Raises OSError for a PDU beyond all reason."""
        if nr_bytes > _LARGEST_PDU:
            raise OSError(f"a PDU of {nr_bytes} bytes was announced, at most {_LARGEST_PDU} are taken")
        received = bytearray(nr_bytes)
        view, filled = memoryview(received), 0
        while filled < nr_bytes:
            count = cast(socket.socket, self.socket).recv_into(view[filled:])
            if not count:
                break
            filled += count
        view.release()
        del received[filled:]
        return received

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
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


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
            self.to_user_queue.put(None)  # type: ignore[arg-type]  # read as "nothing came"

    def send_pdu(self, primitive: Any) -> None:
        if isinstance(primitive, P_DATA):
            cast(PduSocket, self.socket).write(P_DATA_TF(primitive).encode())
        else:
            super().send_pdu(primitive)
