"""The way to a move destination: associations requested by this node (PS3.4 C.4.2.3.1)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_scp.association import MAXIMUM_PDU, DicomAssociation
from dicom_scp.contexts import proposals
from dicom_scp.ports import Item, Peer
from dicom_scp.retrieve_loop import Channel, Originator, Routes
from dicom_scp.upper_layer import PduSocket

LOGGER = logging.getLogger(__name__)


class MoveRoute:
    """Opens associations to a destination for the items to send, as many as the limit of 128 contexts asks for."""

    def __init__(self, ae: ApplicationEntity) -> None:
        self._ae = ae

    def __call__(self, recipient: Peer, items: Sequence[Item], originator: Originator) -> Routes:
        for contexts, members in proposals(items):
            with self._associate(recipient, contexts) as assoc:
                yield (None if assoc is None else Channel(assoc, originator)), members

    @contextmanager
    def _associate(self, recipient: Peer, contexts: list[PresentationContext]) -> Iterator[DicomAssociation | None]:
        """An established association, released at the end; None when the destination does not accept one."""
        assoc = self._request(recipient, contexts)
        if not assoc.is_established:
            LOGGER.warning("move destination %s accepted no association", recipient.ae_title)
            yield None
            return
        try:
            yield assoc
        finally:
            assoc.finish()

    def _request(self, recipient: Peer, contexts: list[PresentationContext]) -> DicomAssociation:
        remote = AddressInformation.from_addr_port(recipient.host or "", recipient.port or 0)
        local = AddressInformation("::" if remote.is_ipv6 else "0.0.0.0", 0)
        assoc = DicomAssociation(self._ae, MODE_REQUESTOR)
        assoc.set_socket(PduSocket(assoc, address=local))
        assoc.acceptor.ae_title = recipient.ae_title
        assoc.acceptor.address_info = remote
        assoc.requestor.ae_title = self._ae.ae_title
        assoc.requestor.address_info = local
        assoc.requestor.maximum_length = MAXIMUM_PDU
        assoc.requestor.implementation_class_uid = self._ae.implementation_class_uid
        assoc.requestor.implementation_version_name = self._ae.implementation_version_name
        assoc.requestor.requested_contexts = contexts
        assoc.request()
        return assoc
