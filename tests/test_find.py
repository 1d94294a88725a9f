"""C-FIND over the index and the gate: what each peer is told at each level, and what is never read for it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gate_world import RESEARCH, VIEWER, World, make_world
from hypothesis import given
from hypothesis import strategies as st
from node_make import drain, make_node, store, variant
from pydicom.dataset import Dataset
from pynetdicom import AE

from dicom_scp.__main__ import NodeArchive
from dicom_scp.ports import ListenerConfig
from dicom_scp.server import Listener
from orthanc_ledger import listing, tokens
from orthanc_ledger.assemble import Node
from orthanc_ledger.attributes import PATIENT, SERIES, STUDY, VRS, Attributes
from orthanc_ledger.database import Database
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.find import KEYS, RESEARCH_KEYS, Catalogue, supported
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.listing import Narrowing, Place
from orthanc_ledger.matching import matcher
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import UNIQUE_KEYS, Level, Query
from orthanc_ledger.spool import QUARANTINE

MR, CT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
STUDY_FIND, EXPLICIT = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2.1"
ALL = Query()

# Patient, date, time, accession number, series (modality, SOP class, objects); the study's UID is 1.(number).
STUDIES: list[tuple[dict[str, str], dict[str, str], list[tuple[str, str, int]]]] = [
    (
        {"PatientID": "P1", "PatientName": "Müller^Jörg", "PatientSex": "M", "PatientBirthDate": "19700101"},
        {"StudyDate": "20060705", "StudyTime": "0930", "AccessionNumber": "A1", "StudyDescription": "Head"},
        [("MR", MR, 3), ("CT", CT, 1)],
    ),
    (
        {"PatientID": "P1", "PatientName": "Mueller^Joerg", "PatientSex": "M", "PatientBirthDate": "19700101"},
        {"StudyDate": "20060706", "StudyTime": "090000", "AccessionNumber": "A2", "StudyDescription": "Knee"},
        [("MR", MR, 2)],
    ),
    (
        {"PatientID": "P2", "PatientName": "Yamada^Tarou=山田^太郎", "PatientSex": "O"},
        {"StudyDate": "1997.04.24", "StudyTime": "10:30:00", "AccessionNumber": "A3"},
        [("US", "1.2.840.10008.5.1.4.1.1.6.1", 1)],
    ),
    (
        {"PatientID": "", "PatientName": "Straßer^Kim"},
        {"StudyDate": "", "AccessionNumber": ""},
        [("MR", MR, 1)],
    ),
]


def enter(
    index: Index, number: int, patient: Mapping[str, str], study: Mapping[str, str], series: list[tuple[str, str, int]]
) -> None:
    """A study and all it holds."""
    uid = f"1.{number}"
    of_study = dict.fromkeys((*PATIENT, *STUDY), "") | patient | study | {"StudyInstanceUID": uid}
    found = []
    for at, (modality, sop_class, count) in enumerate(series, 1):
        of_series = {"Modality": modality, "SeriesInstanceUID": f"{uid}.{at}", "SeriesNumber": str(at)}
        for each in range(1, count + 1):
            sop_uid = f"{uid}.{at}.{each}"
            of_instance = {"SOPInstanceUID": sop_uid, "SOPClassUID": sop_class, "InstanceNumber": str(each)}
            row = Instance(
                claim=f"claim-{sop_uid}",
                sop_uid=sop_uid,
                series_uid=f"{uid}.{at}",
                study_uid=uid,
                sop_class=sop_class,
                transfer_syntax="1.2.840.10008.1.2.1",
                size=1,
                sha256=bytes(32),
                received_us=each,
                origin="addressed-ae",
                sender="MRI1 at 192.0.2.10",
                state="anchored",
                spool_name="",
            )
            found.append((row, Attributes(of_study, dict.fromkeys(SERIES, "") | of_series, of_instance)))
    index.enter(found)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index(tmp_path_factory.mktemp("index") / "index.db")
    for number, study in enumerate(STUDIES, 1):
        enter(index, number, *study)
    return index


def find(index: Index, level: Level, uids: Query = ALL, combined: bool = False, **keys: str) -> list[Mapping[str, str]]:
    """As a clinical peer: no gate is asked."""
    return list(Catalogue(index, None).find(VIEWER, level, uids, keys, combined))  # type: ignore[arg-type]


def studies(index: Index, combined: bool = False, **keys: str) -> set[int]:
    """Numbers of the studies found."""
    return {int(row["StudyInstanceUID"][2:]) for row in find(index, "STUDY", combined=combined, **keys)}


# By hand: PS3.4 C.6.1.1, C.6.2.1 (unique and required keys), and the optional ones of issue 5. Level, keyword, what the
# object has, a key that fits, one that does not (None: numbers are told, never matched).
TABLE: list[tuple[Level, str, str, str, str | None]] = [
    ("PATIENT", "PatientName", "Nachname^Vor", "nach*", "vor*"),
    ("PATIENT", "PatientID", "PID-7", "PID-7", "PID-8"),
    ("PATIENT", "PatientBirthDate", "19700203", "19700101-19701231", "19700204-"),
    ("PATIENT", "PatientSex", "F", "F", "M"),
    ("STUDY", "StudyDate", "20240229", "20240201-", "-20240228"),
    ("STUDY", "StudyTime", "101500", "10-11", "11-"),
    ("STUDY", "AccessionNumber", "ACC1", "ACC?", "ACC2"),
    ("STUDY", "StudyID", "S9", "S9", "S8"),
    ("STUDY", "StudyInstanceUID", "1.2.40.1", "1.2.40.9\\1.2.40.1", "1.2.40.9"),
    ("STUDY", "ReferringPhysicianName", "Ref^Doc", "REF*", "Doc*"),
    ("STUDY", "StudyDescription", "Knee left", "*left", "*right"),
    ("STUDY", "ModalitiesInStudy", "MR", "CT\\MR", "CT"),
    ("STUDY", "SOPClassesInStudy", MR, f"{CT}\\{MR}", CT),
    ("STUDY", "NumberOfStudyRelatedSeries", "1", "9", None),
    ("STUDY", "NumberOfStudyRelatedInstances", "1", "9", None),
    ("SERIES", "Modality", "MR", "M?", "C?"),
    ("SERIES", "SeriesNumber", "4", "04", "5"),
    ("SERIES", "SeriesInstanceUID", "1.2.40.1.1", "1.2.40.1.1", "1.2.40.1.2"),
    ("SERIES", "SeriesDescription", "T1 sag", "T1*", "T2*"),
    ("SERIES", "BodyPartExamined", "KNEE", "KNEE", "HEAD"),
    ("SERIES", "NumberOfSeriesRelatedInstances", "1", "9", None),
    ("IMAGE", "InstanceNumber", "12", "12 ", "13"),
    ("IMAGE", "SOPInstanceUID", "1.2.40.1.1.1", "1.2.40.1.1.1", "1.2.40.1.1.2"),
    ("IMAGE", "SOPClassUID", MR, MR, CT),
]
ORDER: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
OF_ALL_LEVELS = Query(("PID-7",), ("1.2.40.1",), ("1.2.40.1.1",))


@pytest.fixture(scope="module")
def knee(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node that holds one object, that of the table."""
    node = make_node(tmp_path_factory.mktemp("knee"))
    computed = {keyword for _, keyword, *_ in TABLE if keyword.startswith("Number") or keyword.endswith("InStudy")}
    store(node, variant(**{keyword: value for _, keyword, value, *_ in TABLE if keyword not in computed}))
    node.anchorer().take_in()
    return node


