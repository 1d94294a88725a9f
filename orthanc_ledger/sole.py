"""Being the only process of a node that does a thing."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from orthanc_ledger.errors import CustodyError


@contextlib.contextmanager
def sole(lock: Path, otherwise: CustodyError) -> Iterator[None]:
    """Hold a lock; the kernel lets go of it however this process ends. Raises ``otherwise`` when another has it."""
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise otherwise from error
        yield
