"""C-FIND at study level, Study Root and Patient Root, exact keys (PS3.4 C.4.1)."""

from collections.abc import Mapping
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.presentation import PresentationContext

from dicom_scp import status
from dicom_scp.association import DicomAssociation
from dicom_scp.contexts import FIND_MODELS, PATIENT_ROOT
from dicom_scp.dimse import response_to
from dicom_scp.identifier import BadIdentifier, encode_identifier, key_values, level_of, read_identifier, text
from dicom_scp.ports import Archive, Peer
from dicom_scp.upper_layer import AssociationLost
from orthanc_ledger.errors import ServiceAway

# Part of every answer or of the encoding, never matched.
_NOT_KEYS = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "SpecificCharacterSet", "TimezoneOffsetFromUTC"})


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
            identifier = read_identifier(request.Identifier or BytesIO(), context)
            _check_level(identifier, context)
            final = self._answer_matches(assoc, assoc.peer, request, context, identifier)
        except BadIdentifier:
            final = self._refused(assoc.peer, status.IDENTIFIER_REFUSED)
        except AssociationLost:
            raise
        except ServiceAway:
            final = self._refused(assoc.peer, status.FIND_LEDGER_AWAY)
        _respond(assoc, request, context, final)

    def _refused(self, peer: Peer, answer: status.Answer) -> status.Answer:
        if answer.comment is not None:
            self._archive.count_refusal(peer, answer.comment)
        return answer

    def _answer_matches(
        self, assoc: DicomAssociation, peer: Peer, request: C_FIND, context: PresentationContext, identifier: Dataset
    ) -> status.Answer:
        asked = {element.keyword or str(element.tag): element.value for element in identifier}
        keys = {
            element.keyword: text(element.value)
            for element in identifier
            if element.keyword and element.keyword not in _NOT_KEYS and element.VR != "SQ"
        }
        unsupported = asked.keys() - keys.keys() - _NOT_KEYS
        for match in self._archive.find_studies(peer, keys):
            if assoc.is_cancelled(request.MessageID or 0):
                return status.Answer(status.CANCELLED)
            some = unsupported or keys.keys() - match.keys()
            pending = status.Answer(status.PENDING_UNSUPPORTED_KEYS if some else status.PENDING)
            _respond(assoc, request, context, pending, self._answer(keys, match))
        return status.Answer(status.SUCCESS)

    def _answer(self, keys: Mapping[str, str], match: Mapping[str, str]) -> Dataset:
        answer = Dataset()
        for keyword in {*keys, "StudyInstanceUID"}:
            setattr(answer, keyword, match.get(keyword, ""))
        answer.QueryRetrieveLevel = "STUDY"
        answer.RetrieveAETitle = self._ae_title
        return answer


def _check_level(identifier: Dataset, context: PresentationContext) -> None:
    """Only studies are found so far; in the Patient Root model below one patient (PS3.4 C.4.1.2.2)."""
    if level_of(identifier, context) != "STUDY":
        raise BadIdentifier("only STUDY level is supported")
    if context.abstract_syntax in PATIENT_ROOT:
        key_values(identifier, "PatientID", single=True)


def _respond(
    assoc: DicomAssociation,
    request: C_FIND,
    context: PresentationContext,
    answer: status.Answer,
    identifier: Dataset | None = None,
) -> None:
    response = response_to(request, answer)
    if identifier is not None:
        response.Identifier = encode_identifier(identifier, context)
    assoc.dimse.send_msg(response, context.context_id or 0)
