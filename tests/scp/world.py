"""The ports of the leaf implemented over a folder, and listeners on free loopback ports.

``python -m tests.scp.world PORT FOLDER`` serves the clinical port until it is ended.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicom_scp.ports import (
    ArrivalHead,
    Item,
    Level,
    ListenerConfig,
    Peer,
    Query,
    Receipt,
    UidMismatch,
)
from dicom_scp.server import Listener
from orthanc_ledger.errors import ServiceAway, SpoolFull, Unreadable
from orthanc_ledger.reasons import Reason

NODE = "LEDGER"
SCANNER = Peer("SCANNER", "modality", "HOSPITAL", hosts=("127.0.0.1",))
WORKSTATION = Peer("WORKSTATION", "clinical", "HOSPITAL", hosts=("127.0.0.1",))
TRIAL = Peer("TRIAL", "research", "INSTITUTE", hosts=("127.0.0.1",))
PEERS = (SCANNER, WORKSTATION, TRIAL)
LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Held:
    """One stored object: its head, the file of its encoded data set, and what the levels are found by."""

    head: ArrivalHead
    path: Path
    keys: Mapping[str, str]

    @property
    def item(self) -> Item:
        head = self.head
        return Item(head.sop_class, head.sop_instance, head.transfer_syntax, self.path.stat().st_size)

    @property
    def data_set(self) -> bytes:
        return self.path.read_bytes()


class FolderInbox:
    """A folder. ``free_bytes`` None: endless; `accept` waits for ``accepting``, then raises ``broken``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, Held] = {}
        self.heads: list[ArrivalHead] = []
        self.free_bytes: int | None = None
        self.broken: Exception | None = None
        self.accepting = threading.Event()
        self.accepting.set()
        self.discarded = threading.Semaphore(0)
        self._lock = threading.Lock()

    def begin(self, arrival: ArrivalHead) -> "FolderIncoming":
        if self.free_bytes == 0:
            raise SpoolFull("0 bytes left")
        with self._lock:
            self.heads.append(arrival)
            return FolderIncoming(self, arrival, self.folder / f"incoming-{len(self.heads)}")

    def add(self, head: ArrivalHead, data_set: bytes) -> Held:
        """Put an object in without a wire."""
        incoming = self.begin(head)
        incoming.write(data_set)
        incoming.accept()
        return self.held[head.sop_instance]


class FolderIncoming:
    def __init__(self, inbox: FolderInbox, head: ArrivalHead, path: Path) -> None:
        self._inbox, self._head, self._path = inbox, head, path
        self._file = path.open("wb")
        self._size = 0

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._inbox.free_bytes is not None and self._size > self._inbox.free_bytes:
            raise SpoolFull(f"{self._inbox.free_bytes} bytes left")
        self._file.write(data)

    def accept(self) -> Receipt:
        self._file.close()
        self._inbox.accepting.wait()
        if self._inbox.broken is not None:
            raise self._inbox.broken
        with self._path.open("rb") as file:
            keys = read_keys(file, self._head.transfer_syntax)
        if keys["SOPClassUID"] != self._head.sop_class or keys["SOPInstanceUID"] != self._head.sop_instance:
            raise UidMismatch("not the object of the command")
        known = self._inbox.held.get(self._head.sop_instance)
        if known is not None:
            same = known.data_set == self._path.read_bytes()
            self._path.unlink()
            return Receipt.SAME_AGAIN if same else Receipt.CONFLICT
        self._inbox.held[self._head.sop_instance] = Held(self._head, self._path, keys)
        return Receipt.STORED

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._inbox.discarded.release()


def read_keys(file: BinaryIO, transfer_syntax: str) -> dict[str, str]:
    """The identifying elements in the head of a data set. Raises Unreadable."""
    syntax = UID(transfer_syntax)
    wanted = ["SOPClassUID", "SOPInstanceUID", "PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID"]
    try:
        if syntax.is_deflated:
            import zlib

            file = BytesIO(zlib.decompress(file.read(), -zlib.MAX_WBITS))
        head = read_dataset(
            file, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=lambda tag, vr, length: tag > 0x0020_00FF
        )
        keys = {keyword: str(head.get(keyword, "")) for keyword in wanted}
    except Exception as error:
        raise Unreadable(f"not a data set: {error}") from error
    if not keys["SOPInstanceUID"]:
        raise Unreadable("no SOP Instance UID")
    return keys


