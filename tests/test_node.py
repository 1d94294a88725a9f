"""A whole node as its users see it: real processes, real sockets, independent clients (dcmtk, pynetdicom), real MR
files.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from live_node import LiveNode, dcmtk_environment, encoded, make_live_node
from pydicom import dcmread

Tool = Callable[[str], str]

HOLD_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def ge_slices(samples_dir: Path) -> list[Path]:
    """14 real GE slices of one study in two series."""
    return sorted((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))


@pytest.fixture(scope="module")
def siemens(samples_dir: Path) -> list[Path]:
    """2 real Siemens mosaics of another study."""
    return sorted((samples_dir / "siemens-skyra").rglob("*.dcm"))


def uid_of(path: Path, keyword: str = "StudyInstanceUID") -> str:
    return str(dcmread(path, stop_before_pixels=True)[keyword].value)


def by_uid(paths: list[Path]) -> dict[str, bytes]:
    return {uid_of(path, "SOPInstanceUID"): encoded(path) for path in paths}


def is_running(pid: int) -> bool:
    """Whether a process exists that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    dcmtk: Tool,
    ge_slices: list[Path],
    siemens: list[Path],
) -> Iterator[LiveNode]:
    """A running node: the GE study came by dcmtk's dcmsend, the Siemens one by its storescu; GE is approved for
    RESEARCH1.
    """
    live = make_live_node(tmp_path_factory.mktemp("node"), free_port)
    live.start()
    try:
        target = ["-aet", "MRI1", "-aec", "NODE", "127.0.0.1", str(live.ports["clinical"])]
        for tool, paths in (("dcmsend", ge_slices), ("storescu", siemens)):
            command = [dcmtk(tool), *target, *map(str, paths)]
            subprocess.run(command, check=True, env=dcmtk_environment(), timeout=60, capture_output=True)
        live.wait_anchored(len(ge_slices) + len(siemens))
        live.approve(uid_of(ge_slices[0]))
        yield live
    finally:
        live.stop()


@pytest.fixture
def storescp(
    dcmtk: Tool, tmp_path: Path, start_process: Callable[..., "subprocess.Popen[bytes]"], node: LiveNode
) -> Callable[[str], Path]:
    """Starts dcmtk's storescp as a peer's move destination; returns the folder it writes to."""

    def start(ae_title: str) -> Path:
        folder = tmp_path / ae_title
        folder.mkdir()
        command = [dcmtk("storescp"), "--fork", "-aet", ae_title, "+B", "-od", str(folder), str(node.ports[ae_title])]
        start_process(command, env=dcmtk_environment())
        echo = [dcmtk("echoscu"), "127.0.0.1", str(node.ports[ae_title])]
        wait_until(lambda: subprocess.run(echo, capture_output=True).returncode == 0, 10, "storescp answers")
        return folder

    return start


def files_in(folder: Path) -> dict[str, bytes]:
    return {uid_of(path, "SOPInstanceUID"): encoded(path) for path in folder.iterdir()}


