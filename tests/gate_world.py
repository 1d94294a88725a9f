"""A node whose clock is moved by hand, with parties that ask and approve; and all its exits for research."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node_make import anchoring_of, drain, ledger_of, make_node, store, variant

from orthanc_ledger.asked import IMAGES
from orthanc_ledger.assemble import Node
from orthanc_ledger.batch import Preparer, describe
from orthanc_ledger.clock import system_clock
from orthanc_ledger.datasets import StudyList, encode_descriptor
from orthanc_ledger.find import Catalogue
from orthanc_ledger.gate import Gate
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.manifest import Manifest
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import Plan, Query, Retrieval
from orthanc_ledger.spool import CONFLICTS

DAY_S = 86_400
RESEARCH = Peer("RESEARCH1", "research", "ResearchMSP", host="127.0.0.1", port=1)
SIBLING = Peer("RESEARCH2", "research", "ResearchMSP", host="127.0.0.1", port=2)
FOREIGN = Peer("FOREIGN1", "research", "ForeignMSP", host="127.0.0.1", port=3)
VIEWER = Peer("VIEWER", "clinical", host="127.0.0.1", port=4)
MR = "1.2.840.10008.5.1.4.1.1.4"


@dataclass
class World:
    """A node, its clock moved by hand, and one study of three MR slices that is anchored."""

    node: Node
    folder: Path
    study_uid: str
    sop_uids: list[str]
    later_s: int = 0
    _ledgers: dict[tuple[str, str], Ledger] = field(default_factory=dict, init=False)

    def clock(self) -> int:
        return system_clock() + self.later_s

    def ledger(self, who: str, kind: str = "person") -> Ledger:
        if (who, kind) not in self._ledgers:
            self._ledgers[who, kind] = ledger_of(self.node, who, kind, self.clock)
        return self._ledgers[who, kind]

    @property
    def gate(self) -> Gate:
        return self.gate_by(self.ledger("owner", "node"))

    def gate_by(self, ledger: Ledger) -> Gate:
        node = self.node
        parts = ledger, node.index, node.keyring, node.manifests, node.datasets, node.content
        return Gate(*parts, node.rolled_back, self.clock)

    @property
    def retrieval(self) -> Retrieval:
        return retrieval_of(self.node, self.gate)

    def add_study(self, number: int) -> str:
        """Another study of one slice, anchored; its UID."""
        study_uid, sop_uid = f"1.2.826.0.1.3680043.10.2.{number}", f"1.2.826.0.1.3680043.10.3.{number}"
        series_uid = f"1.2.826.0.1.3680043.10.4.{number}"
        store(self.node, variant(StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid, SOPInstanceUID=sop_uid))
        drain(self.node)
        return study_uid

    def sop_uids_of(self, *study_uids: str) -> set[str]:
        return {row.sop_uid for row in self.node.index.select(studies=study_uids)}

    def register(self, *study_uids: str, id: bytes = b"d" * 16, version: int = 1) -> dict[str, Any]:
        """Register studies as a dataset; what a request names it by."""
        studies = StudyList.of(self.node.keyring.ensure_study(study_uid).token for study_uid in study_uids)
        descriptor = encode_descriptor(id=id, version=version, salt=bytes(32), counts={}, duo=[], criteria={})
        digest = self.node.datasets.keep(descriptor, studies)
        dataset = {"id": id, "version": version, "root": studies.root, "count": len(studies)}
        self.ledger("owner").submit("RegisterDataset", {**dataset, "descriptorDigest": digest, "duo": []})
        return {"studies": None, "dataset": id, "version": version}

    def request(self, **changes: Any) -> bytes:
        """Ask for the study as RESEARCH1, or for what ``changes`` say (None: left out); the request's id."""
        self.ledger("research").submit("RegisterNode", {"aeTitle": "RESEARCH1", "role": "research", "certDigests": []})
        node = {"organisation": "ResearchMSP", "aeTitle": "RESEARCH1"}
        self.ledger("custodian").submit("ConfirmNode", {"node": node, "version": 1})
        study = self.node.keyring.ensure_study(self.study_uid)
        asked = {
            "studies": [study.token],
            "sopClasses": IMAGES,
            "duo": ["DUO:0000042"],
            "days": 30,
            "node": node,
            "release": "identified",
            "future": False,
            "descriptionDigest": bytes(32),
        }
        args = {name: value for name, value in {**asked, **changes}.items() if value is not None}
        committed = self.ledger("research").submit("RequestAccess", args, secrets.token_bytes(16))
        return bytes(committed.result["id"])

    def approve(self, request: bytes, *roles: str, days: int = 30, release: str = "identified") -> None:
        for role in roles:
            until = self.clock() + days * DAY_S
            self.ledger(role).submit("Approve", {"id": request, "until": until, "release": release})

    def logged(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Releases on the ledger with their outcomes, in their order."""
        ledger = self.ledger("owner")
        releases = [
            row["result"]["release"] for row in all_rows(ledger, "Audit", {}) if row["function"] == "LogRelease"
        ]
        return [(_record(ledger, "release", each), _record(ledger, "outcome", each)) for each in releases]

    def plan(self, recipient: Peer = RESEARCH, asker: Peer | None = None) -> Plan:
        return self.retrieval.plan(asker or recipient, recipient, "STUDY", Query(studies=(self.study_uid,)))

    def seen(self, peer: Peer = RESEARCH) -> set[str]:
        """Studies that C-FIND shows."""
        found = Catalogue(self.node.index, self.gate).find(peer, "STUDY", Query(), {}, combined=False)
        return {match["StudyInstanceUID"] for match in found}


def retrieval_of(node: Node, gate: Gate) -> Retrieval:
    """A node's retrievals, decided by this gate."""
    return Retrieval(node.index, node.near_library, node.library, gate, node.outbox)


def _record(ledger: Ledger, kind: str, id: bytes) -> dict[str, Any]:
    """What is kept under a key that is written once."""
    (written,) = ledger.query("HistoryOf", {"key": f"{kind}/{id.hex()}"})
    value: dict[str, Any] = written["value"]
    return value


def exits(world: World, recipient: Peer = RESEARCH) -> set[str]:
    """SOP Instance UIDs a recipient may get by any retrieve: every level, by UID or by patient, asked by itself or
    by others.
    """
    instances = world.node.index.select()
    patients = {attributes["PatientID"] for _, _, attributes in world.node.index.studies()}
    queries = [("PATIENT", Query(patient_ids=tuple(patients))), ("STUDY", Query(studies=(world.study_uid, "1.2.3")))]
    for study_uid in {row.study_uid for row in instances}:
        series = {row.series_uid for row in instances if row.study_uid == study_uid}
        queries.append(("STUDY", Query(studies=(study_uid,))))
        queries.append(("SERIES", Query(studies=(study_uid,), series=tuple(series))))
    queries.append(("IMAGE", Query(instances=tuple(row.sop_uid for row in instances))))
    found: set[str] = set()
    for level, query in queries:
        for asker in (recipient, VIEWER):
            plan = world.retrieval.plan(asker, recipient, level, query)  # type: ignore[arg-type]
            found |= {item.sop_instance for item in plan.items}
            plan.close()
    return found


def anchor_conflict(world: World, **changes: Any) -> Manifest:
    """Anchor what waits in the conflict queue as it is, as an insider could; ``changes`` of the anchor's arguments."""
    node = world.node
    name = node.spool.names(CONFLICTS)[0]
    with node.spool.open(name, CONFLICTS) as unit:
        instance, _ = describe(unit, name)
    preparer = Preparer(node.spool, node.keyring, node.content, between=lambda: None)
    prepared, _ = preparer.prepare(world.study_uid, 7, [instance], CONFLICTS)
    assert prepared is not None
    world.ledger("owner", "node").submit("Anchor", anchoring_of(prepared.manifest, **changes))
    return prepared.manifest


def make_world(folder: Path, **overrides: Any) -> World:
    """One study of three MR slices that is anchored; ``overrides`` as for `make_node`."""
    node = make_node(folder, **overrides)
    slices = [variant(SOPInstanceUID=f"1.2.826.0.1.3680043.10.1.{n}", InstanceNumber=str(n)) for n in (1, 2, 3)]
    for ds in slices:
        store(node, ds)
    drain(node)
    return World(node, folder, slices[0].StudyInstanceUID, [ds.SOPInstanceUID for ds in slices])
