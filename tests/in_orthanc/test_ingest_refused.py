"""What Orthanc must not store is refused; what it stores goes to the node as it came, or an alarm stands."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from orthanc_ledger.outbox import MISSED
from orthanc_ledger.plugin.uploads import is_upload
from orthanc_ledger.spool import CONFLICTS, INBOX
from tests.in_orthanc.conftest import Hospital, Hospitals, Site, new_hospital
from tests.in_orthanc.kept import Kept, data_set_of, instances, scan, store
from tests.in_orthanc.test_ingest import MODALITIES, multipart

JPEG_LS = "1.2.840.10008.1.2.4.80"


@pytest.fixture(scope="module")
def strict(site: Site) -> Iterator[Hospital]:
    """Refuses other content, transcodes what it stores, and lets everybody associate."""
    settings = {"DicomModalities": MODALITIES, "IngestTranscoding": JPEG_LS, "DicomAlwaysAllowStore": True}
    ledger = {"Duplicate": "refuse", "Accept": ["DicomAlwaysAllowStore"]}
    research = {"ae_title": "RESEARCH1", "role": "research", "organisation": "ResearchMSP"}
    made = new_hospital(*site, ledger, settings, {"peers": [research]})
    try:
        yield made.start()
    finally:
        made.orthanc.stop()


@pytest.fixture
def source(samples_dir: Path) -> Path:
    return min(samples_dir.rglob("*.dcm"))


def test_anchored_is_what_came_and_not_what_orthanc_made_of_it(strict: Hospital, source: Path) -> None:
    kept, sent = Kept(strict.node), [scan(source), scan(source)]
    assert store(strict.orthanc, sent[:1]) == [0x0000]
    assert strict.orthanc.call("POST", "/instances", sent[1].content).status == 200
    kept.anchored(sent)
    for each in sent:
        query = {"Level": "Instance", "Query": {"SOPInstanceUID": each.sop_uid}}
        [identity] = strict.orthanc.call("POST", "/tools/find", query).json()
        syntax = strict.orthanc.call("GET", f"/instances/{identity}/metadata/TransferSyntax").body
        assert syntax == JPEG_LS.encode()
        assert kept.data_set(each.sop_uid) == data_set_of(each.content)
    strict.node.command("sweep")


def test_other_content_is_refused_where_the_site_says_so_and_kept_for_a_person(strict: Hospital, source: Path) -> None:
    kept, first = Kept(strict.node), scan(source, PatientName="First")
    other = scan(source, PatientName="Other", SOPInstanceUID=first.sop_uid, StudyInstanceUID=first.study_uid)
    assert store(strict.orthanc, [first, other, first]) == [0x0000, 0x0111, 0x0000]
    kept.anchored([first])
    assert store(strict.orthanc, [other, first], aet="MRI2") == [0x0111, 0x0000]
    assert [arrival.sender for arrival in kept.conflicts(first.sop_uid)] == ["MRI1"]
    assert kept.fingerprint(first.sop_uid) == first.fingerprint


def test_other_content_that_orthanc_does_not_have_is_refused_all_the_same(strict: Hospital, source: Path) -> None:
    first = scan(source, PatientName="First")
    other = scan(source, PatientName="Other", SOPInstanceUID=first.sop_uid, StudyInstanceUID=first.study_uid)
    assert store(strict.orthanc, [first]) == [0x0000]
    [at] = strict.orthanc.call("POST", "/tools/lookup", first.sop_uid).json()
    assert strict.orthanc.call("DELETE", at["Path"]).status == 200
    before = instances(strict.orthanc)
    assert store(strict.orthanc, [other]) == [0x0111]
    assert instances(strict.orthanc) == before


@pytest.mark.parametrize("aet", ["RESEARCH1", "Research1"])
def test_what_a_research_peer_sends_is_not_taken_and_the_refusal_counted(
    strict: Hospital, source: Path, aet: str
) -> None:
    kept, before, sent = Kept(strict.node), instances(strict.orthanc), scan(source)
    assert store(strict.orthanc, [sent], aet=aet) == [0x0124]
    assert instances(strict.orthanc) == before
    assert kept.node.spool.holder(sent.sop_uid) is None
    wait_until(lambda: any(record["function"] == "LogDenials" for record in strict.node.audit()), 30, "it is told")


@pytest.fixture
def alone(hospital: Hospitals) -> Iterator[Callable[..., tuple[Hospital, Kept]]]:
    """Makes hospitals without the node's processes: what is in the spool stays there."""
    made: list[Hospital] = []

    def make(**node: Any) -> tuple[Hospital, Kept]:
        made.append(hospital(ledger={"Serve": False}, settings={"DicomModalities": MODALITIES}, node=node).start())
        return made[-1], Kept(made[-1].node)

    yield make
    for each in made:
        each.orthanc.kill()


