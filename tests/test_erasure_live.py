"""A running node: its key is rotated and a study erased, while the other is stored, found and retrieved as ever."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from erase_make import no_grace
from live_node import LiveNode, encoded, make_live_node
from pydicom import dcmread

from orthanc_ledger.assemble import Node
from orthanc_ledger.config import load
from orthanc_ledger.node_key import NEW_PASSPHRASE_FILE, PASSPHRASE_FILE

SUCCESS = 0x0000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[LiveNode]:
    node = make_live_node(tmp_path_factory.mktemp("live"), free_port, batch={"idle_s": 0.2})
    no_grace(Node(load(node.config)))
    node.start()
    yield node
    node.stop()


def served(node: LiveNode, files: list[Path]) -> None:
    """The study of these files is found and given as it came."""
    study_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    assert len(node.find("VIEWER", "clinical", StudyInstanceUID=study_uid)) == 2
    status, _, received = node.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=study_uid)
    assert status.Status == SUCCESS
    assert sorted(received.values()) == sorted(encoded(file) for file in files)


def test_a_study_goes_and_the_other_stays(
    live: LiveNode, samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(samples_dir.rglob("*.dcm"))
    headers = {file: dcmread(file, stop_before_pixels=True) for file in files}
    uids = sorted({str(header.StudyInstanceUID) for header in headers.values()})
    gone, kept = ([file for file in files if headers[file].StudyInstanceUID == uid] for uid in uids)
    live.store(*gone, *kept[:-1])
    live.wait_anchored(len(files) - 1)

    live.command("node-key", "rotate", "--key-backup", tmp_path / "node.key")
    served(live, gone)
    live.store(kept[-1])
    live.wait_anchored(len(files))
    receipt = tmp_path / "receipt"
    live.command("receipt", headers[kept[0]].SOPInstanceUID, "--out", receipt)

    live.command("erase", "request", uids[0])
    live.command("erase", "confirm", uids[0], "--yes")

    def carried_out() -> bool:
        served(live, kept)  # meanwhile
        [row] = live.rows("erase", "list")
        return row["missing"] == ["CustodianMSP"]

    wait_until(carried_out, 60, "the study is erased")
    assert len(live.find("VIEWER", "clinical", StudyInstanceUID=uids[0])) == 1, "the final status alone"
    _, _, received = live.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=uids[0])
    assert received == {}
    served(live, kept)
    assert [alarm["kind"] for alarm in live.status()["alarms"]] == ["node key"]
    live.command("fsck", code=4)
    live.command("verify", code=4)
    owner = live.config.parent / "organisations" / "owner" / "cacerts" / "ca.pem"
    live.command("verify-receipt", receipt, kept[0], "--trust", owner)
    log = live.log.read_text()
    assert "erased: study" in log
    for word in (uids[0], str(headers[gone[0]].PatientName), str(headers[gone[0]].PatientID)):
        assert word not in log

    live.stop()
    for name, variable in (("old", PASSPHRASE_FILE), ("new", NEW_PASSPHRASE_FILE)):
        (tmp_path / name).write_text("correct horse\n")
        monkeypatch.setenv(variable, str(tmp_path / name))
    live.command("node-key", "rotate", "--passphrase", "--key-backup", tmp_path / "node.key.2")
    live.config.write_text(live.config.read_text().replace("node_key: file:", "node_key: passphrase:"))
    live.start()
    served(live, kept)
