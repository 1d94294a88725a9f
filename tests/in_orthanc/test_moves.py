"""C-MOVE asked of Orthanc: for clinical AEs as a plain Orthanc has it, for research as the node decides."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from pydicom import dcmread

from tests.in_orthanc.conftest import Site, new_hospital
from tests.in_orthanc.kept import store_files
from tests.in_orthanc.live import LiveOrthanc
from tests.in_orthanc.moving import PATIENT_ROOT_MOVE, WAIT_S, Destination, Response, move
from tests.live_node import STUDY_ROOT_MOVE

SUCCESS, WARNING, REFUSED = 0x0000, 0xB000, 0xC000
NOWHERE = 1  # a port on which nobody listens


@dataclass
class Pair:
    """A plain Orthanc, and one with the plugin that answers C-MOVE, with the same scans; both send to ``ward``."""

    plain: LiveOrthanc
    plugged: LiveOrthanc
    ward: Destination
    scans: Sequence[Mapping[str, str]]

    def both(self, *asked: Any, fresh: Mapping[str, Any] | None = None, **more: Any) -> "list[Seen]":
        """The same C-MOVE asked of both, and what was seen of it."""
        found = []
        for orthanc in (self.plain, self.plugged):
            self.ward.fresh(**(fresh or {}))
            responses = move(orthanc, *asked, **more)
            ward = self.ward
            found.append(Seen(responses, sorted(ward.arrived), list(ward.originators), list(ward.callers)))
        return found

    @property
    def counts(self) -> bool:
        """Whether this Orthanc lets a plugin count."""
        return self.plugged.version != "1.10.1"


@dataclass
class Seen:
    """What a C-MOVE was answered, and what its destination saw."""

    responses: list[Response]
    arrived: list[str]
    originators: list[tuple[str | None, int | None]]
    callers: list[str]

    @property
    def final(self) -> Response:
        return self.responses[-1]

    @property
    def on_the_wire(self) -> tuple[Any, ...]:
        """What the destination saw."""
        return self.arrived, self.originators, self.callers


def modalities(ward: int) -> dict[str, Any]:
    here = "127.0.0.1"
    return {
        "MRI1": ["MRI1", here, NOWHERE],
        "WS": {"AET": "WARD", "Host": here, "Port": ward},
        "GONE": ["GONE", here, NOWHERE],
        "LOOKER": {"AET": "LOOKER", "Host": here, "Port": ward, "AllowMove": False},
    }


def scans_of(paths: Sequence[Path]) -> list[Mapping[str, str]]:
    keys = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return [{key: str(dcmread(path, stop_before_pixels=True)[key].value) for key in keys} for path in paths]


@pytest.fixture(scope="module")
def files(samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two studies of one patient, one of them in two series, and a study with an accession number."""
    found = sorted((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))[6:14] + sorted(
        (samples_dir / "siemens-skyra").rglob("*.dcm")
    )
    numbered = dcmread(found[0])
    numbered.AccessionNumber, numbered.PatientID = "A-7", "OTHER"
    for keyword, uid in (
        ("StudyInstanceUID", "1.2.7"),
        ("SeriesInstanceUID", "1.2.7.1"),
        ("SOPInstanceUID", "1.2.7.2"),
    ):
        setattr(numbered, keyword, uid)
    numbered.file_meta.MediaStorageSOPInstanceUID = "1.2.7.2"
    path = tmp_path_factory.mktemp("files") / "numbered.dcm"
    numbered.save_as(path)
    return [*found, path]


@pytest.fixture(scope="module")
def pair(site: Site, files: list[Path]) -> Iterator[Pair]:
    version, folder, free_port = site
    with ExitStack() as stack:
        ward = stack.enter_context(Destination("WARD", free_port()).listening())
        settings = {"DicomModalities": modalities(ward.port)}
        plain = LiveOrthanc(version, folder / "plain", free_port(), free_port(), settings=settings)
        made = new_hospital(*site, {"Move": True, "Serve": False}, settings)
        for orthanc in (plain, made.orthanc):
            stack.callback(orthanc.stop)
            orthanc.start()
            store_files(orthanc, files)
        yield Pair(plain, made.orthanc, ward, scans_of(files))
        assert made.orthanc.stop() == 0


def keys_of(scan: Mapping[str, str], level: str) -> dict[str, Any]:
    """The unique keys down to a level, as Study Root has them."""
    names = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    depth = ["STUDY", "SERIES", "IMAGE"].index(level) + 1
    return {"QueryRetrieveLevel": level} | {name: scan[name] for name in names[:depth]}


