"""The node of the demo, set up and driven by the command `orthanc-ledger`: each answer is from a process of its own."""

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.errors import CustodyError

AE_TITLE = "NODE"
MODALITY = "MRI1"
RESEARCH = "RESEARCH1"
RESEARCH_MSP = "ResearchMSP"

_DEADLINE_S = 20.0
_STOP_S = 20.0


class StepFailed(CustodyError):
    """A step of the demo did not do what it should; the message says what was expected and what came."""


def expect(condition: object, message: str) -> None:
    """Raises StepFailed unless the condition holds."""
    if not condition:
        raise StepFailed(message)


def poll(question: Callable[[], object], what: str) -> None:
    """Ask until the answer is yes. Raises StepFailed when it did not come in time."""
    pause, deadline = threading.Event(), time.monotonic() + _DEADLINE_S
    while not question():
        expect(time.monotonic() < deadline, f"waited {_DEADLINE_S:.0f} s in vain until {what}")
        pause.wait(0.1)


@dataclass(frozen=True)
class DemoNode:
    """A node in ``folder``, with a modality and a research centre as peers, all on this machine."""

    folder: Path
    clinical_port: int
    research_port: int

    @property
    def authority(self) -> Path:
        """The hospital's CA certificate."""
        return self.folder / "node" / "organisations" / "owner" / "cacerts" / "ca.pem"

    @property
    def _config(self) -> Path:
        return self.folder / "node" / "orthanc-ledger.yaml"

    @property
    def _objects(self) -> Path:
        return self.folder / "node" / "data" / "objects" / "objects"

    def set_up(self) -> None:
        """`init` with the keys of all three organisations, then the peers. Raises StepFailed."""
        ports = ("--clinical-port", self.clinical_port, "--research-port", self.research_port)
        backup = ("--key-backup", self.folder / "node.key.backup")
        self.command("init", self.folder / "node", *backup, "--all-roles", "--ae-title", AE_TITLE, *ports)
        settings = yaml.safe_load(self._config.read_text(encoding="utf-8"))
        settings["peers"] = [
            {"ae_title": MODALITY, "role": "modality", "hosts": ["127.0.0.1"]},
            {"ae_title": RESEARCH, "role": "research", "organisation": RESEARCH_MSP, "hosts": ["127.0.0.1"]},
        ]
        settings["spool_reserve_mb"] = 64  # a demo needs no room for a day of scans
        kept = self.folder / "kept-by-the-custodian"
        kept.mkdir()
        settings |= {"checkpoint_sinks": [f"path:{kept}"], "checkpoint_within_s": 1.0}
        self._config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run `serve` until the block is left, and end it whatever happened."""
        with (self.folder / "serve.log").open("wb") as log:
            # A session of its own: an interrupt from the terminal is ours to handle, and nothing of it outlives us.
            serve = subprocess.Popen(self._words("serve"), stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            serve.terminate()
            try:
                serve.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(serve.pid, signal.SIGKILL)
                serve.wait()

    def command(self, *words: object, code: int = 0) -> str:
        """Standard output of an `orthanc-ledger` command. Raises StepFailed when its exit code is not ``code``."""
        done = subprocess.run(self._words(*words), capture_output=True, text=True, check=False)
        said = done.stderr.strip().rpartition("\n")[2]
        expect(done.returncode == code, f"`{words[0]}`: expected exit code {code}, got {done.returncode}: {said}")
        return done.stdout

    def rows(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        """What a command prints with --json. Raises as ``command``."""
        return [json.loads(line) for line in self.command(*words, "--json", code=code).splitlines()]

    def records(self, function: str) -> list[dict[str, Any]]:
        """The ledger's records of one function, read by a process of its own. Raises as ``command``."""
        return [record for record in self.rows("audit") if record["function"] == function]

    def sealed_files(self) -> list[Path]:
        """The sealed objects in the content store, each named by its CID."""
        return sorted(self._objects.glob("*/*"))

    def change_one_byte(self, path: Path) -> int:
        """Flip one bit amid a stored file, as a bad disk or an intruder would; returns the byte's offset."""
        content = bytearray(path.read_bytes())
        offset = len(content) // 2
        content[offset] ^= 1
        path.write_bytes(content)
        return offset

    def _words(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "orthanc_ledger", "--config", str(self._config), *map(str, words)]


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def raw_leaf_cid(content: bytes) -> str:
    """CID of a file of one chunk, at most 1 MiB: CIDv1, raw, sha2-256, base32 (docs/manifest.md)."""
    binary = b"\x01\x55\x12\x20" + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(binary).decode().lower().rstrip("=")
