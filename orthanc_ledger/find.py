"""C-FIND: what of this node's holdings fits a query, and what a peer may be told of it (PS3.4 C.4.1, C.6.1, C.6.2)."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from orthanc_ledger import matching
from orthanc_ledger.attributes import INSTANCE, PATIENT, SERIES, STUDY, VRS
from orthanc_ledger.gate import Gate
from orthanc_ledger.index import Index
from orthanc_ledger.listing import Narrowing, Row
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
    """What an asker may have of a study: its row, those of its series, and a series' objects, page by page."""

    row: Row
    series: Sequence[Row]
    objects: Callable[[str], Iterable[Sequence[Row]]]


class Catalogue:
    """Answers queries from the index; research peers see only what the gate offers them now."""

    def __init__(self, index: Index, gate: Gate) -> None:
        self._listing = index.listing
        self._gate = gate

    def find(
        self,
        asker: Peer,
        level: Level,
        uids: Query,
        keys: Mapping[str, str],
        combined: bool,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Iterator[Mapping[str, str]]:
        """What fits at a level, each as DICOM keyword → text (several values joined by a backslash).

        ``uids``: the unique keys of the levels above; ``keys``: the identifier's other elements by keyword, the level's
        own unique key included; ``combined``: Study Date and Study Time are matched as one (PS3.4 C.5.1.1). An answer
        holds every keyword supported for this asker at this level, empty where there is none; other keys play no part.
        ``meanwhile`` is called time and again, whether anything fits or not; what it raises ends the search. Raises
        LedgerAway and ContentAway, for research peers only.
        """
        known = supported(asker, level)
        above = {keyword: "\\".join(values) for keyword, values in uids.by_keyword().items() if values}
        wanted = {keyword: key for keyword, key in {**keys, **above}.items() if keyword in known}
        tests = _tests(wanted, combined)
        if asker.role == "research":
            studies = self._offered(asker, tests, meanwhile)
        else:
            studies = self._held(narrowing(wanted), tests, meanwhile)
        fitting = (study for study in studies if _fits(study.row, tests))
        if level == "PATIENT":
            found = _each_patient_once(fitting)
        elif level == "STUDY":
            found = (study.row for study in fitting)
        else:
            found = (row for study in fitting for row in _below(study, level, tests, meanwhile))
        for row in found:
            yield {keyword: row[keyword] for keyword in known}

    def _held(self, narrowed: Narrowing | None, tests: _Tests, meanwhile: Callable[[], object]) -> Iterator[_Study]:
        """Studies with all they hold, as their first object names them, or the last confirmed correction."""
        for page in self._listing.studies(narrowed):
            meanwhile()
            fitting = {row["StudyInstanceUID"]: row for row in page if _fits(row, tests)}
            series, held = self._listing.series(list(fitting)), self._listing.parts(list(fitting))
            for study_uid, row in fitting.items():
                if parts := held.get(study_uid):
                    sizes: Counter[str] = Counter()
                    for part in parts:
                        sizes[part.series_uid] += part.count
                    sop_classes = {part.sop_class for part in parts}
                    objects = partial(self._listing.instances, study_uid)
                    yield _study(row, series.get(study_uid, ()), sizes, sop_classes, objects)

    def _offered(self, asker: Peer, tests: _Tests, meanwhile: Callable[[], object]) -> Iterator[_Study]:
        """Studies with what the gate offers of them now, as the first of these objects names them."""
        approvals = self._gate.approvals(asker)
        for study_uid in sorted(self._gate.studies(approvals)):
            meanwhile()
            if not _fits({"StudyInstanceUID": study_uid}, tests):
                continue  # by nothing but its UID: only what is offered may say whether another key fits
            offers = self._gate.offers(asker, study_uid, approvals)
            offered = {(row.claim, str(row.manifest)) for offer in offers for row, _ in offer.releasable.values()}
            if objects := self._listing.objects(offered):
                yield _study_of(objects)


def _study(
    row: Row,
    series: Iterable[Row],
    sizes: Mapping[str, int],
    sop_classes: Iterable[str],
    objects: Callable[[str], Iterable[Sequence[Row]]],
) -> _Study:
    """A study with what comes of its parts; ``sizes``: how many objects a series has, by Series Instance UID."""
    sized = [
        {**each, "NumberOfSeriesRelatedInstances": str(sizes[uid])}
        for each in series
        if (uid := each["SeriesInstanceUID"]) in sizes
    ]
    computed = {
        "ModalitiesInStudy": "\\".join(sorted({each["Modality"] for each in sized} - {""})),
        "SOPClassesInStudy": "\\".join(sorted(sop_classes)),
        "NumberOfStudyRelatedSeries": str(len(sized)),
        "NumberOfStudyRelatedInstances": str(sum(sizes.values())),
    }
    return _Study({**row, **computed}, sized, objects)


def _study_of(objects: Sequence[Row]) -> _Study:
    """A study by what these objects of it say, and the first of them where they differ."""
    by_series: defaultdict[str, list[Row]] = defaultdict(list)
    for each in objects:
        by_series[each["SeriesInstanceUID"]].append(each)
    series = [_only(SERIES, of[0]) for _, of in sorted(by_series.items())]
    sizes = {series_uid: len(of) for series_uid, of in by_series.items()}
    return _study(
        _only((*PATIENT, *STUDY), objects[0]),
        series,
        sizes,
        {each["SOPClassUID"] for each in objects},
        lambda series_uid: [[_only(INSTANCE, each) for each in by_series[series_uid]]],
    )


def _only(keywords: Iterable[str], row: Row) -> Row:
    return {keyword: row[keyword] for keyword in keywords}


def _below(study: _Study, level: Level, tests: _Tests, meanwhile: Callable[[], object]) -> Iterator[Row]:
    """Series of a study, or their objects, that fit."""
    for series in study.series:
        row = {**study.row, **series}
        if not _fits(row, tests):
            continue
        if level == "SERIES":
            yield row
            continue
        for page in study.objects(series["SeriesInstanceUID"]):
            meanwhile()
            yield from ({**row, **each} for each in page if _fits(each, tests))


def _each_patient_once(studies: Iterable[_Study]) -> Iterator[Row]:
    """A patient as the first of his studies that fits names him; one without Patient ID is no entity."""
    told = {""}
    for study in studies:
        if study.row["PatientID"] not in told:
            told.add(study.row["PatientID"])
            yield study.row


def _fits(row: Row, tests: _Tests) -> bool:
    """Whether a row passes what is asked of the attributes it has."""
    return all(test(row) for keyword, test in tests.items() if keyword in row)


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


def fitting(keys: Mapping[str, str]) -> Callable[[Row], bool]:
    """What tells whether a row fits all of these keys that it has."""
    tests = _tests(keys, combined=False)
    return lambda row: _fits(row, tests)


def narrowing(wanted: Mapping[str, str]) -> Narrowing | None:
    """The key that leaves the fewest studies to be read."""
    for attribute in ("StudyInstanceUID", "PatientID", "AccessionNumber"):
        if values := matching.exact(VRS[attribute], wanted.get(attribute, "")):
            return Narrowing(attribute, values)
    if dates := matching.dates(wanted.get("StudyDate", "")):
        return Narrowing("StudyDate", dates)
    letters = matching.letters(wanted.get("PatientName", ""))
    return Narrowing("PatientName", (letters,)) if letters else None
