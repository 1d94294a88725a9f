"""Whatever step of the write path a process is killed before, nothing acknowledged is lost or anchored twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from crash_child import IDLE_CALLS, KILL_AT, OBJECTS, objects, write
from node_make import drain, make_node, open_node

from orthanc_ledger import tokens
from orthanc_ledger.assemble import Node
from orthanc_ledger.ledger.fsck import check

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def strace() -> str:
    """Path of strace. Without it a test skips; in CI it fails."""
    path = shutil.which("strace")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace is not installed")
    return path


def kill_everywhere(strace: str, template: Path, target: Path, work: str) -> list[Path]:
    """Do some work on copies of a node, killed before each of its calls; the folders, the last of a call's survived."""
    target.mkdir()
    calls = ",".join(IDLE_CALLS)
    command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:signal=KILL:when={KILL_AT}"]
    command += [sys.executable, str(TESTS / "crash_child.py"), str(template), str(target), work]
    path = os.pathsep.join((str(TESTS.parent), str(TESTS)))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    statuses = Counter(point["status"] for point in points)
    assert statuses.keys() == {0, -signal.SIGKILL}, f"{statuses}: {done.stderr}"
    print(f"{work}: killed at {statuses[-signal.SIGKILL]} points")
    return [Path(point["folder"]) for point in points]


def check_anchored_once(node: Node, folder: Path, expected: set[str]) -> None:
    """Everything expected is anchored once and verifies; the ledger is clean; nothing in clear or half done is left."""
    index, ledger = node.index, node.ledger
    held = {instance.sop_uid: instance for instance in index.select()}
    assert expected <= held.keys()
    assert {instance.state for instance in held.values()} <= {"anchored"}
    tokens_anchored: Counter[bytes] = Counter()
    for study_uid, token, _ in index.studies():
        study = node.keyring.ensure_study(study_uid)
        for anchor in ledger.query("AnchorsOfStudy", {"study": token}):
            checked = list(node.library.check_manifest(study_uid, anchor))
            assert [each.fault for each in checked] == [None] * anchor["count"]
            tokens_anchored.update(each.record.instance for each in checked)
        assert tokens_anchored == {tokens.instance_token(study.k_study, uid): 1 for uid in held}
    data = folder / "node" / "data"
    assert check(data / "ledger.db").findings == ()
    assert [path for path in (data / "spool").rglob("*") if path.is_file()] == []
    assert list((data / "objects" / "staging").iterdir()) == []
    pixels = objects()[0].PixelData[2000:2064]
    assert [path for path in data.rglob("*") if path.is_file() and pixels in path.read_bytes()] == []


@pytest.mark.timeout(280)
def test_receiver_killed_anywhere_loses_nothing_acknowledged(strace: str, tmp_path: Path) -> None:
    make_node(tmp_path / "template")
    acknowledged_counts = set()
    for folder in kill_everywhere(strace, tmp_path / "template", tmp_path / "killed", "write"):
        node = open_node(folder)
        noted = folder / "acknowledged"
        acknowledged = set(noted.read_text().split()) if noted.exists() else set()
        acknowledged_counts.add(len(acknowledged))
        drain(node)
        check_anchored_once(node, folder, acknowledged)
    assert acknowledged_counts == set(range(OBJECTS + 1)), "killed before, between and after all of them"


@pytest.mark.timeout(280)
def test_anchorer_killed_anywhere_anchors_everything_once(strace: str, tmp_path: Path) -> None:
    make_node(tmp_path / "template")
    write(tmp_path / "template")
    expected = {ds.SOPInstanceUID for ds in objects()}
    for folder in kill_everywhere(strace, tmp_path / "template", tmp_path / "killed", "anchor"):
        node = open_node(folder)
        drain(node)
        check_anchored_once(node, folder, expected)
