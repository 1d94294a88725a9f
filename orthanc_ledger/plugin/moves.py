"""C-MOVE asked of Orthanc (PS3.4 C.4.2). Where research asks, or is to receive, the node decides and sends; everybody
else has from Orthanc what Orthanc gives without the plugin.

Orthanc tells a plugin neither the information model nor more of the asker than its AE title, and lets it say little:
refused is 0xC000; the first failure ends the move with 0xB000. Plugin 4.0 has no counts (`RegisterMoveCallback`).
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import orthanc

from orthanc_ledger.errors import ConfigError, CustodyError, DataError, OrthancAway
from orthanc_ledger.plugin.beside import Beside
from orthanc_ledger.plugin.lasting import lasting
from orthanc_ledger.plugin.loopback import Loopback
from orthanc_ledger.plugin.research import Research
from orthanc_ledger.plugin.sending import JobSending, NodeSending, Sending
from orthanc_ledger.plugin.settings import SECTION, Settings

LOGGER = logging.getLogger(__name__)

# Orthanc's word for a level -> DICOM's, what kind of resource that is, and its unique key.
_LEVELS = {
    "PATIENT": ("PATIENT", "Patient", "PatientID"),
    "STUDY": ("STUDY", "Study", "StudyInstanceUID"),
    "SERIES": ("SERIES", "Series", "SeriesInstanceUID"),
    "INSTANCE": ("IMAGE", "Instance", "SOPInstanceUID"),
}
_LEAST_JOBS, _LEAST_HISTORY = 8, 10  # of Orthanc's jobs: at once; that have ended and are still known
_DICOM_THREADS = 4  # of Orthanc's, where "DicomThreadsCount" says nothing: each serves one association


class NotMoved(DataError):
    """Nothing is moved, or no more; the message says why."""


class Moves:
    """Answers C-MOVE. ``modalities``: gives Orthanc's own, as /modalities?expand; ``same``: whether two AE titles are
    one to Orthanc; ``most``: how many moves of research's may go on at once.
    """

    def __init__(
        self,
        research: Research,
        node: Beside,
        loopback: Callable[[], Loopback],
        modalities: Callable[[], Mapping[str, Mapping[str, Any]]],
        same: Callable[[str, str], bool],
        most: int,
    ) -> None:
        self._research = research
        self._node = node
        self._loopback = loopback
        self._modalities = modalities
        self._same = same
        self._places = threading.BoundedSemaphore(most)

    def begin(self, asked: Mapping[str, Any]) -> Sending:
        """Begin a move that was asked for by Orthanc's keys, up to the first object sent. Raises NotMoved."""
        asker, target = str(asked["OriginatorAET"]).strip(), str(asked["TargetAET"]).strip()
        try:
            with ExitStack() as stack:
                sending = self._begin(asker, target, asked)
                stack.enter_context(closing(sending))
                if not sending.next():
                    raise NotMoved("nothing could be sent")
                stack.pop_all()
                return sending
        except CustodyError as error:
            LOGGER.warning("C-MOVE by %r to %r: %s", asker, target, error)
            raise NotMoved(f"C-MOVE: {error}") from None

    def _begin(self, asker: str, target: str, asked: Mapping[str, Any]) -> Sending:
        by, to = self._research.peer(asker), self._research.peer(target)
        listed = self._modalities()
        if by is None and not any(
            self._same(entry["AET"], asker) and entry.get("AllowMove", True) for entry in listed.values()
        ):
            raise NotMoved("who asks is not permitted to")
        if asked["Level"] not in _LEVELS:
            raise NotMoved("there is no such level")
        if by or to:
            keys = {keyword: str(asked[keyword]) for *_, keyword in _LEVELS.values() if asked[keyword]}
            keys["QueryRetrieveLevel"] = _LEVELS[asked["Level"]][0]
            names = by.ae_title if by else asker, to.ae_title if to else target
            return self._by_node(names[0], asked["OriginatorID"], names[1], keys)
        names_of_target = [name for name, entry in listed.items() if self._same(entry["AET"], target)]
        if not names_of_target:
            raise NotMoved("the destination is not known")
        return self._by_orthanc(names_of_target[0], asker, asked)

    def _by_node(self, asker: str, message_id: int, target: str, keys: Mapping[str, str]) -> Sending:
        # While one goes on, as slowly as research takes it, it holds a thread that modalities need for C-STORE.
        if not self._places.acquire(blocking=False):
            raise NotMoved("as many of research's as may be go on: ask again later")
        try:
            return NodeSending(self._node.move(asker, message_id, target, keys), self._places.release)
        except BaseException:
            self._places.release()
            raise

    def _by_orthanc(self, modality: str, asker: str, asked: Mapping[str, Any]) -> Sending:
        _, kind, keyword = _LEVELS[asked["Level"]]
        loopback = self._loopback()
        find: Callable[[str], list[str]] = partial(loopback.find, kind=kind)
        if kind == "Study" and asked["AccessionNumber"]:  # goes before the UID, as Orthanc has it
            keyword, find = "AccessionNumber", loopback.numbered
        try:
            ids = [id for value in str(asked[keyword]).split("\\") if value for id in find(value)]
            if not ids:
                raise NotMoved("nothing matches")
            return JobSending(loopback, loopback.store(modality, ids, asker, asked["OriginatorID"]))
        except BaseException:
            loopback.close()
            raise


