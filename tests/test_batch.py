"""Preparing a batch: what is in the store afterwards is what arrived, and the manifest says so."""

import io
from pathlib import Path
from typing import Any

import pytest
from node_make import make_node, real_file, store, variant

from orthanc_ledger import batch as batch_module
from orthanc_ledger.assemble import Node
from orthanc_ledger.batch import Prepared, Preparer, Rejected
from orthanc_ledger.content.local import LocalBatch
from orthanc_ledger.errors import ContentAway, IntegrityError
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.index import Instance
from orthanc_ledger.instance import open_instance
from orthanc_ledger.spool import INBOX
from orthanc_ledger.verify import open_verified


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = make_node(tmp_path)
    for number in range(3):
        store(node, variant(SOPInstanceUID=f"1.2.826.0.{number}"))
    node.anchorer().take_in()
    return node


def prepare_all(node: Node, between: Any = lambda: None) -> tuple[Prepared | None, list[Rejected]]:
    instances: list[Instance] = node.index.select()
    preparer = Preparer(node.spool, node.keyring, node.content, between)
    return preparer.prepare(instances[0].study_uid, 4, instances, INBOX)


def stored_files(node: Node) -> list[Path]:
    return [path for path in (node.config.data_dir / "objects").rglob("*") if path.is_file()]


def test_manifest_in_the_store_names_objects_that_open_to_what_arrived(node: Node) -> None:
    prepared, rejected = prepare_all(node)
    assert prepared is not None
    assert rejected == []
    instances = node.index.select()
    study = node.keyring.ensure_study(instances[0].study_uid)
    manifest = node.manifests.read(prepared.manifest.cid, study.token)
    assert (manifest.seq, manifest.count) == (4, 3)
    key = node.keyring.batch_key(manifest.key_id)
    records = {record.object: record for record in manifest.records}
    for instance in instances:
        record = records[prepared.objects[instance.claim]]
        unit_size = (node.spool.folder / INBOX / instance.spool_name).stat().st_size
        assert (record.origin, record.plain_size) == ("addressed-ae", unit_size)
        with open_verified(record, study, key, node.content) as opened, node.spool.open(instance.spool_name) as unit:
            assert unit.read().endswith(opened[1].read())


def test_fingerprint_of_a_record_is_that_of_the_file_that_was_sent(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    store(node, real_file())
    node.anchorer().take_in()
    prepared, _ = prepare_all(node)
    assert prepared is not None
    [record] = prepared.manifest.records
    [sent] = fingerprints(open_instance(io.BytesIO(real_file().read_bytes())), (None,))
    assert (record.pixel_form, record.pixel_leaves, record.metadata_leaves) == (
        sent.pixel_form,
        sent.pixel_leaves,
        sent.metadata_leaves,
    )
    assert record.fingerprint != sent.fingerprint, "salted"


def test_preparing_again_gives_other_keys_and_cids(node: Node) -> None:
    first, second = prepare_all(node)[0], prepare_all(node)[0]
    assert first is not None
    assert second is not None
    assert not set(first.objects.values()) & set(second.objects.values())
    assert first.manifest.key_id != second.manifest.key_id


def test_between_is_called_after_each_object_is_sealed_and_verified(node: Node) -> None:
    calls: list[int] = []
    prepare_all(node, between=lambda: calls.append(len(stored_files(node))))
    assert len(calls) == 3


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_unit_that_is_gone_is_rejected_and_the_others_are_prepared(node: Node, gone: int) -> None:
    instance = node.index.select()[gone]
    node.spool.remove(instance.spool_name)
    prepared, rejected = prepare_all(node)
    assert prepared is not None
    assert prepared.manifest.count == 2
    assert [item.instance.claim for item in rejected] == [instance.claim]


def test_nothing_is_stored_when_no_object_is_left(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in node.spool.names():
        node.spool.remove(name)
    prepared, rejected = prepare_all(node)
    assert (prepared, len(rejected), stored_files(node)) == (None, 3, [])


def test_store_that_fails_in_the_middle_leaves_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    seal, calls = batch_module.seal, iter(range(9))

    def fail_on_second(*args: Any) -> None:
        if next(calls) == 1:
            raise ContentAway("the disk is full")
        seal(*args)

    monkeypatch.setattr(batch_module, "seal", fail_on_second)
    with pytest.raises(ContentAway):
        prepare_all(node)
    assert stored_files(node) == []


def test_object_that_reads_back_otherwise_is_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    open_staged = LocalBatch.open

    def open_damaged(batch: LocalBatch, cid: str, size: int) -> io.BytesIO:
        with open_staged(batch, cid, size) as sealed:
            return io.BytesIO(sealed.read()[:-1])

    monkeypatch.setattr(LocalBatch, "open", open_damaged)
    with pytest.raises(IntegrityError):
        prepare_all(node)


def test_a_full_disk_while_decoding_sends_nothing_to_quarantine(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch_module, "fingerprints", full)
    with pytest.raises(OSError, match="No space"):
        prepare_all(node)
