"""A study to be erased, in every place where a node keeps something of one; and what of it can still be found."""

import io
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from damage import flip
from node_make import drain, store, variant
from pydicom.dataset import Dataset

from orthanc_ledger import tokens
from orthanc_ledger.arrival import read_head
from orthanc_ledger.assemble import Node
from orthanc_ledger.datasets import StudyList, encode_descriptor
from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.index import Supersession
from orthanc_ledger.ledger import Ledger, open_ledger
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.manifest import Record
from orthanc_ledger.seal import open_sealed
from orthanc_ledger.spool import CONFLICTS, QUARANTINE

STUDY, OTHER = "1.2.826.0.1.3680043.77.1", "1.2.826.0.1.3680043.88.1"
PATIENT, PATIENT_ID, DATE = "Quagga^Zebra^Okapi", "ERASE-4711-ID", "18990817"
_WINDOW = 64


def slice_of(study_uid: str, number: int, **attributes: Any) -> Dataset:
    """A slice with noise for pixels, so that any run of them is its own; its patient is the study's to be erased."""
    series = {"SeriesInstanceUID": f"{study_uid}.5", "SOPInstanceUID": f"{study_uid}.5.{number}"}
    ds = variant(StudyInstanceUID=study_uid, **series)
    ds.PixelData = secrets.token_bytes(len(ds.PixelData))
    if study_uid == STUDY:
        ds.PatientName, ds.PatientID, ds.StudyDate, ds.AcquisitionDate = PATIENT, PATIENT_ID, DATE, DATE
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def ledger_as(node: Node, who: str) -> Ledger:
    """The ledger as a person of an organisation sees it."""
    folder = node.config.data_dir.parent / "organisations" / who / "identities" / "person"
    return open_ledger(node.config.ledger, load_identity(folder))


def no_grace(node: Node) -> None:
    """Erasures may be confirmed as soon as they are asked for."""
    policy = {**node.ledger.query("GetPolicy", {}), "erase_grace_s": 0}
    policy.pop("version", None)
    proposed = ledger_as(node, "owner").submit("ProposePolicy", {"policy": policy}, bytes(16)).result
    ledger_as(node, "custodian").submit("ConfirmPolicy", {"id": proposed["id"]})


def confirm(node: Node, token: bytes) -> None:
    """Have both parties say that a study is to be erased."""
    ledger_as(node, "owner").submit("RequestErase", {"study": token})
    ledger_as(node, "custodian").submit("ConfirmErase", {"study": token})


def carry_out(node: Node) -> None:
    """As the node's processes do, taking turns."""
    eraser, anchorer = node.eraser(), node.anchorer()
    eraser.step()
    drain(node, anchorer)
    eraser.step()


@dataclass(frozen=True)
class Marked:
    """What must not be found of a study: texts and bytes, and ciphertexts that must not open."""

    words: tuple[bytes, ...]
    names: tuple[str, ...]  # of files: claims and CIDs
    token: bytes
    sealed: tuple[tuple[Record, bytes], ...]  # objects
    rows: tuple[tuple[bytes, bytes], ...]  # of the keyring: name, wrapped


def fill(node: Node) -> tuple[Marked, list[Dataset]]:
    """Put a study wherever one can be, another one beside it; the other's slices."""
    no_grace(node)
    first = [slice_of(STUDY, number) for number in (1, 2, 3)]
    others = [slice_of(OTHER, number) for number in (1, 2)]
    for ds in (*first, *others):
        store(node, ds)
    drain(node)
    corrected, conflict = slice_of(STUDY, 1, PatientComments=PATIENT), slice_of(STUDY, 2)
    store(node, corrected)
    drain(node)
    [name] = node.spool.names(CONFLICTS)
    holder = node.index.instance(name.partition(".")[0])
    assert holder is not None
    node.index.keep_supersession(
        Supersession(name, holder.claim, "metadata-corrected", "decided", str(holder.manifest))
    )
    drain(node)
    drain(node)
    second = slice_of(STUDY, 4)
    store(node, second)
    drain(node)  # a batch of its own
    store(node, conflict)
    _damage(node, f"{STUDY}.5.3")
    waiting, unread = slice_of(STUDY, 5), slice_of(STUDY, 6)
    for ds in (unread, waiting):
        store(node, ds)
    anchorer = node.anchorer()
    anchorer.take_in()
    [quarantined] = node.index.select(instances=[unread.SOPInstanceUID])
    anchorer._intake.quarantine(quarantined.spool_name, "as if it could not be read")
    study = node.keyring.ensure_study(STUDY)
    lists = StudyList.of([study.token, node.keyring.ensure_study(OTHER).token])
    descriptor = encode_descriptor(id=b"d" * 16, version=1, salt=bytes(32), counts={}, duo=[], criteria={})
    digest = node.datasets.keep(descriptor, lists)
    named = {"id": b"d" * 16, "version": 1, "root": lists.root, "count": 2, "descriptorDigest": digest, "duo": []}
    ledger_as(node, "owner").submit("RegisterDataset", named)
    assert {alarm.kind for alarm in node.outbox.alarms()} >= {"integrity", "conflict", "quarantine"}
    assert node.spool.names(CONFLICTS)
    assert node.spool.names(QUARANTINE)
    assert len(node.index.batches_of(STUDY)) == 3
    return _marked(node, (*first, corrected, conflict, second, waiting, unread)), others


