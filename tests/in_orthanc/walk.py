"""A hospital whose Orthanc is asked everything, over HTTP by everybody who is not staff, and over DICOM by a research
AE.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import wait_until
from pydicom import dcmread

from orthanc_ledger.entrance import SECRET_HEADER
from tests.in_orthanc.conftest import Hospital, new_hospital
from tests.in_orthanc.kept import store_files
from tests.in_orthanc.live import LEDGER, STAFF, STUDENT, LiveOrthanc, Version, basic
from tests.in_orthanc.routes import METHODS, PEER, VIEWER, Held, Walker, area_of, routes_of
from tests.in_orthanc.services import Scu
from tests.live_node import data_set

RESEARCH, CLINICAL, WORKSTATION = "RESEARCH1", "CLINICAL", "VIEWER"
ELSEWHERE = "127.0.0.7"  # where the workstation is: nobody calls from there

NOBODY, RESEARCHER, NODE, GUESSER = "nobody", "a research user", "the node's user", "the node's user, another secret"
HEADERS: Mapping[str, dict[str, str]] = {
    NOBODY: {},
    RESEARCHER: {"Authorization": basic(STUDENT)},
    NODE: {"Authorization": basic(LEDGER)},
    GUESSER: {"Authorization": basic(LEDGER), SECRET_HEADER: "0" * 64},
}

Walked = dict[tuple[str, str], Counter[int]]
"""By area and by who asked: how often each status was answered."""


@dataclass
class World:
    """A running hospital that holds a scan, and an Orthanc beside it that has no plugin and holds the same."""

    hospital: Hospital
    plain: LiveOrthanc
    research_port: int
    files: list[Path]
    held: dict[int, Held] = field(default_factory=dict)

    @property
    def orthanc(self) -> LiveOrthanc:
        return self.hospital.orthanc

    def fill(self) -> None:
        """Send both the scan, and have the node anchor it."""
        for orthanc in (self.orthanc, self.plain):
            self.held[id(orthanc)] = _filled(orthanc, self.files[:2])
        self.hospital.node.wait_anchored(2)

    def routes(self) -> list[str]:
        """All paths of the hospital's Orthanc."""
        return routes_of(self.orthanc, self.held[id(self.orthanc)])

    def walk(self, who: Iterable[str] = tuple(HEADERS)) -> Walked:
        """Ask every route by every method as everybody of ``who``. No answer may be long enough to tell anything."""
        found: Walked = {}
        for name in who:
            with contextlib.closing(Walker(self.orthanc.http_port, HEADERS[name])) as walker:
                for path in self.routes():
                    for method in METHODS:
                        status, length = walker.ask(method, path)
                        assert length < 600, f"{method} {path} told {name} something"
                        found.setdefault((area_of(path), name), Counter())[status] += 1
        return found

    def statuses(self, orthanc: LiveOrthanc) -> dict[str, int]:
        """What staff is answered for each route of the hospital's Orthanc, there or at the plain one."""
        found, jobs = {}, self.held[id(self.orthanc)].jobs
        with contextlib.closing(Walker(orthanc.http_port, {"Authorization": basic(STAFF)})) as walker:
            for path in self.routes():
                found[path] = walker.ask("GET", path.replace(jobs, self.held[id(orthanc)].jobs))[0]
        return found

    def content(self) -> dict[str, bytes]:
        """What the hospital's Orthanc holds and is set to, and how far its changes are."""
        asked = ("/statistics", "/changes?last", "/exports?last", "/modalities?expand", "/peers?expand", "/jobs")
        more = ("/queries", "/tools/log-level", f"/dicom-web/servers/{PEER}", "/instances")
        return {path: self.orthanc.call("GET", path).body for path in (*asked, *more)}

    def services(self, caller: str) -> dict[str, str]:
        """What an application is answered for every service."""
        uids = self.held[id(self.orthanc)].uids
        patient = str(dcmread(self.files[0]).PatientID)
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        study = data_set(QueryRetrieveLevel="STUDY", PatientID=patient, **dict(zip(names, uids, strict=True)))
        return dict(Scu(self.orthanc, caller, study, self.files[-1]).services([WORKSTATION, RESEARCH]))


@contextlib.contextmanager
def world(version: Version, folder: Path, free_port: Callable[[], int], files: list[Path]) -> Iterator[World]:
    """A world, which ends with its context. ``files``: slices of one study."""
    settings: dict[str, Any] = {
        "DicomModalities": {VIEWER: [WORKSTATION, ELSEWHERE, 104], "clinical": [CLINICAL, "127.0.0.1", 1]},
        "OrthancPeers": {PEER: ["http://127.0.0.1:1/"]},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {PEER: ["http://127.0.0.1:1/"]}},
        "StableAge": 600,  # a study that becomes stable is a change
    }
    port = free_port()
    place = {"hosts": ["127.0.0.1"], "host": "127.0.0.1", "port": port}
    peer = {"ae_title": RESEARCH, "role": "research", "organisation": "ResearchMSP", **place}
    made = new_hospital(version, folder, free_port, settings=settings, node={"peers": [peer]})
    plain = LiveOrthanc(version, folder / "plain", free_port(), free_port(), settings=settings)
    try:
        made.orthanc.start()
        plain.start()
        whole = World(made, plain, port, files)
        whole.fill()
        yield whole
    finally:
        made.orthanc.stop()
        plain.stop()


def _filled(orthanc: LiveOrthanc, files: list[Path]) -> Held:
    store_files(orthanc, files, CLINICAL)
    last = dcmread(files[-1])
    uids = str(last.StudyInstanceUID), str(last.SeriesInstanceUID), str(last.SOPInstanceUID)
    instance = orthanc.call("POST", "/tools/lookup", uids[-1]).json()[0]["ID"]
    parents = [orthanc.call("GET", f"/instances/{instance}/{level}").json()["ID"] for level in ("patient", "study")]
    series = orthanc.call("GET", f"/instances/{instance}/series").json()["ID"]
    job = orthanc.call("POST", f"/studies/{parents[1]}/archive", {"Asynchronous": True}).json()["ID"]
    wait_until(lambda: orthanc.call("GET", f"/jobs/{job}").json()["State"] == "Success", 30, "the job is done")
    return Held(*parents, series=series, instances=instance, jobs=job, uids=uids)