ASKED: dict[str, Callable[[Sequence[Mapping[str, str]]], dict[str, Any]]] = {
    "study": lambda scans: keys_of(scans[0], "STUDY"),
    "series": lambda scans: keys_of(scans[0], "SERIES"),
    "image": lambda scans: keys_of(scans[0], "IMAGE"),
    "studies": lambda scans: (
        keys_of(scans[0], "STUDY") | {"StudyInstanceUID": [scans[at]["StudyInstanceUID"] for at in (8, 0)]}
    ),
    "images": lambda scans: (
        keys_of(scans[0], "IMAGE") | {"SOPInstanceUID": [scan["SOPInstanceUID"] for scan in scans[2:0:-1]]}
    ),
    "series alone": lambda scans: {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": scans[0]["SeriesInstanceUID"]},
    "a study of two that is there": lambda scans: (
        keys_of(scans[0], "STUDY") | {"StudyInstanceUID": ["1.2.3", scans[0]["StudyInstanceUID"]]}
    ),
    "patient": lambda scans: {"QueryRetrieveLevel": "PATIENT", "PatientID": scans[0]["PatientID"]},
    "accession number": lambda scans: {"QueryRetrieveLevel": "STUDY", "AccessionNumber": "A-7"},
    "nothing that is there": lambda scans: {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.3"},
    "no keys": lambda scans: {"QueryRetrieveLevel": "STUDY"},
    "no such level": lambda scans: keys_of(scans[0], "STUDY") | {"QueryRetrieveLevel": "NONSENSE"},
}


@pytest.mark.parametrize("asked", ASKED)
def test_clinical_aes_have_every_level_as_from_a_plain_orthanc(pair: Pair, asked: str) -> None:
    model = PATIENT_ROOT_MOVE if asked == "patient" else STUDY_ROOT_MOVE
    was, got = pair.both("WARD", "WARD", ASKED[asked](pair.scans), model=model)
    assert got.on_the_wire == was.on_the_wire
    if pair.counts:
        assert got.responses == was.responses
    else:
        assert (got.final[0] == SUCCESS) == (was.final[0] == SUCCESS)


@pytest.mark.parametrize(("caller", "destination"), [("ward", "WARD"), ("WARD", "ward"), ("MRI1", "WARD")])
def test_who_asks_and_where_it_goes_are_as_orthanc_compares_them(pair: Pair, caller: str, destination: str) -> None:
    was, got = pair.both(caller, destination, keys_of(pair.scans[0], "SERIES"))
    assert got.on_the_wire == was.on_the_wire
    assert was.final[0] == got.final[0] == SUCCESS


@pytest.mark.parametrize("destination", ["NOBODY", "GONE", "WS"])
def test_a_destination_that_is_unknown_or_away_is_told_as_by_a_plain_orthanc(pair: Pair, destination: str) -> None:
    was, got = pair.both("WARD", destination, keys_of(pair.scans[0], "STUDY"))
    assert was.final[0] == REFUSED
    assert got.final[0] == (REFUSED if pair.counts else WARNING)
    assert not got.callers


def test_who_may_not_move_is_cut_off(pair: Pair) -> None:
    for caller in ("LOOKER", "STRANGER"):
        was, got = pair.both(caller, "WARD", keys_of(pair.scans[0], "STUDY"))
        assert got == was == Seen([], [], [], [])


FAILURES: dict[str, Mapping[str, Any]] = {
    "refuses the first": {"answers": {0: 0xA700}},
    "refuses one": {"answers": {2: 0xA700}},
    "refuses the last": {"answers": {7: 0xC000}},
    "breaks off": {"breaks_at": 3},
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_destination_that_fails_has_got_the_same_and_the_asker_is_told_so(pair: Pair, failure: str) -> None:
    was, got = pair.both("WARD", "WARD", keys_of(pair.scans[0], "STUDY"), fresh=FAILURES[failure])
    assert len(was.originators) < 9
    assert got.on_the_wire == was.on_the_wire
    assert was.final[0] == REFUSED
    nothing_sent = not was.arrived
    assert got.final[0] == (REFUSED if pair.counts and nothing_sent else WARNING)
    if pair.counts and not nothing_sent:
        assert got.responses[:-1] == was.responses[:-1]
        assert got.final[3] == 1


def test_what_is_stored_with_a_warning_is_stored(pair: Pair) -> None:
    was, got = pair.both("WARD", "WARD", keys_of(pair.scans[0], "STUDY"), fresh={"answers": {1: 0xB007}})
    assert got.on_the_wire == was.on_the_wire
    assert was.final[0] == got.final[0] == SUCCESS


def test_a_cancelled_move_ends(pair: Pair) -> None:
    for orthanc in (pair.plain, pair.plugged) if pair.counts else (pair.plain,):
        cancelled, over = threading.Event(), threading.Event()

        def hold(number: int, cancelled: threading.Event = cancelled, over: threading.Event = over) -> None:
            if number == 1:
                assert cancelled.wait(WAIT_S)
            if number == 6:
                over.wait(WAIT_S)

        pair.ward.fresh(each=hold)
        responses = move(orthanc, "WARD", "WARD", keys_of(pair.scans[0], "STUDY"), cancelled=cancelled)
        over.set()
        assert responses[-1][0] == 0xFE00
        wait_until(lambda orthanc=orthanc: no_job_works(orthanc), WAIT_S, "the job has ended")
        assert len(pair.ward.arrived) < 8


def no_job_works(orthanc: LiveOrthanc) -> bool:
    return all(job["State"] in ("Success", "Failure") for job in orthanc.call("GET", "/jobs?expand").json())
