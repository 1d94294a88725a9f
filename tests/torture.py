"""`python tests/torture.py ROUNDS [SEED]`: a node with everything on, under load, whose processes are killed.

A round is a SIGKILL of one process of the node, chosen at random, at a random moment; then the node answers again and
what it has acknowledged is there. Every so many rounds nothing is sent until all is anchored, then all is checked.
A seed repeats who is killed when, and what is sent in which order, as far as a machine does the same twice.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import torture_check as check
import yaml
from conftest import free_ports, wait_until
from live_node import dcmtk_environment, make_live_node
from node_make import open_node
from plain_scu import SUCCESS, VERIFICATION, PlainScu
from torture_load import CONFLICT, MR_IMAGE, Book, Researcher, Sender, Slice, Traffic, Viewer

CHECK_EVERY = 100
SLICES_PER_S = 40.0
_MOMENT_S = 1.0  # a round's kill comes within
_ANSWERS_S, _DRAIN_S = 300.0, 600.0  # else it hangs
_APPROVED = 10
_PACS = "PACS"
_SERVING = Counter(clinical=2, research=2, anchorer=1, courier=1, eraser=1, sweeper=1, forwarder=1, supervisor=1)
_SETTINGS = {
    "batch": {"idle_s": 0.3, "max_instances": 200},
    "checkpoint_within_s": 1.0,
    "sweep_every_h": 0.003,
    "sweep_mb_s": 2.0,
}


@dataclass
class Torture:
    """One node and what is done to it."""

    folder: Path
    free_port: Callable[[], int]
    seed: int
    killed: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    accused: int = 0
    last: str = "nothing"

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.book = Book()
        self.sink, self.pacs, self.pacs_port = self.folder / "checkpoints", self.folder / "pacs", self.free_port()
        self.sink.mkdir()
        self.pacs.mkdir()
        self.live = make_live_node(self.folder, self.free_port)
        raw = yaml.safe_load(self.live.config.read_text())
        raw["peers"].append({"ae_title": _PACS, "role": "clinical", "host": "127.0.0.1", "port": self.pacs_port})
        raw |= {**_SETTINGS, "checkpoint_sinks": [f"path:{self.sink}"], "forward": [_PACS]}
        self.live.config.write_text(yaml.safe_dump(raw))
        self.node = open_node(self.folder)
        self._seen = 0  # of what was acknowledged, in earlier rounds
        self._checked = 0  # of what is held, by earlier checks
        self._pause = threading.Event()

    def run(self, rounds: int) -> None:
        """So many rounds, with a check of everything every CHECK_EVERY and at the end. Raises AssertionError."""
        storescp = ["storescp", "+B", "-aet", _PACS, "-od", self.pacs, str(self.pacs_port)]
        pacs = subprocess.Popen(storescp, env=dcmtk_environment())
        try:
            self.live.launch()
            wait_until(lambda: self._answers(killed=None), _ANSWERS_S, "the node answers")
            approved = self._approved_study()
            researcher = Researcher(self.live.ports["research"], self.book, self._rng("researcher"), approved)
            traffic = Traffic(self.book, [*self._clinical_users(approved[0].study), researcher])
            while self.rounds < rounds:
                traffic.start()
                for _ in range(min(CHECK_EVERY, rounds - self.rounds)):
                    self._round()
                traffic.stop()
                self._check_all(researcher)
            check.check_retrievable(self.live.ports["clinical"], self.book, self.book.held())
            self._check_nothing_wrong()
        except BaseException:
            print(f"seed {self.seed}, round {self.rounds}, killed last: {self.last}; see {self.folder}", flush=True)
            raise
        finally:
            self.live.stop()
            pacs.kill()
            pacs.wait()
        wait_until(lambda: not self.live.all_processes(), _ANSWERS_S, "no process of the node is left")

    def report(self) -> str:
        """What the node has survived so far."""
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.killed.items()))
        return (
            f"{self.rounds} rounds survived (seed {self.seed}): {len(self.book.acknowledged)} objects acknowledged, "
            f"{self.book.repeats} repeats, {self.accused} quarantined by two killed workers and tried again, "
            f"{self.book.retrieved} retrieved; killed: {kills}"
        )

    def _approved_study(self) -> list[Slice]:
        """A study that is anchored, and approved for RESEARCH1 as it is now."""
        study = self.book.new_study()
        slices = [self.book.new_slice(study) for _ in range(_APPROVED)]
        with PlainScu(self.live.ports["clinical"], "MRI1", [MR_IMAGE]) as scu:
            for sent in slices:
                self.book.answered(sent, SUCCESS, scu.store(MR_IMAGE, sent.sop_uid, sent.encoded()))
        check.wait_drained(self.node, _DRAIN_S)
        self.live.approve(slices[0].study_uid)
        return slices

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed} {name}")

    def _clinical_users(self, shared_study: int) -> list[Sender | Viewer]:
        port, book = self.live.ports["clinical"], self.book
        modalities = (("MRI1", CONFLICT), ("MRI2", SUCCESS), ("MRI1", CONFLICT), ("MRI2", SUCCESS))
        pause_s = len(modalities) / SLICES_PER_S
        senders = [
            Sender(port, title, conflict, book, self._rng(f"sender {n}"), pause_s, shared_study)
            for n, (title, conflict) in enumerate(modalities)
        ]
        return [*senders, Viewer(port, book, self._rng("viewer"))]

    def _round(self) -> None:
        self.rounds += 1
        self._pause.wait(self.rng.uniform(0, _MOMENT_S))
        self.last, pid = self.rng.choice([*self._processes(), *(("worker", pid) for pid in self.live.workers())])
        with (self.folder / "kills.log").open("a") as log:
            print(self.rounds, datetime.now().time(), self.last, file=log)
        os.kill(pid, signal.SIGKILL)
        self.killed[self.last] += 1
        if self.last == "supervisor":
            assert self.live.process is not None
            self.live.process.wait()
            self.live.launch()
        wait_until(lambda: self._answers(pid), _ANSWERS_S, f"the node answers after {self.last} was killed")
        acknowledged = self.book.since(self._seen)
        lost = check.not_in_custody(self.node, acknowledged)
        assert not lost, f"acknowledged, neither anchored nor waiting: {lost[:5]}"
        self._seen += len(acknowledged)
        self._check_nothing_wrong()

    def _processes(self) -> list[tuple[str, int]]:
        """The node's processes, the supervisor last: what each is, and its process id."""
        assert self.live.process is not None
        return [*self.live.processes(), ("supervisor", self.live.process.pid)]

    def _answers(self, killed: int | None) -> bool:
        """Whether all processes run again and both ports answer."""
        assert self.live.process is not None
        assert self.live.process.poll() is None, f"serve ended with {self.live.process.returncode}"
        try:
            processes = self._processes()
            if killed in (pid for _, pid in processes) or Counter(name for name, _ in processes) != _SERVING:
                return False
            for port, caller in (("clinical", "MRI1"), ("research", "RESEARCH1")):
                with PlainScu(self.live.ports[port], caller, [VERIFICATION]) as scu:
                    assert scu.echo() == SUCCESS
        except OSError:
            return False
        return True

    def _check_all(self, researcher: Researcher) -> None:
        check.wait_drained(self.node, _DRAIN_S)
        held = self.book.held()
        whole = [sent for sent in held if sent.form == "whole"]
        if accused := check.try_again(self.live, self.node, whole):
            self.accused += accused
            check.wait_drained(self.node, _DRAIN_S)
        check.check_anchored_once(self.node, [s for s in self.book.sent.values() if s.form == "whole"], whole)
        check.check_waits_for_a_person(self.node, self.book)
        check.check_retrievable(self.live.ports["clinical"], self.book, held[self._checked :])
        for also in (True, False):
            researcher.ask(for_approved=also)
        check.check_forwarded(self.pacs, self.book, held[self._checked :])
        check.check_nothing_left(self.node)
        check.check_ledger(self.live, self.sink)
        self._checked = len(held)
        self._check_nothing_wrong()
        print(self.report(), flush=True)

    def _check_nothing_wrong(self) -> None:
        assert not self.book.wrong, f"{len(self.book.wrong)} answers were wrong, the first: {self.book.wrong[0]}"


def main(rounds: int, seed: int) -> None:
    """Torture a node in a temporary folder, which stays when something is found."""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    begun_s = time.monotonic()
    torture = Torture(folder, free_ports().__next__, seed)
    torture.run(rounds)
    print(f"{torture.report()}; {(time.monotonic() - begun_s) / rounds:.2f} s a round")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6))
