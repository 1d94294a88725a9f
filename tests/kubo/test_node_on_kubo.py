"""A whole node on a Kubo node that goes away, as its peers see it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from live_node import make_live_node
from pydicom import dcmread

from tests.conftest import wait_until
from tests.kubo.live import Kubos, Node, write_yaml
from tests.node_make import real_file, variant

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

WITHIN_S = 30.0


def test_kubo_away_research_waits_storing_and_clinical_retrieval_go_on_and_the_backlog_is_anchored_when_it_is_back(
    kubos: Kubos, hospital: Node, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    slices = [tmp_path / f"{n}.dcm" for n in (1, 2, 3)]
    for n, path in enumerate(slices):
        variant(SOPInstanceUID=f"1.2.826.0.1.3680043.10.1.{n}").save_as(path)
    study = dcmread(real_file()).StudyInstanceUID
    file = write_yaml(tmp_path / "kubo.yaml", hospital, local="node/data/objects")
    live = make_live_node(tmp_path, free_port, content=f"kubo:{file}")

    def get(caller: str, port: str) -> tuple[int, object, int]:
        status, _, got = live.get(caller, port, QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
        return status.Status, status.get("ErrorComment"), len(got)

    def find(caller: str, port: str) -> list[object]:
        final, *found = live.find(caller, port, StudyInstanceUID=study)
        return [final.Status, len(found)]

    live.start()
    try:
        assert live.store(*slices[:2]) == [0, 0]
        live.wait_anchored(2)
        live.approve(study)
        assert get("RESEARCH1", "research") == (0, None, 2)
        kubos.kill("kubo0.hospital")
        assert get("RESEARCH1", "research") == (0xA702, None, 0)
        assert find("RESEARCH1", "research") == [0xA700, 0]
        assert find("FOREIGN1", "research") == [0xA700, 0]
        assert get("VIEWER", "clinical") == (0, None, 2)
        assert live.store(slices[2]) == [0]
        wait_until(lambda: get("VIEWER", "clinical") == (0, None, 3), WITHIN_S, "what waits is served")
        live.stop()
        live.start()  # without its Kubo
        [status] = live.rows("status", code=3)
        assert "kubo0.hospital" in status["content"]
        assert get("VIEWER", "clinical") == (0, None, 3)
        assert live.status()["waiting"] == 1
        kubos.start("kubo0.hospital")
        live.wait_anchored(3, WITHIN_S)
        assert get("RESEARCH1", "research") == (0, None, 2)
        assert (live.status()["content"], live.status()["alarms"]) == ("ready", [])
    finally:
        live.stop()


@pytest.mark.parametrize("command", ["serve", "status"])
def test_a_kubo_that_must_not_be_used_stops_the_start_and_names_the_setting(
    stray_node: Callable[..., Node], tmp_path: Path, free_port: Callable[[], int], command: str
) -> None:
    stray = stray_node({"Datastore.HashOnRead": False})
    file = write_yaml(tmp_path / "kubo.yaml", stray, local="node/data/objects")
    live = make_live_node(tmp_path, free_port, content=f"kubo:{file}")
    done = subprocess.run(
        [sys.executable, "-m", "orthanc_ledger", "--config", live.config, command], capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert b"Datastore.HashOnRead" in done.stderr