class TestTableOfKeys:
    @pytest.mark.parametrize(("level", "keyword", "value", "fits", "other"), TABLE, ids=lambda each: str(each)[:30])
    def test_each_is_answered_and_matched_at_its_level_and_below(
        self, knee: Node, level: Level, keyword: str, value: str, fits: str, other: str | None
    ) -> None:
        for at in ORDER[ORDER.index(level) :]:
            depth = ORDER.index(at)
            values = OF_ALL_LEVELS.patient_ids, OF_ALL_LEVELS.studies, OF_ALL_LEVELS.series
            above = Query(*values[:depth])
            if keyword in {*UNIQUE_KEYS[:depth]}:
                (row,) = knee.catalogue.find(VIEWER, at, above, {}, combined=False)
                assert row[keyword] == value
                continue
            (row,) = knee.catalogue.find(VIEWER, at, above, {keyword: fits}, combined=False)
            assert row[keyword] == value
            found = list(knee.catalogue.find(VIEWER, at, above, {keyword: other or "0"}, combined=False))
            assert found == ([] if other else [row])

    @pytest.mark.parametrize("level", ORDER)
    def test_an_answer_has_these_and_no_others(self, knee: Node, level: Level) -> None:
        depth = ORDER.index(level)
        expected = {keyword for at, keyword, *_ in TABLE if ORDER.index(at) <= depth}
        (row,) = knee.catalogue.find(VIEWER, level, Query(), {}, combined=False)
        assert set(row) == expected


