"""What staff do in Orthanc is noticed and told for a person to decide; never is it a tamper flag, and nothing is taken
from under custody for it. An erasure is done once Orthanc, too, has let go.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from erase_make import confirm, no_grace
from pydicom import dcmread

from orthanc_ledger.assemble import Node
from orthanc_ledger.cli import main
from orthanc_ledger.clock import system_clock
from orthanc_ledger.pacs import Derived
from orthanc_ledger.reconcile import Reconciler
from orthanc_ledger.spool import QUARANTINE
from tests.in_orthanc.conftest import Hospital, Site, new_hospital
from tests.in_orthanc.kept import ANCHORED_S, Kept, Scan, part10, study
from tests.in_orthanc.live import LiveOrthanc
from tests.in_orthanc.test_ingest import MODALITIES

JPEG_LS = "1.2.840.10008.1.2.4.80"
PATIENTS = 5


@dataclass
class Ward:
    """A hospital at work, and what its node keeps."""

    hospital: Hospital
    kept: Kept
    sources: list[Path]

    @property
    def orthanc(self) -> LiveOrthanc:
        return self.hospital.orthanc

    @property
    def node(self) -> Node:
        return self.kept.node

    def has(self, **attributes: Any) -> list[Scan]:
        """A new study, stored and anchored."""
        scans = study(self.sources, **attributes)
        self.upload(scans)
        self.kept.anchored(scans)
        wait_until(lambda: self.node.pacs.held(scans[0].study_uid) == len(scans), ANCHORED_S, "it is noted")
        return scans

    def upload(self, scans: list[Scan]) -> None:
        for each in scans:
            assert self.orthanc.call("POST", "/instances", each.content).status == 200

    def id_of(self, uid: str) -> str:
        """Where Orthanc has what a UID names."""
        [found] = self.orthanc.call("POST", "/tools/lookup", uid).json()
        return str(found["Path"])

    def do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What staff do over HTTP."""
        answer = self.orthanc.call(method, path, body)
        assert answer.status == 200, answer.body
        return answer.json()

    def look(self, until: Callable[[], object], what: str) -> None:
        """Have the reconciler look, without waiting for what may be on its way, until it has found something."""
        node = self.node
        parts = node.orthanc, node.pacs, node.fetcher, node.outbox
        reconciler = Reconciler(*parts, lambda _: False, system_clock, settled_s=0)

        def looked() -> object:
            reconciler.step(lambda _: False, whole=True)
            return until()

        wait_until(looked, ANCHORED_S, what)

    def gone(self, study_uid: str) -> tuple[int, int]:
        """Of a study, how many objects wait for a decision as Orthanc lacks them, and how many it has."""
        return next(((each.count, each.left) for each in self.node.pacs.gone(study_uid)), (0, 0))


def corrected(scan: Scan, **attributes: Any) -> Scan:
    """Other content under the same UIDs."""
    content = dcmread(io.BytesIO(scan.content))
    for keyword, value in attributes.items():
        setattr(content, keyword, value)
    return Scan(scan.sop_uid, scan.study_uid, part10(content))


@pytest.fixture(scope="module")
def ward(site: Site, samples_dir: Path) -> Iterator[Ward]:
    """Orthanc as it may be set up: transcodes, overwrites, and forgets old patients."""
    more = {"IngestTranscoding": JPEG_LS, "OverwriteInstances": True, "MaximumPatientCount": PATIENTS}
    settings = {"DicomModalities": MODALITIES, **more}
    made = new_hospital(*site, settings=settings)
    kept = Kept(made.node)
    no_grace(kept.node)
    try:
        yield Ward(made.start(), kept, sorted(samples_dir.rglob("*.dcm"))[:3])
        assert made.orthanc.stop() == 0
    finally:
        kept.node.orthanc.close()
        made.orthanc.kill()


@pytest.fixture(autouse=True)
def _nothing_is_flagged(ward: Ward) -> Iterator[None]:
    """Whatever is done, all that is under custody is as it was anchored."""
    yield
    ward.node.sweep(0.0).round(lambda _: True)
    assert {alarm.kind for alarm in ward.node.outbox.alarms()} <= {"conflict", "quarantine", "node key"}
    events = ward.node.ledger.query("Audit", {"limit": 50})
    assert "FlagTampered" not in {event["function"] for event in events}


def test_what_is_deleted_waits_for_a_person_and_stays_under_custody(ward: Ward) -> None:
    scans = ward.has()
    uid = scans[0].study_uid
    ward.do("DELETE", ward.id_of(scans[0].sop_uid))
    ward.look(lambda: ward.gone(uid) == (1, 2), "one object is gone")
    ward.do("DELETE", ward.id_of(uid))
    ward.look(lambda: ward.gone(uid) == (3, 0), "the study is gone")
    [row] = ward.hospital.node.rows("pacs")
    assert (row["study_instance_uid"], row["what"], row["objects"]) == (uid, "deleted", 3)
    ward.hospital.node.command("pacs", "keep", uid)
    assert ward.hospital.node.rows("pacs") == []
    assert len(ward.kept.anchored(scans)) == 3
    ward.upload(scans)
    ward.look(lambda: ward.node.pacs.held(uid) == 3, "it came again")
    assert ward.gone(uid) == (0, 0)


def test_to_withdraw_a_deleted_study_is_a_decision(ward: Ward) -> None:
    scans = ward.has()
    uid = scans[0].study_uid
    ward.do("DELETE", ward.id_of(uid))
    ward.look(lambda: ward.gone(uid) == (3, 0), "the study is gone")
    ward.hospital.node.command("withdraw", "--study", uid, "--reason", "113038", "--as", "owner")
    assert ward.gone(uid) == (0, 0)


