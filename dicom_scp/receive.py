"""C-STORE: each PDV goes to the inbox as it arrives, and Success is sent when the object is durable (PS3.4 Annex B)."""

import logging
from collections.abc import Callable

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from dicom_scp.association import DicomAssociation
from dicom_scp.contexts import is_storage
from dicom_scp.dimse import Sink, response_to
from dicom_scp.ports import Archive, ArrivalHead, Inbox, Incoming, Receipt, Refused
from dicom_scp.status import SOP_CLASS_NOT_SUPPORTED
from orthanc_ledger.arrival import ADDRESSED_AE
from orthanc_ledger.errors import CustodyError, SpoolFull, Unreadable
from orthanc_ledger.reasons import Reason
from orthanc_ledger.store_status import STORE_DUPLICATE, STORE_FAULT, STORED, Answer, store_refusal

LOGGER = logging.getLogger(__name__)


class InboxSink(Sink):
    """Passes the data set on to the inbox. A failure is remembered, the rest swallowed: the answer comes at the end."""

    def __init__(self, begin: Callable[[], Incoming]) -> None:
        super().__init__()
        self._incoming: Incoming | None = None
        self._failure: Exception | None = None
        try:
            self._incoming = begin()
        except Exception as failure:  # raised again by accept()
            self._failure = failure

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # nothing else is written to a sink
        if self._incoming is not None:
            try:
                self._incoming.write(data)
            except Exception as failure:  # as above
                self._failure = failure
                self.discard()
        return len(data)

    def accept(self) -> Receipt:
        """Make the object durable. Raises what `Incoming` raised, at whatever moment it did."""
        if self._incoming is None:
            raise self._failure or Unreadable("the C-STORE was discarded")
        incoming, self._incoming = self._incoming, None
        try:
            return incoming.accept()
        except BaseException:
            incoming.discard()
            raise

    def discard(self) -> None:
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None


class Receiver:
    """Serves C-STORE on one port. A research peer's objects are refused before a byte of them is kept."""

    def __init__(self, inbox: Inbox, archive: Archive) -> None:
        self._inbox = inbox
        self._archive = archive

    def open_sink(self, assoc: DicomAssociation, context: PresentationContext, request: C_STORE) -> Sink:
        """The sink for the data set that follows the command of ``request``."""
        return InboxSink(lambda: self._begin(assoc, context, request))

    def _begin(self, assoc: DicomAssociation, context: PresentationContext, request: C_STORE) -> Incoming:
        if assoc.peer is None or assoc.peer.role == "research":
            raise Refused(Reason.NO_APPROVAL)
        return self._inbox.begin(
            ArrivalHead(
                calling_ae=assoc.peer.ae_title,
                called_ae=assoc.acceptor.ae_title,
                peer_address=_uri(assoc.requestor.address, assoc.requestor.port),
                called_address=_uri(assoc.acceptor.address, assoc.acceptor.port),
                association=assoc.identity,
                sop_class=str(request.AffectedSOPClassUID or ""),
                sop_instance=str(request.AffectedSOPInstanceUID or ""),
                transfer_syntax=str(context.transfer_syntax[0]),
                origin=ADDRESSED_AE,
            )
        )

    def serve(self, assoc: DicomAssociation, request: C_STORE, context: PresentationContext) -> None:
        """Answer a C-STORE request whose data set is in its sink."""
        answer = self._accept(assoc, request, context)
        response = response_to(request, answer)
        response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        assoc.dimse.send_msg(response, context.context_id or 0)

    def _accept(self, assoc: DicomAssociation, request: C_STORE, context: PresentationContext) -> Answer:
        if not is_storage(str(context.abstract_syntax)):
            assoc.dimse.discard(request)
            return SOP_CLASS_NOT_SUPPORTED
        try:
            if not isinstance(request.DataSet, InboxSink):
                raise Unreadable("a C-STORE without a data set")
            receipt = request.DataSet.accept()
        except CustodyError as error:
            if isinstance(error, SpoolFull):
                LOGGER.error("a C-STORE is refused: %s", error)
            if assoc.peer is not None and isinstance(error, Refused):  # else, on a full disk, nothing can be counted
                self._archive.count_refusal(assoc.peer, error.reason)
            return store_refusal(error)
        except Exception as error:  # by type only: foreign texts quote values
            LOGGER.error("the inbox failed: %s", type(error).__name__)
            LOGGER.debug("the fault", exc_info=True)
            return STORE_FAULT
        refuse = assoc.peer is not None and assoc.peer.duplicate == "refuse"
        return STORE_DUPLICATE if receipt is Receipt.CONFLICT and refuse else STORED


def _uri(host: str, port: int) -> str:
    return f"dicom://[{host}]:{port}" if ":" in host else f"dicom://{host}:{port}"
