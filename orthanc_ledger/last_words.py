"""Which object a process was decoding when it died.

The codecs are native code: an object made to crash one would kill the anchorer each time it is started again. Its name
is on disk while it is decoded; one that killed the process twice is not decoded a third time.
"""

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

from orthanc_ledger.errors import Unreadable

_DEATHS = 2
_LONGEST = 1 << 10


class LastWords:
    """A small file, written before and emptied after each decoding. Not synced: a power failure accuses nobody."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, self._file)
        self._suspect, self._deaths = "", 0
        with contextlib.suppress(ValueError):  # it is empty: nobody died
            claim, deaths = os.read(self._file, _LONGEST).decode().split()
            self._suspect, self._deaths = claim, int(deaths) + 1

    @contextlib.contextmanager
    def decoding(self, claim: str) -> Iterator[None]:
        """Around the decoding of an object. Raises Unreadable when it killed the process twice in a row."""
        deaths = self._deaths if claim == self._suspect else 0
        if deaths >= _DEATHS:
            self._suspect = ""  # a person may have it tried again
            raise Unreadable(f"the process died {deaths} times while decoding it")
        os.ftruncate(self._file, os.pwrite(self._file, f"{claim} {deaths}".encode(), 0))
        try:
            yield
        finally:
            os.ftruncate(self._file, 0)
