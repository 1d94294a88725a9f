"""Taking in what Orthanc held before the plugin, study by study, behind what comes by itself.

What is to be taken stands in pacs.db, and leaves it object by object: a run that ends anywhere is gone on with.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orthanc_ledger.arrival import BACKFILL
from orthanc_ledger.errors import OrthancAway, ServiceAway, SpoolFull
from orthanc_ledger.fetcher import Fetched, Fetcher
from orthanc_ledger.pacs import Pacs
from orthanc_ledger.sole import sole
from orthanc_ledger.spool import Spool

_OTHER = "another backfill of this node runs: wait for its end, or stop it"
_BACKLOG = 500  # units in the spool: while the anchorer has as many, it gets no more
_LOOK_EVERY = 20  # objects
_WAIT_S = 2.0


@dataclass(frozen=True)
class Progress:
    """Of ``total`` objects to be taken at its beginning, how many were ``taken``, the node had already (``held``), or
    Orthanc has no more (``gone``), and how many are ``left`` there, as they cannot be taken; in so many seconds.
    ``waits`` for what, if it does.
    """

    total: int
    taken: int = 0
    held: int = 0
    gone: int = 0
    left: int = 0
    seconds: float = 0.0
    waits: str = ""

    @property
    def done(self) -> int:
        """How many are no more to be taken."""
        return self.taken + self.held + self.gone + self.left

    @property
    def objects_s(self) -> float:
        """Objects a second."""
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Seconds to its end, at this rate; None while that is not known."""
        return (self.total - self.done) / self.objects_s if self.done and self.seconds else None


GoOn = Callable[[Progress], bool]
"""Told after each object how far it came; False ends it there."""


class Backfill:
    """Only one of a node at a time."""

    def __init__(
        self,
        pacs: Pacs,
        fetcher: Fetcher,
        spool: Spool,
        compare: Callable[[], object],
        lock: Path,
        rests: bool = True,
        sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``compare`` finds out what came before the plugin, if nobody has yet; ``rests``: whether Orthanc is left
        alone after each object for as long as it worked.
        """
        self._pacs = pacs
        self._fetcher = fetcher
        self._spool = spool
        self._compare = compare
        self._lock = lock
        self._rests = rests
        self._sleep = sleep
        self._monotonic = monotonic

    def run(self, study_uid: str | None, go_on: GoOn) -> Progress:
        """Take one study, or all. Waits while Orthanc is away, the spool full or the anchorer behind.

        Raises ServiceAway when another backfill runs, or Orthanc is away at its beginning.
        """
        with sole(self._lock, ServiceAway(_OTHER)):
            if not self._pacs.place().compared:
                self._compare()
            progress, begun_s = Progress(self._pacs.earlier(study_uid)), self._monotonic()
            for id in self._ids(study_uid):
                fetched = self._take(id, progress, go_on)
                if fetched is None:
                    break
                counted = {fetched.value: getattr(progress, fetched.value) + 1}
                progress = replace(progress, seconds=self._monotonic() - begun_s, **counted)
                if not go_on(progress):
                    break
            return progress

    def _ids(self, study_uid: str | None) -> Iterator[str]:
        """A study's objects together, so that they are anchored together."""
        study = self._pacs.earlier_study() if study_uid is None else study_uid
        while study is not None:
            yield from self._pacs.earlier_ids(study)
            study = self._pacs.earlier_study(after=study) if study_uid is None else None

    def _take(self, id: str, progress: Progress, go_on: GoOn) -> Fetched | None:
        """None: it was told to end."""
        while True:
            try:
                if progress.done % _LOOK_EVERY == 0:
                    self._check_backlog()
                begun_s = self._monotonic()
                fetched = self._fetcher.take(id, BACKFILL)
                if self._rests:
                    self._sleep(self._monotonic() - begun_s)
                return fetched
            except (OrthancAway, SpoolFull) as error:
                if not go_on(replace(progress, waits=str(error))):
                    return None
                self._sleep(_WAIT_S)

    def _check_backlog(self) -> None:
        waiting = len(self._spool.names())
        if waiting > _BACKLOG:
            raise SpoolFull(f"{waiting} objects in the spool are still to be anchored: is the node running?")
