"""C-FIND at study level: which studies match, and what a peer may be told of them (PS3.4 C.2.2, C.6)."""

from collections.abc import Iterator, Mapping, Sequence

from orthanc_ledger.attributes import STUDY
from orthanc_ledger.gate import Gate
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.peer import Peer

_COUNTS = ("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
CLINICAL_KEYS: tuple[str, ...] = (*STUDY, *_COUNTS)
RESEARCH_KEYS: tuple[str, ...] = (
    "StudyInstanceUID",
    "PatientID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    *_COUNTS,
)
"""What a research peer may ask of a study it may have now."""


class Catalogue:
    """Answers study-level queries from the index; research peers see only what the gate offers them now."""

    def __init__(self, index: Index, gate: Gate) -> None:
        self._index = index
        self._gate = gate

    def find_studies(self, asker: Peer, keys: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        """Studies that match, each as DICOM keyword → value.

        ``keys`` are the identifier's top-level elements by keyword (several values joined by a backslash). An answer
        holds every keyword supported for this asker, with an empty value where the study has none. Raises LedgerAway,
        for research peers only.
        """
        wanted = {
            keyword: set(value.split("\\"))
            for keyword, value in keys.items()
            if value not in ("", "*") and keyword in STUDY
        }
        if asker.role == "research":
            approvals = self._gate.approvals(asker)
            supported, studies = RESEARCH_KEYS, self._index.studies(self._gate.studies(approvals))
        else:
            supported, studies = CLINICAL_KEYS, self._index.studies()
        if not wanted.keys() <= set(supported):
            return  # a key this asker may not match on matches nothing
        for study_uid, _, attributes in studies:
            if not all(attributes[keyword] in values for keyword, values in wanted.items()):
                continue
            held = self._index.select(studies=[study_uid])
            if asker.role == "research":  # asked of what matches only: an approved dataset may hold thousands
                offers = self._gate.offers(asker, study_uid, approvals)
                visible = {sop_uid for offer in offers for sop_uid in offer.releasable}
                held = [instance for instance in held if instance.sop_uid in visible]
                if not held:
                    continue
            answer = {**attributes, **self._counts(study_uid, held)}
            yield {keyword: answer[keyword] for keyword in supported}

    def _counts(self, study_uid: str, held: Sequence[Instance]) -> dict[str, str]:
        series = {instance.series_uid for instance in held}
        modalities = {
            attributes["Modality"] for uid, attributes in self._index.series_attributes(study_uid) if uid in series
        }
        return dict(zip(_COUNTS, ("\\".join(sorted(modalities - {""})), str(len(series)), str(len(held))), strict=True))
