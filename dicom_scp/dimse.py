"""DIMSE messages as they arrive, one PDV at a time, so that no data set has to be held (PS3.7 6.3, PS3.8 Annex E)."""

import logging
import queue
import struct
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, BinaryIO, TypeVar, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from dicom_scp.command import Primitive, data_set_keyword, decode_command, encode_command
from dicom_scp.pdu_socket import MAXIMUM_PDU, PduSocket
from dicom_scp.status import Answer
from dicom_scp.upper_layer import UpperLayer

LOGGER = logging.getLogger(__name__)

_LARGEST_MESSAGE = 1 << 16  # bytes of a command and of an identifier; a C-STORE's data set goes elsewhere
_MOST_WAITING = 2  # requests; asynchronous operations are not negotiated, so more than one is already wrong
_MOST_CANCELS = 10
_COMMAND, _LAST = 0x01, 0x02  # bits of a Message Control Header (PS3.8 E.2)
_VALUE_HEADER = 6  # bytes of a presentation data value before its fragment
# PS3.8 D.1 lets a peer take PDUs as small as it likes, and A-ASSOCIATE-RJ has no reason for that. Yet hardly a command
# fits into less than this, and one peer that takes a byte each would keep this process from all others.
_LEAST_PDU = 128

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

    open_sink: Callable[[PresentationContext, C_STORE], Sink] | None = None

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._command = bytearray()
        self._arriving: tuple[Primitive, BytesIO] | None = None  # the message and its data set
        self._context_id: int | None = None  # of the message that is not whole yet
        self._waiting: list[bytes] = []  # PDUs to be sent with the next message

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Called by pynetdicom for P-DATA outside data transfer (AR-6)."""
        self.receive_values(primitive.presentation_data_value_list)

    def receive_values(self, values: Iterable[tuple[int, bytes | memoryview]]) -> None:
        """Take presentation data values: context ID, then message control header and fragment (PS3.8 E.2)."""
        try:
            for context_id, value in values:
                self._receive_value(context_id, value)
        except (ValueError, TypeError) as error:
            # What raises is a command set or pynetdicom's primitive. By type only: their texts quote what arrived.
            LOGGER.warning("what arrived is no DIMSE message (%s): aborting the association", type(error).__name__)
            self._discard_unfinished()
            self.dul.event_queue.put("Evt19")

    def _receive_value(self, context_id: int, value: bytes | memoryview) -> None:
        if not value:
            raise ValueError("a presentation data value without a message control header")
        if self._context_id not in (None, context_id):
            raise ValueError("a message on two presentation contexts")
        self._context_id = context_id
        control, fragment = value[0], value[1:]
        if control & _COMMAND:
            self._receive_command(context_id, fragment, last=bool(control & _LAST))
            return
        if self._arriving is None:
            raise ValueError("data before its command")
        message, data_set = self._arriving
        data_set.write(fragment)
        if not isinstance(data_set, Sink) and data_set.tell() > _LARGEST_MESSAGE:
            raise ValueError(f"a message that is no C-STORE has more than {_LARGEST_MESSAGE} bytes")
        if control & _LAST:
            self._arriving = None
            self._deliver(context_id, message)

    def _receive_command(self, context_id: int, fragment: bytes | memoryview, last: bool) -> None:
        if self._arriving is not None:
            raise ValueError("a command in the middle of a data set")  # PS3.7 6.3.1: one command a message
        self._command += fragment
        if len(self._command) > _LARGEST_MESSAGE:
            raise ValueError(f"a command of more than {_LARGEST_MESSAGE} bytes")
        if last:
            message, data_set_follows = decode_command(bytes(self._command))
            self._command.clear()
            if data_set_follows:
                self._arriving = message, self._place_for(context_id, message)
            else:
                self._deliver(context_id, message)

    def _place_for(self, context_id: int, message: Primitive) -> BytesIO:
        """Where a message's data set goes while it arrives."""
        keyword = data_set_keyword(message)
        if keyword is None:
            raise ValueError("a data set behind a command that has none")
        if isinstance(message, C_STORE) and message.MessageIDBeingRespondedTo is None:
            context = self.assoc._accepted_cx.get(context_id)
            if self.open_sink is None or context is None:
                raise ValueError("a C-STORE request nobody takes here, or on a context that was not accepted")
            message.DataSet = self.open_sink(context, message)
        place: BytesIO = getattr(message, keyword)
        return place

    def _deliver(self, context_id: int, message: Primitive) -> None:
        self._context_id = None
        if isinstance(message, C_CANCEL):
            if len(self.cancel_req) < _MOST_CANCELS:
                self.cancel_req[message.MessageIDBeingRespondedTo or 0] = message
            return
        if self.msg_queue.qsize() >= _MOST_WAITING:
            self.discard(message)
            raise ValueError(f"{_MOST_WAITING} requests wait already and asynchronous operations were not negotiated")
        # A cancel that arrived before its request belongs to an earlier one with the same Message ID.
        self.cancel_req.pop(message.MessageID or 0, None)
        self.msg_queue.put((context_id, message))

    def get_msg(self, block: bool = False) -> Any:
        """The next message with its context ID; when ``block``, waits for it up to the DIMSE timeout."""
        return self.next_message((self.dimse_timeout or 0.0) if block else 0.0)

    def next_message(self, timeout_s: float) -> tuple[int | None, Any]:
        """The next message with its context ID; (None, None) after ``timeout_s``, or when the association ends."""
        cast(UpperLayer, self.dul).wait_for(self._something_came, timeout_s)
        try:
            return self.msg_queue.get_nowait()
        except queue.Empty:
            return None, None

    def _something_came(self) -> bool:
        return bool(self.msg_queue.queue or self.dul.to_user_queue.queue)

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message whole, behind what waits to be sent. Raises AssociationLost."""
        self._send(self._encode_message(primitive, context_id))

    def send_with_next(self, primitive: Any, context_id: int) -> None:
        """Send a message in one write with the next, so that the peer wakes once for both; one at most waits."""
        self._send([])
        self._waiting = self._encode_message(primitive, context_id)

    def send_streamed(self, request: C_STORE, context_id: int, data_set: BinaryIO) -> None:
        """Send a C-STORE request with a data set that is read on the way, a block of PDUs in memory.

        Raises AssociationLost, and whatever reading does: the message is broken off then.
        """
        block = max(MAXIMUM_PDU // self._largest_fragment, 1) * self._largest_fragment
        pdus, encoded = self._encode(context_id, _COMMAND, encode_command(request, True)), data_set.read(block)
        while True:
            following = data_set.read(block)
            self._send(pdus + self._encode(context_id, 0, encoded, last=not following))
            if not following:
                return
            pdus, encoded = [], following

    def _send(self, pdus: list[bytes]) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting or pdus:
            cast(PduSocket, self.dul.socket).write(*waiting, *pdus)

    def _encode_message(self, message: Primitive, context_id: int) -> list[bytes]:
        keyword = data_set_keyword(message)
        data_set = getattr(message, keyword) if keyword is not None else None
        pdus = self._encode(context_id, _COMMAND, encode_command(message, data_set is not None))
        return pdus if data_set is None else pdus + self._encode(context_id, 0, data_set.getvalue())

    def _encode(self, context_id: int, kind: int, encoded: bytes, last: bool = True) -> list[bytes]:
        """P-DATA-TF PDUs, each in two parts, of one value each; ``last``: they end the command or data set."""
        most, pdus = self._largest_fragment, []
        for start in range(0, len(encoded) or 1, most):
            fragment = encoded[start : start + most]
            control = kind | _LAST if last and start + most >= len(encoded) else kind
            pdus += [_value_header(context_id, control, len(fragment)), fragment]
        return pdus

    @property
    def _largest_fragment(self) -> int:
        """Bytes of a message in one PDU: what the peer takes, at most what this node offers to take itself."""
        return max(min(self.maximum_pdu_size or MAXIMUM_PDU, MAXIMUM_PDU), _LEAST_PDU) - _VALUE_HEADER

    def discard(self, message: Any) -> None:
        """Discard what a message brought, if it is a C-STORE request that is not going to be served."""
        data_set = getattr(message, "DataSet", None)
        if isinstance(data_set, Sink):
            data_set.discard()

    def discard_unserved(self) -> None:
        """Discard the unfinished message and all that wait, at the end of an association when nothing can arrive."""
        self._discard_unfinished()
        while self.msg_queue.queue:
            self.discard(self.msg_queue.get_nowait()[1])

    def _discard_unfinished(self) -> None:
        if self._arriving is not None:
            self.discard(self._arriving[0])
        self._arriving = self._context_id = None
        self._command.clear()


def _value_header(context_id: int, control: int, size: int) -> bytes:
    """What stands before a fragment of ``size`` bytes that is alone in its P-DATA-TF PDU (PS3.8 9.3.5, E.2)."""
    return struct.pack(">BBLLBB", 0x04, 0, size + _VALUE_HEADER, size + 2, context_id, control)