class _Driver:
    """A move as `RegisterMoveCallback2` has it: the first object was sent already when it begins."""

    def __init__(self, sending: Sending) -> None:
        self.sending = sending
        self._is_first = True

    def apply(self) -> None:
        if self._is_first:
            self._is_first = False
        elif not self.sending.next():
            raise NotMoved("C-MOVE: not all could be sent")

    def free(self) -> None:
        try:
            self.sending.close()
        except OrthancAway as error:
            LOGGER.warning("a move could not be ended: %s", error)


def register(
    whole: Mapping[str, Any], settings: Settings, research: Research, node: Beside, loopback: Callable[[], Loopback]
) -> None:
    """Answer C-MOVE, where the settings or this Orthanc have it so.

    Raises ConfigError for "DicomAlwaysAllowMove" where C-MOVE is not answered here.
    """
    counts = hasattr(orthanc, "RegisterMoveCallback2")
    wanted = counts and bool(research.destinations) if settings.move is None else settings.move
    if not wanted:
        if whole.get("DicomAlwaysAllowMove", False):
            raise ConfigError(
                f'"DicomAlwaysAllowMove": expected false, unless the plugin answers C-MOVE: say "Move": true in '
                f'"{SECTION}"'
            )
        return
    _advise(whole)
    strict = whole.get("StrictAetComparison", False)
    moves = Moves(
        research,
        node,
        loopback,
        lambda: json.loads(orthanc.RestApiGet("/modalities?expand")),
        lambda one, other: one == other or (not strict and one.upper() == other.upper()),
        max(1, whole.get("DicomThreadsCount", _DICOM_THREADS) // 2),
    )
    if counts:
        orthanc.RegisterMoveCallback2(
            lasting(lambda **asked: _Driver(moves.begin(asked))),
            lasting(lambda driver: driver.sending.count),
            lasting(_Driver.apply),
            lasting(_Driver.free),
        )
        return

    def moved(**asked: Any) -> None:
        with closing(moves.begin(asked)) as sending:
            sent = 1
            while sending.next():
                sent += 1
            if sent < sending.count:
                raise NotMoved(f"C-MOVE: {sent} of {sending.count} objects were sent")

    orthanc.RegisterMoveCallback(lasting(moved))


def _advise(whole: Mapping[str, Any]) -> None:
    if not whole.get("DicomAlwaysAllowMove", False):
        LOGGER.warning(
            'research AEs that ask Orthanc for a C-MOVE are refused; "DicomAlwaysAllowMove": true has the node decide'
        )
    if 0 < whole.get("ConcurrentJobs", 2) < _LEAST_JOBS:  # 0: one a core
        LOGGER.warning('"ConcurrentJobs": expected at least %d: with the plugin C-MOVEs are among these', _LEAST_JOBS)
    if whole.get("JobsHistorySize", 10) < _LEAST_HISTORY:
        LOGGER.warning('"JobsHistorySize": expected at least %d, to know how a C-MOVE ended', _LEAST_HISTORY)