class TestLevels:
    def test_each_level_is_told_with_the_levels_above(self, index: Index) -> None:
        uids = Query(patient_ids=("P1",), studies=("1.1",), series=("1.1.1",))
        for level, count in (("PATIENT", 2), ("STUDY", 2), ("SERIES", 2), ("IMAGE", 3)):
            above = Query(
                uids.patient_ids if level != "PATIENT" else (),
                uids.studies if level in ("SERIES", "IMAGE") else (),
                uids.series if level == "IMAGE" else (),
            )
            rows = find(index, level, above)  # type: ignore[arg-type]
            assert len(rows) == count
            assert {tuple(row) for row in rows} == {supported(VIEWER, level)}  # type: ignore[arg-type]

    def test_patients_are_told_once_and_only_with_an_id(self, index: Index) -> None:
        assert [row["PatientID"] for row in find(index, "PATIENT")] == ["P1", "P2"]

    def test_a_patient_is_told_once_though_others_studies_lie_between(self, tmp_path: Path) -> None:
        index = Index(tmp_path / "index.db")
        for number, study in enumerate((STUDIES[0], STUDIES[2], STUDIES[1]), 1):
            enter(index, number, *study)
        assert [row["PatientID"] for row in find(index, "PATIENT")] == ["P1", "P2"]

    def test_a_series_uid_that_two_studies_use_is_a_series_of_each(self, tmp_path: Path) -> None:
        index = Index(tmp_path / "index.db")
        for number in (1, 2):
            enter(index, number, *STUDIES[1])
        with index._db.write() as db:
            db.execute("UPDATE instances SET series_uid = '1.1.1'")
            db.execute(
                "UPDATE series SET series_uid = '1.1.1', attributes = json_set(attributes, '$.Modality', study_uid)"
            )
        for study in ("1.1", "1.2"):
            (series,) = find(index, "SERIES", Query(studies=(study,)))
            assert (series["Modality"], series["NumberOfSeriesRelatedInstances"]) == (study, "2")
            images = find(index, "IMAGE", Query(studies=(study,), series=("1.1.1",)))
            assert {row["SOPInstanceUID"] for row in images} == {f"{study}.1.1", f"{study}.1.2"}
            (row,) = find(index, "STUDY", StudyInstanceUID=study)
            assert row["ModalitiesInStudy"] == study

    def test_a_patient_is_found_by_the_name_in_any_of_the_studies(self, index: Index) -> None:
        for name in ("müller*", "mueller*"):
            (row,) = find(index, "PATIENT", PatientName=name)
            assert (row["PatientID"], row["PatientSex"]) == ("P1", "M")

    def test_series_of_a_study(self, index: Index) -> None:
        mr, ct = find(index, "SERIES", Query(studies=("1.1",)))
        assert (mr["SeriesInstanceUID"], mr["Modality"], mr["NumberOfSeriesRelatedInstances"]) == ("1.1.1", "MR", "3")
        assert (ct["PatientName"], ct["StudyDescription"], ct["SeriesNumber"]) == ("Müller^Jörg", "Head", "2")
        assert find(index, "SERIES", Query(studies=("1.1",)), Modality="C?", SeriesNumber="02") == [ct]
        assert find(index, "SERIES", Query(studies=("1.1",)), SeriesInstanceUID="1.1.1\\1.1.9") == [mr]

    def test_objects_of_a_series(self, index: Index) -> None:
        uids = Query(studies=("1.1",), series=("1.1.1",))
        assert {row["InstanceNumber"] for row in find(index, "IMAGE", uids)} == {"1", "2", "3"}
        (row,) = find(index, "IMAGE", uids, SOPInstanceUID="1.1.1.2\\1.1.1.7")
        assert (row["SOPInstanceUID"], row["SOPClassUID"], row["InstanceNumber"]) == ("1.1.1.2", MR, "2")
        assert find(index, "IMAGE", uids, SOPClassUID=CT) == []

    @pytest.mark.parametrize(
        ("level", "uids"),
        [
            ("STUDY", Query(patient_ids=("P9",))),
            ("SERIES", Query(studies=("1.9",))),
            ("SERIES", Query(patient_ids=("P2",), studies=("1.1",))),
            ("IMAGE", Query(studies=("1.2",), series=("1.1.1",))),
            ("IMAGE", Query(patient_ids=("P2",), studies=("1.1",), series=("1.1.1",))),
        ],
    )
    def test_what_is_not_below_the_keys_above_is_not_found(self, index: Index, level: Level, uids: Query) -> None:
        assert find(index, level, uids) == []

    def test_keys_of_the_levels_above_are_matched(self, index: Index) -> None:
        of = Query(studies=("1.1",))
        assert len(find(index, "SERIES", of, PatientName="müller*", StudyDate="20060705")) == 2
        assert find(index, "SERIES", of, PatientName="yamada*") == []
        assert find(index, "IMAGE", Query(studies=("1.1",), series=("1.1.1",)), StudyDate="20060706") == []

    def test_keys_that_are_not_of_the_level_play_no_part(self, index: Index) -> None:
        assert studies(index, Modality="XX", SOPInstanceUID="1.9", BodyPartExamined="HEAD", Manufacturer="x") == {
            1,
            2,
            3,
            4,
        }
        assert len(find(index, "PATIENT", StudyDate="19000101")) == 2


