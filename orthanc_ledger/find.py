"""C-FIND: what of this node's holdings fits a query, and what a peer may be told of it (PS3.4 C.4.1, C.6.1, C.6.2)."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from orthanc_ledger import matching
from orthanc_ledger.attributes import INSTANCE, PATIENT, SERIES, STUDY, VRS
from orthanc_ledger.gate import Approval, Gate
from orthanc_ledger.index import Index
from orthanc_ledger.listing import Narrowing, Part, Row
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import Level, Query

# Computed from what the asker may have; numbers are told and never matched.
_OF_STUDY = ("ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_OF_SERIES = ("NumberOfSeriesRelatedInstances",)
_MULTIPLE = MappingProxyType({"ModalitiesInStudy": "CS", "SOPClassesInStudy": "UI"})

KEYS: Mapping[Level, tuple[str, ...]] = MappingProxyType(
    {"PATIENT": PATIENT, "STUDY": (*STUDY, *_OF_STUDY), "SERIES": (*SERIES, *_OF_SERIES), "IMAGE": INSTANCE}
)
"""The attributes of each level; a row has those of its level and of the levels above."""

RESEARCH_KEYS = frozenset(
    (
        "PatientID",
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", *_OF_STUDY),
        *("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "BodyPartExamined", *_OF_SERIES),
        *("SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
    )
)
"""What a research peer may be told of what it may have now, and match on. The rest is to it as if it did not exist."""


def supported(asker: Peer, level: Level) -> tuple[str, ...]:
    """The keywords that an answer to this asker has at a level."""
    levels = list(KEYS)
    keywords = (keyword for each in levels[: levels.index(level) + 1] for keyword in KEYS[each])
    return tuple(keyword for keyword in keywords if asker.role != "research" or keyword in RESEARCH_KEYS)


_Tests = Mapping[str, Callable[[Row], bool]]
"""What a row must pass, by keyword."""


@dataclass(frozen=True)
class _Study:
    """What an asker may have of a study. ``visible``: its objects, by SOP Instance UID; None: all that are held."""

    row: Row
    parts: Sequence[Part]
    series: Mapping[str, Row]
    visible: Collection[str] | None


class Catalogue:
    """Answers queries from the index; research peers see only what the gate offers them now."""

    def __init__(self, index: Index, gate: Gate) -> None:
        self._listing = index.listing
        self._gate = gate

    def find(
        self, asker: Peer, level: Level, uids: Query, keys: Mapping[str, str], combined: bool
    ) -> Iterator[Mapping[str, str]]:
        """What fits at a level, each as DICOM keyword → text (several values joined by a backslash).

        ``uids``: the unique keys of the levels above; ``keys``: the identifier's other elements by keyword, the level's
        own unique key included; ``combined``: Study Date and Study Time are matched as one (PS3.4 C.5.1.1). An answer
        holds every keyword supported for this asker at this level, empty where there is none; other keys play no part.
        Raises LedgerAway, for research peers only.
        """
        known = supported(asker, level)
        wanted = {keyword: key for keyword, key in {**keys, **_unique_keys(uids)}.items() if keyword in known}
        tests = _tests(wanted, combined)
        studies = self._studies(asker, wanted, tests, by_patient=level == "PATIENT")
        if level == "PATIENT":
            found = _first_of_each_patient(studies)
        elif level == "STUDY":
            found = (study.row for study in studies)
        else:
            found = (row for study in studies for row in self._below(study, level, tests))
        for row in found:
            yield {keyword: row[keyword] for keyword in known}

    def _studies(self, asker: Peer, wanted: Mapping[str, str], tests: _Tests, *, by_patient: bool) -> Iterator[_Study]:
        """Studies that fit the keys of patient and study, and of which the asker may have anything."""
        approvals = self._gate.approvals(asker) if asker.role == "research" else None
        narrowing = _narrowing(wanted)
        if approvals is not None:
            narrowing = Narrowing("StudyInstanceUID", tuple(self._gate.studies(approvals)))
        for page in self._listing.studies(narrowing, by_patient=by_patient):
            fitting = [row for row in page if _fits(row, tests, (*PATIENT, *STUDY))]
            if approvals is None:
                opened = self._opened(fitting, self._listing.parts([row["StudyInstanceUID"] for row in fitting]), None)
            else:  # the ledger is asked of what fits alone: an approved dataset may hold thousands
                opened = (study for row in fitting for study in self._released(asker, row, approvals))
            yield from (study for study in opened if _fits(study.row, tests, _OF_STUDY))

    def _released(self, asker: Peer, row: Row, approvals: Sequence[Approval]) -> Iterator[_Study]:
        """A study with what the gate offers of it now; none when that is nothing."""
        study_uid = row["StudyInstanceUID"]
        offers = self._gate.offers(asker, study_uid, approvals)
        offered = {sop_uid: instance for offer in offers for sop_uid, (instance, _) in offer.releasable.items()}
        counts = Counter((instance.series_uid, instance.sop_class) for instance in offered.values())
        parts = [Part(series_uid, sop_class, count) for (series_uid, sop_class), count in counts.items()]
        yield from self._opened([row], {study_uid: parts}, offered.keys())

    def _opened(
        self, rows: Sequence[Row], parts: Mapping[str, Sequence[Part]], visible: Collection[str] | None
    ) -> Iterator[_Study]:
        """Those of the studies that have any part, with what comes of the parts."""
        series = self._listing.series([part.series_uid for each in parts.values() for part in each])
        for row in rows:
            if held := parts.get(row["StudyInstanceUID"]):
                yield _Study({**row, **_computed(held, series)}, held, series, visible)

    def _below(self, study: _Study, level: Level, tests: _Tests) -> Iterator[Row]:
        """Series of a study, or their objects, that fit."""
        sizes: Counter[str] = Counter()
        for part in study.parts:
            sizes[part.series_uid] += part.count
        for series_uid, size in sorted(sizes.items()):
            if not series_uid or series_uid not in study.series:
                continue  # of an object in quarantine nothing more is known
            row = {**study.row, **study.series[series_uid], "NumberOfSeriesRelatedInstances": str(size)}
            if not _fits(row, tests, SERIES):
                continue
            if level == "SERIES":
                yield row
                continue
            for page in self._listing.instances(study.row["StudyInstanceUID"], series_uid):
                for instance in page:
                    seen = study.visible is None or instance["SOPInstanceUID"] in study.visible
                    if seen and _fits(instance, tests, INSTANCE):
                        yield {**row, **instance}


def _tests(wanted: Mapping[str, str], combined: bool) -> _Tests:
    tests = {keyword: _test(keyword, key) for keyword, key in wanted.items() if keyword in VRS or keyword in _MULTIPLE}
    together = matching.combined_matcher(wanted.get("StudyDate", ""), wanted.get("StudyTime", "")) if combined else None
    if together is not None:
        del tests["StudyTime"]
        tests["StudyDate"] = lambda row: together(row["StudyDate"], row["StudyTime"])
    return tests


def _test(keyword: str, key: str) -> Callable[[Row], bool]:
    if keyword in _MULTIPLE:
        fits = matching.matcher(_MULTIPLE[keyword], key)
        return lambda row: any(fits(value) for value in row[keyword].split("\\"))
    fits = matching.matcher(VRS[keyword], key)
    return lambda row: fits(row[keyword])


def _fits(row: Row, tests: _Tests, keywords: Collection[str]) -> bool:
    return all(test(row) for keyword, test in tests.items() if keyword in keywords)


def _unique_keys(uids: Query) -> dict[str, str]:
    levels = (
        ("PatientID", uids.patient_ids),
        ("StudyInstanceUID", uids.studies),
        ("SeriesInstanceUID", uids.series),
        ("SOPInstanceUID", uids.instances),
    )
    return {keyword: "\\".join(values) for keyword, values in levels if values}


def _narrowing(wanted: Mapping[str, str]) -> Narrowing | None:
    """The key that leaves the fewest studies to be read."""
    for attribute in ("StudyInstanceUID", "PatientID", "AccessionNumber"):
        if values := matching.exact(VRS[attribute], wanted.get(attribute, "")):
            return Narrowing(attribute, values)
    if dates := matching.dates(wanted.get("StudyDate", "")):
        return Narrowing("StudyDate", dates)
    letters = matching.letters(wanted.get("PatientName", ""))
    return Narrowing("PatientName", (letters,)) if letters else None


def _computed(parts: Sequence[Part], series: Mapping[str, Row]) -> Row:
    """The keys of a study that come of what it holds for the asker."""
    series_uids = {part.series_uid for part in parts}
    modalities = {series[uid]["Modality"] for uid in series_uids if uid in series} - {""}
    return {
        "ModalitiesInStudy": "\\".join(sorted(modalities)),
        "SOPClassesInStudy": "\\".join(sorted({part.sop_class for part in parts})),
        "NumberOfStudyRelatedSeries": str(len(series_uids)),
        "NumberOfStudyRelatedInstances": str(sum(part.count for part in parts)),
    }


def _first_of_each_patient(studies: Iterable[_Study]) -> Iterator[Row]:
    """A patient is told once, as the first of his studies that fits names him; one without Patient ID is no entity."""
    last = ""
    for study in studies:
        if study.row["PatientID"] != last:
            last = study.row["PatientID"]
            yield study.row
