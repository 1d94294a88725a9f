"""Sub-operations of a retrieve (PS3.4 C.4.2.3.1, C.4.3.3.1): what may go is sent by C-STORE, one object after the
other, bit for bit where the recipient takes its transfer syntax, and counted.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from typing import BinaryIO, Protocol

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from dicom_scp import status
from dicom_scp.ahead import Ahead
from dicom_scp.association import DicomAssociation
from dicom_scp.contexts import wanted
from dicom_scp.pdu_socket import AssociationLost
from dicom_scp.ports import Item, Peer, Plan
from dicom_scp.transcode import transcode
from orthanc_ledger.errors import CustodyError, DataError
from orthanc_ledger.reasons import Reason

LOGGER = logging.getLogger(__name__)

MOST_COUNTED = 0xFFFF
"""Counts and message IDs are US (PS3.7 9.3.3)."""


class NoContext(DataError):
    """The peer accepted no presentation context that the object can be sent in."""


@dataclass(slots=True)
class Tally:
    """What became of the sub-operations so far. ``sent``: confirmed by the recipient, with or without a warning."""

    total: int
    sent: list[str] = field(default_factory=list)
    failed: list[tuple[str, Reason | None]] = field(default_factory=list)
    warnings: int = 0

    def fail(self, sop_instance: str, reason: Reason | None) -> None:
        self.failed.append((sop_instance, reason))

    @property
    def reason(self) -> Reason | None:
        """Why the first failed of which the fixed list has a word."""
        return next((reason for _, reason in self.failed if reason), None)

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

    def __call__(self, recipient: Peer, items: Sequence[Item], originator: Originator | None) -> Routes: ...


class Progress(Protocol):
    """Who follows the sub-operations."""

    @property
    def cancelled(self) -> bool:
        """Whether no more are to be started."""

    def pending(self, tally: Tally) -> None:
        """One more was tried."""


def send(plan: Plan, tally: Tally, routes: Callable[[Sequence[Item]], Routes], progress: Progress) -> bool:
    """Send what may go; False when the operation was cancelled."""
    for sop_instance, reason in plan.withheld.items():
        tally.fail(sop_instance, reason)
    for channel, items in routes(plan.items):
        with closing(Ahead(plan)) as ahead:
            for item, following in zip_longest(items, items[1:]):
                if progress.cancelled:
                    return False
                _send_item(channel, plan, ahead, item, following, tally)
                progress.pending(tally)
    return True


def _send_item(
    channel: Channel | None, plan: Plan, ahead: Ahead, item: Item, following: Item | None, tally: Tally
) -> None:
    """One sub-operation, entered in the tally. With the association lost it fails, as each one after it, unopened."""
    try:
        if channel is None or channel.assoc.is_lost:
            raise AssociationLost("there is no association to the recipient")
        context = channel.context_for(item)
        message_id = (len(tally.sent) + len(tally.failed)) % MOST_COUNTED + 1
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
