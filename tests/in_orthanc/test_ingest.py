"""Objects that come to Orthanc are anchored as they came, whichever way; what Orthanc refuses is nowhere."""

import io
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import wait_until

from tests.in_orthanc.conftest import Hospital, Site, new_hospital
from tests.in_orthanc.kept import ANCHORED_S, Kept, Scan, data_set_of, scan, send, study
from tests.in_orthanc.live import STAFF, STUDENT

MODALITIES = {name: {"AET": name, "Host": "127.0.0.1", "Port": 104} for name in ("MRI1", "MRI2")}
Dcmtk = Callable[[str], str]


@pytest.fixture(scope="module")
def running(site: Site) -> Iterator[Hospital]:
    users, settings = {"Staff": [STAFF, STUDENT]}, {"DicomModalities": MODALITIES}
    made = new_hospital(*site, users, settings)
    try:
        yield made.start()
    finally:
        made.orthanc.stop()


@pytest.fixture(scope="module")
def kept(running: Hospital) -> Kept:
    return Kept(running.node)


@pytest.fixture
def sources(samples_dir: Path) -> list[Path]:
    return sorted(samples_dir.rglob("*.dcm"))


def multipart(*contents: bytes) -> tuple[bytes, dict[str, str]]:
    """A STOW-RS request's body and headers (PS3.18 10.5)."""
    parts = [b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n" for content in contents]
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=XX'}
    return b"".join(parts) + b"--XX--\r\n", headers


def zipped(scans: list[Scan]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for number, each in enumerate(scans):
            archive.writestr(f"{number}.dcm", each.content)
    return sink.getvalue()


def test_every_way_in_is_anchored_as_sent_with_who_sent_it(
    running: Hospital, kept: Kept, sources: list[Path], dcmtk: Dcmtk, tmp_path: Path
) -> None:
    orthanc = running.orthanc
    by_store, by_post, by_zip, by_stow = (study(some) for some in (sources, sources[:1], sources[1:4], sources[4:6]))
    assert send(dcmtk, orthanc, tmp_path / "send", by_store) == ""
    assert orthanc.call("POST", "/instances", by_post[0].content).status == 200
    assert len(orthanc.call("POST", "/instances", zipped(by_zip)).json()) == 3
    body, headers = multipart(*(each.content for each in by_stow))
    assert orthanc.call("POST", "/dicom-web/studies", body, headers=headers).status == 200
    user = "staff at 127.0.0.1"
    ways = [
        (by_store, "addressed-ae", "MRI1 at 127.0.0.1"),
        (by_post, "rest-user", user),
        (by_zip, "rest-user", user),
        (by_stow, "stow", user),
    ]
    for scans, origin, sender in ways:
        rows = kept.anchored(scans)
        assert {(row.origin, row.sender) for row in rows} == {(origin, sender)}
        assert {each.sop_uid: each.fingerprint for each in scans} == {
            each.sop_uid: kept.fingerprint(each.sop_uid) for each in scans
        }
    for each in (*by_post, *by_zip, *by_stow):
        assert kept.data_set(each.sop_uid) == data_set_of(each.content)


def test_four_senders_at_once(running: Hospital, kept: Kept, sources: list[Path], dcmtk: Dcmtk, tmp_path: Path) -> None:
    studies = [study(sources) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        said = pool.map(lambda n: send(dcmtk, running.orthanc, tmp_path / str(n), studies[n]), range(4))
        assert list(said) == [""] * 4
    for scans in studies:
        kept.anchored(scans)
        assert [kept.fingerprint(each.sop_uid) for each in scans] == [each.fingerprint for each in scans]


def test_the_same_again_is_kept_once_and_of_its_first_sender(
    running: Hospital, kept: Kept, sources: list[Path], dcmtk: Dcmtk, tmp_path: Path
) -> None:
    sent = scan(sources[0])
    assert send(dcmtk, running.orthanc, tmp_path / "first", [sent]) == ""
    assert send(dcmtk, running.orthanc, tmp_path / "again", [sent], aet="MRI2") == ""
    [row] = kept.anchored([sent])
    assert row.sender == "MRI1 at 127.0.0.1"
    assert running.orthanc.call("POST", "/instances", sent.content).json()["Status"] == "AlreadyStored"
    assert kept.conflicts(sent.sop_uid) == []


def test_other_content_is_answered_as_ever_and_waits_with_an_alarm(
    running: Hospital, kept: Kept, sources: list[Path], dcmtk: Dcmtk, tmp_path: Path
) -> None:
    orthanc, first = running.orthanc, scan(sources[0], PatientName="First")
    others = [
        scan(sources[0], PatientName=name, SOPInstanceUID=first.sop_uid, StudyInstanceUID=first.study_uid)
        for name in ("Second", "Third")
    ]
    assert send(dcmtk, orthanc, tmp_path / "first", [first]) == ""
    kept.anchored([first])
    assert send(dcmtk, orthanc, tmp_path / "other", others[:1], aet="MRI2") == ""
    assert orthanc.call("POST", "/instances", others[1].content).json()["Status"] == "AlreadyStored"
    senders = {arrival.sender for arrival in kept.conflicts(first.sop_uid)}
    assert senders == {"MRI2", "staff at 127.0.0.1"}  # where MRI2 called from Orthanc does not say again
    wait_until(lambda: kept.alarms(first.sop_uid) == ["conflict"] * 2, ANCHORED_S, "both conflicts are alarmed of")
    assert kept.fingerprint(first.sop_uid) == first.fingerprint
    [old] = orthanc.call(
        "POST", "/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": first.sop_uid}}
    ).json()
    assert data_set_of(orthanc.call("GET", f"/instances/{old}/file").body) == data_set_of(first.content)


def test_what_staff_have_orthanc_make_is_of_their_user(running: Hospital, kept: Kept, sources: list[Path]) -> None:
    first, orthanc = scan(sources[0]), running.orthanc
    at = orthanc.call("POST", "/instances", first.content).json()["ParentStudy"]
    made = [
        orthanc.call("POST", f"/studies/{at}/modify", {"Replace": {"StudyDescription": "Other"}}).json()["ID"],
        orthanc.call("POST", f"/studies/{at}/anonymize", {}).json()["ID"],
    ]
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "PatientName": "Made"}
    made.append(orthanc.call("POST", "/tools/create-dicom", {"Tags": tags}).json()["ParentStudy"])
    for identity in made:
        [instance] = orthanc.call("GET", f"/studies/{identity}/instances").json()
        uid = instance["MainDicomTags"]["SOPInstanceUID"]
        content = orthanc.call("GET", f"/instances/{instance['ID']}/file").body
        [row] = kept.anchored([Scan(uid, "", content)])
        assert (row.origin, row.sender) == ("rest-user", "staff at 127.0.0.1")
        assert kept.data_set(uid) == data_set_of(content)


