"""What several tests need: real files, dcmtk, ports, child processes, and waiting for an event with a deadline."""

import gc
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import orthanc_ledger.ledger.fabric  # noqa: F401  # before any test imports grpc
from tests import steady_reactor

steady_reactor.install()

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.02
END_S = 10.0
_BLOCK = 100  # ports
_LONGEST = (  # files that take more than a minute
    "fabric/test_demo_consortium.py",
    "fabric/test_gate_on_fabric.py",
    "fabric/test_differential.py",
    "fabric/test_failures.py",
    "crash/test_receiver.py",
    "crash/test_anchorer.py",
    "crash/test_erasure.py",
    "ledger/test_crash.py",
    "scp/test_gate_attack.py",
    "test_torture.py",
    "test_outage.py",
    "test_demo_access.py",
    "test_demo_evidence.py",
    "test_deployment.py",
    "fabric/test_retrieve_on_fabric.py",
    "fabric/test_anchorer_on_fabric.py",
)
_FIGURE = "figure"
_MOST_FILES = 300


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return once ``condition()`` is true; fail the test, naming ``what``, when ``timeout_s`` seconds have gone."""
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain until {what}")
        pause.wait(POLL_S)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first (xdist's `--no-loadscope-reorder` keeps it so): no core is idle at the end."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Print what tests measured and counted, whoever ran them; before the failures, which are looked for at the end."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = [line for report in reports for name, line in report.user_properties if name == _FIGURE]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
    return (yield)


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
    """Path of a dcmtk tool by its name."""
    return _installed


@pytest.fixture(scope="session")
def strace() -> str:
    """Path of strace."""
    return _installed("strace")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of Chromium."""
    return _installed("chromium")


def _installed(name: str) -> str:
    """Path of a program. Without it a test skips; in CI, where `make test` installs it, it fails."""
    path = shutil.which(name)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return path


@pytest.fixture(scope="session", autouse=True)
def _networks_end_with_us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers of a network outlive who started them, but not these tests, even if they are killed."""
    waiting = [sys.executable, "-m", "tests.end_networks", str(tmp_path_factory.getbasetemp())]
    with subprocess.Popen(waiting, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield
        process.terminate()


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """Free ports of 127.0.0.1, each given once."""
    with closing(free_ports()) as ports:
        yield ports.__next__


def free_ports() -> Generator[int, None, None]:
    """Ports that are free, each given once, by this process and all others that ask here: of blocks that are claimed by
    abstract sockets (unix(7)), which go with their process. Below the ephemeral range, so that no outgoing connection
    takes one, and above the demo's.
    """
    firsts = range(12_000, 32_000, _BLOCK)
    begin = os.getpid() % len(firsts)
    with ExitStack() as claims:
        for first in (*firsts[begin:], *firsts[:begin]):
            claim = claims.enter_context(socket.socket(socket.AF_UNIX))
            if _bound(claim, f"\0orthanc-ledger tests, ports from {first}"):
                yield from (port for port in range(first, first + _BLOCK) if _is_free(port))
    pytest.fail("no free port left")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return _bound(probe, ("127.0.0.1", port))


def _bound(made: socket.socket, address: str | tuple[str, int]) -> bool:
    try:
        made.bind(address)
    except OSError:
        return False
    return True


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
