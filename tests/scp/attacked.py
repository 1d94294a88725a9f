"""A node with all its exits on real sockets, its clock moved by hand, and a book of what was approved when.

The book is the test's own: it is written by what the test did, never by asking the node.
"""

import copy
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from gate_world import DAY_S, FOREIGN, MR, RESEARCH, SIBLING, VIEWER, World
from node_make import drain, make_node, open_node, part10, real_file, store, variant
from pydicom.dataset import Dataset

from orthanc_ledger import tokens
from orthanc_ledger.clock import system_clock
from orthanc_ledger.index import Supersession
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.ledger.identity import ca_certificate
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import Retrieval
from orthanc_ledger.setup_node import ORGANISATIONS, create_member
from orthanc_ledger.spool import CONFLICTS

PEERS = (RESEARCH, SIBLING, FOREIGN, VIEWER)
CT = "1.2.840.10008.5.1.4.1.1.2"
_CLASSES = {MR: ("MR", "MR_small.dcm"), CT: ("CT", "CT_small.dcm")}
_SIGNERS = {"ResearchMSP": "research", "ForeignMSP": "foreign"}
_GIVEN_ORIGINS = ("addressed-ae", "tls-modality")


@dataclass(frozen=True)
class Scan:
    """One object that may come to the node."""

    study: int
    series: int
    number: int
    patient: str
    sop_class: str = MR
    origin: str = "addressed-ae"

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
            StudyDescription=f"Study {self.study}",
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

    def covered(self, recipient: Peer, now: int) -> set[str]:
        """What a research recipient is approved for, whether or not something withholds it."""
        return {
            uid
            for uid, anchored in self.anchored.items()
            if self.origins[uid] in _GIVEN_ORIGINS
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


@cache
def _template() -> tuple[tempfile.TemporaryDirectory[str], Book]:
    """A node that holds `FIRST`, with a second research organisation in the policy; and the book of it."""
    folder = tempfile.TemporaryDirectory()
    world = Attacked(make_node(Path(folder.name)), Path(folder.name), "", [], now=system_clock())
    world.join("ForeignMSP")
    for scan in FIRST:
        world.arrive(scan)
    world.anchor()
    return folder, world.book


@dataclass
class Attacked(World):
    """A world whose time stands still until ``now`` is moved; all that is done to its ledger goes into the book."""

    now: int = 0
    book: Book = field(default_factory=Book)
    _ledgers: dict[tuple[str, str], Ledger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.node.__dict__["ledger"] = self.ledger("owner", "node")  # the anchorer's time is the world's too
        self.node.__dict__["gate"] = self.gate_by(self.node.ledger)
        self.kept = Retrieval(self.node.index, self.node.library, self.node.gate, self.node.outbox)

    def clock(self) -> int:
        return self.now

    def ledger(self, who: str, kind: str = "person") -> Ledger:
        if (who, kind) not in self._ledgers:
            self._ledgers[who, kind] = super().ledger(who, kind)
        return self._ledgers[who, kind]

    def join(self, msp_id: str) -> None:
        """Another research organisation, by the word of owner and custodian."""
        folder = self.folder / "node" / ORGANISATIONS / _SIGNERS[msp_id]
        create_member(folder, msp_id)
        policy = self.ledger("owner").query("GetPolicy", {})
        organisations = {**policy["organisations"], msp_id: "research"}
        changed = {**policy, "organisations": organisations, "certificates": {msp_id: ca_certificate(folder)}}
        proposed = self.ledger("owner").submit("ProposePolicy", {"policy": changed}).result
        self.ledger("custodian").submit("ConfirmPolicy", {"id": proposed["id"]})

    def register_peer(self, peer: Peer) -> None:
        asked = {"aeTitle": peer.ae_title, "role": "research", "certDigests": []}
        registered = self.ledger(_SIGNERS[peer.organisation]).submit("RegisterNode", asked).result
        self.ledger("custodian").submit("ConfirmNode", registered)

    def revoke_peer(self, peer: Peer) -> None:
        self.register_peer(peer)
        node = {"organisation": peer.organisation, "aeTitle": peer.ae_title}
        self.ledger("custodian").submit("RevokeNode", {"node": node})
        for approved in self.book.approved:
            approved.stands &= approved.recipient.ae_title != peer.ae_title

    def arrive(self, scan: Scan) -> None:
        ds = scan.data_set()
        store(self.node, ds, origin=scan.origin)
        self.book.contents[scan.sop_uid], self.book.origins[scan.sop_uid] = encoded(ds), scan.origin

    def anchor(self) -> None:
        """Take in and anchor all that has arrived."""
        self.node.anchorer().take_in()
        drain(self.node)
        for uid in self.book.contents.keys() - self.book.anchored.keys():
            self.book.anchored[uid] = self.book.next()

    def approve_for(
        self,
        recipient: Peer,
        studies: Sequence[str],
        sop_classes: Sequence[str] = (MR, CT),
        *,
        days: int = 3,
        future: bool = False,
        by_dataset: bool = False,
        roles: Sequence[str] = ("owner", "custodian"),
    ) -> bytes:
        """Register the recipient where it is not, ask for studies in its name, and approve by the roles."""
        self.register_peer(recipient)
        subject: dict[str, Any] = {"studies": [self.node.keyring.ensure_study(uid).token for uid in studies]}
        if by_dataset:
            subject = self.register(*studies, id=self.book.next().to_bytes(16, "big"))
        args = {
            **{name: value for name, value in subject.items() if value is not None},
            "sopClasses": sorted(sop_classes),
            "duo": ["DUO:0000042"],
            "days": days,
            "node": {"organisation": recipient.organisation, "aeTitle": recipient.ae_title},
            "release": "identified",
            "future": future,
            "descriptionDigest": bytes(32),
        }
        nonce = self.book.next().to_bytes(16, "big")
        request = bytes(self.ledger(_SIGNERS[recipient.organisation]).submit("RequestAccess", args, nonce).result["id"])
        self.approve(request, *roles, days=days)
        if {"owner", "custodian"} <= set(roles):
            until, before = self.now + days * DAY_S, None if future else self.book.next()
            covered = frozenset(studies), frozenset(sop_classes)
            self.book.approved.append(Approved(request, recipient, *covered, until, before))
        return request

    def revoke(self, approved: Approved, role: str = "owner") -> None:
        if approved.stands and self.now < approved.until:
            who = _SIGNERS[approved.recipient.organisation] if role == "research" else role
            self.ledger(who).submit("Revoke", {"id": approved.request, "reason": "breach"})
        approved.stands = False

    def withdraw(self, study_uid: str, *sop_uids: str) -> bytes:
        """Withdraw instances of a study; none named: the study, with all that will come to it."""
        study = self.node.keyring.ensure_study(study_uid)
        args: dict[str, Any] = {"study": study.token, "reason": "113001"}
        if sop_uids:
            args["instances"] = sorted(tokens.instance_token(study.k_study, uid) for uid in sop_uids)
        nonce = self.book.next().to_bytes(16, "big")
        withdrawal = bytes(self.ledger("owner").submit("Withdraw", args, nonce).result["id"])
        self.book.withdrawn[withdrawal] = set(sop_uids) or instances_of([study_uid])
        return withdrawal

    def reinstate(self, withdrawal: bytes) -> None:
        for role in ("owner", "custodian"):
            self.ledger(role).submit("Reinstate", {"id": withdrawal})
        del self.book.withdrawn[withdrawal]

    def flag(self, sop_uid: str) -> None:
        """Flag an instance that has no flag standing; its flags count from 0."""
        (row,) = self.node.index.select(instances=[sop_uid])
        number = self.book.flags[sop_uid]
        self.book.flags[sop_uid] += 1
        raised = {**self._flag(sop_uid), "n": number, "manifestCid": row.manifest}
        self.ledger("custodian").submit("FlagTampered", {**raised, "observed": None, "what": []})
        self.book.flagged[sop_uid] = number, str(row.manifest)

    def resolve(self, sop_uid: str) -> None:
        number, manifest = self.book.flagged.pop(sop_uid)
        for role in ("owner", "custodian"):
            self.ledger(role).submit("Resolve", {**self._flag(sop_uid), "n": number, "manifestCid": manifest})

    def supersede(self, sop_uid: str, *, confirmed: bool) -> None:
        """Anchor other content of an instance and propose it; the custodian confirms it or has yet to."""
        node, ds = self.node, SCANS[sop_uid].data_set(version=self.book.next())
        known = set(node.spool.names(CONFLICTS))
        store(node, ds, origin=_GIVEN_ORIGINS[0])
        (conflict,) = set(node.spool.names(CONFLICTS)) - known
        holder = node.index.instance(conflict.partition(".")[0])
        assert holder is not None
        decision = Supersession(conflict, holder.claim, "metadata-corrected", "decided", str(holder.manifest))
        node.index.keep_supersession(decision)
        self.anchor()
        drain(node)
        anchored = self.book.next()
        if confirmed:
            (proposed,) = (row for row in node.index.supersessions("proposed") if row.conflict == conflict)
            self.ledger("custodian").submit("ConfirmSupersede", {"id": proposed.ledger_id})
            drain(node)
            self.book.contents[sop_uid], self.book.anchored[sop_uid] = encoded(ds), anchored
            self.book.origins[sop_uid] = _GIVEN_ORIGINS[0]

    def _flag(self, sop_uid: str) -> dict[str, Any]:
        study = self.node.keyring.ensure_study(SCANS[sop_uid].study_uid)
        return {"study": study.token, "instance": tokens.instance_token(study.k_study, sop_uid)}


@contextmanager
def attacked() -> Iterator[Attacked]:
    """A world of its own, as `FIRST` says."""
    template, book = _template()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(template.name, folder, dirs_exist_ok=True)
        yield Attacked(open_node(folder), folder, "", [], now=_begun(), book=copy.deepcopy(book))


def encoded(ds: Dataset) -> bytes:
    """A data set's bytes."""
    content = part10(ds)
    return content[open_instance(BytesIO(content)).data_set_offset :]


@cache
def _begun() -> int:
    """When every world begins: after all that the template's ledger holds."""
    return system_clock() + 1
