"""Fetching a study to a research centre, by C-GET and by `orthanc-ledger pull`: from one node, whose content store is
Kubo, under one approval. A time is all of a program's, from Python's start to what is told the ledger in the end.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import yaml
from pydicom import dcmread

from bench.peers import RESEARCH, BenchError, OrthancLedger, free_port, run
from bench.report import spread, times
from bench.retrieve import Asker, get
from bench.sender import send_together
from bench.slices import MEDIUM, copies
from bench.store import rotated
from dicom_scp.demo_peers import encoded_data_set
from orthanc_ledger.config import load
from orthanc_ledger.consortium import ipfs
from orthanc_ledger.consortium.ipfs import IpfsNetwork
from orthanc_ledger.consortium.topology import Topology, trial
from orthanc_ledger.content.kubo.connection import read_connection
from orthanc_ledger.content.kubo.rpc import Kubo
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.ledger.identity import issue_server

COUNT = 600
C_GET, PULL, AGAIN = "getscu, C-GET", "`pull`, own Kubo empty", "`pull --again`, blocks are there"
DOES = {
    C_GET: "the node: LogRelease, then reads its copy beside Kubo, checks CID and keyed digest, unseals, sends; "
    "getscu: file written, no fsync, nothing checked",
    PULL: "the node: LogRelease, then keys over mutual TLS; pull: block comes from the hospital's Kubo into the own, "
    "synced, is read again, CID, seal and keyed digest checked, unsealed, file fsynced; LogRetrieval",
    AGAIN: "the same, but the block is read from the own Kubo only",
}


class Hospital(OrthancLedger):
    """A node on Kubo that gives keys over HTTPS."""

    def __init__(self, folder: Path, connection: Path) -> None:
        super().__init__(folder)
        LocalStore.create(read_connection(connection).local)
        self.https_port, owner = free_port(), self.config.parent / "organisations" / "owner"
        certificate, key = map(str, issue_server(owner, "localhost", folder / "https"))
        https = {"certificate": certificate, "key": key, "port": self.https_port}
        self.configure(content=f"kubo:{connection}", https=https)

    def ports(self) -> tuple[int, ...]:
        return (*super().ports(), self.https_port)


class Centre:
    """A research centre with an approval for one study, and a Kubo node of its own."""

    def __init__(self, folder: Path, hospital: Hospital, connection: Path, study_uid: str) -> None:
        self._hospital, self._study_uid = hospital, study_uid
        self._keys, self._config, self._data = folder / "keys", folder / "party.yaml", folder / "data"
        (node,) = read_connection(connection).nodes
        self._kubo = Kubo(node.name, node.api, node.token)
        self._fresh = set(self._kubo.held())
        run("keypair", "--out", self._keys)
        self._request = hospital.approve(study_uid, "--public-key", self._keys / "public.key")
        party = {"organisation": "ResearchMSP", "ae_title": RESEARCH, "data_dir": str(self._data)}
        party["identity"] = str(hospital.config.parent / "organisations" / "research" / "identities" / "node")
        party |= {"content": f"kubo:{connection}", "ledger": load(hospital.config).ledger}
        self._config.write_text(yaml.safe_dump(party))

    def fetch(self, way: str, out: Path) -> float:
        """Fetch the study into a new folder; the seconds it took."""
        if way == PULL:
            self._empty()
        os.sync()
        began = time.perf_counter()
        if way == C_GET:
            get(Asker(self._hospital, self._hospital.research_port, RESEARCH), self._study_uid, out)
        else:
            words = ["--config", self._config, "pull", self._request, "--out", out, "--key", self._keys / "private.key"]
            words += ["--hospital", f"https://localhost:{self._hospital.https_port}"]
            run(*words, *(["--again"] if way == AGAIN else []))
        return time.perf_counter() - began

    def _empty(self) -> None:
        """As if nothing had been pulled. Raises BenchError when its Kubo keeps blocks."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir()
        self._kubo.collect()
        if left := set(self._kubo.held()) - self._fresh:
            raise BenchError(f"{self._kubo.name} keeps {len(left)} blocks")


def measure(count: int, repeats: int) -> list[dict[str, object]]:
    """Rows of objects a second, by way; each goes once uncounted. Raises BenchError unless all comes as sent."""
    rates: dict[str, list[float]] = {way: [] for way in DOES}
    parties = Topology(tuple(each for each in trial().organisations if each.name != "custodian")).with_ports(free_port)
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        ipfs.prepare(folder, parties)
        network = IpfsNetwork(folder, parties)
        running.callback(network.down)
        network.up()
        studies = copies(MEDIUM, folder / "copies", count)
        study_uid = dcmread(next(studies[0].iterdir()), stop_before_pixels=True).StudyInstanceUID
        hospital = Hospital(folder / "hospital", ipfs.connection(folder, "hospital"))
        running.enter_context(hospital.running())
        send_together(hospital, studies, folder)
        hospital.wait_anchored(count)
        centre = Centre(folder, hospital, ipfs.connection(folder, "research"), study_uid)
        for way in [*DOES, *(way for repeat in range(repeats) for way in rotated(list(DOES), repeat))]:
            rates[way].append(count / centre.fetch(way, folder / "out"))
            if _data_sets(folder / "out") != _data_sets(studies[0]):
                raise BenchError(f"{way}: what came is not what was sent")
            shutil.rmtree(folder / "out")
            print(f"{way}: {rates[way][-1]:,.0f}/s", file=sys.stderr, flush=True)
    counted = {way: values[1:] for way, values in rates.items()}
    return [
        {"": way, "objects/s": spread(values), "÷ C-GET": times(values, counted[C_GET]), "for each": DOES[way]}
        for way, values in counted.items()
    ]


def _data_sets(folder: Path) -> list[bytes]:
    """The digest of each file's data set."""
    return sorted(hashlib.sha256(encoded_data_set(path)).digest() for path in folder.rglob("*") if path.is_file())
