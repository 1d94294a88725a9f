"""The demo tells the same story on a Hyperledger Fabric network, and leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from demo_run import COMMAND, DEADLINE_S, check_it_fails, processes_of, run_demo
from test_demo import STEPS
from test_demo_access import APPROVAL_REMEMBERED

from tests.consortium.live import need_go

pytestmark = pytest.mark.timeout(DEADLINE_S + 30)


@pytest.fixture(autouse=True)
def _go() -> None:
    need_go()


def test_the_demo_shows_every_step_and_each_peer_tells_the_same(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--consortium")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(re.findall("^✓", done.stdout, re.MULTILINE)) == STEPS
    assert "records by peer0.hospital, peer1.hospital, peer0.custodian, peer0.research" in done.stdout
    assert "under the CA certificate of hospital and custodian" in done.stdout
    assert (processes_of(tmp_path), list(tmp_path.iterdir())) == ([], [])


def test_a_node_that_remembers_an_approval_fails_the_demo_at_its_step(tmp_path: Path) -> None:
    failure = "research gets nothing again: C-GET: expected nothing, got 9 objects"
    check_it_fails(tmp_path, APPROVAL_REMEMBERED, failure, "--consortium")


def test_an_interrupt_ends_node_and_network(
    tmp_path: Path, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    folders, shown = tmp_path / "folders", tmp_path / "shown"
    folders.mkdir()
    with shown.open("wb") as output:
        demo = start_process(
            [*COMMAND, "--consortium"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folders)},
            stdout=output,
            stderr=output,
        )
    wait_until(lambda: "a node is set up" in shown.read_text(), DEADLINE_S, "network and node are set up")
    assert processes_of(folders) != []
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(60) == 130, shown.read_text()
    assert (processes_of(folders), list(folders.iterdir())) == ([], [])
