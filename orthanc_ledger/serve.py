"""`orthanc-ledger serve`: starts the node's processes and starts anew what dies.

Anchorer, courier, eraser and sweeper run as ``orthanc-ledger anchorer`` and so on, receivers, forwarder and what
answers Orthanc's plugin as ``python -m dicom_scp``: the core starts the leaf by name and never imports it. Each holds
the other end of a pipe as its standard input and stops when that closes, so that none outlives a supervisor that was
killed.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.assemble import SPOOL
from orthanc_ledger.config import Config
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.spool import TEMPORARY

LOGGER = logging.getLogger(__name__)

SUPERVISED = "--supervised"
"""Tells a process that its standard input is its supervisor's pipe."""

SERVE_LOCK = "serve.lock"
"""Held by the supervisor: a node has one."""

_RESTART_PAUSE_S = 0.5
_STOP_S = 20.0

PREDECESSOR_ENDS_S = _STOP_S + 10.0
"""The processes of a supervisor that was killed are gone after this, at the latest."""


@dataclass
class Child:
    """One process of the node."""

    name: str
    command: list[str]
    process: "subprocess.Popen[bytes] | None" = None
    started_s: float = 0.0


def children(config: Config, config_path: Path, verbose: bool = False) -> list[Child]:
    """The processes a configuration asks for."""
    own = [sys.executable, "-m"]
    options = ["--config", str(config_path), *(["--verbose"] if verbose else [])]
    names = ["anchorer", "courier", "eraser"]
    names += [*(["sweeper"] if config.sweep_every_h else []), *(["web"] if config.https else [])]
    names += ["console"] if config.console else []
    names += ["reconciler"] if config.orthanc else []
    found = [Child(name, [*own, "orthanc_ledger", *options, name, SUPERVISED]) for name in names]
    ports = {"clinical": config.clinical, "research": config.research}
    for port, listen in ((port, listen) for port, listen in ports.items() if listen):
        command = [*own, "dicom_scp", *options, port, SUPERVISED]
        found += [Child(f"{port} receiver {number}", command) for number in range(max(listen.processes, 1))]
    others = [*(["forwarder"] if config.forward else []), *(["beside"] if config.orthanc else [])]
    found += [Child(name, [*own, "dicom_scp", *options, name, SUPERVISED]) for name in others]
    return found


def supervise(config: Config, config_path: Path, stop: threading.Event, verbose: bool = False) -> None:
    """Run the node until ``stop`` is set, then end all its processes.

    Their temporary files lie in the spool, unnamed: an inflated data set is as much in the clear as a unit, and may be
    as large. Raises ConfigError when a process ends at once after its first start: its own message says why.
    """
    running = children(config, config_path, verbose)
    environment = {**os.environ, "TMPDIR": str(config.data_dir / SPOOL / TEMPORARY)}
    try:
        while not stop.is_set():
            for child in running:
                _watch(child, environment)
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
        time.sleep(_STOP_S)  # as its supervisor would have waited before killing it
        os._exit(1)

    if supervised:
        threading.Thread(target=await_end_of_input, daemon=True, name="supervisor").start()
    return stop


def quiet_libraries() -> None:
    """Keep out of the log what the DICOM libraries warn of: their texts quote values, which are patients' data."""
    for library in ("pydicom", "pynetdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def _watch(child: Child, environment: Mapping[str, str]) -> None:
    now_s = time.monotonic()
    if child.process is not None:
        code = child.process.poll()
        if code is None:
            return
        if child.process.stdin is not None:
            child.process.stdin.close()
        if code == 2:  # bad configuration: starting again cannot help
            raise ConfigError(f"{child.name}: stopped because of its configuration; its message stands above")
        if now_s - child.started_s < _RESTART_PAUSE_S:
            return
        LOGGER.warning("%s ended with %d, starting it again", child.name, code)
    child.process = subprocess.Popen(child.command, stdin=subprocess.PIPE, env=environment)
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
