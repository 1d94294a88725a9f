"""What is sent to a node whose processes are struck, and what must be true of the node afterwards."""

import io
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from node_make import drain, make_node, open_node, part10, variant
from plain_scu import PlainScu
from pydicom.dataset import Dataset

from orthanc_ledger import tokens
from orthanc_ledger.assemble import Node
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger.fsck import check
from orthanc_ledger.retrieve import Query
from orthanc_ledger.setup_node import CONFIG_NAME
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE, TEMPORARY

MODALITY, WORKSTATION = "MRI1", "VIEWER"
STORED, DUPLICATE = 0x0000, 0x0111
STUDY = "1.2.826.0.1.1"
PATIENT = "Quagga^Zebra"  # of what is anchored: in the clear nowhere but in databases


@dataclass(frozen=True)
class Delivery:
    """One object that is sent, and the answer that settles it."""

    sop_class: str
    sop_instance: str
    data_set: bytes
    answer: int = STORED


_PAUSE = threading.Event()


def _pixels() -> list[bytes]:
    """Some pixels of each object that is anchored."""
    return [each.data_set[-3000:-2936] for each in deliveries()[:2]]


def _delivery(ds: Dataset, answer: int = STORED, cut: int = 0) -> Delivery:
    content = part10(ds)
    data_set = content[open_instance(io.BytesIO(content)).data_set_offset :]
    return Delivery(ds.SOPClassUID, ds.SOPInstanceUID, data_set[: len(data_set) - cut], answer)


@cache
def deliveries() -> tuple[Delivery, ...]:
    """Two objects, the first one again, other content under the UID of the second, and one that breaks off."""

    def made(number: int, patient: str = PATIENT) -> Dataset:
        return variant(SOPInstanceUID=f"{STUDY}.{number}", StudyInstanceUID=STUDY, PatientName=patient)

    first, second, other, broken = made(1), made(2), made(2, "Other^Content"), made(3, "Broken^Off")
    second.PixelData = second.PixelData[::-1]
    other.PixelData = broken.PixelData = bytes(len(first.PixelData))
    return (
        _delivery(first),
        _delivery(second),
        _delivery(first),
        _delivery(other, DUPLICATE),
        _delivery(broken, cut=1000),
    )


def make_template(folder: Path, port: int) -> None:
    """A node with a modality and a workstation that gets all by forwarding, too; its clinical port is ``port``."""
    make_node(folder)
    path = folder / "node" / CONFIG_NAME
    raw = yaml.safe_load(path.read_text())
    raw["clinical"] = {**(raw.get("clinical") or {}), "port": port}
    raw["peers"] = [
        {"ae_title": MODALITY, "role": "modality", "hosts": ["127.0.0.1"]},
        {"ae_title": WORKSTATION, "role": "clinical", "hosts": ["127.0.0.1"], "host": "127.0.0.1", "port": 104},
    ]
    raw |= {"ae_title": "NODE", "spool_reserve_mb": 1, "forward": [WORKSTATION]}
    path.write_text(yaml.safe_dump(raw))


def fresh(template: Path) -> Path:
    """A copy of a node, in the one place for it: the copy before is gone."""
    folder = template.with_name("node")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    return folder


