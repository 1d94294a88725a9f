"""Objects that are sent to an Orthanc, and what the node behind it keeps of them."""

import contextlib
import hashlib
import io
import subprocess
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dicom_make
from conftest import wait_until
from plain_scu import PlainScu
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from orthanc_ledger.arrival import Arrival, read_head
from orthanc_ledger.assemble import Node
from orthanc_ledger.config import load
from orthanc_ledger.index import Instance
from orthanc_ledger.instance import open_instance
from orthanc_ledger.spool import CONFLICTS, QUARANTINE, claim_of
from orthanc_ledger.tokens import claim_name
from tests.in_orthanc.live import AE_TITLE, LiveOrthanc
from tests.live_node import LiveNode, dcmtk_environment

ANCHORED_S = 60.0


@dataclass(frozen=True)
class Scan:
    """One object to be sent, as a Part 10 file."""

    sop_uid: str
    study_uid: str
    content: bytes

    @property
    def fingerprint(self) -> bytes:
        """Its fingerprint without a salt."""
        return dicom_make.fingerprint(self.content).fingerprint


def new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def scan(source: Path, **attributes: Any) -> Scan:
    """A real object with UIDs of its own, unless they are among ``attributes``."""
    made = dcmread(source)
    for keyword, value in ({"SOPInstanceUID": new_uid(), "StudyInstanceUID": new_uid()} | attributes).items():
        setattr(made, keyword, value)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return Scan(made.SOPInstanceUID, made.StudyInstanceUID, part10(made))


def part10(source: Dataset) -> bytes:
    sink = io.BytesIO()
    dcmwrite(sink, source)
    return sink.getvalue()


def study(sources: Sequence[Path], **attributes: Any) -> list[Scan]:
    """A scan of each source, all in one study."""
    uid = new_uid()
    return [scan(source, StudyInstanceUID=uid, **attributes) for source in sources]


def send(
    dcmtk: Callable[[str], str], orthanc: LiveOrthanc, folder: Path, scans: Collection[Scan], aet: str = "MRI1"
) -> str:
    """C-STORE them over one association; what dcmsend says, empty when all were stored."""
    folder.mkdir()
    for number, each in enumerate(scans):
        (folder / f"{number}.dcm").write_bytes(each.content)
    words = [dcmtk("dcmsend"), "-aet", aet, "-aec", AE_TITLE, "127.0.0.1", str(orthanc.dicom_port), "+sd", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=dcmtk_environment())
    return done.stdout + done.stderr


def store(orthanc: LiveOrthanc, scans: Sequence[Scan], aet: str = "MRI1") -> list[int]:
    """C-STORE them over one association; the statuses that were answered, fewer when it ended before."""
    answered: list[int] = []
    opened = [open_instance(io.BytesIO(each.content)) for each in scans]
    with contextlib.suppress(OSError):
        classes = sorted({each.sop_class_uid for each in opened})
        with PlainScu(orthanc.dicom_port, aet, classes, called=AE_TITLE) as scu:
            for each in opened:
                data_set = each.reader.read(each.data_set_offset, each.reader.size - each.data_set_offset)
                answered.append(scu.store(each.sop_class_uid, each.sop_instance_uid, data_set))
    return answered


def store_files(orthanc: LiveOrthanc, paths: Sequence[Path], aet: str = "MRI1") -> None:
    """C-STORE files as they are; Orthanc takes all."""
    opened = [dcmread(path, stop_before_pixels=True) for path in paths]
    scans = [Scan(each.SOPInstanceUID, each.StudyInstanceUID, Path(each.filename).read_bytes()) for each in opened]
    assert store(orthanc, scans, aet) == [0x0000] * len(scans)


def instances(orthanc: LiveOrthanc) -> int:
    """How many objects Orthanc has."""
    count: int = orthanc.call("GET", "/statistics").json()["CountInstances"]
    return count


class Kept:
    """What a node keeps, read beside its own processes."""

    def __init__(self, live: LiveNode) -> None:
        self.node = Node(load(live.config))

    def row(self, sop_uid: str) -> Instance:
        """The index row of an object. Fails when there is none."""
        [found] = self.node.index.select(instances=[sop_uid])
        return found

    def anchored(self, scans: Collection[Scan]) -> list[Instance]:
        """The rows of objects once all of them are anchored."""
        uids = [each.sop_uid for each in scans]

        def rows() -> list[Instance]:
            return [row for row in self.node.index.select(instances=uids) if row.state == "anchored"]

        wait_until(lambda: len(rows()) == len(uids), ANCHORED_S, f"{len(uids)} objects are anchored")
        return rows()

    def claim(self, sop_uid: str) -> str:
        """The name of a UID in the spool."""
        return claim_name(self.node.keyring.k_lookup, sop_uid)

    def holds(self, each: Scan) -> bool:
        """Whether the spool or the index has an object as it was sent."""
        return self.node.spool.holder(each.sop_uid) == hashlib.sha256(data_set_of(each.content)).digest()

    def conflicts(self, sop_uid: str) -> list[Arrival]:
        """How what lies in the conflict queue under a UID came."""
        names = [name for name in self.node.spool.names(CONFLICTS) if claim_of(name) == self.claim(sop_uid)]
        arrivals = []
        for name in names:
            with self.node.spool.open(name, CONFLICTS) as unit:
                arrivals.append(read_head(unit).arrival)
        return arrivals

    def alarms(self, sop_uid: str) -> list[str]:
        """The kinds of the alarms that stand about a UID."""
        return [alarm.kind for alarm in self.node.outbox.alarms() if alarm.claim == self.claim(sop_uid)]

    def quarantined(self) -> set[str]:
        """The units in quarantine."""
        return set(self.node.spool.names(QUARANTINE))

    def data_set(self, sop_uid: str) -> bytes:
        """An object's data set, verified against its anchor once it has one."""
        with self.node.near_library.open(self.row(sop_uid)) as stream:
            return stream.read()

    def fingerprint(self, sop_uid: str) -> bytes:
        """The fingerprint of what is kept, without a salt."""
        content = dicom_make.part10(b"", self.row(sop_uid).transfer_syntax) + self.data_set(sop_uid)
        return dicom_make.fingerprint(content).fingerprint


def data_set_of(content: bytes) -> bytes:
    """The data set in a Part 10 file."""
    return content[open_instance(io.BytesIO(content)).data_set_offset :]