def found(folder: Path, marked: Marked) -> set[str]:
    """Which files of a folder hold anything of a study, by name and what."""
    traces = set()
    for path in filter(Path.is_file, folder.rglob("*")):
        traces |= {f"{path.name}: its name" for name in marked.names if name in path.name}
        content = path.read_bytes()
        traces |= {f"{path.name}: {word[:40]!r}" for word in marked.words if word in content}
        if not path.name.startswith("ledger.db"):  # which has the manifests' CIDs for good
            traces |= {f"{path.name}: {name}" for name in marked.names if name.encode() in content}
    return traces


def check_gone(node: Node, marked: Marked) -> None:
    """No file of the node holds anything of the study, and nothing in them opens what others may have kept of it."""
    folder = node.config.data_dir.parent
    traces = found(folder, marked)
    assert not traces, traces
    keys = list(_keys(node))
    for name, wrapped in marked.rows:
        assert not any(_opens(AESGCM(key), name, wrapped) for key in keys)
    for record, sealed in marked.sealed:
        assert not any(_unseals(key, marked.token, record, sealed) for key in keys)
    assert marked.token not in node.keyring.study_tokens()


def _marked(node: Node, slices: Iterable[Dataset]) -> Marked:
    study = node.keyring.ensure_study(STUDY)
    words = {STUDY.encode(), PATIENT.encode(), PATIENT_ID.encode(), DATE.encode(), study.k_study}
    for ds in slices:
        pixels = ds.PixelData
        words |= {pixels[at : at + _WINDOW] for at in range(0, len(pixels) - _WINDOW, len(pixels) // 20)}
    with closing(node.keyring._db.connection().cursor()) as db:
        rows = [(b"study" + name, wrapped) for name, wrapped in db.execute("SELECT name, wrapped FROM study")]
        name = tokens.study_row(node.keyring.k_lookup, STUDY)
        batches = db.execute("SELECT key_id, wrapped FROM batch WHERE study = ?", (name,)).fetchall()
    words |= {node.keyring.batch_key(key_id) for key_id, _ in batches} | {node.config.node_key.path.read_bytes()}
    rows = [row for row in rows if row[0] == b"study" + name]
    rows += [(b"batch" + key_id + name, wrapped) for key_id, wrapped in batches]
    sealed, names = [], {tokens.claim_name(node.keyring.k_lookup, ds.SOPInstanceUID) for ds in slices}
    for anchor in node.ledger.query("AnchorsOfStudy", {"study": study.token}):
        names.add(anchor["manifestCid"])
        for record in node.manifests.read(anchor["manifestCid"], study.token).records:
            names.add(record.object)
            with node.content.open(record.object) as file:
                sealed.append((record, file.read()))
                words |= {sealed[-1][1][1000 : 1000 + _WINDOW]}  # nor the ciphertext itself
    return Marked(tuple(words), tuple(names), study.token, tuple(sealed), tuple(rows))


def _keys(node: Node) -> Iterator[bytes]:
    """Every key that can still be had here."""
    yield node.config.node_key.path.read_bytes()
    yield node.keyring.k_lookup
    for (key_id,) in node.keyring._db.rows("SELECT key_id FROM batch"):
        yield node.keyring.batch_key(key_id)


def _opens(aead: AESGCM, name: bytes, wrapped: bytes) -> bool:
    try:
        aead.decrypt(wrapped[:12], wrapped[12:], name)
    except InvalidTag:
        return False
    return True


def _unseals(batch_key: bytes, token: bytes, record: Record, sealed: bytes) -> bool:
    try:
        read_head(open_sealed(io.BytesIO(sealed), tokens.seal_key(batch_key, record.instance), token, record.instance))
    except IntegrityError:
        return False
    return True


def _damage(node: Node, sop_uid: str) -> None:
    """Make one object differ from its anchor and have that told, with nobody to tell the ledger yet."""
    [instance] = node.index.select(instances=[sop_uid])
    [path] = (node.config.data_dir / "objects").rglob(str(instance.object))
    kept = path.read_bytes()
    flip(path)
    try:
        with node.library.open(instance):
            raise AssertionError("damaged, and opened")
    except IntegrityError:
        path.write_bytes(kept)
