"""The demo tells the same story on a Hyperledger Fabric network, and leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from demo_run import COMMAND, DEADLINE_S, check_it_fails, processes_of, run_mutated

from tests.consortium.live import need_go

pytestmark = pytest.mark.timeout(DEADLINE_S + 30)

STEPS = 24
SERVERS = 13  # orderers, peers, chaincodes, Kubo nodes
IMAGES = 10
IN_SEVERAL_BATCHES = """
MODULE = "orthanc_ledger.batch"
def mutate(module):
    module.BatchLimits.__init__.__defaults__ = (0.0, 4, 30.0)  # as where the images come slowly
"""
CONFIRMED_UNSEEN = """
MODULE = "orthanc_ledger.keeper"
def mutate(module):
    from orthanc_ledger.content.kubo.store import KuboStore
    KuboStore.keep = lambda self, root: None
    module.Keeper._faults = lambda self, anchor: iter(())
"""
COPIES_KEPT = """
MODULE = "orthanc_ledger.content.kubo.store"
def mutate(module):
    module.KuboStore.forget = lambda self, roots, cids: None
"""


@pytest.fixture(autouse=True)
def _go() -> None:
    need_go()


def test_the_demo_shows_every_step_and_each_peer_tells_the_same(tmp_path: Path) -> None:
    done = run_mutated(tmp_path, IN_SEVERAL_BATCHES, "--consortium")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(re.findall("^✓", done.stdout, re.MULTILINE)) == STEPS
    assert "records by peer0.hospital, peer1.hospital, peer0.custodian, peer0.research" in done.stdout
    assert "under the CA certificate of hospital and custodian" in done.stdout
    batches = done.stdout.count("manifest ")
    assert batches >= 3
    assert done.stdout.count("ConfirmStored at ledger position ") == batches
    blocks = IMAGES + 2 * batches  # a manifest's root and its shard
    assert f"{IMAGES} files as sent, keys over HTTPS, {blocks} blocks over IPFS" in done.stdout
    assert "ErasureDone by CustodianMSP, HospitalMSP, ResearchMSP" in done.stdout


def test_a_keeper_that_confirms_what_it_has_not_fetched_fails_the_demo_at_its_step(tmp_path: Path) -> None:
    failure = r"the custodian's keeper confirms: expected the hospital's \d+ blocks on the custodian's Kubo, got \d+$"
    check_it_fails(tmp_path, CONFIRMED_UNSEEN, failure, "--consortium")


def test_an_erasure_that_leaves_the_copies_on_kubo_fails_the_demo_at_its_step(tmp_path: Path) -> None:
    failure = r"nothing is left of the study: expected no block on any Kubo, got \{'owner': (\d\d), 'custodian': \1,"
    check_it_fails(tmp_path, COPIES_KEPT, failure, "--consortium")


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
    wait_until(lambda: "✓ a node is set up" in shown.read_text(), DEADLINE_S, "network and node are set up")
    assert len(processes_of(folders)) > SERVERS
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(60) == 130, shown.read_text()
    assert (processes_of(folders), list(folders.iterdir())) == ([], [])
