"""C-GET of a study of 131 kB slices by dcmtk's getscu: from Orthanc, from ours as clinical peer, and as research peer
under an approval.

Each is started on what it keeps, asked once to warm up, and asked again: the second answer counts. Objects a second are
from the C-GET request to its final response; getscu writes what it gets to files.
"""

import shutil
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from bench.peers import CLINICAL, RESEARCH, BenchError, Orthanc, OrthancLedger, Peer
from bench.sender import Exchange, StampedTool, send_together
from bench.slices import MEDIUM, copies

OURS_CLINICAL = f"{OrthancLedger.name}, clinical"
OURS_RESEARCH = f"{OrthancLedger.name}, research under approval"
DOES = {
    Orthanc.name: "reads the file",
    OURS_CLINICAL: "reads the sealed object, checks CID and keyed digest, unseals",
    OURS_RESEARCH: "the same, after LogRelease is committed on the ledger; LogOutcome afterwards",
}


@dataclass(frozen=True)
class Asker:
    """Who asks whom."""

    peer: Peer
    port: int
    calling_ae: str


def measure(count: int, repeats: int) -> dict[str, list[float]]:
    """Objects a second that come from each, in each repeat."""
    rates = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        studies = copies(MEDIUM, folder / "copies", count)
        study_uid = dcmread(next(studies[0].iterdir()), stop_before_pixels=True).StudyInstanceUID
        orthanc, ours = Orthanc(folder / "orthanc"), OrthancLedger(folder / "ours")
        with orthanc.running():
            send_together(orthanc, studies, folder)
        with ours.running():
            send_together(ours, studies, folder)
            ours.wait_anchored(count)
            ours.approve(study_uid)
        askers = {
            Orthanc.name: Asker(orthanc, orthanc.port, CLINICAL),
            OURS_CLINICAL: Asker(ours, ours.port, CLINICAL),
            OURS_RESEARCH: Asker(ours, ours.research_port, RESEARCH),
        }
        names = list(askers)
        for repeat in range(repeats):
            for who in names[repeat % 3 :] + names[: repeat % 3]:
                asker = askers[who]
                with asker.peer.running():
                    _measured(asker, study_uid, count, folder)
                    rates[who].append(_measured(asker, study_uid, count, folder).rate)
                print(f"C-GET: {who}: {rates[who][-1]:,.0f}/s", file=sys.stderr, flush=True)
    return rates


def get(asker: Asker, study_uid: str, out: Path) -> list[tuple[float, str]]:
    """Fetch the study into a new folder; what getscu logged, each line with its time."""
    out.mkdir()
    log = out.with_suffix(".log")
    log.unlink(missing_ok=True)
    words = ["getscu", "-S", "-aet", asker.calling_ae, "-aec", asker.peer.ae_title, "-od", out, "--bit-preserving"]
    words += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study_uid}", "127.0.0.1", asker.port]
    return StampedTool.start(log, *words).lines()


def _measured(asker: Asker, study_uid: str, count: int, folder: Path) -> Exchange:
    """Fetch the study. Raises BenchError unless it comes whole."""
    got = folder / "got"
    lines = get(asker, study_uid, got)
    received = len(list(got.iterdir()))
    shutil.rmtree(got)
    if received != count:
        raise BenchError(f"{asker.peer.name} gave {received} of {count} objects to {asker.calling_ae}")
    return Exchange(count, _first(lines, "Sending C-GET Request"), _last(lines, "Received C-GET Response"))


def _first(lines: list[tuple[float, str]], start: str) -> float:
    return next(time for time, text in lines if text.startswith(start))


def _last(lines: list[tuple[float, str]], start: str) -> float:
    return _first(lines[::-1], start)
