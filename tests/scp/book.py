"""The objects of attacks on the gate, and a book of what was approved when: a test's own, never asked of the node."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from gate_world import MR
from node_make import real_file, variant
from pydicom.dataset import Dataset

from orthanc_ledger.peer import Peer

CT = "1.2.840.10008.5.1.4.1.1.2"
ADDRESSED = "addressed-ae"
_CLASSES = {MR: ("MR", "MR_small.dcm"), CT: ("CT", "CT_small.dcm")}


@dataclass(frozen=True)
class Scan:
    """One object that may come to the node."""

    study: int
    series: int
    number: int
    patient: str
    sop_class: str = MR
    origin: str = ADDRESSED

    @property
    def study_uid(self) -> str:
        return f"1.2.826.0.1.3680043.10.7.{self.study}"

    @property
    def series_uid(self) -> str:
        return f"{self.study_uid}.{self.series}"

    @property
    def sop_uid(self) -> str:
        return f"{self.series_uid}.{self.number}"

    @property
    def modality(self) -> str:
        return _CLASSES[self.sop_class][0]

    @property
    def said(self) -> str:
        """What no other object says of its study and series."""
        return f"Study {self.study}, as {self.sop_uid} has it"

    def data_set(self, version: int = 0) -> Dataset:
        """The object; each version has other content."""
        return variant(
            real_file(_CLASSES[self.sop_class][1]),
            SOPInstanceUID=self.sop_uid,
            SeriesInstanceUID=self.series_uid,
            StudyInstanceUID=self.study_uid,
            PatientID=self.patient,
            PatientName=f"Secret^{self.patient}",
            PatientBirthDate="19010203",
            StudyDescription=self.said,
            SeriesDescription=self.said,
            Modality=self.modality,
            ImageComments=f"version {version}",
        )


FIRST = (
    *(Scan(1, 1, number, "PAT-1") for number in (1, 2)),
    Scan(1, 2, 1, "PAT-1", CT),
    Scan(2, 1, 1, "PAT-1"),
    Scan(2, 1, 2, "PAT-1", origin="rest-user"),
    Scan(3, 1, 1, "pat-1"),
)
"""What every world begins with, anchored."""

LATER = (
    Scan(1, 1, 8, "PAT-1"),
    Scan(1, 2, 8, "PAT-1", CT),
    Scan(2, 1, 8, "PAT-1", origin="research"),
    Scan(3, 1, 8, "pat-1"),
    Scan(4, 1, 8, "PAT-2"),
)
"""What may arrive afterwards."""

SCANS = {scan.sop_uid: scan for scan in (*FIRST, *LATER)}
STUDIES = {scan.study_uid: scan.patient for scan in SCANS.values()}


def unique_keys(scan: Scan) -> tuple[str, str, str, str]:
    """Of patient, study, series and object (PS3.4 C.6.1.1)."""
    return scan.patient, scan.study_uid, scan.series_uid, scan.sop_uid


def instances_of(studies: Sequence[str]) -> set[str]:
    return {uid for uid, scan in SCANS.items() if scan.study_uid in studies}


@dataclass
class Approved:
    """What both parties approved, for one recipient."""

    request: bytes
    recipient: Peer
    studies: frozenset[str]
    sop_classes: frozenset[str]
    until: int
    before: int | None  # only what was anchored earlier in the book
    stands: bool = True

    def covers(self, scan: Scan, anchored: int, now: int) -> bool:
        timely = self.stands and now < self.until and (self.before is None or anchored < self.before)
        return timely and scan.study_uid in self.studies and scan.sop_class in self.sop_classes


@dataclass
class Book:
    """Everything that was done, in its order. By SOP Instance UID: the current ``contents`` as they arrived, and whence
    they came.
    """

    order: int = 0
    contents: dict[str, bytes] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    anchored: dict[str, int] = field(default_factory=dict)
    approved: list[Approved] = field(default_factory=list)
    withdrawn: dict[bytes, set[str]] = field(default_factory=dict)
    flagged: dict[str, tuple[int, str]] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)

    def next(self) -> int:
        self.order += 1
        return self.order

    @property
    def revoked(self) -> set[str]:
        """The recipients of approvals that were revoked, by AE title."""
        return {approved.recipient.ae_title for approved in self.approved if not approved.stands}

    def covered(self, recipient: Peer, now: int) -> set[str]:
        """What a research recipient is approved for, whether or not something withholds it."""
        return {
            uid
            for uid, anchored in self.anchored.items()
            if self.origins[uid] == ADDRESSED
            and any(
                approved.recipient.ae_title == recipient.ae_title and approved.covers(SCANS[uid], anchored, now)
                for approved in self.approved
            )
        }

    def allowed(self, recipient: Peer, now: int) -> set[str]:
        """What may start to leave for a recipient now, under no lease."""
        if recipient.role != "research":
            return set(self.contents)
        return self.covered(recipient, now) - self.flagged.keys() - set().union(*self.withdrawn.values())