class TestComputedKeys:
    def test_of_a_study(self, index: Index) -> None:
        (row,) = find(index, "STUDY", StudyInstanceUID="1.1")
        assert (row["ModalitiesInStudy"], row["SOPClassesInStudy"]) == ("CT\\MR", f"{CT}\\{MR}")
        assert (row["NumberOfStudyRelatedSeries"], row["NumberOfStudyRelatedInstances"]) == ("2", "4")

    @pytest.mark.parametrize(
        ("keys", "found"),
        [
            ({"ModalitiesInStudy": "CT"}, {1}),
            ({"ModalitiesInStudy": "MR"}, {1, 2, 4}),
            ({"ModalitiesInStudy": "CT\\US"}, {1, 3}),
            ({"ModalitiesInStudy": "?T"}, {1}),
            ({"ModalitiesInStudy": "PT"}, set()),
            ({"SOPClassesInStudy": CT}, {1}),
            ({"SOPClassesInStudy": f"{CT}\\{MR}"}, {1, 2, 4}),
            ({"NumberOfStudyRelatedInstances": "999"}, {1, 2, 3, 4}),
            ({"ModalitiesInStudy": "MR", "PatientID": "P1", "StudyDate": "20060706-"}, {2}),
        ],
    )
    def test_any_value_of_the_study_fits_and_numbers_are_not_matched(
        self, index: Index, keys: dict[str, str], found: set[int]
    ) -> None:
        assert studies(index, **keys) == found


@pytest.mark.parametrize("combined", [False, True])
def test_date_and_time_are_one_where_that_was_negotiated(index: Index, combined: bool) -> None:
    found = studies(index, combined, StudyDate="20060705-20060707", StudyTime="0920-1800")
    assert found == ({1, 2} if combined else {1})


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"StudyDate": "20060705"}, {1}),
        ({"StudyDate": "20060705-20060706"}, {1, 2}),
        ({"StudyDate": "-20060705"}, {1, 3}),
        ({"StudyDate": "19970424"}, {3}),
        ({"StudyDate": "20060706\\19970424"}, {2, 3}),
        ({"AccessionNumber": "A1\\A3"}, {1, 3}),
        ({"AccessionNumber": "a1"}, set()),
        ({"PatientID": "P1"}, {1, 2}),
        ({"PatientID": "P?"}, {1, 2, 3}),
        ({"PatientName": "YAMADA*"}, {3}),
        ({"PatientName": "山田*"}, {3}),
        ({"PatientName": "*joerg"}, {2}),
        ({"PatientName": "müller^jörg"}, {1}),
        ({"PatientName": "STRASSER*"}, {4}),  # cases that SQL does not know
        ({"PatientName": "*^\N{KELVIN SIGN}im"}, {4}),
        ({"StudyInstanceUID": "1.2\\1.3\\1.77"}, {2, 3}),
        ({"StudyDate": "junk"}, set()),
    ],
)
def test_each_way_to_narrow_finds_what_matches(index: Index, keys: dict[str, str], found: set[int]) -> None:
    assert studies(index, **keys) == found


_VALUES: dict[str, tuple[str, ...]] = {
    "PatientID": ("P1", "P2", "P?", "P1\\P2", "*", ""),
    "PatientName": ("m*", "*J?rg", "JOERG", "=山田*", "yamada^tarou", "*^*", "strasser*"),
    "AccessionNumber": ("A1", "A2\\A3", "A*", "B"),
    "StudyDate": ("20060705", "-20060705", "20060101-20061231", "19970424\\20060706-", "2006*"),
    "StudyTime": ("09", "-0930", "1000-1100"),
    "StudyInstanceUID": ("1.1", "1.2\\1.3", "1.*"),
    "StudyDescription": ("Head", "*e*"),
}


@given(st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in _VALUES.items()}))
def test_what_is_found_is_what_matching_says_of_every_study(index: Index, keys: dict[str, str]) -> None:
    """SQL only narrows: it never decides."""
    expected = set()
    for number, (patient, study, _) in enumerate(STUDIES, 1):
        row = {**patient, **study, "StudyInstanceUID": f"1.{number}"}
        if all(matcher(VRS[keyword], key)(row.get(keyword, "")) for keyword, key in keys.items()):
            expected.add(number)
    assert studies(index, **keys) == expected


class Enough(Exception):
    """Nobody waits for the rest."""