@pytest.mark.parametrize("site", ["1.10.1"], indirect=True)
def test_who_sent_the_first_is_not_said_to_have_made_the_second(
    running: Hospital, kept: Kept, sources: list[Path]
) -> None:
    """A job of this Orthanc that changes an object under its own UID does not store it, and tells the first's user."""
    first, orthanc = scan(sources[0]), running.orthanc
    at = orthanc.call("POST", "/instances", first.content, user=STAFF).json()["ParentStudy"]
    second = int(time.time())
    wait_until(lambda: time.time() > second + 1.1, ANCHORED_S, "Orthanc, some ms behind, tells the seconds apart")
    same = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    changed = {"Replace": {"StudyDescription": "Other"}, "Keep": same, "Force": True}
    assert orthanc.call("POST", f"/studies/{at}/modify", changed, user=STUDENT).status == 500
    assert [arrival.sender for arrival in kept.conflicts(first.sop_uid)] == [""]


def test_what_cannot_be_read_goes_to_quarantine(running: Hospital, kept: Kept, sources: list[Path]) -> None:
    sent, before = scan(sources[0]), kept.quarantined()
    for uid in (b"2.25.letters", b"2.25.LETTERS"):
        broken = sent.content.replace(sent.sop_uid.encode(), uid + sent.sop_uid.encode()[len(uid) :])
        assert running.orthanc.call("POST", "/instances", broken).status == 200
    assert running.orthanc.call("POST", "/tools/create-dicom", {"Tags": {"PatientName": "No class"}}).status == 200
    wait_until(lambda: len(kept.quarantined() - before) == 3, ANCHORED_S, "all are in quarantine")
