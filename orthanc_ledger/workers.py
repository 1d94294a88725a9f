"""Processes that do one kind of work for the process that forks them, side by side, the results in order.

Fingerprinting is most of what anchoring costs, and it calls codecs, which are native code: an object made to crash one
kills a worker here, and not the anchorer each time it is started again.
"""

import contextlib
import gc
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from orthanc_ledger.errors import Unreadable

Job = TypeVar("Job")
Result = TypeVar("Result")

_DEATHS = 2  # one may be an accident
_NICE = 5  # below the process that forks them: what only it can do comes first


class Workers(Generic[Job, Result]):
    """``count`` processes that do ``work``, one job at a time each; jobs and results are pickled.

    ``work`` must return, never raise, within ``limit_s(job)`` seconds: it is killed then. The processes end with the
    block, and with this process however it ends: one that hangs then, at its job's limit.
    """

    def __init__(self, work: Callable[[Job], Result], count: int, limit_s: Callable[[Job], int]) -> None:
        self._workers = [_Worker(work, limit_s) for _ in range(count)]
        self._begun: deque[tuple[_Worker, Job]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()

    def map(self, jobs: Iterable[Job]) -> Iterator[Result | Unreadable]:
        """The result of each job, in order; Unreadable for one that killed two processes in a row.

        Jobs are taken a few ahead of the results. What an earlier call began and nobody waited for is called off.
        """
        while self._begun:
            self._begun.popleft()[0].restart()
        coming = iter(jobs)
        for worker, job in zip(self._workers, coming, strict=False):
            self._begin(worker, job)
        while self._begun:
            worker, job = self._begun[0]
            result: Result | Unreadable = worker.result(job)
            self._begun.popleft()
            for following in islice(coming, 1):  # before the result is worked on, so that no worker idles
                self._begin(worker, following)
            yield result

    def _begin(self, worker: "_Worker", job: Job) -> None:
        self._begun.append((worker, job))
        worker.send(job)


class _Worker:
    _pid: int | None = None

    def __init__(self, work: Callable[[Any], Any], limit_s: Callable[[Any], int]) -> None:
        self._work = work
        self._limit_s = limit_s
        self._start()

    def send(self, job: object) -> None:
        try:
            self._connection.send(job)
        except ConnectionError:  # it was killed while it had nothing to do: not this job's fault
            self.restart()
            with contextlib.suppress(ConnectionError):  # that shows when its result is asked for
                self._connection.send(job)

    def result(self, job: object) -> Any:
        """What comes of the job that was sent."""
        for death in range(_DEATHS):
            if death:
                self.send(job)
            try:
                return self._connection.recv()
            except (EOFError, OSError):
                self.restart()
        return Unreadable(f"the process died {_DEATHS} times while decoding it, or took too long")

    def restart(self) -> None:
        self.end()
        self._start()

    def end(self) -> None:
        self._connection.close()
        pid, self._pid = self._pid, None
        if pid is not None:  # None: it has ended, and no other could be started
            os.kill(pid, signal.SIGKILL)  # it holds nothing that must be put away
            os.waitpid(pid, 0)

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._pid = os.fork()
            if not self._pid:
                _serve(theirs, self._work, self._limit_s)


def _serve(connection: Any, work: Callable[[Any], Any], limit_s: Callable[[Any], int]) -> None:
    """Do what comes through the pipe until its other end is closed; never returns."""
    try:
        gc.freeze()  # nothing of the parent's is collected here: its files' numbers soon belong to others
        # No lock and no other worker's pipe of the parent's may stay open here after its death.
        os.closerange(3, connection.fileno())
        os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        os.nice(_NICE)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the parent, whose end ends this process
        for default in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(default, signal.SIG_DFL)
        while True:
            job = connection.recv()
            signal.alarm(limit_s(job))  # the kernel ends it, in native code too, and when nobody waits for it any more
            result = work(job)
            signal.alarm(0)
            connection.send(result)
    finally:
        os._exit(0)
