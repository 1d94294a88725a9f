"""The demo with Orthanc in the middle passes as things are, and names the step that a broken plugin fails."""

import re
from pathlib import Path

import pytest
from demo_run import DEADLINE_S, check_it_fails, processes_of, run_demo

pytestmark = pytest.mark.timeout(DEADLINE_S + 30)

STEPS = 23
ADMITS_EVERYBODY = """
MODULE = "orthanc_ledger.plugin.access"
def mutate(module):
    module.Access.admits = lambda *_: True
"""
TAKES_RESEARCH_FOR_CLINICAL = """
MODULE = "dicom_scp.beside"
def mutate(module):
    from dataclasses import replace
    class Moves(module.Moves):
        def __init__(self, ae_title, peers, archive):
            super().__init__(ae_title, peers, archive)
            self._peers = {title: replace(peer, role="clinical") for title, peer in self._peers.items()}
            requestor = module.Requestor(module.application_entity(ae_title, 60.0, 60.0))
            self._retriever = module.Retriever(archive, list(self._peers.values()), requestor)
    module.Moves = Moves
"""


def test_every_step_is_shown_and_nothing_is_left(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--orthanc")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(re.findall("^✓", done.stdout, re.MULTILINE)) == STEPS
    assert (processes_of(tmp_path), list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize(
    ("mutation", "said"),
    [
        (ADMITS_EVERYBODY, "HTTP: expected 403, got 200"),
        (TAKES_RESEARCH_FOR_CLINICAL, "C-MOVE: expected nothing, got 10"),
    ],
    ids=["HTTP is open to everybody", "moves are not decided"],
)
def test_a_broken_plugin_fails_at_its_step(tmp_path: Path, mutation: str, said: str) -> None:
    check_it_fails(tmp_path, mutation, f"nor does Orthanc give it any: {said}", "--orthanc")
