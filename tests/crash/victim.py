"""A process of a node, as `serve` starts it, with strace at one of its threads.

It is a fork of a process that has everything imported, so that each victim makes the same calls. strace is attached to
one thread at the thread's beginning and follows no other: its N-th call is the N-th call of that thread. What the
process forks counts as a thread.
"""

import contextlib
import ctypes
import encodings.idna  # noqa: F401 - which a process imports with its first socket
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from dicom_scp import __main__ as receiver
from orthanc_ledger import cli, spool
from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock_us
from orthanc_ledger.commands import processes
from orthanc_ledger.config import load
from orthanc_ledger.errors import ServiceAway
from orthanc_ledger.setup_node import CONFIG_NAME

THREADS, LOG, WORDS = "threads", "log", "words.json"
_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)  # prctl(2): a descendant may trace this process (Yama)
_PR_SET_PDEATHSIG = 1  # prctl(2): this process ends with the fork server, and that with the tests
_SETTLED_WITHIN_S = 30.0
_SECOND_US, _HOUR_US = 1_000_000, 3_600_000_000


def receive(config: Path) -> int:
    """The clinical receiver, until SIGTERM."""
    with mock.patch.object(sys, "argv", ["dicom_scp", "--config", str(config), "clinical"]):
        return receiver.main()


def anchor(config: Path) -> int:
    """The anchorer, until the inbox is empty; by its clock every batch is due and a second goes by in every round."""
    inbox = config.parent / "data" / "spool" / spool.INBOX
    until = _Until(lambda: not any(inbox.iterdir()))
    clock = itertools.count(system_clock_us() + _HOUR_US, _SECOND_US)
    with (
        mock.patch.object(spool, "_YOUNG_NS", _HOUR_US * 1000),  # so that it reads a folder whenever it might
        mock.patch.object(processes, "stop_event", return_value=until),
        mock.patch.object(processes, "system_clock_us", clock.__next__),
    ):
        return cli.main(["--config", str(config), "anchorer"])


def erase(config: Path) -> int:
    """Eraser and anchorer by turns, as far as the ledger has erasures for them."""
    node = Node(load(config))
    with contextlib.suppress(ServiceAway):  # it is tried again
        for _ in range(2):
            node.eraser().step()
            node.anchorer().prepare_due(0)
        return 0
    return 1


def pull(config: Path) -> int:
    """A research centre's command, whose words lie in a file of the folder."""
    return cli.main(json.loads((config.parent.parent / WORDS).read_text()))


WORK: dict[str, Callable[[Path], int]] = {"receive": receive, "anchor": anchor, "erase": erase, "pull": pull}


class _Until:
    """An event that is set when a condition holds; waits for nothing."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition
        self._deadline_s = time.monotonic() + _SETTLED_WITHIN_S

    def wait(self, _timeout_s: float) -> bool:
        if time.monotonic() > self._deadline_s:
            raise TimeoutError("the inbox was not emptied")
        return self._condition()


def run(work: str, folder: Path, thread: int, strace: Sequence[str]) -> None:
    """Do a work on the node in ``folder``; ``strace`` (a command without its process, or nothing) at the
    ``thread``-th thread, 0 being the main one. The exit code is that of the process `serve` starts.
    """
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.dont_write_bytecode = True  # which would be writes of its own
    for option, value in ((_PR_SET_PTRACER, _ANY), (_PR_SET_PDEATHSIG, signal.SIGKILL)):
        ctypes.CDLL(None).prctl(option, value)
    numbers, forks, tracers = itertools.count(), list[int](), []

    def begin(number: int) -> None:
        native = threading.get_native_id()
        (folder / THREADS / f"{native}-{number}").mkdir(parents=True)
        if strace and number == thread:
            tracer = subprocess.Popen([*strace, "-p", str(native)], stderr=subprocess.PIPE)
            assert tracer.stderr is not None
            tracer.stderr.readline()  # "attached"
            tracers.append(tracer)  # which has more to say, and must have where

    def begin_thread(*_: object) -> None:
        sys.setprofile(None)
        begin(next(numbers))

    threading.setprofile(begin_thread)  # the first thing that a later thread does, and what it forks
    os.register_at_fork(before=lambda: forks.append(next(numbers)), after_in_child=lambda: begin(forks[-1]))
    begin(next(numbers))
    sys.exit(WORK[work](folder / "node" / CONFIG_NAME))