def test_below_the_reserve_nothing_is_stored_by_any_way_in(
    alone: Callable[..., tuple[Hospital, Kept]], source: Path
) -> None:
    made, kept = alone(spool_reserve_mb=1 << 40)
    sent = scan(source)
    assert store(made.orthanc, [sent]) == [0xA700]
    assert "a C-STORE is refused: spool " in made.orthanc.log.read_text(errors="replace")
    assert made.orthanc.call("POST", "/instances", sent.content).status == 403
    body, headers = multipart(sent.content)
    assert made.orthanc.call("POST", "/dicom-web/studies", body, headers=headers).status == 403
    assert made.orthanc.call("POST", "/tools/create-dicom", {"Tags": {"PatientName": "Made"}}).status == 403
    assert instances(made.orthanc) == 0
    assert [kept.node.spool.names(queue) for queue in (INBOX, CONFLICTS)] == [[], []]


def test_an_object_too_large_for_the_node_is_not_stored(
    alone: Callable[..., tuple[Hospital, Kept]], source: Path
) -> None:
    made, _ = alone(largest_object_mb=1)
    large = scan(source, EncapsulatedDocument=bytes(1 << 20))
    assert store(made.orthanc, [large]) == [0xA700]
    assert instances(made.orthanc) == 0


def test_what_cannot_be_told_is_refused_as_a_fault_that_passes(
    alone: Callable[..., tuple[Hospital, Kept]], source: Path
) -> None:
    made, kept = alone()
    spool, sent = kept.node.spool.folder, scan(source)
    spool.rename(spool.with_name("gone"))
    assert store(made.orthanc, [sent]) == [0x0110]
    assert instances(made.orthanc) == 0
    spool.with_name("gone").rename(spool)
    assert store(made.orthanc, [sent]) == [0x0000]
    assert kept.holds(sent)


def test_what_the_spool_cannot_keep_is_stored_by_orthanc_with_an_alarm(
    alone: Callable[..., tuple[Hospital, Kept]], source: Path
) -> None:
    made, kept = alone()
    inbox = kept.node.spool.folder / INBOX
    inbox.rename(inbox.with_name("gone"))
    lost = [scan(source), scan(source)]
    assert store(made.orthanc, lost) == [0x0000, 0x0000]
    inbox.with_name("gone").rename(inbox)
    assert instances(made.orthanc) == 2
    wait_until(kept.node.outbox.alarms, 30, "the alarm is raised")
    assert [alarm.kind for alarm in kept.node.outbox.alarms()] == [MISSED]
    assert store(made.orthanc, lost) == [0x0000, 0x0000]
    assert len(kept.node.spool.names()) == 2


@pytest.mark.parametrize(
    ("method", "uri", "uploads"),
    [
        ("POST", "/instances", True),
        ("POST", "/instances/", True),
        ("POST", "/tools/create-dicom", True),
        ("POST", "/dicom-web/studies", True),
        ("POST", "/pacs/rs/studies/1.2.3", True),
        ("POST", "/dicom-web/servers/there/retrieve", True),
        ("POST", "/studies/f689ddd2-662f8fe1/anonymize", True),
        ("PUT", "/webdav/uploads/a.dcm", True),
        ("POST", "/tools/find", False),
        ("POST", "/studies/f689ddd2-662f8fe1/archive", False),
        ("POST", "/modalities/WS1/store", False),
        ("POST", "/instances/f689ddd2-662f8fe1/modify", False),
        ("GET", "/instances", False),
        ("DELETE", "/studies/f689ddd2-662f8fe1", False),
    ],
)
def test_uploads_are_told_by_their_route(method: str, uri: str, uploads: bool) -> None:
    assert is_upload(method, uri) is uploads
