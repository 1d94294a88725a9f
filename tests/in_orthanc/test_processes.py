"""The node's processes run as long as its Orthanc does, once, and whatever is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import wait_until

from tests.in_orthanc.conftest import Hospital, Hospitals
from tests.in_orthanc.kept import Kept, send, study
from tests.in_orthanc.test_ingest import MODALITIES
from tests.live_node import children_of, command_of

START_S = 60.0
END_S = 60.0
ALL = {"anchorer", "courier", "eraser", "sweeper", "research", "beside"}
DO_NOT_RUN = "ledger: the node's processes do not run"


def serves(made: Hospital) -> list[int]:
    """Process ids of `serve`."""
    return [pid for pid in made.node.all_processes() if "serve" in command_of(pid)]


def running(made: Hospital) -> dict[str, int]:
    """What a `serve` that runs has started, by name; one of each."""
    started = [pid for serve in serves(made) for pid in children_of(serve)]
    return {name: pid for pid in started for name in ALL.intersection(command_of(pid))}


def wait_running(made: Hospital) -> None:
    wait_until(lambda: running(made).keys() >= ALL and len(serves(made)) == 1, START_S, "all processes run, once")


def said(made: Hospital, words: str) -> int:
    """How often Orthanc's log says it."""
    return made.orthanc.log.read_text(errors="replace").count(words)


def test_they_start_with_orthanc_come_again_when_killed_and_end_with_it(hospital: Hospitals) -> None:
    made = hospital().start()
    wait_running(made)
    wait_until(lambda: said(made, "Orthanc's, research port"), START_S, "their log is in Orthanc's")
    anchorer, [serve] = running(made)["anchorer"], serves(made)
    os.kill(anchorer, signal.SIGKILL)
    wait_until(lambda: running(made).get("anchorer", anchorer) != anchorer, START_S, "there is another anchorer")
    os.kill(serve, signal.SIGKILL)
    wait_until(lambda: serves(made) not in ([], [serve]), START_S, "there is another serve")
    wait_running(made)
    words = [sys.executable, "-m", "orthanc_ledger", "--config", str(made.node.config), "serve"]
    second = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (second.returncode, "another `serve` of this node runs" in second.stderr) == (2, True)
    assert made.orthanc.stop() == 0
    assert made.node.all_processes() == []


def test_they_end_with_an_orthanc_that_is_killed_and_the_next_ones_anchor_what_it_had_answered_for(
    hospital: Hospitals, samples_dir: Path, dcmtk: Callable[[str], str], tmp_path: Path
) -> None:
    made = hospital(settings={"DicomModalities": MODALITIES}).start()
    wait_running(made)
    before, sent = serves(made), study(sorted(samples_dir.rglob("*.dcm")))
    assert send(dcmtk, made.orthanc, tmp_path / "sent", sent) == ""
    made.orthanc.kill()
    kept = Kept(made.node)
    assert all(kept.holds(each) for each in sent)
    made.orthanc.start()
    wait_until(lambda: serves(made) and not set(serves(made)) & set(before), END_S, "the first serve ended")
    kept.anchored(sent)
    assert [kept.fingerprint(each.sop_uid) for each in sent] == [each.fingerprint for each in sent]
    made.orthanc.kill()
    wait_until(lambda: not made.node.all_processes(), END_S, "all processes ended")


@pytest.mark.parametrize("version", ["1.10.1"], indirect=True)
def test_they_come_again_though_they_could_not_be_started_for_a_while(hospital: Hospitals, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    made = hospital({"Python": str(python)}).start()
    wait_running(made)
    [serve] = serves(made)
    python.rename(python.with_name("away"))
    os.kill(serve, signal.SIGKILL)
    wait_until(lambda: said(made, "cannot be started: "), START_S, "it is said")
    python.with_name("away").rename(python)
    wait_running(made)


@pytest.mark.parametrize("version", ["1.10.1"], indirect=True)
def test_a_configuration_that_became_wrong_is_said_once(hospital: Hospitals) -> None:
    made = hospital().start()
    wait_running(made)
    [serve] = serves(made)
    made.node.config.write_text(made.node.config.read_text() + "\nunknown_key: 1\n")
    os.kill(serve, signal.SIGKILL)
    wait_until(lambda: said(made, DO_NOT_RUN), START_S, "it is said")
    wait_until(lambda: not made.node.all_processes(), END_S, "all processes ended")
    assert made.orthanc.call("GET", "/system").status == 200
    assert made.orthanc.stop() == 0
    assert said(made, DO_NOT_RUN) == 1


@pytest.mark.parametrize("version", ["1.12.7"], indirect=True)
def test_the_plugin_takes_over_from_a_service_that_ends(hospital: Hospitals) -> None:
    made = hospital()
    made.node.launch()
    wait_running(made)
    made.start()
    wait_until(lambda: len(serves(made)) == 2, START_S, "the plugin's waits beside the service")
    made.node.stop()
    wait_running(made)


def test_where_others_start_them_the_plugin_only_looks(hospital: Hospitals) -> None:
    made = hospital(ledger={"Serve": False}).start()
    wait_until(lambda: said(made, DO_NOT_RUN), START_S, "it is said")
    assert serves(made) == []
    made.orthanc.kill()


@pytest.mark.parametrize("named", ["/nowhere", "/etc/passwd"])
@pytest.mark.parametrize("version", ["1.12.7"], indirect=True)
def test_a_python_that_cannot_be_run_stops_the_start(hospital: Hospitals, named: str) -> None:
    said = hospital(ledger={"Python": named}).orthanc.refused()
    assert f'"Python": {named}: expected the Python that runs the node\'s processes, and that the user' in said
