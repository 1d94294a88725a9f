"""The way to a destination: associations that this node requests, for moves (PS3.4 C.4.2.3.1) and forwarding."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_scp.association import DicomAssociation
from dicom_scp.contexts import proposals
from dicom_scp.pdu_socket import MAXIMUM_PDU, AssociationLost, PduSocket
from dicom_scp.ports import Item, Peer
from dicom_scp.sub_operations import Channel, Originator, Routes

LOGGER = logging.getLogger(__name__)


class NotAssociated(AssociationLost):
    """The destination cannot be reached, or accepts no association; nothing was sent."""


class Requestor:
    """Opens associations to destinations in the name of an AE."""

    def __init__(self, ae: ApplicationEntity) -> None:
        self._ae = ae

    def __call__(self, recipient: Peer, items: Sequence[Item], originator: Originator | None) -> Routes:
        """The ways of a move, as many as the limit of 128 contexts asks for."""
        for contexts, members in proposals(items):
            try:
                with self.associate(recipient, contexts) as assoc:
                    yield Channel(assoc, originator), members
            except NotAssociated as error:
                LOGGER.warning("move destination %s", error)
                yield None, members

    @contextmanager
    def associate(self, recipient: Peer, contexts: Sequence[PresentationContext]) -> Iterator[DicomAssociation]:
        """An established association, released at the end. Raises NotAssociated, which names the recipient."""
        assoc = self._request(recipient, contexts)
        try:
            if not assoc.is_established:
                raise NotAssociated(f"{recipient.ae_title} {_refusal(assoc)}")
            yield assoc
        finally:
            assoc.finish()

    def _request(self, recipient: Peer, contexts: Sequence[PresentationContext]) -> DicomAssociation:
        assoc = DicomAssociation(self._ae, MODE_REQUESTOR)
        try:
            remote = AddressInformation.from_addr_port(recipient.host or "", recipient.port or 0)
            local = AddressInformation("::" if remote.is_ipv6 else "0.0.0.0", 0)
            assoc.set_socket(PduSocket(assoc, address=local))
        except OSError as error:  # its name is not known now, or this process has no descriptor left
            raise NotAssociated(f"{recipient.ae_title} cannot be reached: {error.strerror}") from error
        assoc.acceptor.ae_title = recipient.ae_title
        assoc.acceptor.address_info = remote
        assoc.requestor.ae_title = self._ae.ae_title
        assoc.requestor.address_info = local
        assoc.requestor.maximum_length = MAXIMUM_PDU
        assoc.requestor.implementation_class_uid = self._ae.implementation_class_uid
        assoc.requestor.implementation_version_name = self._ae.implementation_version_name
        assoc.requestor.requested_contexts = list(contexts)
        assoc.request()
        return assoc


def _refusal(assoc: DicomAssociation) -> str:
    answer: A_ASSOCIATE | None = assoc.acceptor.primitive
    if answer is None:
        return "cannot be reached, or does not answer"
    if assoc.is_rejected:
        return f"rejects the association: {answer.reason_str}"
    return "accepts no presentation context"
