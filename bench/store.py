"""C-STORE, scenario by scenario: objects acknowledged a second by each peer, and anchored a second by ours."""

import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from bench.peers import OrthancLedger, Peer
from bench.sender import Exchange, send_each_alone, send_together
from bench.slices import LARGE, MEDIUM, SMALL, Size, copies, huge_object

T = TypeVar("T")

WARM_UP = 8
_SAMPLE_S = 0.05


@dataclass(frozen=True)
class Scenario:
    """How so many objects come in. Each association sends a study of its own, unless each image has an association
    of its own (``alone``); ``nagle``: the sender leaves Nagle's algorithm on.
    """

    name: str
    size: Size
    count: int
    associations: int = 1
    nagle: bool = False
    alone: bool = False


FULL = (
    Scenario("10 kB, 1 association", SMALL, 1200),
    Scenario("10 kB, 4 associations", SMALL, 1600, associations=4),
    Scenario("131 kB, 1 association", MEDIUM, 1200),
    Scenario("131 kB, 4 associations", MEDIUM, 1600, associations=4),
    Scenario("525 kB, 1 association", LARGE, 500),
    Scenario("525 kB, 4 associations", LARGE, 700, associations=4),
    Scenario("131 kB, one association per image", MEDIUM, 600, alone=True),
    Scenario("131 kB, Nagle on at the sender", MEDIUM, 100, nagle=True),
)
QUICK = (
    Scenario("10 kB, 4 associations", SMALL, 600, associations=4),
    Scenario("131 kB, 1 association", MEDIUM, 600),
    Scenario("131 kB, one association per image", MEDIUM, 200, alone=True),
)


@dataclass
class Rates:
    """Objects a second in each repeat, by peer."""

    acknowledged: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    anchored: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Huge:
    """One huge object at one peer: seconds until acknowledged, and anchored; most memory in use (bytes resident), by
    the largest of the peer's processes and by all together.
    """

    acknowledged_s: float
    anchored_s: float | None
    largest_process: int
    all_processes: int


def rotated(each: Sequence[T], repeat: int) -> list[T]:
    """The order in a repeat of what is compared, so that none always comes first."""
    first = repeat % len(each)
    return [*each[first:], *each[:first]]


@contextmanager
def fresh(kind: type[Peer]) -> Iterator[tuple[Peer, Path]]:
    """A peer that has nothing yet, running and warm, with a folder for the senders' logs.

    Dirty pages that an earlier peer left are written first, so that they do not slow this one down.
    """
    os.sync()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = kind(folder / "peer")
        warm_up = copies(SMALL, folder / "warm-up", WARM_UP)
        with peer.running():
            send_together(peer, warm_up, folder)
            if isinstance(peer, OrthancLedger):
                peer.wait_anchored(WARM_UP)
            yield peer, folder


def measure(scenario: Scenario, peers: Sequence[type[Peer]], repeats: int) -> Rates:
    """Run a scenario with each peer in turn, so many times."""
    rates = Rates()
    with tempfile.TemporaryDirectory() as name:
        studies = copies(scenario.size, Path(name) / "copies", scenario.count, scenario.associations)
        for repeat in range(repeats):
            for kind in rotated(peers, repeat):
                with fresh(kind) as (peer, logs):
                    sent = _send(scenario, peer, studies, logs)
                    rates.acknowledged[peer.name].append(sent.rate)
                    said = f"{scenario.name}: {peer.name}: {sent.rate:,.0f} acknowledged/s"
                    if isinstance(peer, OrthancLedger):
                        anchored = sent.count / (peer.wait_anchored(WARM_UP + sent.count) - sent.began)
                        rates.anchored[peer.name].append(anchored)
                        said += f", {anchored:,.0f} anchored/s"
                print(said, file=sys.stderr, flush=True)
    return rates


def _send(scenario: Scenario, peer: Peer, studies: Sequence[Path], logs: Path) -> Exchange:
    if scenario.alone:
        return send_each_alone(peer, [file for study in studies for file in sorted(study.iterdir())])
    return send_together(peer, studies, logs, scenario.nagle)


def measure_huge(peers: Sequence[type[Peer]], megabytes: int) -> tuple[int, dict[str, Huge]]:
    """Send one object of so many MB to each peer; its size in bytes, and what it took, by peer."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        study = Path(name) / "study"
        study.mkdir()
        size = huge_object(study / "huge.dcm", megabytes)
        for kind in peers:
            with fresh(kind) as (peer, logs), memory_of(peer) as memory:
                sent = send_together(peer, [study], logs)
                anchored = None
                if isinstance(peer, OrthancLedger):
                    anchored = peer.wait_anchored(WARM_UP + 1) - sent.began
            acknowledged = sent.ended - sent.began
            found[peer.name] = Huge(acknowledged, anchored, memory.largest_process, memory.all_processes)
            print(f"{megabytes} MB: {peer.name}: {acknowledged:.1f} s", file=sys.stderr, flush=True)
    return size, found


@dataclass
class Memory:
    """The most bytes resident so far."""

    largest_process: int = 0
    all_processes: int = 0


@contextmanager
def memory_of(peer: Peer) -> Iterator[Memory]:
    """Watch the memory of a peer's processes, twenty times a second."""
    seen, stop, root = Memory(), threading.Event(), psutil.Process(peer.pid)

    def watch() -> None:
        while not stop.wait(_SAMPLE_S):
            resident = [_resident(process) for process in (root, *root.children(recursive=True))]
            seen.largest_process = max(seen.largest_process, *resident)
            seen.all_processes = max(seen.all_processes, sum(resident))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