@pytest.mark.parametrize("reads", [1, 3])
@pytest.mark.parametrize(
    ("level", "uids", "keys"),
    [
        ("PATIENT", ALL, {"PatientSex": "X"}),
        ("STUDY", ALL, {"StudyDescription": "nothing has this"}),
        ("SERIES", ALL, {"Modality": "XX"}),
        ("IMAGE", Query(studies=("1.1",), series=("1.1.1",)), {"InstanceNumber": "99"}),
    ],
)
def test_a_search_in_which_nothing_fits_can_be_ended_after_any_read(
    index: Index, monkeypatch: pytest.MonkeyPatch, level: Level, uids: Query, keys: dict[str, str], reads: int
) -> None:
    monkeypatch.setattr(listing, "_PAGE", 1)
    calls = 0

    def meanwhile() -> None:
        nonlocal calls
        calls += 1
        if calls == reads:
            raise Enough

    with pytest.raises(Enough):
        next(Catalogue(index, None).find(VIEWER, level, uids, keys, False, meanwhile))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_join_without_a_seam(index: Index, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    queries: list[tuple[Level, Query, dict[str, str]]] = [
        ("PATIENT", ALL, {}),
        ("STUDY", ALL, {}),
        ("STUDY", ALL, {"StudyDate": "19000101-"}),
        ("STUDY", ALL, {"PatientID": "P1\\P2"}),
        ("STUDY", ALL, {"PatientName": "m*"}),
        ("IMAGE", Query(studies=("1.1",), series=("1.1.1",)), {}),
    ]
    whole = [find(index, level, uids, **keys) for level, uids, keys in queries]
    monkeypatch.setattr(listing, "_PAGE", size)
    assert [find(index, level, uids, **keys) for level, uids, keys in queries] == whole


def test_no_page_reads_again_what_came_before_it(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db")
    rows = [(f"1.{n}", f"P{n}", json.dumps({"StudyDate": f"20{n % 100:02}0101"})) for n in range(2000)]
    with index.listing._db.write() as db:
        db.executemany("INSERT INTO studies VALUES (?, NULL, ?, ?)", rows)
    steps: list[None] = []
    index.listing._db.connection().set_progress_handler(lambda: steps.append(None), 100)
    costs: dict[str, list[int]] = {}
    for narrowing in (None, Narrowing("StudyDate", ("19000101", "99991231"))):
        place: Place = ()
        cost = costs[narrowing.attribute if narrowing else "all"] = []
        for _ in range(20):
            steps.clear()
            place = index.listing.page(narrowing, place, 100)[-1][1]
            cost.append(len(steps))
    assert {name: max(cost) < 3 * cost[0] for name, cost in costs.items()} == {"all": True, "StudyDate": True}, costs


def test_what_clinical_peers_ask_is_answered_from_indexes(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an index helps, no table is read from end to end and nothing is sorted."""
    plans: list[tuple[str, str]] = []
    rows = Database.rows

    def explained(self: Database, sql: str, *values: Any) -> list[Any]:
        plans.extend((sql, row[3]) for row in rows(self, f"EXPLAIN QUERY PLAN {sql}", *values))
        return rows(self, sql, *values)

    monkeypatch.setattr(Database, "rows", explained)
    for keyword, key in (("StudyDate", "20060701-"), ("PatientID", "P1"), ("AccessionNumber", "A1"), ("StudyID", "")):
        find(index, "STUDY", **{keyword: key})
    find(index, "PATIENT")
    find(index, "SERIES", Query(studies=("1.1",)))
    find(index, "IMAGE", Query(studies=("1.1",), series=("1.1.1",)))
    bad = [
        (sql, step) for sql, step in plans if (step.startswith("SCAN") and "json_each" not in step) or "TEMP" in step
    ]
    assert plans
    assert bad == []


def test_what_was_put_aside_or_discarded_is_told_as_far_as_it_is_known(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db")
    enter(index, 1, *STUDIES[1])
    enter(index, 2, *STUDIES[1])
    (one, *_) = index.select(studies=["1.1"])
    unread = Instance(**{**one.__dict__, "claim": "c", "sop_uid": "1.7", "series_uid": "", "state": "quarantined"})
    index.enter([(unread, Attributes({}, {}, {}))])
    for claim in ("claim-1.2.1.1", "claim-1.2.1.2"):
        index.forget(claim)
    (row,) = find(index, "STUDY")  # of the second nothing is left
    counts = row["NumberOfStudyRelatedSeries"], row["NumberOfStudyRelatedInstances"]
    assert (row["StudyInstanceUID"], *counts) == ("1.1", "1", "2")
    assert [series["SeriesInstanceUID"] for series in find(index, "SERIES", Query(studies=("1.1",)))] == ["1.1.1"]


def test_counts_are_of_what_the_levels_below_list(tmp_path: Path) -> None:
    """Of what was quarantined before it was read, not even the series is known."""
    node = make_node(tmp_path)
    study = "1.2.826.0.1.3680043.10.7"
    of_study = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    store(node, variant(**of_study, SOPInstanceUID=f"{study}.1.1"))
    node.anchorer().take_in()
    store(node, variant(**of_study, SOPInstanceUID=f"{study}.1.2"))
    (unread,) = {*node.spool.names()} - {row.claim for row in node.index.select()}
    node.spool.put_aside(unread, QUARANTINE)
    node.anchorer().recover()
    assert len(node.index.select(studies=[study])) == 2
    (row,) = node.catalogue.find(VIEWER, "STUDY", ALL, {}, combined=False)
    series = list(node.catalogue.find(VIEWER, "SERIES", Query(studies=(study,)), {}, combined=False))
    images = list(node.catalogue.find(VIEWER, "IMAGE", Query((), (study,), (f"{study}.1",)), {}, combined=False))
    assert (row["NumberOfStudyRelatedSeries"], row["NumberOfStudyRelatedInstances"]) == ("1", "1")
    assert [len(series), len(images), series[0]["NumberOfSeriesRelatedInstances"]] == [1, 1, "1"]


# Research


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def approved(world: World) -> World:
    world.approve(world.request(), "owner", "custodian")
    return world


def told(world: World, level: Level, uids: Query = ALL, peer: Peer = RESEARCH, **keys: str) -> list[Mapping[str, str]]:
    return list(Catalogue(world.node.index, world.gate).find(peer, level, uids, keys, combined=False))


def everything(world: World, peer: Peer = RESEARCH) -> list[Mapping[str, str]]:
    """All rows a peer is told at any level, whatever UIDs it knows."""
    held = world.node.index.select()
    rows = told(world, "PATIENT", peer=peer) + told(world, "STUDY", peer=peer)
    for study in {row.study_uid for row in held}:
        rows += told(world, "SERIES", Query(studies=(study,)), peer)
    for study, series in {(row.study_uid, row.series_uid) for row in held}:
        rows += told(world, "IMAGE", Query(studies=(study,), series=(series,)), peer)
    return rows


class TestResearch:
    def test_nothing_is_told_without_an_approval(self, world: World) -> None:
        assert everything(world) == []

    def test_every_level_is_told_by_the_keys_allowed(self, approved: World) -> None:
        approved.add_study(1)
        rows = everything(approved)
        assert len(rows) == 1 + 1 + 1 + 3
        assert set().union(*rows) <= RESEARCH_KEYS
        assert {row["StudyInstanceUID"] for row in rows if "StudyInstanceUID" in row} == {approved.study_uid}
        images = {row["SOPInstanceUID"] for row in rows if "SOPInstanceUID" in row}
        assert images == set(approved.sop_uids)

    @pytest.mark.parametrize("keyword", sorted({*sum(KEYS.values(), ())} - RESEARCH_KEYS))
    def test_keys_that_are_not_allowed_play_no_part(self, approved: World, keyword: str) -> None:
        without = told(approved, "STUDY")
        assert told(approved, "STUDY", **{keyword: "nobody has this"}) == without
        assert keyword not in without[0]

    def test_counts_are_of_what_may_be_had(self, approved: World) -> None:
        """More objects of the study wait, came after the approval, or are of another class or series."""
        study = variant()
        odd = {"SOPInstanceUID": "1.2.826.0.1.3680043.10.9.1", "SeriesInstanceUID": "1.2.826.0.1.3680043.10.9"}
        store(approved.node, variant(StudyInstanceUID=study.StudyInstanceUID, Modality="XX", **odd))
        drain(approved.node)
        store(approved.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.9.2"))
        approved.node.anchorer().take_in()
        (row,) = told(approved, "STUDY")
        counts = row["NumberOfStudyRelatedSeries"], row["NumberOfStudyRelatedInstances"], row["ModalitiesInStudy"]
        assert counts == ("1", "3", "MR")
        (series,) = told(approved, "SERIES", Query(studies=(approved.study_uid,)))
        assert series["NumberOfSeriesRelatedInstances"] == "3"
        assert told(approved, "STUDY", ModalitiesInStudy="XX") == []
        (all_of_it,) = told(approved, "STUDY", peer=VIEWER)
        assert (all_of_it["NumberOfStudyRelatedInstances"], all_of_it["ModalitiesInStudy"]) == ("5", "MR\\XX")

    def test_texts_are_of_the_objects_that_may_be_had(self, world: World) -> None:
        """The first object of study and series is a report, which nobody approved."""
        study = "1.2.826.0.1.3680043.10.55"
        texts = ("PatientID", "StudyDescription", "SeriesDescription", "BodyPartExamined", "Modality")
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
        secret = dict.fromkeys(texts, "SECRET") | {"StudyDate": "19990909", "StudyTime": "0909", "SeriesNumber": "909"}
        store(world.node, variant(**uids, SOPInstanceUID=f"{study}.1.1", SOPClassUID=REPORT, **secret))
        told_of = dict.fromkeys(texts, "TOLD") | {"StudyDate": "20240101", "StudyTime": "1010", "SeriesNumber": "1"}
        for number, texts_of in ((2, told_of), (3, dict.fromkeys(texts, "LATER"))):
            store(world.node, variant(**uids, SOPInstanceUID=f"{study}.1.{number}", **texts_of))
        drain(world.node)
        world.approve(world.request(studies=[world.node.keyring.ensure_study(study).token]), "owner", "custodian")
        rows = everything(world)
        assert [len(row) for row in rows] == [len(supported(RESEARCH, level)) for level in (*ORDER, "IMAGE")]
        for row in rows:
            assert told_of.items() >= {keyword: row[keyword] for keyword in row.keys() & told_of.keys()}.items()
            assert row.get("ModalitiesInStudy", "TOLD") == "TOLD"
            assert not {"SECRET", "19990909", "0909", "909", REPORT} & set(row.values())
        for keyword in ("PatientID", "StudyDescription", "StudyDate", "StudyTime"):
            assert told(world, "STUDY", **{keyword: secret[keyword]}) == []
            assert told(world, "STUDY", **{keyword: told_of[keyword]}) == rows[1:2]
        for keyword in ("SeriesDescription", "Modality", "BodyPartExamined", "SeriesNumber"):
            assert told(world, "SERIES", Query(studies=(study,)), **{keyword: secret[keyword]}) == []
            assert told(world, "SERIES", Query(studies=(study,)), **{keyword: told_of[keyword]}) == rows[2:3]
        (all_of_it,) = told(world, "STUDY", peer=VIEWER, StudyInstanceUID=study)
        assert all_of_it["StudyDescription"] == "SECRET"  # as ever: the first object's

    def test_a_series_is_not_told_by_another_study_that_uses_its_uid(self, world: World) -> None:
        series = "1.2.826.0.1.3680043.10.99"
        secret = {"SeriesDescription": "SECRET", "Modality": "XX", "PatientID": "A"}
        store(
            world.node,
            variant(StudyInstanceUID="1.2.3.4.5", SeriesInstanceUID=series, SOPInstanceUID=f"{series}.1", **secret),
        )
        store(world.node, variant(SeriesInstanceUID=series, SOPInstanceUID=f"{series}.2", SeriesDescription="own"))
        drain(world.node)
        world.approve(world.request(future=True), "owner", "custodian")
        rows = told(world, "SERIES", Query(studies=(world.study_uid,)), SeriesInstanceUID=series)
        assert [(row["SeriesDescription"], row["NumberOfSeriesRelatedInstances"]) for row in rows] == [("own", "1")]
        assert [row["ModalitiesInStudy"] for row in told(world, "STUDY")] == ["MR"]

    def test_what_the_index_has_of_another_record_than_the_ledger_is_not_told(self, approved: World) -> None:
        """As between the custodian's word on a correction and the anchorer's next look."""
        with approved.node.index._db.write() as db:
            db.execute("UPDATE instances SET manifest = 'bafyother' WHERE sop_uid = ?", (approved.sop_uids[0],))
        images = {row["SOPInstanceUID"] for row in everything(approved) if "SOPInstanceUID" in row}
        assert images == set(approved.sop_uids[1:])

    def test_a_patient_is_told_once_for_all_studies(self, world: World) -> None:
        studies = [world.study_uid, world.add_study(1), world.add_study(2)]
        tokens_ = [world.node.keyring.ensure_study(study).token for study in studies]
        world.approve(world.request(studies=sorted(tokens_)), "owner", "custodian")
        assert len(told(world, "STUDY")) == 3
        assert len(told(world, "PATIENT")) == 1

    def test_a_search_in_which_nothing_fits_can_be_ended(self, approved: World) -> None:
        def meanwhile() -> None:
            raise Enough

        catalogue = Catalogue(approved.node.index, approved.gate)
        with pytest.raises(Enough):
            next(catalogue.find(RESEARCH, "STUDY", ALL, {"PatientID": "nobody"}, False, meanwhile))

    def test_withdrawn_objects_are_not_told(self, approved: World) -> None:
        study = approved.node.keyring.ensure_study(approved.study_uid)
        gone = tokens.instance_token(study.k_study, approved.sop_uids[0])
        args = {"study": study.token, "reason": "113001", "instances": [gone]}
        approved.ledger("owner").submit("Withdraw", args)
        (row,) = told(approved, "STUDY")
        assert row["NumberOfStudyRelatedInstances"] == "2"
        images = [row["SOPInstanceUID"] for row in everything(approved) if "SOPInstanceUID" in row]
        assert sorted(images) == sorted(approved.sop_uids[1:])

    @pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
    def test_the_ledger_is_asked_the_same_of_held_and_unheld(self, approved: World, level: Level) -> None:
        other = approved.add_study(1)
        (held,) = approved.node.index.select(studies=[other])
        asked: list[list[str]] = []

        class Recording:
            """The ledger, with what it is asked."""

            def query(self, function: str, args: Mapping[str, Any]) -> Any:
                asked[-1].append(function)
                return ledger.query(function, args)

        ledger = approved.ledger("owner", "node")
        gate = approved.gate_by(Recording())  # type: ignore[arg-type]
        for study, series, sop in ((other, held.series_uid, held.sop_uid), ("1.2.3", "1.2.3.4", "1.2.3.4.5")):
            asked.append([])
            uids = Query(
                studies=(study,) if level in ("SERIES", "IMAGE") else (), series=(series,) if level == "IMAGE" else ()
            )
            own = {"PATIENT": ("PatientID", study), "STUDY": ("StudyInstanceUID", study)}
            own |= {"SERIES": ("SeriesInstanceUID", series), "IMAGE": ("SOPInstanceUID", sop)}
            keys = dict([own[level]])
            assert list(Catalogue(approved.node.index, gate).find(RESEARCH, level, uids, keys, combined=False)) == []
        assert asked[0] == asked[1]
        assert len(asked[0]) == (4 if level == "PATIENT" else 1)  # what is approved may be of any patient

    @pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
    def test_with_the_ledger_away_nothing_is_told(self, approved: World, level: Level) -> None:
        class Away:
            def query(self, function: str, args: Mapping[str, Any]) -> Any:
                raise LedgerAway("gone")

        catalogue = Catalogue(approved.node.index, approved.gate_by(Away()))  # type: ignore[arg-type]
        with pytest.raises(LedgerAway):
            next(catalogue.find(RESEARCH, level, ALL, {}, combined=False))


# On the wire: a peer's identifier and an object's text, each in a character set of its own

STORED = (
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾊﾅｺ=山田^花子"),
    ("ISO_IR 100", "Müller^Jörg"),
    ("ISO_IR 126", "Διονυσιος"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("GBK", "乗^乛"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    node = make_node(tmp_path_factory.mktemp("node"))
    for number, (terms, name) in enumerate(STORED):
        uid = f"1.2.826.0.1.3680043.10.5.{number}"
        uids = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "SOPInstanceUID": f"{uid}.1.1"}
        store(node, variant(SpecificCharacterSet=terms, PatientID=f"P{number}", PatientName=name, **uids))
    node.anchorer().take_in()
    listener = Listener(ListenerConfig("clinical", "NODE", "127.0.0.1", 0, (VIEWER,)), node.spool, NodeArchive(node))
    listener.start()
    yield listener.port
    listener.shutdown()


@pytest.mark.parametrize(
    ("terms", "key", "number"),
    [
        ("ISO_IR 192", "山田^太郎", 0),
        (["", "ISO 2022 IR 87"], "=山田^太*", 0),
        ("GB18030", "山田^太?", 0),
        ("ISO_IR 192", "ﾔﾏﾀﾞ*", 1),
        ("ISO_IR 192", "MÜLLER^*", 2),
        ("ISO_IR 101", "müller^jörg", 2),
        ("ISO_IR 192", "διονυσιοσ", 3),
        ("ISO_IR 126", "Διον*", 3),
        ("ISO_IR 192", "王^小东", 4),
        ("GBK", "王^*", 4),
        ("GB18030", "乗^乛", 5),
        ("ISO_IR 192", "乗*", 5),
        ("ISO_IR 192", "=洪^*", 6),
        (["", "ISO 2022 IR 149"], "=洪^吉洞=홍*", 6),
    ],
)
def test_a_query_in_one_character_set_finds_what_is_stored_in_another(
    port: int, terms: str | list[str], key: str, number: int
) -> None:
    identifier = Dataset()
    identifier.SpecificCharacterSet = terms
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientName, identifier.PatientID = key, ""
    ae = AE("VIEWER")
    ae.add_requested_context(STUDY_FIND, EXPLICIT)
    assoc = ae.associate("127.0.0.1", port, ae_title="NODE")
    (_, found), (final, _) = assoc.send_c_find(identifier, STUDY_FIND)
    assoc.release()
    assert (found.PatientID, str(found.PatientName)) == (f"P{number}", STORED[number][1])
    assert (found.SpecificCharacterSet, final.Status) == ("ISO_IR 192", 0x0000)
