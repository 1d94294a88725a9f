"""An Orthanc in memory, asked as the real one is, beside a node in this process: hooks that run, or miss what comes."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from node_make import make_node, part10, variant
from pydicom.dataset import Dataset

from orthanc_ledger.assemble import Node
from orthanc_ledger.errors import DataError, OrthancAway
from orthanc_ledger.fetcher import Fetched, Fetcher
from orthanc_ledger.orthanc_rest import Change, Changes, Series
from orthanc_ledger.pacs import Pacs
from orthanc_ledger.part10 import read_part10
from orthanc_ledger.reconcile import Reconciler
from orthanc_ledger.sender import Sender

STUDY, OTHER = "1.2.826.0.1.3680043.9.1", "1.2.826.0.1.3680043.9.2"
INSTALLED = 1_800_000_000
DAY_S = 86_400


def slice_of(number: int, study_uid: str = STUDY, **attributes: Any) -> Dataset:
    """An object of a study, told from others by its number."""
    uids = {"SeriesInstanceUID": f"{study_uid}.1", "SOPInstanceUID": f"{study_uid}.1.{number}"}
    return variant(StudyInstanceUID=study_uid, InstanceNumber=number, **{**uids, **attributes})


@dataclass(frozen=True)
class Stored:
    """An instance that Orthanc has."""

    content: bytes
    study: str
    series: str
    study_uid: str
    sop_uid: str
    metadata: Mapping[str, str]


@dataclass
class MemoryOrthanc:
    """Answers as Orthanc. ``now``: seconds of UTC; ``away``: it does not answer; ``fetched``: whose files were asked
    for; ``lost``: whose files it has no more.
    """

    now: int = INSTALLED
    away: bool = False
    instances: dict[str, Stored] = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)
    last: int = 0
    fetched: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)

    def store(self, ds: Dataset, **metadata: str) -> str:
        """Keep an object that came, in the place of one with its UIDs; its id."""
        uids = [str(ds.PatientID), str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)]
        study, series, id = (_id(*uids[:count]) for count in (2, 3, 4))
        is_first = all(stored.series != series for stored in self.instances.values())
        said = {
            "Origin": "DicomProtocol",
            "RemoteAET": "MRI1",
            "RemoteIP": "192.0.2.10",
            "ReceptionDate": str(self.now),
        }
        self.instances[id] = Stored(part10(ds), study, series, uids[1], uids[3], {**said, **metadata})
        self._changed("NewInstance", id)
        if is_first:
            self._changed("NewSeries", series)
        return id

    def delete(self, *ids: str) -> None:
        """Forget instances, and with them the changes about them."""
        for id in ids:
            del self.instances[id]
        self.log = [change for change in self.log if change.id not in ids]

    def last_change(self) -> Changes:
        self._answer()
        is_there = bool(self.log) and self.log[-1].sequence == self.last
        return Changes(self.log[-1:] if is_there else [], self.last)

    def changes(self, after: int, limit: int) -> Changes:
        self._answer()
        return Changes([change for change in self.log if change.sequence > after][:limit], self.last)

    def series(self, offset: int, limit: int) -> list[Series]:
        self._answer()
        ids = sorted({stored.series for stored in self.instances.values()})
        return [found for id in ids[offset : offset + limit] if (found := self.one_series(id))]

    def one_series(self, id: str) -> Series | None:
        self._answer()
        found = {key: stored for key, stored in self.instances.items() if stored.series == id}
        if not found:
            return None
        updated = max(self.received(stored.metadata) for stored in found.values())
        return Series(id, next(iter(found.values())).study, sorted(found), updated)

    def study_uid(self, id: str) -> str | None:
        self._answer()
        return next((stored.study_uid for stored in self.instances.values() if stored.study == id), None)

    def study_uid_of(self, instance: str) -> str | None:
        self._answer()
        return self.instances[instance].study_uid if instance in self.instances else None

    def sop_uid(self, id: str) -> str | None:
        self._answer()
        return self.instances[id].sop_uid if id in self.instances else None

    def metadata(self, id: str) -> Mapping[str, str] | None:
        self._answer()
        return self.instances[id].metadata if id in self.instances else None

    def received(self, metadata: Mapping[str, str]) -> int:
        return int(metadata["ReceptionDate"])

    def find(self, uid: str, kind: str) -> list[str]:
        self._answer()
        if kind == "Study":
            return sorted({stored.study for stored in self.instances.values() if stored.study_uid == uid})
        return [id for id, stored in self.instances.items() if stored.sop_uid == uid]

    def copy(self, id: str, sink: BinaryIO, check_size: Callable[[int], object]) -> bool:
        self._answer()
        if id not in self.instances:
            return False
        if id in self.lost:
            raise DataError("Orthanc cannot read it")
        check_size(len(self.instances[id].content))
        self.fetched[id] += 1
        sink.write(self.instances[id].content)
        return True

    def _changed(self, kind: str, id: str) -> None:
        self.last += 1
        self.log.append(Change(self.last, kind, id, self.now))

    def _answer(self) -> None:
        if self.away:
            raise OrthancAway("Orthanc does not answer")


@dataclass
class World:
    """A node with its Orthanc. ``withdrawn``: UIDs of studies that are, on the ledger."""

    node: Node
    orthanc: MemoryOrthanc
    pacs: Pacs
    withdrawn: set[str] = field(default_factory=set)

    def hooked(self, ds: Dataset) -> str:
        """An object comes, and the plugin's hooks see it; its id in Orthanc."""
        id = self.orthanc.store(ds)
        self.keep(ds)
        self.pacs.note([(id, str(ds.StudyInstanceUID), str(ds.SOPInstanceUID))])
        return id

    def keep(self, ds: Dataset) -> None:
        """What the hook does that stores."""
        content = part10(ds)
        head = read_part10(io.BytesIO(content))
        sender = Sender("addressed-ae", "MRI1", "PACS", "dicom://192.0.2.10", "dicom://192.0.2.1:4242")
        self.node.spool.keep(sender.arrival(head), memoryview(content)[head.data_set_offset :])

    def deleted(self, *ids: str) -> None:
        """Staff delete objects, and the plugin sees it."""
        self.orthanc.delete(*ids)
        self.pacs.deleted(ids)

    def install(self) -> None:
        """The plugin starts."""
        self.pacs.start()
        latest = self.orthanc.last_change()
        self.pacs.begin(latest.last, latest.rows[0].name if latest.rows else None)

    def fetcher(self) -> Fetcher:
        """What takes from Orthanc."""
        return Fetcher(self.orthanc, self.pacs, self.node.spool, self.node.keyring, self.node.config.ae_title)

    def reconciler(self) -> Reconciler:
        """As a process started now has it, but that nothing needs to settle."""
        asked = self.orthanc, self.pacs, self.fetcher(), self.node.outbox
        return Reconciler(*asked, self.withdrawn.__contains__, lambda: self.orthanc.now, settled_s=0)

    def step(self, whole: bool = False) -> Counter[Fetched]:
        """Look once for what is new and gone."""
        return self.reconciler().step(lambda _: False, whole)

    def studies_gone(self) -> dict[str, int]:
        """How many objects of each study wait for a decision."""
        return {gone.study_uid: gone.count for gone in self.pacs.gone()}


def make_world(folder: Path, **overrides: Any) -> World:
    """A node beside an Orthanc; the plugin was not started yet."""
    node, orthanc = make_node(folder, **overrides), MemoryOrthanc()
    return World(node, orthanc, Pacs(node.config.data_dir / "pacs.db", lambda: orthanc.now))


def _id(*words: str) -> str:
    """As Orthanc makes its ids."""
    digest = hashlib.sha1("|".join(words).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[n : n + 8] for n in range(0, 40, 8))
