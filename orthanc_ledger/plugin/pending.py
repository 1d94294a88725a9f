"""An object between the hook that has its bytes and the hook that knows it stored: written down meanwhile, beside what
Orthanc does for it, by a thread of ours. Orthanc's threads are new to Python at each hook, and so would be each of
their connections to SQLite.
"""

import io
import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Protocol

from orthanc_ledger.errors import SpoolFull
from orthanc_ledger.incoming import Incoming, Receipt
from orthanc_ledger.part10 import Head, read_part10
from orthanc_ledger.sender import Sender
from orthanc_ledger.spool import ArrivalHead

_COARSE = 5  # CLOCK_REALTIME_COARSE (clock_gettime(2)), as time(2) has it: some ms behind, also into the second before


class Inbox(Protocol):
    """What is needed of the spool."""

    def check_room(self, size: int = 0) -> None:
        """Raises SpoolFull when there is none."""

    def holder(self, sop_uid: str) -> bytes | None:
        """SHA-256 of the data set that holds the claim on a SOP Instance UID, or None."""

    def write_down(self, head: ArrivalHead, data_set: bytes | memoryview) -> Incoming:
        """Make an object durable but for its name, whatever it is. Raises SpoolFull."""


@dataclass(frozen=True)
class _Written:
    """What lies in the spool without a name."""

    head: Head
    sender: Sender
    incoming: Incoming
    holder: bytes | None


class Pending:
    """``since_s``: when it was received, seconds since 1970, by the clock of Orthanc's own dates; ``begun_s``: the same
    by `time.monotonic`.
    """

    def __init__(self, content: bytes, spool: Inbox, workers: Executor) -> None:
        self.content = content
        self.since_s, self.begun_s = time.clock_gettime(_COARSE), time.monotonic()
        self._spool = spool
        self._workers = workers
        self._early: Future[_Written] | None = None

    def begin(self, expected: Sender) -> None:
        """Write it down meanwhile, as from who probably sends it: the head of a unit says that."""
        self._early = self._workers.submit(self._write_down, expected)

    def keep(self, sender: Sender) -> tuple[Head, Receipt]:
        """Make it durable. Raises SpoolFull."""
        written = self._written_for(sender) or self._workers.submit(self._write_down, sender).result()
        return written.head, written.incoming.give_name(written.holder)

    def drop(self) -> None:
        """Forget what was written down."""
        if self._early is not None:
            self._early.add_done_callback(_discard)

    def _written_for(self, sender: Sender) -> _Written | None:
        early, self._early = self._early, None
        if early is None:
            return None
        try:
            written = early.result()
        except SpoolFull:  # it may have room by now
            return None
        if written.sender == sender:
            return written
        written.incoming.discard()
        return None

    def _write_down(self, sender: Sender) -> _Written:
        head = read_part10(io.BytesIO(self.content))
        data_set = memoryview(self.content)[head.data_set_offset :]
        incoming = self._spool.write_down(sender.arrival(head), data_set)
        return _Written(head, sender, incoming, incoming.holder())


def _discard(early: "Future[_Written]") -> None:
    if early.exception() is None:
        early.result().incoming.discard()
