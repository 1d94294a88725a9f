"""The SCPs that are compared. Each keeps what it receives in a folder of its own, and listens on loopback."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml

from orthanc_ledger.assemble import Node
from orthanc_ledger.config import load
from orthanc_ledger.ledger import all_rows

READY_S = 120.0  # on a machine that does other things, too
STOP_S = 30.0
ANCHORED_S = 300.0
MODALITY, CLINICAL, RESEARCH = "MRI1", "VIEWER", "RESEARCH1"
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
"""Debian puts Orthanc where only root looks."""

_PORTS = itertools.count(21_000 + os.getpid() % 3_000)  # below the range that outgoing connections take


class BenchError(Exception):
    """A peer or a tool did not do what is measured."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, each given once."""
    for port in _PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("ports do not end")


def tool(name: str) -> str:
    """The path of a command. Raises BenchError when it is not installed."""
    if path := shutil.which(name, path=SEARCH_PATH):
        return path
    raise BenchError(f"{name} is not installed: make bench installs it when run as root")


class Peer:
    """One SCP; ``does``: what it has done with an object when it answers Success."""

    name: ClassVar[str]
    does: ClassVar[str]
    ae_title: ClassVar[str] = "BENCH"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.pid = 0
        folder.mkdir()

    def command(self) -> list[str]:
        """What is run."""
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it, from when it listens until it has ended. Raises BenchError when it does not start."""
        environment = {**os.environ, "TCP_NODELAY": "1"}  # dcmtk and Orthanc read it
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(self.command(), env=environment, cwd=self.folder, stdout=log, stderr=log)
        self.pid = process.pid
        try:
            self._wait_ready(process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ports(self) -> tuple[int, ...]:
        """Where it listens."""
        return (self.port,)

    def _wait_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + READY_S
        for port in self.ports():
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "log").read_text(errors="replace")[-500:]
                    raise BenchError(f"{self.name} does not listen on port {port}; it said: {said}")
                time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Storescp(Peer):
    name = "dcmtk storescp"
    does = "file written; no fsync, no database; one association after the other"

    def command(self) -> list[str]:
        return [tool("storescp"), "--bit-preserving", "--output-directory", str(self.folder), str(self.port)]


class ForkingStorescp(Storescp):
    name = "dcmtk storescp --fork"
    does = "file written; no fsync, no database; a process for each association"

    def command(self) -> list[str]:
        return [*super().command(), "--fork"]


class PynetdicomStorescp(Peer):
    name = "pynetdicom storescp"
    does = "data set decoded, encoded again, file written; no fsync, no database"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "pynetdicom", "storescp", "-od", str(self.folder), str(self.port)]


class Orthanc(Peer):
    name = "Orthanc"
    does = "file written and fdatasynced; tags and file entered in SQLite, whose commits are not synced"

    def command(self) -> list[str]:
        configuration = {
            "Name": "bench",
            "StorageDirectory": str(self.folder),
            "IndexDirectory": str(self.folder),
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "HttpServerEnabled": False,
            "Plugins": [],
            "DicomModalities": {"viewer": {"AET": CLINICAL, "Host": "127.0.0.1", "Port": 104, "AllowGet": True}},
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(configuration))
        return [tool("Orthanc"), str(path)]


class OrthancLedger(Peer):
    name = "orthanc-ledger"
    does = "file written, fsynced, linked, folder fsynced; afterwards indexed, fingerprinted, sealed, anchored"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.research_port = free_port()
        self.config = folder / "node" / "orthanc-ledger.yaml"
        (folder / "checkpoints").mkdir()
        words = ["init", folder / "node", "--key-backup", folder / "node.key.backup", "--all-roles"]
        words += ["--ae-title", self.ae_title, "--clinical-port", self.port, "--research-port", self.research_port]
        run(*words)
        peers = [
            {"ae_title": MODALITY, "role": "modality"},
            {"ae_title": CLINICAL, "role": "clinical"},
            {"ae_title": RESEARCH, "role": "research", "organisation": "ResearchMSP"},
        ]
        self.configure(checkpoint_sinks=[f"path:{folder / 'checkpoints'}"], peers=peers)

    def configure(self, **values: object) -> None:
        """Set keys of its configuration; before it runs."""
        self.config.write_text(yaml.safe_dump({**yaml.safe_load(self.config.read_text()), **values}))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "orthanc_ledger", "--config", str(self.config), "serve"]

    def ports(self) -> tuple[int, ...]:
        return (self.port, self.research_port)

    @cached_property
    def _node(self) -> Node:
        return Node(load(self.config))

    def wait_anchored(self, count: int) -> float:
        """As `wait_anchored`."""
        return wait_anchored(self._node, count)

    def ledger_rows(self, query: str) -> list[Mapping[str, Any]]:
        """All rows of a query of the ledger that takes no arguments."""
        return list(all_rows(self._node.ledger, query, {}))

    def approve(self, study_uid: str, *options: object) -> str:
        """Give the research peer an approval for the study; ``options``: more words of `request`. The request's id."""
        tokens = self.folder / "tokens.json"
        self._command("nodes", "register", RESEARCH)
        self._command("nodes", "confirm", "ResearchMSP", RESEARCH)
        self._command("studies", "--study", study_uid, "--tokens", tokens, "--for", "ResearchMSP")
        words = ["--studies", tokens, "--node", RESEARCH, "--duo", "DUO:0000042", "--json", *options]
        request: dict[str, Any] = json.loads(self._command("request", *words))
        for who in ("custodian", "owner"):
            self._command("approve", request["id"], "--as", who)
        return str(request["id"])

    def _command(self, *words: object) -> str:
        return run("--config", self.config, *words)


def wait_anchored(node: Node, count: int) -> float:
    """Wait until so many objects are anchored; the moment, in seconds since the epoch. Raises BenchError."""
    deadline = time.monotonic() + ANCHORED_S
    while (anchored := node.index.counts().get("anchored", 0)) < count:
        if time.monotonic() > deadline:
            raise BenchError(f"{anchored} of {count} objects are anchored after {ANCHORED_S:.0f} s")
        time.sleep(0.02)
    return time.time()


def run(*words: object) -> str:
    """What `orthanc-ledger` prints. Raises BenchError when it fails."""
    command = [sys.executable, "-m", "orthanc_ledger", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=READY_S)
    if done.returncode:
        raise BenchError(f"orthanc-ledger {words[0]}: exit {done.returncode}: {done.stderr}")
    return done.stdout


PEERS: tuple[type[Peer], ...] = (Storescp, ForkingStorescp, PynetdicomStorescp, Orthanc, OrthancLedger)
