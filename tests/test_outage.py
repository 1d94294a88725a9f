"""The ledger is away while 10,000 objects arrive at a real node, and comes back.

What clinical peers see meanwhile, what each process takes of memory, how fast the backlog drains: printed with ``-s``.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torture_check as check
from conftest import wait_until
from live_node import LiveNode, make_live_node
from node_make import open_node
from plain_scu import STUDY_ROOT_FIND, STUDY_ROOT_GET, SUCCESS, PlainScu
from torture_load import MR_IMAGE, Book, Slice

OBJECTS, FEWER = 10_000, 2_000
STUDIES = 40
ASSOCIATIONS = 4
SEEN_WITHIN_S = 30.0  # of the answer to its C-STORE, on a busy machine
MOST_MB = 300  # a process, whatever it holds
MOST_GROWTH_MB = 60  # from FEWER to OBJECTS that wait: an index row in memory, a name in the inbox, and no object
DRAINED_S = 600.0  # else it hangs

pytestmark = pytest.mark.timeout(900)


@dataclass
class Arrivals:
    """Modalities that send as fast as they are answered, each on one association, a study after the other."""

    port: int
    book: Book
    slices: Iterator[Slice]
    threads: list[threading.Thread] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        self.threads = [threading.Thread(target=self._send, daemon=True) for _ in range(ASSOCIATIONS)]
        for thread in self.threads:
            thread.start()

    @property
    def over(self) -> bool:
        return not any(thread.is_alive() for thread in self.threads)

    def _send(self) -> None:
        with PlainScu(self.port, "MRI1", [MR_IMAGE], timeout_s=60) as scu:
            while (sent := self._next()) is not None:
                self.book.answered(sent, SUCCESS, scu.store(MR_IMAGE, sent.sop_uid, sent.encoded()))

    def _next(self) -> Slice | None:
        with self.lock:
            return next(self.slices, None)


@dataclass
class Viewer:
    """A workstation that looks for what has just arrived; how long it took until it was there."""

    port: int
    book: Book
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    seen_after_s: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Have one of the newest slices by C-FIND and C-GET."""
        sent = self.rng.choice(self.book.held()[-50:])
        begun_s = time.monotonic()
        wait_until(lambda: self._get(sent), SEEN_WITHIN_S, "a slice that arrived can be retrieved")
        self.seen_after_s.append(time.monotonic() - begun_s)
        with PlainScu(self.port, "VIEWER", [STUDY_ROOT_FIND]) as scu:
            keys = {"StudyInstanceUID": sent.study_uid, "NumberOfStudyRelatedInstances": ""}
            status, [found] = scu.find(QueryRetrieveLevel="STUDY", **keys)
        assert (status, found.StudyInstanceUID) == (SUCCESS, sent.study_uid)
        assert 1 <= found.NumberOfStudyRelatedInstances <= OBJECTS // STUDIES

    def _get(self, sent: Slice) -> bool:
        received: dict[str, bytes] = {}
        keys = {"StudyInstanceUID": sent.study_uid, "SeriesInstanceUID": sent.study_uid, "SOPInstanceUID": sent.sop_uid}
        with PlainScu(self.port, "VIEWER", [STUDY_ROOT_GET], MR_IMAGE) as scu:
            answer = scu.get(received.__setitem__, QueryRetrieveLevel="IMAGE", **keys)
        assert answer.status == SUCCESS
        assert received in ({}, {sent.sop_uid: sent.encoded()})
        return bool(received)


@contextmanager
def away(ledger: Path) -> Iterator[None]:
    """Keep everybody else from writing to an embedded ledger."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield


def peak_mb(live: LiveNode) -> dict[str, int]:
    """The most memory that each of the node's processes has had resident, in MB."""
    found = {}
    for name, pid in (*live.processes(), *(("worker", pid) for pid in live.workers())):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        found[name] = max(found.get(name, 0), kilobytes >> 10)
    return found


@pytest.fixture
def live(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[LiveNode]:
    node = make_live_node(tmp_path, free_port)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def test_ledger_away_while_ten_thousand_objects_arrive_all_are_seen_at_once_and_anchored_when_it_is_back(
    live: LiveNode, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    book, node = Book(), open_node(tmp_path)
    studies = [book.new_study() for _ in range(STUDIES)]
    slices = (book.new_slice(studies[n * STUDIES // OBJECTS], small=True) for n in range(OBJECTS))
    arrivals, viewer = Arrivals(live.ports["clinical"], book, slices), Viewer(live.ports["clinical"], book)
    memory, early = dict[str, int](), 0
    with away(tmp_path / "node" / "data" / "ledger.db"):
        begun_s = time.monotonic()
        arrivals.start()
        wait_until(book.held, 20, "something arrives")
        while not arrivals.over:
            viewer.look()
            if not memory and len(book.acknowledged) >= FEWER:
                memory, early = peak_mb(live), len(book.acknowledged)
        arrived_s = time.monotonic() - begun_s
        assert len(book.acknowledged) == OBJECTS, f"{len(book.acknowledged)} were acknowledged; {book.wrong[:1]}"
        viewer.look()
        assert "anchored" not in node.index.counts()
    begun_s = time.monotonic()
    check.wait_drained(node, DRAINED_S)
    drained_s = time.monotonic() - begun_s
    most = peak_mb(live)
    figure(
        f"outage: {OBJECTS} objects acknowledged at {OBJECTS / arrived_s:.0f}/s with the ledger away; "
        f"{len(viewer.seen_after_s)} looked for, the slowest was there after {max(viewer.seen_after_s):.1f} s; "
        f"drained at {OBJECTS / drained_s:.0f}/s; MB resident at {early} objects and at most: "
        + ", ".join(f"{name} {memory[name]} {most[name]}" for name in most)
    )
    whole = book.held()
    check.check_anchored_once(node, whole, whole)
    check.check_waits_for_a_person(node, book)
    check.check_nothing_left(node)
    check.check_retrievable(live.ports["clinical"], book, random.Random(8).sample(whole, 3))
    assert early <= OBJECTS / 2, "memory was looked at too late to see it grow"
    assert max(most.values()) <= MOST_MB
    assert all(most[name] - memory[name] <= MOST_GROWTH_MB for name in most)
