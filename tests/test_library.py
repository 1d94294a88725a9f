"""Opening what this node holds: nothing that differs leaves, and nothing leaves unalarmed."""

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from node_make import drain, make_node, store, variant

from orthanc_ledger import verify
from orthanc_ledger.assemble import Node
from orthanc_ledger.content.cid import LARGEST, cid_of
from orthanc_ledger.errors import ContentAway, IntegrityError
from orthanc_ledger.index import Instance
from orthanc_ledger.instance import open_instance
from orthanc_ledger.verify import open_verified


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = make_node(tmp_path)
    for n in (1, 2):
        store(made, variant(SOPInstanceUID=f"1.2.826.0.1.3680043.10.1.{n}"))
    drain(made)
    return made


def instances(node: Node) -> list[Instance]:
    return node.index.select()


def stored_file(node: Node, cid: str | None) -> Path:
    return next((node.config.data_dir / "objects").rglob(str(cid)))


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.chmod(0o600)
    path.write_bytes(change(path.read_bytes()))


def flip(position: int) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flip(0), flip(5000), flip(-1), lambda raw: raw[:-1], lambda raw: raw + b"\0", lambda raw: b""],
    ids=["first byte", "middle", "last byte", "cut", "longer", "empty"],
)
@pytest.mark.parametrize("in_memory", [True, False], ids=["small", "streamed"])
def test_a_damaged_object_is_withheld_alarmed_and_reported_and_its_neighbour_leaves(
    node: Node, damage: Callable[[bytes], bytes], in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "IN_MEMORY", (1 << 24) if in_memory else 0)
    bad, good = instances(node)
    rewrite(stored_file(node, bad.object), lambda raw: flip(len(raw) - 1)(raw) if damage(raw) == raw else damage(raw))
    with pytest.raises(IntegrityError, match="withheld"), node.library.open(bad):
        pass
    with node.library.open(good) as data_set:
        assert len(data_set.read()) == good.size
    assert [alarm.claim for alarm in node.outbox.alarms()] == [bad.claim]
    (call,) = node.outbox.posted()
    assert (call.function, call.args["manifestCid"], len(call.args["observed"])) == ("FlagTampered", bad.manifest, 32)
    assert "n" not in call.args, "the ledger knows the number"
    with pytest.raises(IntegrityError), node.library.open(bad):
        pass
    assert len(node.outbox.posted()) == 1


def test_a_damaged_object_is_reported_again_once_the_ledger_had_the_first_report(node: Node) -> None:
    """Whether a flag of it still stands, or was resolved since, the ledger says when this one is submitted."""
    bad, _ = instances(node)
    stored_file(node, bad.object).unlink()
    for _ in range(2):
        with pytest.raises(IntegrityError), node.library.open(bad):
            pass
        (call,) = node.outbox.posted()
        node.outbox.done(call)


