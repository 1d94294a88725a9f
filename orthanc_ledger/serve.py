"""`orthanc-ledger serve`: starts the node's processes and starts anew what dies.

The anchorer runs as ``orthanc-ledger anchorer``, each receiver as ``python -m dicom_scp``: the core starts the leaf
by name and never imports it. Each holds the other end of a pipe as its standard input and stops when that closes, so
that none outlives a supervisor that was killed.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.config import Config
from orthanc_ledger.errors import ConfigError

LOGGER = logging.getLogger(__name__)

SUPERVISED = "--supervised"
"""Tells a process that its standard input is its supervisor's pipe."""

_RESTART_PAUSE_S = 0.5
_STOP_S = 20.0


@dataclass
class Child:
    """One process of the node."""

    name: str
    command: list[str]
    process: "subprocess.Popen[bytes] | None" = None
    started_s: float = 0.0


def children(config: Config, config_path: Path) -> list[Child]:
    """The processes a configuration asks for."""
    own = [sys.executable, "-m"]
    found = [Child("anchorer", [*own, "orthanc_ledger", "--config", str(config_path), "anchorer", SUPERVISED])]
    for port, listen in (("clinical", config.clinical), ("research", config.research)):
        command = [*own, "dicom_scp", "--config", str(config_path), port, SUPERVISED]
        found += [Child(f"{port} receiver {number}", command) for number in range(max(listen.processes, 1))]
    return found


def supervise(config: Config, config_path: Path, stop: threading.Event) -> None:
    """Run the node until ``stop`` is set, then end all its processes.

    Raises ConfigError when a process ends at once after its first start: its own message says why.
    """
    running = children(config, config_path)
    try:
        while not stop.is_set():
            for child in running:
                _watch(child)
            stop.wait(0.1)
    finally:
        _end(running)


def stop_event(supervised: bool = False) -> threading.Event:
    """An event that SIGTERM and SIGINT set, and for a supervised process the end of its supervisor."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def await_end_of_input() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        stop.set()

    if supervised:
        threading.Thread(target=await_end_of_input, daemon=True, name="supervisor").start()
    return stop


def _watch(child: Child) -> None:
    now_s = time.monotonic()
    if child.process is not None:
        code = child.process.poll()
        if code is None:
            return
        if code == 2:  # bad configuration: starting again cannot help
            raise ConfigError(f"{child.name}: stopped because of its configuration; its message stands above")
        if now_s - child.started_s < _RESTART_PAUSE_S:
            return
        LOGGER.warning("%s ended with %d, starting it again", child.name, code)
    child.process = subprocess.Popen(child.command, stdin=subprocess.PIPE)
    child.started_s = now_s


def _end(running: list[Child]) -> None:
    processes = [child.process for child in running if child.process is not None and child.process.poll() is None]
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
