"""The demo passes on the node as it is, and leaves nothing behind however it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from demo_run import COMMAND, DEADLINE_S, processes_of, run_demo, run_mutated
from pydicom import dcmread

from dicom_scp import demo_node, demo_peers

STEPS = 16
INTERRUPTED_WHILE_A_COMMAND_STARTS = """
MODULE = "dicom_scp.demo_node"
def mutate(module):
    import os, signal, subprocess
    class Interrupted(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__(command, **options)
            if "audit" in command:
                os.kill(self.pid, signal.SIGSTOP)  # else it ends by itself meanwhile
                raise KeyboardInterrupt
    subprocess.Popen = Interrupted
"""


@pytest.mark.timeout(DEADLINE_S + 30)
def test_the_demo_shows_every_step_and_leaves_a_node_that_verifies(tmp_path: Path, samples_dir: Path) -> None:
    done = run_demo(tmp_path, "--keep")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(re.findall("^✓", done.stdout, re.MULTILINE)) == STEPS
    kept = re.search(r"^kept: (.+)$", done.stdout, re.MULTILINE)
    assert kept is not None
    assert processes_of(tmp_path) == []
    config = Path(kept[1]) / "node" / "orthanc-ledger.yaml"
    again = [sys.executable, "-m", "orthanc_ledger", "--config", config, "verify", "--log-only"]
    assert subprocess.run(again, cwd=ROOT, capture_output=True, timeout=60).returncode == 0
    header = dcmread(next(samples_dir.rglob("mr_0004/*.dcm")), stop_before_pixels=True)
    private = [str(header[keyword].value) for keyword in ("PatientName", "StudyInstanceUID", "SeriesInstanceUID")]
    assert [value for value in private if value in done.stdout] == []


def test_a_demos_port_is_given_to_nobody_else_and_lets_its_server_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as held, ExitStack() as others:
        (port,) = demo_node.hold_ports(1, held)
        monkeypatch.setattr(demo_node, "_PORTS", range(port, port + 1))
        with pytest.raises(demo_node.StepFailed, match=f"1 free ports are needed of {port} to {port}, 0 are there"):
            demo_node.hold_ports(1, others)
        server = others.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        others.enter_context(socket.create_connection(("127.0.0.1", port)))


def test_in_an_activated_venv_the_modality_is_not_pynetdicoms_storescu(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(sys.executable).parent
    assert (own / "storescu").exists()
    monkeypatch.setenv("PATH", f"{own}{os.pathsep}/nowhere")
    assert demo_peers._dcmtk_storescu() is None


def test_without_dcmtk_the_modality_is_pynetdicom_and_an_interrupt_ends_all_that_was_started(
    tmp_path: Path, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    folders, no_tools = tmp_path / "folders", tmp_path / "no-tools"
    folders.mkdir()
    no_tools.mkdir()
    environment = {**os.environ, "TMPDIR": str(folders), "PATH": str(no_tools)}
    with (tmp_path / "shown").open("wb") as shown:
        demo = start_process(COMMAND, cwd=ROOT, env=environment, stdout=shown, stderr=shown)
    wait_until(lambda: "by pynetdicom" in (tmp_path / "shown").read_text(), 60, "the modality has stored")
    assert len(processes_of(folders)) > 1, "a node beside the demo"
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(60) == 130, (tmp_path / "shown").read_text()
    assert (processes_of(folders), list(folders.iterdir())) == ([], [])


def test_an_interrupt_while_a_command_starts_leaves_nothing(tmp_path: Path) -> None:
    done = run_mutated(tmp_path, INTERRUPTED_WHILE_A_COMMAND_STARTS)
    assert done.returncode == 130, done.stdout + done.stderr
