"""One association over pynetdicom: its socket, its upper layer, and who may call what on it.

pynetdicom hands every outgoing P-DATA-TF to a queue without bound, and every incoming message to a service class as a
whole. Here P-DATA is written to the socket by the thread that has it (so a slow peer slows the reader of a 2 GB object
down instead of filling memory), and requests go to handlers by a plain table.
"""

import logging
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, cast
from uuid import uuid4

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import A_RELEASE, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_scp.dimse import DimseProvider
from dicom_scp.ports import Peer
from orthanc_ledger.errors import ServiceAway

LOGGER = logging.getLogger(__name__)

MAXIMUM_PDU = 1 << 17  # bytes; what this node offers to receive, and the most it sends whatever the peer would take
_LARGEST_PDU = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts fits; a length beyond it is an attack or noise
_POLL_MS = 1
_IDLE_S = 0.1

Handler = Callable[["DicomAssociation", Any, PresentationContext], None]


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
            return bool(poller.poll(_IDLE_S * 1000 if transferring else _POLL_MS))
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


class DicomAssociation(Association):
    """An association whose requests are served by ``handlers``, DIMSE primitive class → function.

    ``peer`` is None until the acceptor has admitted the requestor: nothing is served before. ``ended`` is called once,
    when the association's thread ends.
    """

    dimse: DimseProvider

    def __init__(
        self,
        ae: ApplicationEntity,
        mode: str,
        handlers: Mapping[type, Handler] | None = None,
        ended: Callable[["DicomAssociation"], None] | None = None,
    ) -> None:
        super().__init__(ae, mode)
        self.identity = uuid4().bytes
        self.peer: Peer | None = None
        self._table = handlers or {}
        self._ended = ended
        self.dul = UpperLayer(self)
        self.dimse = DimseProvider(self)
        # The timers live in the upper layer that was just replaced.
        self.acse_timeout = ae.acse_timeout
        self.network_timeout = ae.network_timeout

    def _bind_defaults(self) -> None:
        """Only what negotiation asks for: pynetdicom's own log handlers would spell out patients' data."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    @property
    def pdu_socket(self) -> PduSocket:
        return cast(PduSocket, self.dul.socket)

    def run_reactor(self) -> None:
        """Run to the end of the association; whatever arrived and was not answered is discarded then."""
        try:
            super().run_reactor()
        finally:
            self.pdu_socket.hang_up()
            if self.dul.is_alive():
                self.kill()
            self.dimse.discard_unserved()
            if self._ended is not None:
                self._ended(self)

    def _run_reactor(self) -> None:
        """Serve until the association ends: woken by messages, by its end, and now and then for the idle timer.

        pynetdicom's own loop asks a thousand times a second, and so takes a whole core for a hundred silent scanners.
        """
        while not self._kill:
            context_id, request = self.dimse.next_message(_IDLE_S)
            if request is not None:
                self._serve_request(request, context_id or 0)
            elif self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released, self.is_established = True, False
                self.kill()
            elif self.acse.is_aborted() or not self.dul.is_alive():
                self.is_aborted, self.is_established = True, False
                self.kill()
            elif self.dul.idle_timer_expired():
                LOGGER.warning("nothing was heard for %s s: aborting the association", self.network_timeout)
                self.abort()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        handler, context = self._table.get(type(msg)), self._accepted_cx.get(context_id)
        if self.peer is None or handler is None or context is None or not msg.is_valid_request:
            LOGGER.warning("%s is not served here, is incomplete, or has no accepted context: aborting", msg.msg_type)
            self.dimse.discard(msg)
            self.abort()
            return
        try:
            handler(self, msg, context)
        except AssociationLost as lost:
            LOGGER.info("association with %s lost: %s", self.peer.ae_title, lost)
            self.pdu_socket.hang_up()
        except Exception:
            LOGGER.exception("serving %s for %s failed: aborting the association", msg.msg_type, self.peer.ae_title)
            self.abort()
        finally:
            self.dimse.cancel_req.clear()
            # A long retrieve receives little: its end must not look like silence.
            self.dul._idle_timer.restart()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone, so that nothing can be sent."""
        return not self.dul.is_alive() or self.acse.is_aborted()

    def finish(self) -> None:
        """End an association that this node requested: release it, or take down what is left of it."""
        if self.is_established and not self.is_lost:
            self.acse.negotiate_release()
        self.pdu_socket.hang_up()
        if self.dul.is_alive():
            self.kill()
        self.dimse.discard_unserved()

    def is_cancelled(self, message_id: int) -> bool:
        """Whether the peer asked to end the operation with this Message ID (PS3.7 9.3.2.3)."""
        return message_id in self.dimse.cancel_req

    def store(self, request: C_STORE, context_id: int, data_set: BinaryIO) -> int:
        """Send one C-STORE with its encoded data set; the status of the response.

        Holds one PDU in memory. Raises AssociationLost when the peer is gone or does not answer within the DIMSE
        timeout; any error in the middle of the data set closes the connection, since the message cannot be taken back.
        """
        self.dimse.send_msg(request, context_id)
        try:
            self._stream(context_id, data_set)
            _, response = self.dimse.get_msg(block=True)
        except BaseException:
            self.pdu_socket.hang_up()
            raise
        if (
            not isinstance(response, C_STORE)
            or response.Status is None
            or (response.MessageIDBeingRespondedTo != request.MessageID)
        ):
            self.dimse.discard(response)
            self.pdu_socket.hang_up()
            raise AssociationLost(f"no C-STORE response within {self.dimse_timeout} s, or another message instead")
        return response.Status

    def _stream(self, context_id: int, data_set: BinaryIO) -> None:
        """Write the data set as P-DATA-TF PDUs of one PDV each (PS3.8 9.3.5, Annex E)."""
        limit = min(self.dimse.maximum_pdu_size or MAXIMUM_PDU, MAXIMUM_PDU)
        pdu = memoryview(bytearray(6 + limit))
        room = pdu[12:]
        fragment = data_set.read(len(room))
        while fragment:
            following = data_set.read(len(room))
            room[: len(fragment)] = fragment
            last = 0x00 if following else 0x02
            struct.pack_into(">BBLLBB", pdu, 0, 0x04, 0, len(fragment) + 6, len(fragment) + 2, context_id, last)
            self.pdu_socket.write(pdu[: 12 + len(fragment)])
            fragment = following
