"""C-GET and C-MOVE over encoded data sets (PS3.4 C.4.2, C.4.3): stream what is stored, count, name what failed.

pynetdicom's own loop decodes every object and loses failed UIDs; here each object goes out bit for bit where the peer
takes its transfer syntax, and the final response is complete.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from typing import BinaryIO, Protocol

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE, C_STORE
from pynetdicom.presentation import PresentationContext

from dicom_scp import status
from dicom_scp.ahead import Ahead
from dicom_scp.association import Cancelled, DicomAssociation
from dicom_scp.contexts import GET_MODELS, MOVE_MODELS, wanted
from dicom_scp.dimse import response_to
from dicom_scp.identifier import BadIdentifier, encode_identifier, read_identifier, unique_keys
from dicom_scp.pdu_socket import AssociationLost
from dicom_scp.ports import Archive, Item, Peer, Plan
from dicom_scp.status import Answer
from dicom_scp.transcode import transcode
from orthanc_ledger.errors import ContentAway, CustodyError, DataError, LedgerAway
from orthanc_ledger.reasons import Reason

LOGGER = logging.getLogger(__name__)

_LONGEST_UI = 0xFFFE  # bytes of a value in explicit VR
_MOST_COUNTED = 0xFFFF  # counts are US (PS3.7 9.3.3)

Retrieve = C_GET | C_MOVE


class NoContext(DataError):
    """The peer accepted no presentation context that the object can be sent in."""


@dataclass(slots=True)
class Tally:
    """What became of the sub-operations so far. ``sent``: confirmed by the recipient, with or without a warning."""

    total: int
    sent: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    warnings: int = 0
    reason: Reason | None = None

    def fail(self, sop_instance: str, reason: Reason | None) -> None:
        self.failed.append(sop_instance)
        self.reason = self.reason or reason

    @property
    def remaining(self) -> int:
        return self.total - len(self.sent) - len(self.failed)


@dataclass(frozen=True, slots=True)
class Originator:
    """Who asked for a move: (0000,1030) and (0000,1031) of its C-STORE sub-operations."""

    ae_title: str
    message_id: int


@dataclass(frozen=True, slots=True)
class Channel:
    """An association to send on as SCU of C-STORE."""

    assoc: DicomAssociation
    originator: Originator | None = None
    _chosen: dict[tuple[str, str], PresentationContext] = field(default_factory=dict)

    def context_for(self, item: Item) -> PresentationContext:
        """The accepted context to send in: as stored, else native. Raises NoContext."""
        kind = item.sop_class, item.transfer_syntax
        if kind not in self._chosen:
            self._chosen[kind] = self._choose(item)
        return self._chosen[kind]

    def _choose(self, item: Item) -> PresentationContext:
        accepted = [
            context
            for context in self.assoc.accepted_contexts
            if context.abstract_syntax == item.sop_class and context.as_scu
        ]
        for syntax in wanted(item.transfer_syntax):
            for context in accepted:
                if context.transfer_syntax[:1] == [syntax]:  # a peer may accept a context and name none
                    return context
        raise NoContext(f"no presentation context accepted for {item.sop_class} stored as {item.transfer_syntax}")

    def store(
        self,
        item: Item,
        data_set: BinaryIO,
        context: PresentationContext,
        message_id: int,
        leave: Callable[[Item], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> int:
        """Send one object; the status of the C-STORE response.

        ``leave`` is called right before its first byte, ``meanwhile`` after its last one. Raises what these raise,
        AssociationLost, NotConvertible.
        """
        request = C_STORE()
        request.MessageID = message_id
        request.AffectedSOPClassUID = item.sop_class
        request.AffectedSOPInstanceUID = item.sop_instance
        request.Priority = 0
        request.DataSet = BytesIO()  # announces a data set; the association streams it
        if self.originator is not None:
            request.MoveOriginatorApplicationEntityTitle = self.originator.ae_title
            request.MoveOriginatorMessageID = self.originator.message_id
        with self._in_syntax(item, data_set, str(context.transfer_syntax[0])) as encoded:
            leave(item)
            return self.assoc.store(request, context.context_id or 0, encoded, meanwhile)

    def _in_syntax(self, item: Item, data_set: BinaryIO, syntax: str) -> AbstractContextManager[BinaryIO]:
        if syntax == item.transfer_syntax:
            return nullcontext(data_set)
        return closing(transcode(data_set, item.transfer_syntax, syntax))  # up to 48 MiB, let go at once


Routes = Iterator[tuple[Channel | None, Sequence[Item]]]


class Route(Protocol):
    """Opens the ways to a recipient, one after the other; None where an association could not be had."""

    def __call__(self, recipient: Peer, items: Sequence[Item], originator: Originator) -> Routes: ...


class Retriever:
    """Serves C-GET and C-MOVE. ``destinations`` are the AEs a move may name, ``route`` opens associations to them."""

    def __init__(self, archive: Archive, destinations: Collection[Peer], route: Route) -> None:
        self._archive = archive
        self._destinations = {peer.ae_title: peer for peer in destinations if peer.host and peer.port}
        self._route = route

    def serve_get(self, assoc: DicomAssociation, request: C_GET, context: PresentationContext) -> None:
        """Answer a C-GET request: the objects come back on the same association."""
        operation = _Operation(assoc, request, context)
        if assoc.peer is None or context.abstract_syntax not in GET_MODELS:
            operation.respond(status.SOP_CLASS_NOT_SUPPORTED)
            return
        self._serve(operation, assoc.peer, assoc.peer, lambda items: iter([(Channel(assoc), items)]))

    def serve_move(self, assoc: DicomAssociation, request: C_MOVE, context: PresentationContext) -> None:
        """Answer a C-MOVE request: no association is opened before the plan says that something may go."""
        operation = _Operation(assoc, request, context)
        if assoc.peer is None or context.abstract_syntax not in MOVE_MODELS:
            operation.respond(status.SOP_CLASS_NOT_SUPPORTED)
            return
        recipient = self._destinations.get((request.MoveDestination or "").strip())
        if recipient is None:
            operation.respond(self._unknown_destination(assoc.peer))
            return
        destination, originator = recipient, Originator(assoc.peer.ae_title, request.MessageID or 0)
        self._serve(operation, assoc.peer, destination, lambda items: self._route(destination, items, originator))

    def _unknown_destination(self, asker: Peer) -> Answer:
        """A research asker is not told which titles this node knows."""
        if asker.role != "research":
            return status.MOVE_DESTINATION_UNKNOWN
        self._archive.count_refusal(asker, Reason.DESTINATION)
        return status.retrieve_refusal(Reason.DESTINATION)

    def _serve(
        self, operation: "_Operation", asker: Peer, recipient: Peer, routes: Callable[[Sequence[Item]], Routes]
    ) -> None:
        try:
            level, query = unique_keys(operation.identifier(), operation.context)
            plan = self._archive.plan(asker, recipient, level, query, operation.check_awaited)
        except Cancelled:
            operation.respond(Answer(status.CANCELLED))
            return
        except BadIdentifier:
            self._archive.count_refusal(asker, Reason.BAD_IDENTIFIER)
            operation.respond(status.IDENTIFIER_REFUSED)
            return
        except LedgerAway:
            self._archive.count_refusal(asker, Reason.LEDGER_UNAVAILABLE)
            operation.respond(status.RETRIEVE_LEDGER_AWAY)
            return
        except ContentAway:
            operation.respond(status.RETRIEVE_AWAY)
            return
        tally = Tally(total=len(plan.items) + len(plan.withheld))
        try:
            cancelled = not plan.refused and not self._send(operation, plan, tally, routes)
        finally:
            plan.close()
            LOGGER.info(
                "%s to %s: %d sent, %d failed, %d not tried; %s",
                *(asker.ae_title, recipient.ae_title, len(tally.sent), len(tally.failed), tally.remaining),
                plan.refused or tally.reason or "nothing refused",
            )
        if plan.refused:
            operation.respond(status.retrieve_refusal(plan.refused))
        else:
            operation.conclude(tally, cancelled)

    def _send(
        self, operation: "_Operation", plan: Plan, tally: Tally, routes: Callable[[Sequence[Item]], Routes]
    ) -> bool:
        """Send what may go; False when the operation was cancelled."""
        for sop_instance, reason in plan.withheld.items():
            tally.fail(sop_instance, reason)
        for channel, items in routes(plan.items):
            with closing(Ahead(plan)) as ahead:
                for item, following in zip_longest(items, items[1:]):
                    if operation.cancelled:
                        return False
                    _send_item(channel, plan, ahead, item, following, tally)
                    operation.pending(tally)
        return True


def _send_item(
    channel: Channel | None, plan: Plan, ahead: Ahead, item: Item, following: Item | None, tally: Tally
) -> None:
    """One sub-operation, entered in the tally. With the association lost it fails, as each one after it, unopened."""
    try:
        if channel is None or channel.assoc.is_lost:
            raise AssociationLost("there is no association to the recipient")
        context = channel.context_for(item)
        message_id = (len(tally.sent) + len(tally.failed)) % _MOST_COUNTED + 1
        with ahead.open(item) as data_set:
            answered = channel.store(item, data_set, context, message_id, plan.leave, lambda: ahead.prepare(following))
    except CustodyError as error:
        LOGGER.debug("an object was not sent: %s", type(error).__name__)
        tally.fail(item.sop_instance, status.sub_operation_reason(error))
        return
    if status.is_stored(answered):
        tally.sent.append(item.sop_instance)
        tally.warnings += answered != status.SUCCESS
    else:
        LOGGER.debug("the recipient answered a C-STORE with 0x%04X", answered)
        tally.fail(item.sop_instance, None)


@dataclass(frozen=True, slots=True)
class _Operation:
    """One C-GET or C-MOVE: its request, and the responses to it (PS3.7 9.3.3, 9.3.4)."""

    assoc: DicomAssociation
    request: Retrieve
    context: PresentationContext

    def identifier(self) -> Dataset:
        return read_identifier(self.request.Identifier or BytesIO(), self.context)

    @property
    def cancelled(self) -> bool:
        return self.assoc.is_cancelled(self.request.MessageID or 0)

    def check_awaited(self) -> None:
        """Raises Cancelled, AssociationLost."""
        self.assoc.check_awaited(self.request.MessageID or 0)

    def respond(self, answer: Answer) -> None:
        """A final response without sub-operations: it tells nothing of what is held."""
        self._send(self._response(answer))

    def pending(self, tally: Tally) -> None:
        response = self._response(Answer(status.PENDING), tally)
        response.NumberOfRemainingSuboperations = min(tally.remaining, _MOST_COUNTED)
        if isinstance(self.request, C_GET):  # the next object or the final response goes the same way
            self.assoc.dimse.send_with_next(response, self.context.context_id or 0)
        else:
            self._send(response)

    def conclude(self, tally: Tally, cancelled: bool) -> None:
        """The final response; Remaining only when cancelled, every failed UID in any case."""
        if cancelled:
            code = status.CANCELLED
        else:
            code = status.retrieve_outcome(len(tally.sent) - tally.warnings, tally.warnings, len(tally.failed))
        response = self._response(Answer(code, tally.reason), tally)
        if cancelled:
            response.NumberOfRemainingSuboperations = min(tally.remaining, _MOST_COUNTED)
        if tally.failed:
            response.Identifier = encode_identifier(_failed_list(tally.failed), self.context)
        self._send(response)

    def _response(self, answer: Answer, tally: Tally | None = None) -> Retrieve:
        response: Retrieve = response_to(self.request, answer)
        if tally is not None:
            response.NumberOfCompletedSuboperations = min(len(tally.sent) - tally.warnings, _MOST_COUNTED)
            response.NumberOfWarningSuboperations = min(tally.warnings, _MOST_COUNTED)
            response.NumberOfFailedSuboperations = min(len(tally.failed), _MOST_COUNTED)
        return response

    def _send(self, response: Retrieve) -> None:
        self.assoc.dimse.send_msg(response, self.context.context_id or 0)


def _failed_list(sop_instances: Sequence[str]) -> Dataset:
    """(0008,0058), as UN when it does not fit the 16-bit length that UI has in explicit VR (PS3.5 6.2.2 note)."""
    identifier = Dataset()
    encoded = "\\".join(sop_instances).encode()
    if len(encoded) > _LONGEST_UI:
        identifier.add_new("FailedSOPInstanceUIDList", "UN", encoded + b"\0" * (len(encoded) % 2))
    else:
        identifier.FailedSOPInstanceUIDList = list(sop_instances)
    return identifier
