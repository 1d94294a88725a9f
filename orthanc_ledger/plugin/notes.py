"""What Orthanc's hooks see of its objects, on its way to pacs.db: a thread of its own writes it, no hook waits. What is
lost with Orthanc's process the reconciler finds out again.
"""

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple

from orthanc_ledger.pacs import Pacs

LOGGER = logging.getLogger(__name__)

_MOST = 100_000
_AT_ONCE = 1000
_PAUSE_S = 0.25
_RETRY_S = 10.0
_END_S = 10.0


class _Note(NamedTuple):
    """Orthanc stored an object or, without UIDs, deleted something. ``id``: Orthanc's."""

    id: str
    study_uid: str = ""
    sop_uid: str = ""


class Notes:
    """Keeps their order. ``most`` wait in memory while pacs.db cannot be written: what is more is not noted, and all
    that Orthanc holds is compared later.
    """

    def __init__(
        self,
        pacs: Callable[[], Pacs],
        tell_missed: Callable[[], object],
        most: int = _MOST,
        retry_s: float = _RETRY_S,
    ) -> None:
        """``tell_missed`` raises the alarm that an object could not be kept."""
        self._pacs = pacs
        self._tell_missed = tell_missed
        self._most = most
        self._retry_s = retry_s
        self._waiting: deque[_Note] = deque()
        self._is_started = False
        self._last: tuple[int, str | None] | None = None
        self._is_missing = self._has_missed = False
        self._news, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="notes")

    def start(self) -> None:
        """Write from now on; first of all that the plugin is there."""
        self._news.set()
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, once more, and end."""
        self._stopped.set()
        self._news.set()
        self._thread.join(_END_S)

    def stored(self, id: str, study_uid: str, sop_uid: str) -> None:
        """The spool has an object that Orthanc stored. ``id``: Orthanc's."""
        self._note(_Note(id, study_uid, sop_uid))

    def missed(self) -> None:
        """Orthanc stored an object that the spool has not; the reconciler looks for it when the alarm is raised."""
        self._has_missed = True
        self._news.set()

    def deleted(self, id: str) -> None:
        """Orthanc deleted something."""
        self._note(_Note(id))

    def began(self, sequence: int, change: str | None) -> None:
        """Orthanc runs, and this is its last change: at the plugin's first start what came before it is no concern."""
        self._last = sequence, change
        self._news.set()

    def _note(self, note: _Note) -> None:
        if len(self._waiting) < self._most:
            self._waiting.append(note)
        else:
            self._is_missing = True
        self._news.set()

    def _run(self) -> None:
        said, is_last = "", False
        while not is_last:
            self._news.wait()
            is_last = self._stopped.wait(_PAUSE_S)  # for more, as each write waits for the disk
            try:
                self._write()
                said = ""
            except (OSError, sqlite3.Error) as error:
                if said != (said := str(error)):
                    LOGGER.error("what Orthanc stored and deleted cannot be noted now: %s", error)
                self._news.set()
                self._stopped.wait(self._retry_s)

    def _write(self) -> None:
        self._news.clear()
        if self._has_missed:
            self._tell_missed()
            self._has_missed = False
        pacs = self._pacs()
        if not self._is_started:
            pacs.start()
            self._is_started = True
        if self._last is not None:
            pacs.begin(*self._last)
            self._last = None
        while self._waiting:
            notes = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
            try:
                for is_stored, some in groupby(notes, key=lambda note: bool(note.sop_uid)):
                    _keep(pacs, is_stored, some)
            except sqlite3.Error:
                self._waiting.extendleft(reversed(notes))
                raise
        if self._is_missing:
            pacs.doubt()
            self._is_missing = False


def _keep(pacs: Pacs, is_stored: bool, notes: Iterable[_Note]) -> None:
    if is_stored:
        pacs.note(notes)
    else:
        pacs.deleted(note.id for note in notes)