class TestClinical:
    def test_findscu_finds_a_study_by_patient_id(
        self, node: LiveNode, dcmtk: Tool, ge_slices: list[Path], tmp_path: Path
    ) -> None:
        patient = uid_of(ge_slices[0], "PatientID")
        command = [dcmtk("findscu"), "-S", "-X", "-od", str(tmp_path), "-aet", "VIEWER", "-aec", "NODE"]
        command += [
            "127.0.0.1",
            str(node.ports["clinical"]),
            "-k",
            "QueryRetrieveLevel=STUDY",
            "-k",
            f"PatientID={patient}",
        ]
        command += ["-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedInstances", "-k", "ModalitiesInStudy"]
        subprocess.run(command, check=True, env=dcmtk_environment(), timeout=30, capture_output=True)
        answers = {str(answer.StudyInstanceUID): answer for answer in map(dcmread, tmp_path.iterdir())}
        found = answers[uid_of(ge_slices[0])]
        assert (found.NumberOfStudyRelatedInstances, found.ModalitiesInStudy) == (len(ge_slices), "MR")

    def test_getscu_gets_every_object_bit_for_bit(
        self, node: LiveNode, dcmtk: Tool, ge_slices: list[Path], tmp_path: Path
    ) -> None:
        command = [dcmtk("getscu"), "-S", "+B", "-od", str(tmp_path), "-aet", "VIEWER", "-aec", "NODE"]
        command += ["127.0.0.1", str(node.ports["clinical"]), "-k", "QueryRetrieveLevel=STUDY"]
        command += ["-k", f"StudyInstanceUID={uid_of(ge_slices[0])}"]
        subprocess.run(command, check=True, env=dcmtk_environment(), timeout=60, capture_output=True)
        assert files_in(tmp_path) == by_uid(ge_slices)

    def test_movescu_moves_to_storescp(
        self, node: LiveNode, dcmtk: Tool, siemens: list[Path], storescp: Callable[[str], Path]
    ) -> None:
        folder = storescp("VIEWER")
        command = [
            dcmtk("movescu"),
            "-S",
            "-aet",
            "MRI1",
            "-aec",
            "NODE",
            "-aem",
            "VIEWER",
            "127.0.0.1",
            str(node.ports["clinical"]),
        ]
        command += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid_of(siemens[0])}"]
        subprocess.run(command, check=True, env=dcmtk_environment(), timeout=60, capture_output=True)
        assert files_in(folder) == by_uid(siemens)

    def test_a_series_and_single_images_can_be_had(self, node: LiveNode, ge_slices: list[Path]) -> None:
        study, series = uid_of(ge_slices[0]), uid_of(ge_slices[0], "SeriesInstanceUID")
        in_series = [path for path in ge_slices if uid_of(path, "SeriesInstanceUID") == series]
        status, _, got = node.get(
            "VIEWER", "clinical", QueryRetrieveLevel="SERIES", StudyInstanceUID=study, SeriesInstanceUID=series
        )
        assert (status.Status, got) == (0, by_uid(in_series))
        one = uid_of(in_series[0], "SOPInstanceUID")
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": one}
        status, _, got = node.get("VIEWER", "clinical", QueryRetrieveLevel="IMAGE", **keys)
        assert (status.Status, list(got)) == (0, [one])

    def test_what_is_not_held_gives_success_and_nothing(self, node: LiveNode) -> None:
        status, _, got = node.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.4")
        assert (status.Status, got) == (0, {})


