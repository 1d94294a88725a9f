"""A move that is going on, whoever sends: the node, or Orthanc."""

import time
from collections.abc import Callable
from typing import Protocol

from orthanc_ledger.plugin.beside import Move
from orthanc_ledger.plugin.loopback import Loopback

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1  # between two looks at a job


class Sending(Protocol):
    """``count``: how many objects it is about."""

    count: int

    def next(self) -> bool:
        """Wait until one more was sent; False when no more will be."""

    def close(self) -> None:
        """Begin nothing more."""


class NodeSending:
    """What the node sends. ``ended`` is called once it is closed."""

    def __init__(self, move: Move, ended: Callable[[], object]) -> None:
        self.count = self._left = move.count
        self._move = move
        self._ended = ended

    def next(self) -> bool:
        while self._left:
            self._left -= 1
            if self._move.next().sent:
                return True
        return False

    def close(self) -> None:
        self._move.close()
        self._ended()


class JobSending:
    """What a job of Orthanc's sends, over one association."""

    def __init__(self, loopback: Loopback, id: str) -> None:
        self._loopback = loopback
        self._id = id
        self._job = loopback.job(id)
        self._taken = 0
        self.count = self._job.count

    def next(self) -> bool:
        self._taken += 1
        pause_s = _FIRST_PAUSE_S
        while self._job.sent < self._taken and not self._job.ended:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._job = self._loopback.job(self._id)
        return self._job.sent >= self._taken

    def close(self) -> None:
        try:
            if not self._job.ended:
                self._loopback.cancel(self._id)
        finally:
            self._loopback.close()
