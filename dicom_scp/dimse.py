"""DIMSE messages as they arrive, one PDV at a time, so that no data set has to be held (PS3.7 6.3, PS3.8 Annex E)."""

import logging
import queue
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

from pydicom.dataset import Dataset
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from dicom_scp.status import Answer

LOGGER = logging.getLogger(__name__)

_LARGEST_MESSAGE = 1 << 20  # bytes of a command and of an identifier; a C-STORE's data set goes elsewhere
_MOST_WAITING = 16  # requests; asynchronous operations are not negotiated, so more than one is already wrong
_MOST_CANCELS = 10
_COMMAND = 0x01  # bit of a Message Control Header (PS3.8 E.2)

_Message = TypeVar("_Message", bound=C_ECHO | C_STORE | C_FIND | C_GET | C_MOVE)


def response_to(request: _Message, answer: Answer) -> _Message:
    """The response to a DIMSE-C request, without what its service adds (PS3.7 9.3)."""
    response = type(request)()
    response.MessageIDBeingRespondedTo = request.MessageID
    response.AffectedSOPClassUID = request.AffectedSOPClassUID
    response.Status = answer.status
    if answer.comment is not None:
        response.ErrorComment = str(answer.comment)  # type: ignore[assignment]  # pynetdicom declares it as None only
    return response


class Sink(BytesIO):
    """Takes a data set while it arrives, keeping none of it; stands where pynetdicom has its buffer."""

    def discard(self) -> None:
        """Forget the object. Harmless when it was accepted or discarded already."""
        raise NotImplementedError


class DimseProvider(DIMSEServiceProvider):
    """Receives messages; ``open_sink`` is asked for a Sink when the command of a C-STORE request is complete."""

    open_sink: Callable[[PresentationContext, Dataset], Sink] | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        for context_id, fragment in primitive.presentation_data_value_list:
            try:
                self._receive_fragment(context_id, fragment)
            except Exception as error:
                # pynetdicom and pydicom raise anything on bytes that are no message; the association ends here (Evt19)
                # instead of the reactor's thread. By type only: their texts quote what arrived.
                LOGGER.warning("what arrived is no DIMSE message (%s): aborting the association", type(error).__name__)
                self._discard_unfinished()
                self.dul.event_queue.put("Evt19")
                return

    def _receive_fragment(self, context_id: int, fragment: bytes) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
        message = self.message
        if isinstance(message.data_set, Sink) and fragment[0] & _COMMAND:
            # pynetdicom would take it for a new message and let go of the sink (PS3.7 6.3.1: one command a message).
            raise ValueError("a command in the middle of a C-STORE's data set")
        single = P_DATA()
        single.presentation_data_value_list.append((context_id, fragment))
        if message.decode_msg(single, self.assoc):
            self._deliver(message)
            self.message = None
        elif isinstance(message, C_STORE_RQ) and not isinstance(message.data_set, Sink):
            self._attach_sink(message)
        elif message.encoded_command_set.tell() + self._held(message) > _LARGEST_MESSAGE:
            raise ValueError(f"a message that is no C-STORE has more than {_LARGEST_MESSAGE} bytes")

    def _attach_sink(self, message: DIMSEMessage) -> None:
        if self.open_sink is None or self._held(message):
            raise ValueError("a C-STORE request nobody takes here, or one with data before its command")
        message.data_set = self.open_sink(self.assoc._accepted_cx[message.context_id or 0], message.command_set)

    def _deliver(self, message: DIMSEMessage) -> None:
        request = message.message_to_primitive()
        if isinstance(request, C_CANCEL):
            if len(self.cancel_req) < _MOST_CANCELS:
                self.cancel_req[request.MessageIDBeingRespondedTo or 0] = request
            return
        if self.msg_queue.qsize() >= _MOST_WAITING:
            raise ValueError(f"{_MOST_WAITING} requests wait already and asynchronous operations were not negotiated")
        # A cancel that arrived before its request belongs to an earlier one with the same Message ID.
        self.cancel_req.pop(getattr(request, "MessageID", None) or 0, None)
        self.msg_queue.put((message.context_id or 0, request))

    @staticmethod
    def _held(message: DIMSEMessage) -> int:
        return 0 if message.data_set is None else message.data_set.tell()

    def next_message(self, timeout_s: float) -> tuple[int | None, Any]:
        """The next message with its context ID; (None, None) after ``timeout_s``, or when the association ends."""
        try:
            return self.msg_queue.get(timeout=timeout_s)
        except queue.Empty:
            return None, None

    def discard(self, message: Any) -> None:
        """Discard what a message brought, if it is a C-STORE request that is not going to be served."""
        data_set = getattr(message, "DataSet", None) or getattr(message, "data_set", None)
        if isinstance(data_set, Sink):
            data_set.discard()

    def discard_unserved(self) -> None:
        """Discard the unfinished message and all that wait, at the end of an association when nothing can arrive."""
        self._discard_unfinished()
        while not self.msg_queue.empty():
            self.discard(self.get_msg()[1])

    def _discard_unfinished(self) -> None:
        message, self.message = self.message, None
        self.discard(message)
