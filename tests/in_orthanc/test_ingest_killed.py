"""Orthanc is killed at whatever it does to take in an object: what it had answered for is in the spool, as sent."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from node_make import drain

from tests.in_orthanc.conftest import Hospital, Hospitals
from tests.in_orthanc.kept import Kept, scan, store
from tests.in_orthanc.test_ingest import MODALITIES

# Calls of any of its threads, Orthanc's own among them, and which of a thread's calls by that name.
POINTS = [
    *(("fsync", number) for number in (1, 2, 3)),
    *(("linkat", number) for number in (1, 2)),
    *(("pwrite64", number) for number in (1, 2)),
    ("write", 40),
]
OBJECTS = 3


def struck(strace: str, made: Hospital, call: str, number: int) -> "subprocess.Popen[str]":
    """strace at all of Orthanc's threads, which kills it at a call."""
    assert made.orthanc.process is not None
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    words = [strace, "-f", *inject, "-o", str(made.orthanc.folder / "strace.log"), "-p", str(made.orthanc.process.pid)]
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    return tracer


@pytest.fixture
def source(samples_dir: Path) -> Path:
    return min(samples_dir.rglob("*.dcm"))


def test_killed_at_any_write_orthanc_has_answered_for_nothing_that_is_not_in_the_spool(
    hospital: Hospitals, source: Path, strace: str, figure: Callable[[str], None]
) -> None:
    made = hospital(ledger={"Serve": False}, settings={"DicomModalities": MODALITIES})
    kept, sent, killed = Kept(made.node), [], 0
    for call, number in POINTS:
        made.start()
        scans = [scan(source) for _ in range(OBJECTS)]
        with struck(strace, made, call, number) as tracer:
            answered = store(made.orthanc, scans)
            assert set(answered) <= {0x0000}
            assert [kept.holds(each) for each in scans[: len(answered)]] == [True] * len(answered), (call, number)
            killed += len(answered) < OBJECTS
            made.orthanc.kill()
            tracer.wait(30)
            sent += scans
    figure(f"Orthanc {made.orthanc.version} killed at {killed} of {len(POINTS)} points while it took in objects")
    assert killed > len(POINTS) / 2
    made.start()
    assert store(made.orthanc, sent) == [0x0000] * len(sent)
    made.orthanc.kill()
    drain(kept.node)
    assert kept.node.index.counts() == {"anchored": len(sent)}
    assert [kept.fingerprint(each.sop_uid) for each in sent[:5]] == [each.fingerprint for each in sent[:5]]
