"""Which calls a process makes, at which of them it is struck, and the process that is struck there."""

import multiprocessing
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash import victim

KILL, EIO, ENOSPC = "signal=KILL", "error=EIO", "error=ENOSPC"
# Whatever makes something durable, gives or takes a name, writes, or answers; "?": not on every machine.
CALLS = (
    *("fsync", "fdatasync", "linkat", "?rename", "?renameat", "renameat2", "?unlink", "unlinkat", "?mkdir", "mkdirat"),
    *("?rmdir", "openat", "pwrite64", "write", "ftruncate", "sendto", "sendmsg"),
)
KILLED = -signal.SIGKILL

EVERY_CALL = bool(os.environ.get("CRASH_EVERY_CALL"))
_MANY, _STEP = 50, 7  # unless EVERY_CALL: of more calls by one name, SQLite's pages, every seventh

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_WRITES = re.compile("O_WRONLY|O_RDWR|O_CREAT")
_STRACE_LOG = "strace.log"
_ENDS_S = 40.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([victim.__name__])


@dataclass(frozen=True)
class Call:
    """One system call of a thread; ``number`` counts the thread's calls of that name, from 1."""

    thread: int
    name: str
    number: int
    arguments: str

    @property
    def changes_nothing(self) -> bool:
        """Whether it only reads, or writes to the log."""
        if self.name == "openat":
            return not _WRITES.search(self.arguments)
        return self.name == "write" and self.arguments.startswith("2,")


@dataclass(frozen=True)
class Point:
    """Where a process is struck: at one call of one thread, or (``on``) at that one and all later ones."""

    thread: int
    call: str
    number: int
    fault: str
    on: bool = False

    @property
    def strace(self) -> list[str]:
        when = f"{self.number}{'+' if self.on else ''}"
        return ["strace", "-e", f"trace={self.call}", "-e", f"inject={self.call}:{self.fault}:when={when}"]


def points(calls: Sequence[Call], fault: str, step: int = 1, on: bool = False) -> list[Point]:
    """A point at every call that changes something, or (unless EVERY_CALL) at every ``step``-th."""
    changing = [call for call in calls if not call.changes_nothing]
    counts = Counter((call.thread, call.name) for call in changing)
    many = {name for name, count in counts.items() if count > _MANY and not EVERY_CALL}
    found = [
        Point(call.thread, call.name, call.number, fault, on)
        for call in changing
        if (call.thread, call.name) not in many or not call.number % _STEP
    ]
    return found if EVERY_CALL else found[::step]


def by_call(struck: Sequence[Point]) -> str:
    """How many points there are of each call."""
    counts = Counter(point.call for point in struck)
    return f"{len(struck)} points: " + ", ".join(f"{name} {count}" for name, count in counts.most_common())


def beyond(calls: Sequence[Call]) -> Iterator[Point]:
    """A kill after the last call of each name and thread: whoever dies there makes calls that were not found."""
    for (thread, name), number in Counter((call.thread, call.name) for call in calls).items():
        yield Point(thread, name, number + 1, KILL)


class Victim:
    """A running process of the node in ``folder``."""

    def __init__(self, work: str, folder: Path, point: Point | None = None, watched: bool = False) -> None:
        """It is struck at a point if there is one; when ``watched``, all calls of all its threads are noted."""
        self._folder = folder
        strace = point.strace if point else ["strace", "-f", "-e", f"trace={','.join(CALLS)}"]
        options = [*strace, "-o", str(folder / _STRACE_LOG)] if point or watched else []
        arguments = (work, folder, point.thread if point else 0, options)
        self._process = _context.Process(target=victim.run, args=arguments, daemon=True)  # a failed test leaves it
        self._process.start()

    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.exitcode is None

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        self._process.join(_ENDS_S)
        if self._process.exitcode is None:
            self.kill()
            pytest.fail(f"the process did not end within {_ENDS_S} s: {self.log[-2000:]}")
        return self._process.exitcode

    def stop(self) -> int:
        """End it as `serve` does; the exit code."""
        while self.lives():
            self._process.terminate()  # more than once: while strace has the main thread, another one may be given it
            self._process.join(0.2)
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def release(self) -> None:
        """Have strace let go of it, if it has not ended."""
        with suppress(OSError):
            for children in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
                for tracer in children.read_text().split():
                    os.kill(int(tracer), signal.SIGTERM)

    def forget(self) -> None:
        """Remove the notes of its threads from its folder."""
        shutil.rmtree(self._folder / victim.THREADS)

    @property
    def hits(self) -> int:
        """How many of its calls strace has failed."""
        log = self._folder / _STRACE_LOG
        return log.read_text().count("(INJECTED)") if log.exists() else 0

    @property
    def log(self) -> str:
        """What it said."""
        return (self._folder / victim.LOG).read_text()

    def calls(self) -> list[Call]:
        """The calls that were noted. A KeyError: a thread that `victim` does not know of made one."""
        threads = dict(entry.name.split("-") for entry in (self._folder / victim.THREADS).iterdir())
        counts: Counter[tuple[str, str]] = Counter()
        found = []
        for line in (self._folder / _STRACE_LOG).read_text().splitlines():
            if (match := _CALL.match(line)) and f"/{victim.THREADS}/" not in line:  # the victim's own note
                native, name, arguments = match.groups()
                counts[native, name] += 1
                found.append(Call(int(threads[native]), name, counts[native, name], arguments))
        return found
