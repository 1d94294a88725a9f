"""A node that holds thousands of small anchored objects, made without parsing each: for tests that read all of them."""

import hashlib
import io
from pathlib import Path

import pytest

from orthanc_ledger import manifest, tokens
from orthanc_ledger.arrival import Arrival, encode_head
from orthanc_ledger.assemble import Node
from orthanc_ledger.attributes import Attributes
from orthanc_ledger.batch import waiting_row
from orthanc_ledger.content import local
from orthanc_ledger.index import Instance
from orthanc_ledger.manifest import Record
from orthanc_ledger.seal import seal

STUDY = "1.2.826.0.1.3680043.10.7"
DATA_SET_BYTES = 400


def hold(node: Node, count: int, batches: int = 1, study_uid: str = STUDY) -> None:
    """Have so many objects of a study, in so many batches of one size, sealed, indexed and anchored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "sync", lambda path: None)  # these need not survive the loss of power
        for seq in range(batches):
            _prepare(node, study_uid, seq, [f"{study_uid}.{seq}.{n}" for n in range(count // batches)])
    node.anchorer().submit()


def place(node: Node, cid: str | None) -> Path:
    """The file of an object or block."""
    [found] = (node.config.data_dir / "objects").glob(f"*/{str(cid)[-2:]}/{cid}")
    return found


def _prepare(node: Node, study_uid: str, seq: int, sop_uids: list[str]) -> None:
    study = node.keyring.ensure_study(study_uid)
    key = node.keyring.new_batch(study_uid)
    records: dict[str, Record] = {}
    instances: list[Instance] = []
    with node.content.begin() as writer:
        for sop_uid in sop_uids:
            data_set = hashlib.shake_256(sop_uid.encode()).digest(DATA_SET_BYTES)
            arrival = _arrival(sop_uid, hashlib.sha256(data_set).digest())
            unit = encode_head(arrival, "dicom://192.0.2.1:11112") + data_set
            token = tokens.instance_token(study.k_study, sop_uid)
            sealing = (tokens.seal_key(key.key, token), study.token, token, len(unit))
            stored = writer.add_object(lambda sink, unit=unit, sealing=sealing: seal(io.BytesIO(unit), sink, *sealing))
            claim = tokens.claim_name(node.keyring.k_lookup, sop_uid)
            records[claim] = Record(
                instance=token,
                content_id=bytes(32),
                object=stored.cid,
                sealed_size=stored.size,
                plain_size=len(unit),
                digest=tokens.keyed_digest(tokens.salt_key(key.key, token), arrival.sha256),
                fingerprint=bytes(32),
                pixel_root=bytes(32),
                pixel_leaves=0,
                metadata_root=bytes(32),
                metadata_leaves=0,
                pixel_form="none",
                decoder=None,
                decode_error=None,
                origin=arrival.origin,
            )
            instances.append(waiting_row(arrival, claim, len(data_set), study_uid, f"{study_uid}.1"))
        built = manifest.build(study.token, seq, key.key_id, records.values())
        for block in built.blocks.values():
            writer.add_block(block)
        writer.commit()
    node.index.enter((instance, Attributes({"PatientID": "P"}, {}, {})) for instance in instances)
    node.index.keep_prepared(study_uid, built, {claim: record.object for claim, record in records.items()})


def _arrival(sop_uid: str, sha256: bytes) -> Arrival:
    return Arrival(
        received_us=1_800_000_000_000_000,
        calling_ae="MRI1",
        called_ae="NODE",
        peer="dicom://192.0.2.10:104",
        association=bytes(16),
        tls=None,
        origin="addressed-ae",
        sop_class="1.2.840.10008.5.1.4.1.1.4",
        sop_instance=sop_uid,
        transfer_syntax="1.2.840.10008.1.2.1",
        sha256=sha256,
    )