@dataclass
class FolderPlan:
    """A plan over held objects. ``errors`` are raised by `open`, by SOP Instance UID."""

    objects: Sequence[Held]
    refused: Reason | None = None
    withheld: Mapping[str, Reason] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)
    closed: list[list[str]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def items(self) -> list[Item]:
        if self.refused:
            return []
        return [held.item for held in self.objects if held.head.sop_instance not in self.withheld]

    @contextmanager
    def open(self, item: Item) -> Iterator[BinaryIO]:
        self.opened.append(item.sop_instance)
        if item.sop_instance in self.errors:
            raise self.errors[item.sop_instance]
        (path,) = (held.path for held in self.objects if held.head.sop_instance == item.sop_instance)
        with path.open("rb") as file:
            yield file

    def leave(self, item: Item) -> None:
        self.left.append(item.sop_instance)

    def close(self) -> None:
        self.closed.append(list(self.left))
        self.finished.set()


UNIQUE: dict[Level, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
SUPPORTED = {level: (*list(UNIQUE.values())[: number + 1], "PatientName") for number, level in enumerate(UNIQUE)}


@dataclass(frozen=True)
class Find:
    """What an archive was asked."""

    level: Level
    uids: Query
    keys: dict[str, str]
    combined: bool


@dataclass
class FolderArchive:
    """What an inbox holds, under rules a test sets; ``refuse`` is by recipient, ``withhold`` and ``errors`` by UID.

    ``endless``: a retrieve's planning ends only when it is called off.
    """

    inbox: FolderInbox
    away: ServiceAway | None = None
    endless: bool = False
    refuse: dict[str, Reason] = field(default_factory=dict)
    withhold: dict[str, Reason] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    plans: list[FolderPlan] = field(default_factory=list)
    asked: list[tuple[str, str, Level, Query]] = field(default_factory=list)
    finds: list[Find] = field(default_factory=list)
    next_match: threading.Semaphore | None = None
    counted: list[tuple[str, Reason]] = field(default_factory=list)

    def find(
        self,
        asker: Peer,
        level: Level,
        uids: Query,
        keys: Mapping[str, str],
        combined: bool,
        meanwhile: Callable[[], object],
    ) -> Iterator[Mapping[str, str]]:
        self.finds.append(Find(level, uids, dict(keys), combined))
        if self.away is not None:
            raise self.away
        rows: dict[str, dict[str, str]] = {}
        for held in self.inbox.held.values():
            if _matches(held, uids):
                row = {name: held.keys[name] for name in SUPPORTED[level]}
                rows.setdefault(row[UNIQUE[level]], row)
        for row in rows.values():
            if all(not value or row.get(keyword, value) == value for keyword, value in keys.items()):
                if self.next_match is not None:
                    self.next_match.acquire()
                yield row

    def plan(
        self, asker: Peer, recipient: Peer, level: Level, uids: Query, meanwhile: Callable[[], object]
    ) -> FolderPlan:
        self.asked.append((asker.ae_title, recipient.ae_title, level, uids))
        while self.endless:
            meanwhile()
        if self.away is not None:
            raise self.away
        chosen = [held for held in self.inbox.held.values() if _matches(held, uids)]
        uids_chosen = {held.head.sop_instance for held in chosen}
        withheld = {uid: reason for uid, reason in self.withhold.items() if uid in uids_chosen}
        plan = FolderPlan(chosen, self.refuse.get(recipient.ae_title), withheld, self.errors)
        self.plans.append(plan)
        return plan

    def count_refusal(self, peer: Peer, reason: Reason) -> None:
        self.counted.append((peer.ae_title, reason))


def _matches(held: Held, query: Query) -> bool:
    pairs = (
        (query.patient_ids, "PatientID"),
        (query.studies, "StudyInstanceUID"),
        (query.series, "SeriesInstanceUID"),
        (query.instances, "SOPInstanceUID"),
    )
    return all(not values or held.keys[keyword] in values for values, keyword in pairs)


@dataclass
class Node:
    """A listener with the inbox and archive behind it."""

    inbox: FolderInbox
    archive: FolderArchive
    listener: Listener

    @property
    def port(self) -> int:
        return self.listener.port


def config(serves: str = "clinical", peers: Sequence[Peer] = PEERS, **changes: object) -> ListenerConfig:
    base = ListenerConfig(serves=serves, ae_title=NODE, host=LOCAL, port=0, peers=tuple(peers), dimse_timeout_s=20)
    return replace(base, **changes)


@contextmanager
def serving(folder: Path, settings: ListenerConfig, inbox: FolderInbox | None = None) -> Iterator[Node]:
    """A node that listens until the end of the block."""
    inbox = inbox or FolderInbox(folder)
    archive = FolderArchive(inbox)
    node = Node(inbox, archive, Listener(settings, inbox, archive))
    node.listener.start()
    try:
        yield node
    finally:
        node.listener.shutdown()


def head_of(dataset: Dataset, transfer_syntax: str) -> ArrivalHead:
    """The head of an object that is put into an inbox without a wire."""
    return ArrivalHead(
        calling_ae=SCANNER.ae_title,
        called_ae=NODE,
        peer_address="dicom://127.0.0.1:1",
        called_address="dicom://127.0.0.1:2",
        association=bytes(16),
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(dataset.SOPInstanceUID),
        transfer_syntax=str(transfer_syntax),
        origin="addressed-ae",
    )


if __name__ == "__main__":
    with serving(Path(sys.argv[2]), config(port=int(sys.argv[1]))):
        threading.Event().wait()