def test_a_modified_study_is_a_new_one_and_its_source_gone(ward: Ward) -> None:
    scans = ward.has()
    uid = scans[0].study_uid
    asked = {"Replace": {"StudyDescription": "Corrected"}, "KeepSource": False}
    made = ward.do("POST", f"{ward.id_of(uid)}/modify", asked)["ID"]
    new_uid = ward.do("GET", f"/studies/{made}")["MainDicomTags"]["StudyInstanceUID"]
    ward.look(lambda: ward.gone(uid) == (3, 0), "the source is gone")
    anchored = [row for row in ward.node.index.select(studies=[new_uid]) if row.state == "anchored"]
    wait_until(lambda: len(ward.node.index.select(studies=[new_uid])) == 3, ANCHORED_S, "the new one is here")
    assert {row.origin for row in anchored} <= {"rest-user"}
    [derived] = [each for each in ward.node.pacs.derived() if each.study_uid == new_uid]
    assert (derived.source_uid, derived.how) == (uid, "modified")
    assert ward.node.pacs.decided(uid) == 3


def test_an_anonymized_study_is_told_with_its_source(ward: Ward) -> None:
    uid = ward.has()[0].study_uid
    made = ward.do("POST", f"{ward.id_of(uid)}/anonymize", {})["ID"]
    new_uid = ward.do("GET", f"/studies/{made}")["MainDicomTags"]["StudyInstanceUID"]

    def found() -> list[Derived]:
        return [each for each in ward.node.pacs.derived() if each.study_uid == new_uid]

    ward.look(found, "it is told")
    assert [(each.source_uid, each.how) for each in found()] == [(uid, "anonymized")]
    rows = ward.hospital.node.rows("pacs", "made")
    assert {"study_instance_uid": new_uid, "how": "anonymized", "source": uid}.items() <= rows[-1].items()
    assert ward.gone(uid) == (0, 0)


def test_what_is_overwritten_is_a_conflict_to_be_decided_and_not_gone(ward: Ward) -> None:
    first = ward.has()[0]
    ward.upload([corrected(first, PatientComments="corrected")])
    ward.look(lambda: ward.node.pacs.replaced(first.sop_uid), "it is noted")
    assert len(ward.kept.conflicts(first.sop_uid)) == 1
    [row] = ward.hospital.node.rows("pacs")
    assert (row["study_instance_uid"], row["what"], row["sop_instance_uid"]) == (
        first.study_uid,
        "replaced",
        first.sop_uid,
    )
    ward.hospital.node.command("conflicts", "discard", row["conflict"])
    assert ward.hospital.node.rows("pacs") == []


def test_another_patient_under_the_same_uids_is_a_conflict_and_not_gone(ward: Ward) -> None:
    scans = ward.has()
    uid = scans[0].study_uid
    old = ward.id_of(uid)
    ward.upload([corrected(each, PatientID="corrected") for each in scans])
    ward.do("DELETE", old)
    ward.look(lambda: all(ward.node.pacs.replaced(each.sop_uid) for each in scans), "they are noted")
    assert ward.gone(uid) == (0, 0)
    assert [len(ward.kept.conflicts(each.sop_uid)) for each in scans] == [1, 1, 1]


def test_what_orthanc_recycles_waits_for_a_person(ward: Ward) -> None:
    uid = ward.has(PatientID="oldest")[0].study_uid
    for number in range(PATIENTS):
        ward.has(PatientID=f"newer {number}")
    ward.look(lambda: ward.gone(uid) == (3, 0), "the oldest is gone")
    assert ward.node.pacs.decided(uid) == 3


def test_the_index_is_not_made_anew_under_a_running_orthanc(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(ward.hospital.node.config), "reindex"]) == 2
    assert "the index is in use: stop Orthanc" in capsys.readouterr().err


def traces(ward: Ward, *words: str) -> set[str]:
    """Which files of data_dir hold one of these words."""
    paths = filter(Path.is_file, ward.node.config.data_dir.glob("pacs.db*"))
    return {path.name for path in paths for word in words if word.encode() in path.read_bytes()}


def test_an_erasure_waits_for_orthanc_and_leaves_nothing(ward: Ward) -> None:
    scans = ward.has(PatientID="to be erased")
    uid, ids = scans[0].study_uid, [ward.id_of(each.sop_uid).rpartition("/")[2] for each in scans]
    keys = ward.node.keyring.study(uid)
    assert keys is not None
    confirm(ward.node, keys.token)
    wait_until(lambda: not ward.node.index.select(studies=[uid]), ANCHORED_S, "the node has nothing of it")
    [row] = [row for row in ward.hospital.node.rows("erase", "list") if row["study"] == keys.token.hex()]
    assert (row["study_instance_uid"], row["waits_for"]) == (uid, "Orthanc: delete the study there")
    assert "HospitalMSP" in row["missing"]
    rows = [row for row in ward.hospital.node.rows("pacs") if row["study_instance_uid"] == uid]
    assert [(row["what"], row["objects"]) for row in rows] == [("to be erased", 3)]
    ward.look(lambda: True, "Orthanc is looked at")
    assert not ward.node.spool.names(QUARANTINE), "and nothing brought back"
    assert traces(ward, uid, ids[0])

    ward.do("DELETE", ward.id_of(uid))
    wait_until(lambda: ward.node.erasures.in_state("done"), ANCHORED_S, "it is carried out")
    [row] = [row for row in ward.hospital.node.rows("erase", "list") if row["study"] == keys.token.hex()]
    assert (row["waits_for"], row["missing"]) == (None, ["CustodianMSP"])
    assert not traces(ward, uid, *ids, *(each.sop_uid for each in scans))
