"""Being the only process of a node that does a thing."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orthanc_ledger.errors import CustodyError

_POLL_S = 0.1


@contextlib.contextmanager
def sole(
    lock: Path, otherwise: CustodyError, patience_s: float = 0.0, wait: Callable[[float], object] = time.sleep
) -> Iterator[None]:
    """Hold a lock; the kernel lets go of it however this process ends.

    Raises ``otherwise`` when another has it and keeps it for ``patience_s``, or ``wait`` says that there is no more
    waiting (a stop event's does).
    """
    deadline = time.monotonic() + patience_s
    with lock.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline or wait(_POLL_S):
                    raise otherwise from error
        yield


class Shared:
    """Holds a lock with others who share it, so that nobody is sole, until it is closed or gone, or the process ends.

    Raises ``otherwise`` while somebody is sole.
    """

    def __init__(self, lock: Path, otherwise: CustodyError) -> None:
        self._descriptor: int | None = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise otherwise from error

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    __del__ = close
