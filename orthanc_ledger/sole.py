"""Being the only process of a node that does a thing."""

import contextlib
import fcntl
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


@contextlib.contextmanager
def shared(lock: Path, otherwise: CustodyError) -> Iterator[int]:
    """Hold a lock with others who share it, so that nobody is sole; gives its descriptor, for processes that inherit it
    and so hold it too. Raises ``otherwise`` while somebody is sole.
    """
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise otherwise from error
        yield file.fileno()
