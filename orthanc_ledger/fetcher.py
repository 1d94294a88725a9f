"""Taking objects into the spool that only Orthanc has: each once, whoever is killed in between."""

import mmap
import tempfile
from collections.abc import Callable, Mapping
from enum import Enum
from typing import BinaryIO, Protocol

from orthanc_ledger.arrival import RECONCILED, REST_USER
from orthanc_ledger.errors import DataError, SpoolFull
from orthanc_ledger.keyring import ERASED, Keyring
from orthanc_ledger.pacs import Pacs
from orthanc_ledger.part10 import read_part10
from orthanc_ledger.sender import DICOM, HTTP, Sender, ascii_of, uri
from orthanc_ledger.spool import TEMPORARY, Spool

_FROM_PEER = "DicomProtocol"
_EMPTY = "Orthanc has no byte of it"


class Fetched(Enum):
    """What became of an object: the spool has it now; the node had it; Orthanc has it no more; or it is left there, as
    it cannot be taken.
    """

    TAKEN = "taken"
    HELD = "held"
    GONE = "gone"
    LEFT = "left"


class Source(Protocol):
    """What is asked of Orthanc. None: the object is gone. Raises OrthancAway."""

    def sop_uid(self, id: str) -> str | None:
        """SOP Instance UID of an instance."""

    def study_uid_of(self, instance: str) -> str | None:
        """Study Instance UID of an instance's study."""

    def metadata(self, id: str) -> Mapping[str, str] | None:
        """What Orthanc keeps about an instance."""

    def copy(self, id: str, sink: BinaryIO, check_size: Callable[[int], object]) -> bool:
        """Write an instance's Part 10 file, of whose bytes ``check_size`` is told first; False: it is gone. Raises
        DataError when Orthanc cannot read it, and what ``check_size`` raises.
        """


class Fetcher:
    """Raises OrthancAway, and SpoolFull below the spool's reserve, which is for what comes by itself."""

    def __init__(self, orthanc: Source, pacs: Pacs, spool: Spool, keyring: Keyring, ae_title: str) -> None:
        """``ae_title``: this node's, as which it takes in."""
        self._orthanc = orthanc
        self._pacs = pacs
        self._spool = spool
        self._keyring = keyring
        self._ae_title = ae_title

    def is_held(self, sop_uid: str) -> bool:
        """Whether the node has an object of a SOP Instance UID, anchored or not yet."""
        return self._spool.holder(sop_uid) is not None

    def take(self, id: str, origin: str, again: bool = False) -> Fetched:
        """Take an object, unless the node has one of its SOP Instance UID. ``again``: also then, as its content may be
        another now; so it is where Orthanc has or had that UID under another id, which is made of Patient ID and UIDs,
        and no hook told of it. Other content goes to the conflict queue.
        """
        sop_uid, study_uid = self._orthanc.sop_uid(id), self._orthanc.study_uid_of(id)
        if sop_uid is None or study_uid is None:
            fetched = Fetched.GONE
        else:
            again = again or (self._pacs.has_other(id, sop_uid) and not self._spool.has_conflict(sop_uid))
            fetched = self._fetch(id, study_uid, origin, lambda: not again and self.is_held(sop_uid))
        if fetched is Fetched.GONE:
            self._pacs.deleted([id])
        elif fetched is not Fetched.LEFT:
            self._pacs.note([(id, str(study_uid), str(sop_uid))])
        return fetched

    def _fetch(self, id: str, study_uid: str, origin: str, is_held: Callable[[], bool]) -> Fetched:
        if is_held():
            return Fetched.HELD
        if self._keyring.is_erased(study_uid):
            return self._leave(id, study_uid, origin, ERASED)
        self._spool.check_room()
        metadata = self._orthanc.metadata(id)
        with tempfile.TemporaryFile(dir=self._spool.folder / TEMPORARY) as file:
            try:
                if metadata is None or not self._orthanc.copy(id, file, self._check_size):
                    return Fetched.GONE
                size = file.tell()
                file.flush()
            except (DataError, SpoolFull) as error:
                self._spool.check_room()  # else it is the object that is too large, and stays so
                return self._leave(id, study_uid, origin, str(error))
            if not size:
                return self._leave(id, study_uid, origin, _EMPTY)
            head = read_part10(file)
            arrival = self._sender(metadata, origin).arrival(head)
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
                memoryview(content) as whole,
                whole[head.data_set_offset :] as data_set,
            ):
                if is_held():  # by a hook that took long: Orthanc's file may not be what came
                    return Fetched.HELD
                self._spool.keep(arrival, data_set)
        return Fetched.TAKEN

    def _check_size(self, size: int) -> None:
        self._spool.check_room(size, copies=2)  # this file and the spool's: C-STORE's room is not for them

    def _sender(self, metadata: Mapping[str, str], origin: str) -> Sender:
        """Who sent it once, as far as Orthanc knows. What the plugin missed of what came over HTTP keeps the origin by
        which the ledger's policy knows that.
        """
        is_from_peer = metadata.get("Origin") == _FROM_PEER
        if origin == RECONCILED and not is_from_peer:
            origin = REST_USER
        user, address = metadata.get("HttpUsername", ""), metadata.get("RemoteIP", "")
        peer = uri(DICOM, address) if is_from_peer else uri(HTTP, address, user=user)
        called = uri(DICOM if is_from_peer else HTTP, "")
        return Sender(origin, ascii_of(metadata.get("RemoteAET", "")), self._ae_title, peer, called)

    def _leave(self, id: str, study_uid: str, origin: str, reason: str) -> Fetched:
        self._pacs.keep_untaken(id, study_uid, origin, reason)
        return Fetched.LEFT
