"""C-GET and C-MOVE over encoded data sets (PS3.4 C.4.2, C.4.3): stream what is stored, count, name what failed.

pynetdicom's own loop decodes every object and loses failed UIDs; here each object goes out bit for bit where the peer
takes its transfer syntax, and the final response is complete.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext

from dicom_scp import status
from dicom_scp.association import Cancelled, DicomAssociation
from dicom_scp.contexts import GET_MODELS, MOVE_MODELS
from dicom_scp.dimse import response_to
from dicom_scp.identifier import BadIdentifier, encode_identifier, read_identifier, texts, unique_keys
from dicom_scp.ports import Archive, Item, Level, Peer, Query
from dicom_scp.status import Answer
from dicom_scp.sub_operations import MOST_COUNTED, Channel, Originator, Progress, Route, Routes, Tally, send
from orthanc_ledger.errors import ContentAway, LedgerAway
from orthanc_ledger.reasons import Reason

LOGGER = logging.getLogger(__name__)

_LONGEST_UI = 0xFFFE  # bytes of a value in explicit VR

Retrieve = C_GET | C_MOVE


class Operation(Progress, Protocol):
    """A retrieve that was asked for, and whoever waits for its answers."""

    def query(self) -> tuple[Level, Query]:
        """What is asked for. Raises BadIdentifier."""

    def check_awaited(self) -> None:
        """Raises Cancelled, AssociationLost when nobody waits for the rest."""

    def respond(self, answer: Answer) -> None:
        """The end without sub-operations: it tells nothing of what is held."""

    def conclude(self, tally: Tally, cancelled: bool) -> None:
        """The end after sub-operations."""


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
        originator = Originator(assoc.peer.ae_title, request.MessageID or 0)
        self.move(operation, assoc.peer, (request.MoveDestination or "").strip(), originator)

    def move(self, operation: Operation, asker: Peer, destination: str, originator: Originator | None) -> None:
        """Carry out a move to the AE title ``destination``, however it was asked for."""
        recipient = self._destinations.get(destination)
        if recipient is None:
            operation.respond(self._unknown_destination(asker))
        else:
            self._serve(operation, asker, recipient, lambda items: self._route(recipient, items, originator))

    def _unknown_destination(self, asker: Peer) -> Answer:
        """A research asker is not told which titles this node knows."""
        if asker.role != "research":
            return status.MOVE_DESTINATION_UNKNOWN
        self._archive.count_refusal(asker, Reason.DESTINATION)
        return status.retrieve_refusal(Reason.DESTINATION)

    def _serve(
        self, operation: Operation, asker: Peer, recipient: Peer, routes: Callable[[Sequence[Item]], Routes]
    ) -> None:
        try:
            level, query = operation.query()
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
            cancelled = not plan.refused and not send(plan, tally, routes, operation)
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


@dataclass(frozen=True, slots=True)
class _Operation:
    """One C-GET or C-MOVE: its request, and the responses to it (PS3.7 9.3.3, 9.3.4)."""

    assoc: DicomAssociation
    request: Retrieve
    context: PresentationContext

    def query(self) -> tuple[Level, Query]:
        values = texts(read_identifier(self.request.Identifier or BytesIO(), self.context))
        return unique_keys(values, self.context.abstract_syntax or "")

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
        response.NumberOfRemainingSuboperations = min(tally.remaining, MOST_COUNTED)
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
            response.NumberOfRemainingSuboperations = min(tally.remaining, MOST_COUNTED)
        if tally.failed:
            response.Identifier = encode_identifier(_failed_list([uid for uid, _ in tally.failed]), self.context)
        self._send(response)

    def _response(self, answer: Answer, tally: Tally | None = None) -> Retrieve:
        response: Retrieve = response_to(self.request, answer)
        if tally is not None:
            response.NumberOfCompletedSuboperations = min(len(tally.sent) - tally.warnings, MOST_COUNTED)
            response.NumberOfWarningSuboperations = min(tally.warnings, MOST_COUNTED)
            response.NumberOfFailedSuboperations = min(len(tally.failed), MOST_COUNTED)
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
