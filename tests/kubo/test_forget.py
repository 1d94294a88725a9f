"""Erasure and retention: what no place holds any more, and what is dropped near by once others hold it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.content.kubo.places import block_path
from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.errors import ContentAway, NotHeld
from tests.erase_make import DATE, PATIENT, PATIENT_ID, STUDY, carry_out, confirm, no_grace, slice_of
from tests.kubo.live import Kubos, Node
from tests.kubo.test_store import Batch, flip, fresh, holds, leaves, lose, pinned, store_of
from tests.kubo.world import make_hospital
from tests.node_make import drain, store
from tests.test_content import get

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

DAY_US = 86_400_000_000


@pytest.fixture
def two(tmp_path: Path, kubos: Kubos) -> KuboStore:
    return store_of(tmp_path, kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital"))


def blocks_of(node: Node, batch: Batch) -> list[Path]:
    cids = {*batch.all_cids, *(leaf for cid in batch.cids for leaf in leaves(node, cid))}
    return [node.repo / block_path(cid) for cid in cids]


def now_us(store: KuboStore, batch: Batch, days: float) -> int:
    """So many days after a batch was written."""
    written_us = store.near.written_us(batch.cids[0])
    assert written_us is not None
    return written_us + int(days * DAY_US)


class TestForget:
    def test_no_place_holds_any_block_of_it_and_the_rest_is_whole(
        self, two: KuboStore, kubos: Kubos, tmp_path: Path
    ) -> None:
        erased, kept = fresh().put(two), fresh().put(two)
        nodes = [kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")]
        gone = [path for node in nodes for path in blocks_of(node, erased)]
        two.forget([erased.root], erased.all_cids)
        two.forget([erased.root], erased.all_cids)
        assert [path for path in gone if path.exists()] == []
        assert [path for cid in erased.all_cids for path in tmp_path.rglob(f"*{cid}*")] == []
        for node in nodes:
            assert erased.root not in pinned(node)
            assert kept.root in pinned(node)
        assert kept.is_whole(two)
        with pytest.raises(NotHeld):
            two.repair(erased.cids[0], erased.root)

    def test_its_deletion_is_made_durable_before_the_local_copies_go(
        self, two: KuboStore, kubos: Kubos, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch, synced = fresh(1000).put(two), list[bool]()
        nodes = [kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")]
        monkeypatch.setattr(os, "sync", lambda: synced.append(any(holds(node, batch.cids[0]) for node in nodes)))
        monkeypatch.setattr(two.near, "forget", lambda *_: synced.append(True))
        two.forget([batch.root], batch.all_cids)
        assert synced == [False, True]

    def test_nothing_is_called_forgotten_while_a_node_is_away(self, two: KuboStore, kubos: Kubos) -> None:
        batch = fresh(1000).put(two)
        kubos.kill("kubo1.hospital")
        try:
            with pytest.raises(ContentAway, match=r"kubo1\.hospital"):
                two.forget([batch.root], batch.all_cids)
        finally:
            kubos.start("kubo1.hospital")
            kubos.wait_connected()
        two.forget([batch.root], batch.all_cids)
        assert not holds(kubos.node("kubo1.hospital"), batch.cids[0])

    def test_what_is_pinned_twice_is_not_called_forgotten(self, two: KuboStore, kubos: Kubos) -> None:
        batch = fresh(1000).put(two)
        node = kubos.node("kubo1.hospital")
        node.call("pin/add", batch.cids[0])
        with pytest.raises(ContentAway, match=r"kubo1\.hospital: 1 blocks are still there"):
            two.forget([batch.root], batch.all_cids)
        node.call("pin/rm", batch.cids[0])
        two.forget([batch.root], batch.all_cids)
        assert not holds(node, batch.cids[0])

    def test_what_another_root_holds_is_let_be_and_told(
        self, two: KuboStore, kubos: Kubos, caplog: pytest.LogCaptureFixture
    ) -> None:
        erased = fresh().put(two)
        other = Batch((erased.objects[1], b"and one of its own")).put(two)
        gone = {*erased.all_cids} - {*other.all_cids}
        two.forget([erased.root], erased.all_cids)
        assert len(caplog.records) == 2
        for node in (kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")):
            assert f"{node.name}: 1 blocks stay: {erased.cids[1]} is indirect through {other.root}" in caplog.text
            assert [cid for cid in gone if holds(node, cid)] == []
        assert get(two.near, erased.cids[1]) == erased.objects[1]
        assert other.is_whole(two)
        two.forget([other.root], other.all_cids)
        assert len(caplog.records) == 2

    @pytest.mark.parametrize("damage", [flip, lose])
    def test_damage_elsewhere_is_repaired_first(
        self, two: KuboStore, kubos: Kubos, damage: Callable[[Node, str], None]
    ) -> None:
        """Kubo collects nothing while it cannot read what other pins hold."""
        erased, kept = fresh().put(two), fresh().put(two)
        node = kubos.node("kubo0.hospital")
        for cid in (kept.root, block_cid(kept.shard), kept.cids[1]):
            damage(node, cid)
        two.forget([erased.root], erased.all_cids)
        assert not holds(node, erased.cids[0])
        assert kept.is_whole(two)

    def test_damage_that_nobody_can_repair_is_said(self, two: KuboStore, kubos: Kubos, tmp_path: Path) -> None:
        erased, lost = fresh(1000).put(two), fresh(1000).put(two)
        for node in (kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")):
            lose(node, lost.root)
        next((tmp_path / "objects").rglob(lost.root)).unlink()
        with pytest.raises(ContentAway, match=rf"{lost.root}.*cannot be repaired"):
            two.forget([erased.root], erased.all_cids)
        lost.put(two)
        two.forget([erased.root], erased.all_cids)

    def test_a_pin_that_nobody_knows_of_goes_too(self, two: KuboStore, kubos: Kubos, tmp_path: Path) -> None:
        batch = fresh(1000).put(two)
        (tmp_path / "objects" / "unfinished" / batch.root).touch()  # it died before it said so
        two.forget([batch.root], batch.all_cids)
        assert os.listdir(tmp_path / "objects" / "unfinished") == []


def test_of_a_study_that_a_hospital_erased_no_file_of_its_node_or_its_kubo_nodes_holds_anything(
    kubos: Kubos, tmp_path: Path
) -> None:
    """Files as they lie there: blocks, Kubo's database of pins, logs; not its own part of the ledger."""
    nodes = [kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")]
    node = make_hospital(tmp_path, *nodes).node
    no_grace(node)
    for number in (1, 2):
        store(node, slice_of(STUDY, number))
    drain(node)
    token = node.keyring.ensure_study(STUDY).token
    objects = [str(row.object) for row in node.index.select(studies=[STUDY])]
    marks = [STUDY.encode(), PATIENT.encode(), PATIENT_ID.encode(), DATE.encode()]
    for cid in objects:
        with node.content.open(cid) as sealed:
            marks.append(sealed.read()[1000:1064])
    places = [tmp_path, *(each.repo for each in nodes)]

    def found() -> set[tuple[str, bytes]]:
        files = [path for place in places for path in place.rglob("*") if path.is_file()]
        return {(path.name, mark) for path in files for mark in marks if mark in path.read_bytes()}

    assert {mark for _, mark in found()} == {*marks}
    confirm(node, token)
    carry_out(node)
    assert found() == set()
    assert [cid for cid in objects for each in nodes if holds(each, cid)] == []
    assert token not in node.keyring.study_tokens()


class TestRetention:
    def test_what_is_old_enough_is_dropped_near_by_and_opened_through_kubo(self, kubos: Kubos, tmp_path: Path) -> None:
        store = store_of(tmp_path, kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital"), keep_days=30)
        batch = fresh().put(store)
        store.expire(batch.root, batch.cids, now_us(store, batch, 29.9))
        assert get(store.near, batch.cids[0]) == batch.objects[0]
        later_us = now_us(store, batch, 30.1)
        store.expire(batch.root, batch.cids, later_us)
        for cid in batch.cids:
            with pytest.raises(NotHeld):
                store.near.open(cid)
        assert batch.is_whole(store)
        assert store.near.get_block(batch.root) == batch.manifest
        assert store.repair(batch.cids[0], batch.root) == []  # it is not missed
        store.expire(batch.root, batch.cids, later_us)

    def test_a_node_s_copy_is_healed_all_the_same(self, kubos: Kubos, tmp_path: Path) -> None:
        first, second = kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")
        store = store_of(tmp_path, first, second, keep_days=30)
        batch = fresh().put(store)
        store.expire(batch.root, batch.cids, now_us(store, batch, 31))
        flip(first, batch.cids[0])
        assert store.repair(batch.cids[0], batch.root) == ["kubo0.hospital"]
        assert store.near.is_dropped(batch.cids[0])

    @pytest.mark.parametrize("lack", ["corrupt", "missing", "not pinned", "away"])
    def test_nothing_is_dropped_that_too_few_hold(self, kubos: Kubos, tmp_path: Path, lack: str) -> None:
        first, second = kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")
        store = store_of(tmp_path, first, second, keep_days=30)
        batch = fresh(1000, 1000).put(store)
        later_us = now_us(store, batch, 31)
        match lack:
            case "corrupt":
                flip(second, batch.cids[0])
            case "missing":
                lose(second, batch.cids[0])
            case "not pinned":
                second.call("pin/rm", batch.root)
            case "away":
                kubos.kill("kubo1.hospital")
        try:
            store.expire(batch.root, batch.cids, later_us)
        finally:
            if lack == "away":
                kubos.start("kubo1.hospital")
                kubos.wait_connected()
        assert not store.near.is_dropped(batch.cids[0])
        assert store.near.is_dropped(batch.cids[1]) == (lack in ("corrupt", "missing"))

    def test_without_a_retention_all_stays(self, two: KuboStore) -> None:
        batch = fresh(1000).put(two)
        two.expire(batch.root, batch.cids, now_us(two, batch, 100_000))
        assert get(two.near, batch.cids[0]) == batch.objects[0]