class TestResearch:
    def test_the_approved_study_comes_whole_and_unchanged(self, node: LiveNode, ge_slices: list[Path]) -> None:
        status, _, got = node.get(
            "RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=uid_of(ge_slices[0])
        )
        assert (status.Status, got) == (0, by_uid(ge_slices))

    def test_c_find_shows_only_what_is_approved(self, node: LiveNode, ge_slices: list[Path]) -> None:
        final, *found = node.find("RESEARCH1", "research", StudyInstanceUID="", NumberOfStudyRelatedInstances="")
        assert final.Status == 0
        assert [(match.StudyInstanceUID, match.NumberOfStudyRelatedInstances) for match in found] == [
            (uid_of(ge_slices[0]), len(ge_slices))
        ]

    @pytest.mark.parametrize("caller", ["RESEARCH2", "FOREIGN1"])
    def test_another_node_gets_and_sees_nothing(self, node: LiveNode, ge_slices: list[Path], caller: str) -> None:
        status, _, got = node.get(caller, "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=uid_of(ge_slices[0]))
        assert (status.Status, status.ErrorComment, got) == (0x0124, "no approval", {})
        final, *found = node.find(caller, "research", StudyInstanceUID="")
        assert (final.Status, found) == (0, [])

    def test_held_and_unheld_studies_without_approval_are_answered_alike(
        self, node: LiveNode, siemens: list[Path]
    ) -> None:
        answers = []
        for study in (uid_of(siemens[0]), "1.2.3.4"):
            status, identifier, got = node.get(
                "RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study
            )
            answers.append((status.to_json(), identifier, got))
        assert answers[0] == answers[1]
        assert '"0124"' not in answers[0][0]  # the status itself is a number
        assert (status.Status, status.ErrorComment) == (0x0124, "no approval")

    def test_a_list_of_approved_and_unapproved_studies_gives_the_approved_one_only(
        self, node: LiveNode, ge_slices: list[Path], siemens: list[Path]
    ) -> None:
        both = [uid_of(ge_slices[0]), uid_of(siemens[0])]
        status, _, got = node.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=both)
        assert (status.Status, got) == (0, by_uid(ge_slices))

    def test_the_whole_patient_gives_the_approved_study_only(self, node: LiveNode, ge_slices: list[Path]) -> None:
        patient = uid_of(ge_slices[0], "PatientID")
        _, *found = node.find("RESEARCH1", "research", PatientID=patient, StudyInstanceUID="")
        assert [match.StudyInstanceUID for match in found] == [uid_of(ge_slices[0])]

    def test_a_move_to_itself_arrives_and_one_to_an_unapproved_node_opens_no_association(
        self, node: LiveNode, ge_slices: list[Path], storescp: Callable[[str], Path]
    ) -> None:
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uid_of(ge_slices[0])}
        own = storescp("RESEARCH1")
        status, _ = node.move("RESEARCH1", "research", "RESEARCH1", **keys)
        assert (status.Status, files_in(own)) == (0, by_uid(ge_slices))
        other = storescp("RESEARCH2")
        status, _ = node.move("RESEARCH1", "research", "RESEARCH2", **keys)
        assert (status.Status, list(other.iterdir())) == (0x0124, [])

    @pytest.mark.parametrize("destination", ["VIEWER", "FOREIGN1"])
    def test_a_move_out_of_the_own_organisation_is_refused(
        self, node: LiveNode, ge_slices: list[Path], destination: str
    ) -> None:
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uid_of(ge_slices[0])}
        status, _ = node.move("RESEARCH1", "research", destination, **keys)
        assert (status.Status, status.ErrorComment) == (0x0124, "destination not permitted")

    def test_a_clinical_move_to_a_research_destination_needs_that_destinations_approval(
        self, node: LiveNode, ge_slices: list[Path], siemens: list[Path], storescp: Callable[[str], Path]
    ) -> None:
        folder = storescp("RESEARCH1")
        status, _ = node.move(
            "VIEWER", "clinical", "RESEARCH1", QueryRetrieveLevel="STUDY", StudyInstanceUID=uid_of(siemens[0])
        )
        assert (status.Status, status.ErrorComment, list(folder.iterdir())) == (0x0124, "no approval", [])
        status, _ = node.move(
            "VIEWER", "clinical", "RESEARCH1", QueryRetrieveLevel="STUDY", StudyInstanceUID=uid_of(ge_slices[0])
        )
        assert (status.Status, files_in(folder)) == (0, by_uid(ge_slices))

    def test_the_research_port_knows_no_clinical_peer_and_the_clinical_port_no_research_peer(
        self, node: LiveNode
    ) -> None:
        assert not node.echo("VIEWER", "research")
        assert not node.echo("MRI1", "research")
        assert not node.echo("RESEARCH1", "clinical")

    def test_anchoring_gives_way_to_receivers(self, node: LiveNode) -> None:
        nice: dict[str, set[int]] = {}
        workers = [("worker", pid) for pid in node.workers()]
        for name, pid in [*node.processes(), *workers]:
            nice.setdefault(name, set()).add(os.getpriority(os.PRIO_PROCESS, pid))
        assert nice["clinical"] == nice["research"] == {os.getpriority(os.PRIO_PROCESS, 0)}
        assert max(nice["clinical"]) < min(nice["anchorer"])
        assert max(nice["anchorer"]) < min(nice["worker"])

    def test_releases_outcomes_and_denials_are_on_the_ledger(self, node: LiveNode, ge_slices: list[Path]) -> None:
        before = len(node.audit())
        node.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=uid_of(ge_slices[0]))
        node.get("RESEARCH2", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=uid_of(ge_slices[0]))
        wanted = {"LogRelease", "LogOutcome", "LogDenials"}
        wait_until(
            lambda: wanted <= {row["function"] for row in node.audit()[before:]},
            15,
            "release, outcome and denial are on the ledger",
        )


