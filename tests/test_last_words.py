"""An object that kills the process while it is decoded is put aside, and only such a one."""

import subprocess
import sys
from pathlib import Path

import pytest
from node_make import drain, make_node, store, variant

from orthanc_ledger.errors import Unreadable
from orthanc_ledger.last_words import LastWords

DIE = """
import os, signal, sys
from pathlib import Path
from orthanc_ledger.last_words import LastWords
with LastWords(Path(sys.argv[1])).decoding(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def die(path: Path, claim: str) -> None:
    assert subprocess.run([sys.executable, "-c", DIE, str(path), claim]).returncode < 0


def decode(path: Path, claim: str) -> None:
    with LastWords(path).decoding(claim):
        pass


def test_one_death_may_be_an_accident_two_in_a_row_are_not(tmp_path: Path) -> None:
    path = tmp_path / "decoding"
    die(path, "a")
    decode(path, "b")
    die(path, "a")
    die(path, "a")
    with pytest.raises(Unreadable, match="died 2 times"):
        decode(path, "a")
    decode(path, "b")


def test_a_person_may_have_it_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "decoding"
    die(path, "a")
    die(path, "a")
    words = LastWords(path)
    with pytest.raises(Unreadable), words.decoding("a"):
        pass
    with words.decoding("a"):
        pass


def test_an_error_is_no_death(tmp_path: Path) -> None:
    path = tmp_path / "decoding"
    for _ in range(3):
        with pytest.raises(Unreadable, match="not DICOM"), LastWords(path).decoding("a"):
            raise Unreadable("not DICOM")


def test_the_deadly_object_goes_to_quarantine_and_the_others_are_anchored(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    for number in (1, 2):
        store(node, variant(SOPInstanceUID=f"1.2.826.0.{number}"))
    node.anchorer().take_in()
    deadly, harmless = node.index.select()
    for _ in range(2):
        die(node.config.data_dir / "decoding", deadly.claim)
    drain(node)
    states = {instance.claim: instance.state for instance in node.index.select()}
    assert states == {deadly.claim: "quarantined", harmless.claim: "anchored"}
    assert [alarm.kind for alarm in node.outbox.alarms()] == ["quarantine"]
