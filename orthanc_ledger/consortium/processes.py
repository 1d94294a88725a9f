"""Servers of one folder as processes: started in sessions of their own, known by pid and start time, ended by these.

A pid alone may be another process by now; with its start time (`/proc/PID/stat`, proc(5)) it is that one or gone.
"""

import contextlib
import json
import os
import select
import signal as signals
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from orthanc_ledger.errors import LedgerAway

T = TypeVar("T")

_POLL_S = 0.02
_LAST_LINES = 12


class Processes:
    """The processes of a network's folder: `run/NAME.json` says which, `logs/NAME.log` what they said."""

    def __init__(self, directory: Path, terminate_s: float = 10.0) -> None:
        """``terminate_s``: how long one may take to end before it is killed."""
        self._terminate_s = terminate_s
        self._run = directory / "run"
        self._logs = directory / "logs"

    def log(self, name: str) -> Path:
        """The file of what a server wrote, over all its starts."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The pid of a server that runs, frozen ones included; None when it does not."""
        try:
            known = json.loads((self._run / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        pid, started = int(known["pid"]), known["started"]
        with _watched(pid) as descriptor:
            if descriptor is not None and not _ended(descriptor, 0.0) and _started(pid) == started:
                return pid
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # ours and dead: nobody else will ask for its exit code
        return None

    def names(self) -> list[str]:
        """The servers that run."""
        return [path.stem for path in sorted(self._run.glob("*.json")) if self.pid(path.stem)]

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start a server, unless it runs. Its environment is this process's with ``environment`` over it."""
        if self.pid(name):
            return
        self._run.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        pid = os.posix_spawn(words[0], words, {**os.environ, **environment}, file_actions=files, setsid=True)
        (self._run / f"{name}.json").write_text(json.dumps({"pid": pid, "started": _started(pid)}))

    def signal(self, name: str, number: signals.Signals) -> None:
        """Send a signal to a server's whole session, if it runs."""
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    def end(self, name: str, first: signals.Signals = signals.SIGTERM) -> None:
        """End a server and return when it has ended: by ``first``, or by SIGKILL if that takes too long."""
        pid = self.pid(name)
        if pid is not None:
            with _watched(pid) as descriptor:
                self.signal(name, first)
                self.signal(name, signals.SIGCONT)
                if descriptor is not None and not _ended(descriptor, self._terminate_s):
                    self.signal(name, signals.SIGKILL)
                    _ended(descriptor, None)
            self.pid(name)  # reaps it
        (self._run / f"{name}.json").unlink(missing_ok=True)

    def last_lines(self, name: str) -> str:
        """The end of a server's log, for a message."""
        try:
            lines = self.log(name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-_LAST_LINES:])

    def not_ready(self, name: str, why: str) -> LedgerAway:
        """The error that a server did not come up."""
        return LedgerAway(f"{name}: {why}; {self.log(name)} ends:\n{self.last_lines(name)}")

    def wait_ready(self, name: str, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Return once ``is_ready()``. Raises LedgerAway, with the log's last lines, when the server has ended, or
        after ``timeout_s``.
        """

        def is_ready_or_ended() -> bool:
            ready = is_ready()
            if not ready and self.pid(name) is None:
                raise self.not_ready(name, "ended instead of coming up")
            return ready

        until(is_ready_or_ended, timeout_s, lambda: self.not_ready(name, f"not ready after {timeout_s:.0f} s"))


def until(ask: Callable[[], T | None], timeout_s: float, otherwise: Callable[[], LedgerAway]) -> T:
    """The first true answer. Raises ``otherwise()`` when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise otherwise()
        time.sleep(_POLL_S)
    return answer


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[int | None]:
    """A descriptor by which a process's end is seen (pidfd_open(2)): when all its threads are gone, not the first."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ended(descriptor: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
