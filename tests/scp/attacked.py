"""A node to be attacked: its clock is moved by hand, and all that is done to its ledger goes into a book (book.py)."""

import copy
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from gate_world import DAY_S, FOREIGN, MR, RESEARCH, SIBLING, VIEWER, World, retrieval_of
from node_make import drain, make_node, open_node, part10, store
from pydicom.dataset import Dataset

from orthanc_ledger import tokens
from orthanc_ledger.clock import system_clock
from orthanc_ledger.index import Supersession
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger.identity import ca_certificate
from orthanc_ledger.peer import Peer
from orthanc_ledger.setup_node import ORGANISATIONS, create_member
from orthanc_ledger.spool import CONFLICTS

from .book import ADDRESSED, CT, FIRST, SCANS, Approved, Book, Scan, instances_of

PEERS = (RESEARCH, SIBLING, FOREIGN, VIEWER)
_SIGNERS = {"ResearchMSP": "research", "ForeignMSP": "foreign"}


@cache
def _template() -> "tuple[tempfile.TemporaryDirectory[str], Attacked]":
    """A node that holds `FIRST`, with a second research organisation in the policy. It stays open: SQLite takes files
    away when one is closed, maybe while they are copied.
    """
    folder = tempfile.TemporaryDirectory()
    world = Attacked(make_node(Path(folder.name)), Path(folder.name), "", [], now=system_clock())
    world.join("ForeignMSP")
    for scan in FIRST:
        world.arrive(scan)
    world.anchor()
    return folder, world


@dataclass
class Attacked(World):
    """A world whose time stands still until ``now`` is moved; all that is done to its ledger goes into the book."""

    now: int = 0
    book: Book = field(default_factory=Book)

    def __post_init__(self) -> None:
        for ledger in ("ledger", "anchorer_ledger"):  # the anchorer's time is the world's too
            self.node.__dict__[ledger] = self.ledger("owner", "node")
        self.node.__dict__["gate"] = self.gate_by(self.node.ledger)
        self.kept = retrieval_of(self.node, self.node.gate)

    def clock(self) -> int:
        return self.now

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
        store(node, ds, origin=ADDRESSED)
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
            self.book.origins[sop_uid] = ADDRESSED

    def _flag(self, sop_uid: str) -> dict[str, Any]:
        study = self.node.keyring.ensure_study(SCANS[sop_uid].study_uid)
        return {"study": study.token, "instance": tokens.instance_token(study.k_study, sop_uid)}


@contextmanager
def attacked() -> Iterator[Attacked]:
    """A world of its own, as `FIRST` says."""
    folder_of_template, template = _template()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(folder_of_template.name, folder, dirs_exist_ok=True)
        yield Attacked(open_node(folder), folder, "", [], now=_begun(), book=copy.deepcopy(template.book))


def encoded(ds: Dataset) -> bytes:
    """A data set's bytes."""
    content = part10(ds)
    return content[open_instance(BytesIO(content)).data_set_offset :]


@cache
def _begun() -> int:
    """When every world begins: after all that the template's ledger holds."""
    return system_clock() + 1