class TestOwnNode:
    """What changes a node, each with one of its own."""

    @pytest.fixture
    def own(self, tmp_path: Path, free_port: Callable[[], int], siemens: list[Path]) -> Iterator[LiveNode]:
        live = make_live_node(tmp_path, free_port)
        live.start()
        try:
            assert live.store(*siemens) == [0, 0]
            live.wait_anchored(2)
            yield live
        finally:
            live.stop()

    def test_a_changed_byte_withholds_exactly_that_object_and_is_flagged(
        self, own: LiveNode, siemens: list[Path]
    ) -> None:
        study = uid_of(siemens[0])
        own.approve(study)
        stored = sorted((own.folder / "node" / "data" / "objects").rglob("*"), key=lambda path: path.stat().st_size)[-1]
        raw = bytearray(stored.read_bytes())
        raw[len(raw) // 2] ^= 1
        stored.chmod(0o600)
        stored.write_bytes(raw)
        status, identifier, got = own.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        assert status.Status == 0xB000
        assert identifier is not None
        withheld = identifier.FailedSOPInstanceUIDList
        assert {withheld} | set(got) == set(by_uid(siemens))
        assert got == {uid: data for uid, data in by_uid(siemens).items() if uid != withheld}
        wait_until(lambda: "FlagTampered" in {row["function"] for row in own.audit()}, 15, "the flag is on the ledger")
        again, _, got = own.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        assert (again.Status, withheld in got) == (0xB000, False)
        clinical, _, got = own.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        assert (clinical.Status, withheld in got) == (0xB000, False)
        assert any(alarm["kind"] == "integrity" for alarm in own.status()["alarms"])
        own.command("verify", code=1)

    def test_revoked_approval_denies_the_next_c_get(self, own: LiveNode, siemens: list[Path]) -> None:
        study = uid_of(siemens[0])
        request = own.approve(study)
        assert own.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)[0].Status == 0
        own.command("revoke", request)
        status, _, got = own.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        assert (status.Status, got) == (0x0124, {})
        assert len(own.find("RESEARCH1", "research", StudyInstanceUID="")) == 1

    def test_ledger_away_storing_and_clinical_retrieval_go_on_research_stops_the_backlog_drains(
        self, own: LiveNode, siemens: list[Path], ge_slices: list[Path]
    ) -> None:
        study = uid_of(siemens[0])
        own.approve(study)
        ledger = own.folder / "node" / "data" / "ledger.db"
        lock = subprocess.Popen(
            [sys.executable, "-c", HOLD_LOCK, str(ledger)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert lock.stdout is not None
        assert lock.stdout.readline() == b"locked\n"
        try:
            assert own.store(*ge_slices[:3]) == [0, 0, 0]
            status, _, got = own.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
            assert (status.Status, got) == (0, by_uid(siemens))
            waiting = uid_of(ge_slices[0])
            wait_until(
                lambda: len(own.find("VIEWER", "clinical", StudyInstanceUID=waiting)) == 2,
                15,
                "the waiting study is found",
            )
            status, _, got = own.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=waiting)
            assert (status.Status, got) == (0, by_uid(ge_slices[:3]))
            status, _, got = own.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
            assert (status.Status, status.ErrorComment, got) == (0xA702, "ledger unavailable", {})
        finally:
            lock.communicate()
        own.wait_anchored(5)

    def test_it_starts_without_its_ledger_and_takes_it_up_when_it_is_back(
        self, own: LiveNode, siemens: list[Path], ge_slices: list[Path]
    ) -> None:
        study = uid_of(siemens[0])
        own.approve(study)
        own.stop()
        ledger = own.folder / "node" / "data" / "ledger.db"
        ledger.rename(ledger.with_suffix(".elsewhere"))
        own.start()
        assert own.store(*ge_slices[:2]) == [0, 0]
        status, _, got = own.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        assert (status.Status, got) == (0, by_uid(siemens))
        status, _, got = own.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        assert (status.Status, status.ErrorComment, got) == (0xA702, "ledger unavailable", {})
        ledger.with_suffix(".elsewhere").rename(ledger)
        own.wait_anchored(4)
        status, _, got = own.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        assert (status.Status, got) == (0, by_uid(siemens))

    def test_every_process_may_be_killed_and_the_node_goes_on(self, own: LiveNode, ge_slices: list[Path]) -> None:
        before = own.children()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(own.children()) == len(before) and not set(own.children()) & set(before),
            30,
            "all processes were started anew",
        )
        wait_until(lambda: own.echo("MRI1", "clinical"), 30, "the clinical port answers")
        assert own.store(*ge_slices[:2]) == [0, 0]
        own.wait_anchored(4)

    def test_no_process_outlives_a_killed_supervisor_and_a_new_one_takes_over(self, own: LiveNode) -> None:
        assert own.process is not None
        orphans = own.children()
        own.process.kill()
        own.process.wait(10)
        wait_until(lambda: not any(map(is_running, orphans)), 30, "the orphans have ended")
        own.start()
        assert own.status()["anchored"] == 2

    def test_same_uid_again_is_nothing_new_and_other_content_is_a_conflict(
        self, own: LiveNode, siemens: list[Path], tmp_path: Path
    ) -> None:
        assert own.store(*siemens) == [0, 0]
        changed = dcmread(siemens[0])
        changed.PixelData = bytes([changed.PixelData[0] ^ 1]) + changed.PixelData[1:]
        other = tmp_path / "other.dcm"
        changed.save_as(other)
        assert own.store(other) == [0x0111]
        assert own.store(other, caller="MRI2") == [0]
        wait_until(
            lambda: "ReportConflict" in {row["function"] for row in own.audit()}, 15, "the conflict is on the ledger"
        )
        assert [row["state"] for row in own.rows("conflicts")] == ["to decide"]
        _, _, got = own.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=uid_of(siemens[0]))
        assert got == by_uid(siemens)
        assert own.status()["anchored"] == 2
