"""C-FIND in the Patient Root and Study Root models, hierarchical, at every level (PS3.4 C.4.1)."""

from collections.abc import Collection, Mapping
from functools import partial
from io import BytesIO

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.presentation import PresentationContext

from dicom_scp import status
from dicom_scp.association import Cancelled, DicomAssociation
from dicom_scp.contexts import FIND_MODELS, PATIENT_ROOT
from dicom_scp.dimse import response_to
from dicom_scp.identifier import (
    BadIdentifier,
    Text,
    encode_texts,
    keys_above,
    others,
    read_identifier,
    text_of,
    texts,
)
from dicom_scp.pdu_socket import AssociationLost
from dicom_scp.ports import Archive, Level, Peer, Query
from orthanc_ledger.errors import LedgerAway, ServiceAway
from orthanc_ledger.retrieve import LEVELS, UNIQUE_KEYS

# Part of every answer or of the encoding, never matched.
_NOT_KEYS = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "SpecificCharacterSet", "TimezoneOffsetFromUTC"})
_DATE_TIME_MATCHING = 1  # byte of the service class application information (PS3.4 C.5.1.1.1)


def answer_extended(event: evt.Event) -> dict[UID, bytes]:
    """SOP Class Extended Negotiation for C-FIND: combined date-time matching as asked for, nothing else."""
    return {
        sop_class: bytes(at == _DATE_TIME_MATCHING and byte == 1 for at, byte in enumerate(asked))
        for sop_class, asked in event.assoc.requestor.sop_class_extended.items()
        if sop_class in FIND_MODELS
    }


class Finder:
    """Serves C-FIND from an archive; ``ae_title`` is this node's, where matches can be retrieved from."""

    def __init__(self, archive: Archive, ae_title: str) -> None:
        self._archive = archive
        self._ae_title = ae_title

    def serve(self, assoc: DicomAssociation, request: C_FIND, context: PresentationContext) -> None:
        """Answer a C-FIND request: a pending response for each match, then the final one."""
        if assoc.peer is None or context.abstract_syntax not in FIND_MODELS:
            _respond(assoc, request, context, status.SOP_CLASS_NOT_SUPPORTED)
            return
        try:
            final = self._answer_matches(assoc, assoc.peer, request, context)
        except BadIdentifier:
            final = self._refused(assoc.peer, status.IDENTIFIER_REFUSED)
        except Cancelled:
            final = status.Answer(status.CANCELLED)
        except AssociationLost:
            raise
        except LedgerAway:
            final = self._refused(assoc.peer, status.FIND_LEDGER_AWAY)
        except ServiceAway:
            final = status.FIND_AWAY
        _respond(assoc, request, context, final)

    def _refused(self, peer: Peer, answer: status.Answer) -> status.Answer:
        if answer.comment is not None:
            self._archive.count_refusal(peer, answer.comment)
        return answer

    def _answer_matches(
        self, assoc: DicomAssociation, peer: Peer, request: C_FIND, context: PresentationContext
    ) -> status.Answer:
        identifier = read_identifier(request.Identifier or BytesIO(), context)
        values = texts(identifier)
        level, above = keys_above(values, context.abstract_syntax or "")
        told = _unique_keywords(level, context)
        keys = {keyword: value for keyword, value in values.items() if keyword not in {*_NOT_KEYS, *told[:-1]}}
        unmatched = others(identifier)
        check_awaited = partial(assoc.check_awaited, request.MessageID or 0)
        for match in self._archive.find(peer, level, Query(*above), keys, _combined(assoc, context), check_awaited):
            check_awaited()
            some = unmatched or keys.keys() - match.keys()
            pending = status.Answer(status.PENDING_UNSUPPORTED_KEYS if some else status.PENDING)
            answer = [*self._answer(level, {*keys, *told}, match), *unmatched]
            _respond(assoc, request, context, pending, encode_texts(answer, context))
        return status.Answer(status.SUCCESS)

    def _answer(self, level: Level, keywords: Collection[str], match: Mapping[str, str]) -> list[Text]:
        return [
            text_of("QueryRetrieveLevel", level),
            text_of("RetrieveAETitle", self._ae_title),
            *(text_of(keyword, match.get(keyword, "")) for keyword in keywords),
        ]


def _unique_keywords(level: Level, context: PresentationContext) -> tuple[str, ...]:
    """The unique keys of the levels down to one; the last is its own."""
    top = 0 if context.abstract_syntax in PATIENT_ROOT else 1
    return UNIQUE_KEYS[top : LEVELS.index(level) + 1]


def _combined(assoc: DicomAssociation, context: PresentationContext) -> bool:
    """Whether date and time are one, by what was asked for and so was accepted."""
    asked = assoc.requestor.sop_class_extended.get(UID(str(context.abstract_syntax)), b"")
    return asked[_DATE_TIME_MATCHING : _DATE_TIME_MATCHING + 1] == b"\1"


def _respond(
    assoc: DicomAssociation,
    request: C_FIND,
    context: PresentationContext,
    answer: status.Answer,
    identifier: BytesIO | None = None,
) -> None:
    response = response_to(request, answer)
    if identifier is not None:
        response.Identifier = identifier
    assoc.dimse.send_msg(response, context.context_id or 0)