@pytest.mark.parametrize("in_memory", [True, False], ids=["small", "streamed"])
def test_neither_another_data_set_nor_other_sealed_bytes_than_recorded_are_opened(
    node: Node, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either with all else as it must be: as who has its keys might."""
    monkeypatch.setattr(verify, "IN_MEMORY", (1 << 24) if in_memory else 0)
    instance, _ = instances(node)
    study = node.keyring.ensure_study(instance.study_uid)
    [record, _] = node.manifests.read(str(instance.manifest), study.token).records
    _, key_id = node.manifests.record(str(instance.manifest), study.token, record.instance)
    key = node.keyring.batch_key(key_id)
    with open_verified(record, study, key, node.content):
        pass
    other = replace(record, digest=bytes(len(record.digest)))
    with pytest.raises(IntegrityError, match="differs from the manifest's digest"):
        verify.verify(other, study, key, node.content)

    class Content:
        def open(self, _cid: str, _size: int) -> BinaryIO:
            return node.content.open(record.object)

    elsewhere = replace(record, object=cid_of(io.BytesIO(b"other sealed bytes")))
    with pytest.raises(IntegrityError, match=elsewhere.object):
        verify.verify(elsewhere, study, key, Content())


def test_a_missing_object_is_withheld_alarmed_and_reported(node: Node) -> None:
    gone, _ = instances(node)
    stored_file(node, gone.object).unlink()
    with pytest.raises(IntegrityError, match="withheld"), node.library.open(gone):
        pass
    (call,) = node.outbox.posted()
    assert (call.function, call.args["observed"]) == ("FlagTampered", None)


def test_an_object_put_in_anothers_place_is_withheld(node: Node) -> None:
    first, second = instances(node)
    rewrite(stored_file(node, first.object), lambda _: stored_file(node, second.object).read_bytes())
    with pytest.raises(IntegrityError), node.library.open(first):
        pass


def test_a_damaged_manifest_withholds_all_of_it(node: Node) -> None:
    first, _ = instances(node)
    rewrite(stored_file(node, first.manifest), flip(40))
    fresh = Node(node.config)
    for instance in instances(fresh):
        with pytest.raises(IntegrityError), fresh.library.open(instance):
            pass


def test_a_waiting_object_changed_on_disk_is_withheld_and_alarmed(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    store(node, variant())
    node.anchorer().take_in()
    (waiting,) = instances(node)
    rewrite(node.spool.folder / "inbox" / waiting.spool_name, flip(-1000))
    with pytest.raises(IntegrityError), node.library.open(waiting):
        pass
    assert [alarm.kind for alarm in node.outbox.alarms()] == ["integrity"]


def test_a_waiting_object_that_cannot_be_read_keeps_no_other_back_and_is_alarmed_while_it_is_so(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    for n in (1, 2):
        store(node, variant(SOPInstanceUID=f"1.2.826.0.1.3680043.10.1.{n}"))
    anchorer = node.anchorer()
    anchorer.take_in()
    bad, good = instances(node)
    path = node.spool.folder / "inbox" / bad.spool_name
    path.rename(tmp_path / "kept")
    path.mkdir()  # read(2) fails, as it does on a bad sector
    with pytest.raises(ContentAway, match="cannot be read"), node.library.open(bad):
        pass
    with node.library.open(good) as data_set:
        assert len(data_set.read()) == good.size
    drain(node, anchorer)
    assert [alarm.kind for alarm in node.outbox.alarms()] == ["batch failed"]
    path.rmdir()
    (tmp_path / "kept").rename(path)
    drain(node)
    assert node.outbox.alarms() == []


def test_an_object_anchored_since_the_index_was_read_is_served_all_the_same(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    store(node, variant())
    anchorer = node.anchorer()
    anchorer.take_in()
    (waiting,) = instances(node)
    drain(node, anchorer)
    with node.library.open(waiting) as data_set:
        assert len(data_set.read()) == waiting.size


def test_a_large_object_changed_between_the_two_passes_never_comes_whole(
    tmp_path: Path,
) -> None:
    node = make_node(tmp_path)
    large = variant(NumberOfFrames="2400")
    large.PixelData *= 2400
    store(node, large)
    drain(node)
    (bad,) = instances(node)
    assert bad.size > verify.IN_MEMORY
    path = stored_file(node, bad.object)
    with node.library.open(bad) as data_set:
        descriptor = os.open(path, os.O_WRONLY)
        os.pwrite(descriptor, b"\0\0\0\0", path.stat().st_size // 2)
        os.close(descriptor)
        with pytest.raises(IntegrityError):
            data_set.read()


def anchor_of(node: Node) -> dict[str, Any]:
    study = node.keyring.ensure_study(instances(node)[0].study_uid)
    [anchor] = node.ledger.query("AnchorsOfStudy", {"study": study.token})
    return dict(anchor)


def test_check_manifest_says_of_each_object_whether_it_is_what_was_anchored(node: Node) -> None:
    bad, good = instances(node)
    rewrite(stored_file(node, bad.object), flip(5000))
    checked = list(node.library.check_manifest(bad.study_uid, anchor_of(node)))
    faults = {row.record.object: type(row.fault) for row in checked}
    assert faults == {bad.object: IntegrityError, good.object: type(None)}


@pytest.mark.parametrize("differs", [{"root": bytes(32)}, {"count": 3}, {"study": bytes(16)}], ids=str)
def test_a_manifest_that_is_not_the_anchored_one_is_not_used(node: Node, differs: dict[str, Any]) -> None:
    anchor = {**anchor_of(node), **differs}
    with pytest.raises(IntegrityError):
        node.manifests.anchored(anchor)
    with pytest.raises(IntegrityError):
        node.library.check_manifest(instances(node)[0].study_uid, anchor)


def test_an_anchors_manifest_is_read_from_the_store_each_time(node: Node) -> None:
    anchor = anchor_of(node)
    node.manifests.read(anchor["manifestCid"], anchor["study"])
    node.manifests.anchored(anchor, anew=True)
    rewrite(stored_file(node, anchor["manifestCid"]), flip(40))
    with pytest.raises(IntegrityError):
        node.manifests.anchored(anchor, anew=True)


def test_what_is_served_parses_to_the_instance_that_was_asked_for(node: Node) -> None:
    first, _ = instances(node)
    study = node.keyring.ensure_study(first.study_uid)
    manifest = node.manifests.read(str(first.manifest), study.token)
    record = next(record for record in manifest.records if record.object == first.object)
    key = node.keyring.batch_key(manifest.key_id)
    with open_verified(record, study, key, node.content) as (_, unit):
        unit.seek(unit.tell() - first_offset(unit))
        assert open_instance(unit).sop_instance_uid == first.sop_uid


def test_no_more_is_read_into_memory_than_the_record_says(node: Node) -> None:
    """A hospital may write what it likes into the records that a research centre reads."""
    first, _ = instances(node)
    study = node.keyring.ensure_study(first.study_uid)
    manifest = node.manifests.read(str(first.manifest), study.token)
    record = replace(manifest.records[0], sealed_size=1000)
    taken = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            taken.append(super().read(size))
            return taken[-1]

    class Content:
        def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
            assert size == 1000
            with node.content.open(cid) as stored:
                return Counted(stored.read())

    with pytest.raises(IntegrityError), open_verified(record, study, bytes(32), Content()):
        pass
    assert sum(map(len, taken)) == 1001


def first_offset(unit: object) -> int:
    """Bytes from the Part 10 file's start to its data set, where the unit stands: 132 + 12 + the file meta's length."""
    at = unit.tell()  # type: ignore[attr-defined]
    for size in range(144, 2000):
        unit.seek(at - size + 128)  # type: ignore[attr-defined]
        if unit.read(4) == b"DICM":  # type: ignore[attr-defined]
            unit.seek(at)  # type: ignore[attr-defined]
            return size
    raise AssertionError("no Part 10 file before the data set")
