"""One association over pynetdicom: its requests go to handlers by a plain table, its data sets are streamed."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast
from uuid import uuid4

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from dicom_scp.dimse import DimseProvider
from dicom_scp.pdu_socket import AssociationLost, PduSocket
from dicom_scp.ports import Peer
from dicom_scp.upper_layer import UpperLayer
from orthanc_ledger.arrival import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from orthanc_ledger.errors import CustodyError

LOGGER = logging.getLogger(__name__)

_ACSE_TIMEOUT_S = 30
_CONNECTION_TIMEOUT_S = 10

Handler = Callable[["DicomAssociation", Any, PresentationContext], None]


class Cancelled(CustodyError):
    """The peer asked to end an operation (C-CANCEL, PS3.7 9.3.2.3)."""


def application_entity(ae_title: str, network_timeout_s: float, dimse_timeout_s: float) -> ApplicationEntity:
    """This node as an AE. ``network_timeout_s`` of silence ends its associations, ``dimse_timeout_s`` bounds the
    wait for a response.
    """
    ae = ApplicationEntity(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.network_timeout, ae.dimse_timeout = network_timeout_s, dimse_timeout_s
    ae.acse_timeout, ae.connection_timeout = _ACSE_TIMEOUT_S, _CONNECTION_TIMEOUT_S
    return ae


class DicomAssociation(Association):
    """An association whose requests are served by ``handlers``, DIMSE primitive class → function.

    ``peer`` is None until the acceptor has admitted the requestor: nothing is served before. ``ended`` is called once,
    when the association's thread ends.
    """

    dimse: DimseProvider
    dul: UpperLayer

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
            self._end()
            if self._ended is not None:
                self._ended(self)

    def _end(self) -> None:
        self.pdu_socket.hang_up()
        if self.dul.is_alive():
            self.kill()
        self.pdu_socket.close()
        self.dimse.discard_unserved()

    def _run_reactor(self) -> None:
        """Serve until the association ends: woken by what arrives, by its end, and by silence that lasts too long."""
        while not self._kill:
            silence_s = math.inf if self.network_timeout is None else self.dul._idle_timer.remaining
            context_id, request = self.dimse.next_message(silence_s)
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
        except Exception as error:
            # By type only, as its text may quote a patient's data.
            LOGGER.error(
                "serving %s for %s failed (%s): aborting the association",
                msg.msg_type,
                self.peer.ae_title,
                type(error).__name__,
                exc_info=LOGGER.isEnabledFor(logging.DEBUG),
            )
            self.abort()
        finally:
            self.dimse.cancel_req.clear()
            # A long retrieve receives little: its end must not look like silence.
            self.dul._idle_timer.restart()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone, so that nothing can be sent, by what has arrived."""
        self.dul.pump(0)
        return not self.dul.is_alive() or self.acse.is_aborted()

    def finish(self) -> None:
        """End an association that this node requested: release it, or take down what is left of it."""
        if self.is_established and not self.is_lost:
            self.acse.negotiate_release()
        self._end()

    def is_cancelled(self, message_id: int) -> bool:
        """Whether the peer asked to end the operation with this Message ID (PS3.7 9.3.2.3), by what has arrived."""
        self.dul.pump(0)
        return message_id in self.dimse.cancel_req

    def check_awaited(self, message_id: int) -> None:
        """Raises Cancelled, AssociationLost when nobody waits for the rest of the operation with this Message ID."""
        if self.is_cancelled(message_id):
            raise Cancelled("the peer cancelled the operation")
        if self.is_lost:
            raise AssociationLost("the peer left while its request was worked on")

    def store(
        self, request: C_STORE, context_id: int, data_set: BinaryIO, meanwhile: Callable[[], None] = lambda: None
    ) -> int:
        """Send one C-STORE with its encoded data set; the status of the response.

        ``meanwhile`` is called between the last byte and waiting for the response, while the peer has work to do. Holds
        one block of PDUs in memory. Raises AssociationLost when the peer is gone or does not answer within the DIMSE
        timeout; any error in the middle of the data set closes the connection, since the message cannot be taken back.
        """
        try:
            self.dimse.send_streamed(request, context_id, data_set)
            meanwhile()
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
