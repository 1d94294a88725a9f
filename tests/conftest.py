"""What several tests need: real files, dcmtk, ports, child processes, and waiting for an event with a deadline."""

import gc
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.02
END_S = 10.0
_FIGURE = "figure"
_MOST_FILES = 300


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return once ``condition()`` is true; fail the test, naming ``what``, when ``timeout_s`` seconds have gone."""
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain until {what}")
        pause.wait(POLL_S)


@pytest.fixture(autouse=True)
def _few_files() -> Iterator[None]:
    """Collect what tests leave before it holds too many files: pynetdicom's select takes numbers below 1,024 only."""
    yield
    if len(os.listdir("/proc/self/fd")) > _MOST_FILES:
        gc.collect()


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tells a line that stands under "figures" at the end of the run."""
    return lambda line: record_property(_FIGURE, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured and counted, whoever ran them."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = [line for report in reports for name, line in report.user_properties if name == _FIGURE]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(name="wait_until", scope="session")
def _wait_until() -> Callable[[Callable[[], object], float, str], None]:
    return wait_until


@pytest.fixture(scope="session")
def samples_dir() -> Path:
    """The real MR images in the package: 14 GE slices of a study in two series, 2 Siemens mosaics of another."""
    return ROOT / "orthanc_ledger" / "samples"


@pytest.fixture(scope="session")
def dicom_dir() -> Path:
    """The large collection of real files beside the clone, where there is one."""
    folder = ROOT.parent / "shared" / "dicom"
    if not folder.is_dir():
        pytest.skip("the collection of real DICOM files, shared/dicom beside the clone, is not here")
    return folder


@pytest.fixture(scope="session")
def dcmtk() -> Callable[[str], str]:
    """Path of a dcmtk tool by its name. Without dcmtk a test skips; in CI, where `make test` installs it, it fails."""

    def tool(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"dcmtk's {name} is not installed")
        return path

    return tool


@pytest.fixture(scope="session")
def free_port(worker_id: str) -> Callable[[], int]:
    """Free ports of 127.0.0.1, each given once; below the ephemeral range, so that no outgoing connection takes one."""
    worker = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    return free_ports(12_000 + worker * 4_000)


def free_ports(first: int) -> Callable[[], int]:
    """Gives ports that are free among the 4,000 from ``first`` on, each once."""
    candidates = iter(range(first + os.getpid() % 3_000, first + 4_000))

    def take() -> int:
        for port in candidates:
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        pytest.fail("no free port left in this range")

    return take


@pytest.fixture
def start_process() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start child processes (arguments of ``subprocess.Popen``); what still runs when the test is over is ended."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: Sequence[str | Path], **options: object) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen([str(word) for word in command], **options))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in reversed(started):
        process.terminate()
    for process in reversed(started):
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_S)
