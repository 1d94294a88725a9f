"""docs/deployment.md as it is written: its set-ups with a real Orthanc, its configuration lines taken from the page."""

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from live_node import LiveNode, dcmtk_environment, encoded, make_live_node
from pydicom import dcmread

from orthanc_ledger.assemble import FORWARDS
from orthanc_ledger.clock import system_clock
from orthanc_ledger.forwards import Forwards

PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
IN_FRONT, ROUTER = "## 1 ", "## 2 "
WAIT_S = 60
NODE_AE = "NODE"


@dataclass
class Orthanc:
    """A running Orthanc and the ports it has."""

    dicom_port: int
    http_port: int
    process: "subprocess.Popen[bytes]"

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """GET, or POST with a body."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", body, timeout=30) as answer:
            answered: bytes = answer.read()
        return answered

    def is_there(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False

    def held(self) -> set[bytes]:
        """The data sets of all it has, encoded."""
        files = [self.ask(f"/instances/{each}/file") for each in json.loads(self.ask("/instances"))]
        return {file[144 + int.from_bytes(file[140:144], "little") :] for file in files}

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ask("/jobs?expand"))
        return found

    def states(self) -> list[str]:
        """Of its jobs."""
        return [job["State"] for job in self.jobs()]


Start = Callable[..., Orthanc]


@pytest.fixture
def start_orthanc(
    tmp_path: Path,
    free_port: Callable[[], int],
    start_process: Callable[..., "subprocess.Popen[bytes]"],
    wait_until: Callable[..., None],
) -> Start:
    """Start Orthanc with a configuration of the page, on free ports. In CI it must be there."""
    program = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Orthanc is not installed")

    def start(section: str, ports: dict[int, int]) -> Orthanc:
        folder = tmp_path / "orthanc"
        folder.mkdir(exist_ok=True)
        settings = json.loads(at_home(block(section, "json"), ports))
        settings |= {"HttpPort": free_port(), "StorageDirectory": "storage", "IndexDirectory": "storage"}
        (folder / "orthanc.json").write_text(json.dumps(settings))
        for script in settings.get("LuaScripts", []):
            (folder / script).write_text(block(section, "lua"))
        with (folder / "log").open("ab") as log:
            process = start_process(
                [program, "orthanc.json"], cwd=folder, env=dcmtk_environment(), stdout=log, stderr=log
            )
        running = Orthanc(settings["DicomPort"], settings["HttpPort"], process)
        wait_until(running.is_there, WAIT_S, "Orthanc answers")
        return running

    return start


@pytest.fixture
def files(samples_dir: Path) -> list[Path]:
    return sorted(samples_dir.rglob("*.dcm"))


def block(section: str, language: str) -> str:
    """The fenced block in a language under a heading of the page."""
    text = PAGE.split(f"\n{section}", 1)[1].split("\n## ", 1)[0]
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


def at_home(text: str, ports: dict[int, int]) -> str:
    """The page's lines with all addresses on this machine, other ports, and the test node's title."""
    text = re.sub(r"192\.0\.2\.\d+", "127.0.0.1", text).replace("ORTHANCLEDGER", NODE_AE)
    return re.sub(r"\b(4242|11112)\b", lambda port: str(ports[int(port[0])]), text)


def node_for(folder: Path, section: str, free_port: Callable[[], int], pacs_port: int) -> LiveNode:
    """A node with the page's lines, not yet started; it listens on 127.0.0.1, and the peers a test needs are added."""
    node = make_live_node(folder, free_port)
    raw = yaml.safe_load(node.config.read_text())
    lines = yaml.safe_load(at_home(block(section, "yaml"), {4242: pacs_port, 11112: node.ports["clinical"]}))
    peers = {peer["ae_title"]: peer for peer in [*raw["peers"], *lines["peers"]]}
    if "clinical" in lines:
        assert lines["clinical"]["host"] == "0.0.0.0"
        lines["clinical"]["host"] = "127.0.0.1"
    node.config.write_text(yaml.safe_dump(raw | lines | {"peers": list(peers.values())}))
    return node


def test_in_front_of_the_pacs_which_gets_all_unchanged_once_it_is_there(
    tmp_path: Path,
    start_orthanc: Start,
    free_port: Callable[[], int],
    wait_until: Callable[..., None],
    files: list[Path],
) -> None:
    pacs_port = free_port()
    node = node_for(tmp_path, IN_FRONT, free_port, pacs_port)
    try:
        node.start()
        assert set(node.store(*files)) == {0x0000}
        queue = Forwards(node.config.parent / "data" / FORWARDS, (), system_clock)
        wait_until(
            lambda: [each.trouble for each in queue.waiting()] != [None], WAIT_S, "the PACS was found to be away"
        )
        pacs = start_orthanc(IN_FRONT, {4242: pacs_port, 11112: node.ports["clinical"]})
        wait_until(lambda: not queue.waiting(), WAIT_S, "the PACS has all")
        assert pacs.held() == {encoded(path) for path in files}
        (said,) = node.status()["forwards"]
        assert (said["destination"], said["waiting"], said["trouble"]) == ("PACS", 0, None)
    finally:
        node.stop()


def test_behind_an_orthanc_that_routes_custody_begins_at_the_node(
    tmp_path: Path,
    start_orthanc: Start,
    free_port: Callable[[], int],
    wait_until: Callable[..., None],
    dcmtk: Callable[[str], str],
    files: list[Path],
) -> None:
    router_port = free_port()
    node = node_for(tmp_path, ROUTER, free_port, router_port)
    router = start_orthanc(ROUTER, {4242: router_port, 11112: node.ports["clinical"]})
    command = [dcmtk("storescu"), "-aet", "MRI1", "-aec", "ROUTER", "127.0.0.1", str(router_port), *map(str, files)]
    assert subprocess.run(command, env=dcmtk_environment(), timeout=60).returncode == 0

    series = {dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in files}
    wait_until(lambda: router.states() == ["Failure"] * len(series), WAIT_S, "a job for each series failed")
    try:
        node.start()
        for job in router.jobs():
            router.ask(f"/jobs/{job['ID']}/resubmit", b"{}")
        wait_until(lambda: router.states() == ["Success"] * len(series), WAIT_S, "every job was repeated")
        node.wait_anchored(len(files))
        received: dict[str, bytes] = {}
        for study in {dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in files}:
            _, _, got = node.get("VIEWER", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=study)
            received |= got
        assert set(received.values()) == {encoded(path) for path in files}
    finally:
        node.stop()


def test_the_page_is_short_and_its_keys_are_the_node_s() -> None:
    assert len(PAGE.splitlines()) <= 150
    example = yaml.safe_load((ROOT / "config" / "orthanc-ledger.yaml").read_text())
    for section in (IN_FRONT, ROUTER):
        assert set(yaml.safe_load(block(section, "yaml"))) <= set(example)
