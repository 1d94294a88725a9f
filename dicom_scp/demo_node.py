"""The node of the demo, set up and driven by the command `orthanc-ledger`: each answer is from a process of its own."""

import base64
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.errors import CustodyError

AE_TITLE = "NODE"
MODALITY = "MRI1"
RESEARCH = "RESEARCH1"
RESEARCH_MSP = "ResearchMSP"

_PORTS = range(10_000, 12_000)  # the tests take theirs above
_DEADLINE_S = 20.0
_STOP_S = 20.0


class StepFailed(CustodyError):
    """A step of the demo did not do what it should; the message says what was expected and what came."""


def expect(condition: object, message: str) -> None:
    """Raises StepFailed unless the condition holds."""
    if not condition:
        raise StepFailed(message)


def poll(question: Callable[[], object], what: str, within_s: float = _DEADLINE_S) -> None:
    """Ask until the answer is yes. Raises StepFailed when it did not come in time."""
    pause, deadline = threading.Event(), time.monotonic() + within_s
    while not question():
        expect(time.monotonic() < deadline, f"waited {within_s:.0f} s in vain until {what}")
        pause.wait(0.1)


@dataclass(frozen=True)
class DemoNode:
    """A node in ``folder``, with a modality and a research centre as peers, all on this machine."""

    folder: Path
    clinical_port: int
    research_port: int

    @property
    def believed(self) -> dict[str, tuple[str, object]]:
        """Whose word a receipt goes by: each organisation, and the option of `verify-receipt` that names it."""
        return {"hospital": ("--trust", self.folder / "node" / "organisations" / "owner" / "cacerts" / "ca.pem")}

    @property
    def _config(self) -> Path:
        return self.folder / "node" / "orthanc-ledger.yaml"

    @property
    def _objects(self) -> Path:
        return self.folder / "node" / "data" / "objects" / "objects"

    @property
    def _callers(self) -> list[dict[str, object]]:
        return [
            {"ae_title": MODALITY, "role": "modality", "hosts": ["127.0.0.1"]},
            {"ae_title": RESEARCH, "role": "research", "organisation": RESEARCH_MSP, "hosts": ["127.0.0.1"]},
        ]

    @contextlib.contextmanager
    def set_up(self) -> Iterator[tuple[str, ...]]:
        """A node with the keys of all three organisations; the facts. What it needs runs until the block is left.

        Raises StepFailed.
        """
        kept = self.folder / "kept-by-the-custodian"
        kept.mkdir()
        self._init("--all-roles", checkpoint_sinks=[f"path:{kept}"], checkpoint_within_s=1.0)
        yield "keys of owner, custodian and research centre", "an empty ledger"

    def _init(self, *options: object, **settings: object) -> None:
        """`init`, then the peers and what else the configuration says. Raises StepFailed."""
        ports = ("--clinical-port", self.clinical_port, "--research-port", self.research_port)
        backup = ("--key-backup", self.folder / "node.key.backup")
        self.command("init", self.folder / "node", *backup, *options, "--ae-title", AE_TITLE, *ports)
        settings["peers"] = self._callers
        settings["spool_reserve_mb"] = 64  # a demo needs no room for a day of scans
        written = yaml.safe_load(self._config.read_text(encoding="utf-8"))
        self._config.write_text(yaml.safe_dump({**written, **settings}, sort_keys=False), encoding="utf-8")

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Run the node until the block is left, and end it whatever happened."""
        return self._runs("serve")

    def _runs(self, name: str, config: Path | None = None) -> contextlib.AbstractContextManager[None]:
        return self._started(name, self._words(name, config=config))

    @contextlib.contextmanager
    def _started(self, name: str, words: Sequence[str], **environment: str) -> Iterator[None]:
        with (self.folder / f"{name}.log").open("wb") as log:
            # A session of its own: an interrupt from the terminal is ours to handle, and nothing of it outlives us.
            process = subprocess.Popen(
                words, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def command(self, *words: object, code: int = 0, config: Path | None = None) -> str:
        """Standard output of an `orthanc-ledger` command, by the node's configuration or another.

        Raises StepFailed when its exit code is not ``code``.
        """
        done = subprocess.run(self._words(*words, config=config), capture_output=True, text=True, check=False)
        said = done.stderr.strip().rpartition("\n")[2]
        expect(done.returncode == code, f"`{words[0]}`: expected exit code {code}, got {done.returncode}: {said}")
        return done.stdout

    def rows(self, *words: object, code: int = 0, config: Path | None = None) -> list[dict[str, Any]]:
        """What a command prints with --json. Raises as ``command``."""
        said = self.command(*words, "--json", code=code, config=config)
        return [json.loads(line) for line in said.splitlines()]

    def signed(self, role: str, *words: object) -> list[dict[str, Any]]:
        """What a command prints that a role's person signs; the node knows of it by then. Raises as ``command``."""
        return self.rows(*words, "--as", role)

    def records(self, function: str) -> list[dict[str, Any]]:
        """The ledger's records of one function, read by a process of its own. Raises as ``command``."""
        return [record for record in self.rows("audit") if record["function"] == function]

    def checked_ledger(self, trail: list[dict[str, Any]]) -> tuple[str, ...]:
        """Facts that show that the ledger holds this trail, unchanged, and nothing else. Raises StepFailed."""
        (log,) = self.rows("fsck")
        expect(log["size"] == len(trail) + 1, f"expected {len(trail)} records and the genesis, got {log['size']}")
        continues = f"continues {log['checkpoints']} checkpoints kept elsewhere"
        return f"{log['size']} entries", f"root {short(log['root'])}", continues

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

    def _words(self, *words: object, config: Path | None = None) -> list[str]:
        return [sys.executable, "-m", "orthanc_ledger", "--config", str(config or self._config), *map(str, words)]


def hold_ports(count: int, held: contextlib.ExitStack) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody listens on, below those that outgoing connections take (ip(7)). Until ``held``
    ends each is bound: nobody else is given it, and it lets in a server that asks for SO_REUSEADDR, as all here do.
    """
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        probe = held.enter_context(socket.socket())
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.close()
            continue
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # only now: else it might share another's port
        free.append(port)
        if len(free) == count:
            return free
    raise StepFailed(f"{count} free ports are needed of {_PORTS.start} to {_PORTS.stop - 1}, {len(free)} are there")


def short(identifier: str) -> str:
    """An identifier for people: its ends."""
    return f"{identifier[:6]}…{identifier[-6:]}"


def raw_leaf_cid(content: bytes) -> str:
    """CID of a file of one chunk, at most 1 MiB: CIDv1, raw, sha2-256, base32 (docs/manifest.md)."""
    binary = b"\x01\x55\x12\x20" + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(binary).decode().lower().rstrip("=")