class Sender:
    """A modality that sends the deliveries in order, each until it is settled, and associates anew when it must."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.pending = list(deliveries())
        self.refusals: list[int] = []
        self.lost = 0  # associations

    def send(self, alive: Callable[[], bool], most: int = 2) -> bool:
        """Send while the node is alive, until it refused or lost ``most``; whether all is settled."""
        failures = 0
        while self.pending and failures < most and alive():
            try:
                with PlainScu(self._port, MODALITY, [self.pending[0].sop_class], timeout_s=10) as scu:
                    while self.pending and failures < most:
                        failures += not self._store(scu, self.pending[0])
            except ConnectionRefusedError:  # it does not listen yet, or no more
                _PAUSE.wait(0.005)
            except ConnectionError:
                failures += 1
                self.lost += 1
        return not self.pending

    def _store(self, scu: PlainScu, delivery: Delivery) -> bool:
        answer = scu.store(delivery.sop_class, delivery.sop_instance, delivery.data_set)
        if answer == delivery.answer:
            self.pending.pop(0)
            return True
        self.refusals.append(answer)
        return False


def check_custody(folder: Path) -> None:
    """What the index has can be retrieved. Once an anchorer has drained it, all that was delivered is anchored once,
    queued to be forwarded, and given as it came, or waits for a person with an alarm; ledger and databases are whole,
    and nothing else is left, in the clear or half done.
    """
    node = open_node(folder)
    first, second, _, other, broken = deliveries()
    kept = {each.sop_instance: each.data_set for each in (first, second, broken)}
    assert retrieved(node).items() <= kept.items()
    drain(node)
    assert node.index.counts() == {"anchored": 2, "quarantined": 1}
    study = node.keyring.ensure_study(STUDY)
    anchored: Counter[bytes] = Counter()
    for anchor in node.ledger.query("AnchorsOfStudy", {"study": study.token}):
        checked = list(node.library.check_manifest(STUDY, anchor))
        assert [each.fault for each in checked] == [None] * anchor["count"]
        anchored.update(each.record.instance for each in checked)
    assert anchored == {tokens.instance_token(study.k_study, each.sop_instance): 1 for each in (first, second)}
    queued = Counter(row.claim for row in node.forwards.rows())
    assert queued == {tokens.claim_name(node.keyring.k_lookup, sop_instance): 1 for sop_instance in kept}
    assert retrieved(node) == kept
    check_waits(node, QUARANTINE, broken)
    check_waits(node, CONFLICTS, other)
    check_whole(node)
    check_nothing_left(node)


def retrieved(node: Node) -> dict[str, bytes]:
    """What a workstation gets of the study, by SOP Instance UID."""
    peer = node.config.peer(WORKSTATION)
    assert peer is not None
    plan = node.retrieval.plan(peer, peer, "STUDY", Query(studies=(STUDY,)))
    found = {}
    for item in plan.items:
        with plan.open(item) as data_set:
            found[item.sop_instance] = data_set.read()
    plan.close()
    return found


def check_waits(node: Node, queue: str, delivery: Delivery) -> None:
    """It alone waits in a queue, with an alarm."""
    claim = tokens.claim_name(node.keyring.k_lookup, delivery.sop_instance)
    (name,) = node.spool.names(queue)
    with node.spool.open(name, queue) as unit:
        assert unit.read().endswith(delivery.data_set)
    assert name.startswith(claim)
    kind = {QUARANTINE: "quarantine", CONFLICTS: "conflict"}[queue]
    assert {alarm.claim for alarm in node.outbox.alarms() if alarm.kind == kind} == {claim}


def check_whole(node: Node) -> None:
    """fsck finds nothing, and SQLite finds its files whole."""
    assert check(node.config.data_dir / "ledger.db").findings == ()
    for path in node.config.data_dir.glob("*.db"):
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path.name


def check_nothing_left(node: Node) -> None:
    """Nothing waits, no alarm stands for what is over, no file is temporary or half made, and what is anchored is
    nowhere in the clear.
    """
    data = node.config.data_dir
    assert node.outbox.posted() == []
    assert node.index.unanchored() == []
    assert {alarm.kind for alarm in node.outbox.alarms()} == {"quarantine", "conflict"}
    left = [data / "spool" / INBOX, data / "spool" / TEMPORARY, data / "objects" / "staging"]
    assert [path for folder in left for path in folder.iterdir()] == []
    assert not (data / "decoding").exists()
    for path in filter(Path.is_file, data.rglob("*")):
        content = path.read_bytes()
        assert not any(mark in content for mark in _pixels()), path.name
        assert PATIENT.encode() not in content or ".db" in path.name, path.name
