"""Bad copies are replaced by healthy ones, from wherever there are any, whatever ends the repair."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld
from tests.conftest import ROOT
from tests.kubo.live import Kubos, Node
from tests.kubo.test_store import Batch, flip, fresh, holds, leaves, lose, pinned, store_of
from tests.test_content import get

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

DAMAGES: dict[str, Callable[[Node, str], None]] = {"corrupt": flip, "missing": lose}


@pytest.fixture
def store(tmp_path: Path, hospital: Node) -> KuboStore:
    return store_of(tmp_path, hospital)


@pytest.fixture
def two(tmp_path: Path, kubos: Kubos) -> KuboStore:
    return store_of(tmp_path, kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital"))


@pytest.fixture
def custodian(tmp_path: Path, kubos: Kubos) -> KuboStore:
    """That keeps nothing beside its one node."""
    (tmp_path / "custodian").mkdir()
    return store_of(tmp_path / "custodian", kubos.node("kubo0.custodian"), keep_days=0)


def near_file(tmp_path: Path, cid: str) -> Path:
    return next((tmp_path / "objects").rglob(cid))


def place_of(node: Node, batch: Batch, which: str) -> tuple[str, str]:
    """What is damaged, and of what it is a part that can be asked for."""
    large = batch.cids[1]
    return {
        "object": (batch.cids[0], batch.cids[0]),
        "leaf": (leaves(node, large)[1], large),
        "root of an object": (large, large),
        "shard": (block_cid(batch.shard), block_cid(batch.shard)),
        "manifest": (batch.root, batch.root),
    }[which]


@pytest.mark.parametrize("which", ["object", "leaf", "root of an object", "shard", "manifest"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_block_is_healed_from_the_local_store(store: KuboStore, hospital: Node, which: str, damage: str) -> None:
    batch = fresh().put(store)
    block, asked = place_of(hospital, batch, which)
    DAMAGES[damage](hospital, block)
    with pytest.raises((NotHeld, IntegrityError)):
        hospital_read(store, asked)
    assert store.repair(asked, batch.root) == ["kubo0.hospital"]
    assert batch.is_whole(store)
    assert batch.root in pinned(hospital)
    assert store.repair(asked, batch.root) == []


def hospital_read(store: KuboStore, cid: str) -> None:
    store._places[0].fetch(cid).close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_block_is_healed_from_another_node(two: KuboStore, kubos: Kubos, tmp_path: Path, damage: str) -> None:
    batch = fresh().put(two)
    second = kubos.node("kubo1.hospital")
    DAMAGES[damage](second, leaves(second, batch.cids[1])[2])
    near_file(tmp_path, batch.cids[1]).write_bytes(b"")
    assert two.repair(batch.cids[1], batch.root) == ["near", "kubo1.hospital"]
    assert get(two.near, batch.cids[1]) == batch.objects[1]
    hospital_read(two, batch.cids[1])
    two._places[1].fetch(batch.cids[1]).close()


@pytest.mark.parametrize("damage", ["corrupt", "missing"])
def test_a_near_copy_is_healed_from_kubo(store: KuboStore, tmp_path: Path, damage: str) -> None:
    batch = fresh().put(store)
    for cid in batch.all_cids:
        file = near_file(tmp_path, cid)
        file.write_bytes(b"no more") if damage == "corrupt" else file.unlink()
        assert store.repair(cid, batch.root) == ["near"]
        assert file.exists()
    assert [get(store.near, cid) for cid in batch.cids] == list(batch.objects)
    assert store.near.get_block(batch.root) == batch.manifest


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["object", "leaf", "root of an object", "manifest"])
def test_who_has_no_healthy_copy_gets_it_from_another_organisation(
    store: KuboStore, custodian: KuboStore, kubos: Kubos, which: str, damage: str
) -> None:
    batch = fresh().put(store)
    custodian.keep(batch.root)
    theirs = kubos.node("kubo0.custodian")
    block, asked = place_of(theirs, batch, which)
    DAMAGES[damage](theirs, block)
    assert custodian.repair(asked, batch.root) == ["kubo0.custodian"]
    assert batch.is_whole(custodian)
    assert batch.root in pinned(theirs)
    theirs.call("repo/gc")
    assert batch.is_whole(custodian)


def test_several_damaged_leaves_come_from_another_organisation_too(
    store: KuboStore, custodian: KuboStore, kubos: Kubos
) -> None:
    batch = fresh(5 << 20).put(store)
    custodian.keep(batch.root)
    theirs = kubos.node("kubo0.custodian")
    for number, leaf in enumerate(leaves(theirs, batch.cids[0])):
        (flip if number % 2 else lose)(theirs, leaf)
    assert custodian.repair(batch.cids[0], batch.root) == ["kubo0.custodian"]
    assert batch.is_whole(custodian)


def test_nothing_is_healed_from_what_is_bad_everywhere(store: KuboStore, hospital: Node, tmp_path: Path) -> None:
    batch = fresh(1000, 1000).put(store)
    for cid in batch.cids:
        near_file(tmp_path, cid).write_bytes(b"bad")
    flip(hospital, batch.cids[0])
    lose(hospital, batch.cids[1])
    with pytest.raises(IntegrityError, match=r"expected .*; kubo0\.hospital"):
        store.repair(batch.cids[0], batch.root)
    with pytest.raises(IntegrityError, match=r"expected .*; kubo0\.hospital"):
        store.repair(batch.cids[1], batch.root)
    near_file(tmp_path, batch.cids[1]).unlink()
    with pytest.raises(NotHeld):
        store.repair(batch.cids[1], batch.root)


def test_nobody_calls_lost_what_an_absent_node_may_have(two: KuboStore, kubos: Kubos, tmp_path: Path) -> None:
    batch = fresh(1000).put(two)
    near_file(tmp_path, batch.cids[0]).write_bytes(b"bad")
    flip(kubos.node("kubo0.hospital"), batch.cids[0])
    kubos.kill("kubo1.hospital")
    try:
        with pytest.raises(ContentAway, match=r"kubo1\.hospital"):
            two.repair(batch.cids[0], batch.root)
    finally:
        kubos.start("kubo1.hospital")
        kubos.wait_connected()
    assert two.repair(batch.cids[0], batch.root) == ["near", "kubo0.hospital"]


def test_nobody_calls_lost_what_another_organisation_s_absent_node_may_have(
    store: KuboStore, custodian: KuboStore, kubos: Kubos
) -> None:
    batch = fresh(1000).put(store)
    custodian.keep(batch.root)
    flip(kubos.node("kubo0.custodian"), batch.cids[0])
    kubos.kill("kubo0.hospital")
    try:
        with pytest.raises(ContentAway, match="not connected"):
            custodian.repair(batch.cids[0], batch.root)
    finally:
        kubos.start("kubo0.hospital")
        kubos.wait_connected()
    assert custodian.repair(batch.cids[0], batch.root) == ["kubo0.custodian"]


def test_a_node_that_is_not_to_have_it_is_given_none(kubos: Kubos, tmp_path: Path) -> None:
    first, second = kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")
    store = store_of(tmp_path, first, second, replicas=1)
    batch = fresh().put(store)
    flip(first, batch.cids[0])
    assert store.repair(batch.cids[0], batch.root) == ["kubo0.hospital"]
    assert not holds(second, batch.cids[0])


def test_a_node_that_lost_everything_is_whole_after_repairs_and_keep(two: KuboStore, kubos: Kubos) -> None:
    batch = fresh().put(two)
    second = kubos.node("kubo1.hospital")
    second.call("pin/rm", batch.root)
    second.call("repo/gc")
    assert not holds(second, batch.cids[0])
    two.keep(batch.root)
    assert batch.root in pinned(second)
    assert all(holds(second, cid) for cid in batch.all_cids)


REPAIR = """
import os, signal, sys
from pathlib import Path
from orthanc_ledger.content.kubo import rpc
from orthanc_ledger.content.kubo.store import KuboStore
folder, cid, root, last = sys.argv[1:]
calls, post = 0, rpc.Kubo._post
def counted(self, call, *rest, **more):
    global calls
    calls += 1
    if calls == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        return post(self, call, *rest, **more)
    finally:
        if -calls == int(last):
            os.kill(os.getpid(), signal.SIGKILL)
rpc.Kubo._post = counted
KuboStore(Path(folder) / "kubo.yaml", 2.0).repair(cid, root)
print(calls)
"""


@pytest.mark.parametrize("whose", ["own copies", "another organisation's"])
def test_a_repair_killed_at_any_call_is_ended_by_the_next(
    store: KuboStore, custodian: KuboStore, kubos: Kubos, tmp_path: Path, whose: str
) -> None:
    """Before each call, and after the node has answered it."""
    batch = fresh().put(store)
    custodian.keep(batch.root)
    mending, folder = (store, tmp_path) if whose == "own copies" else (custodian, tmp_path / "custodian")
    node = kubos.node("kubo0.hospital" if whose == "own copies" else "kubo0.custodian")
    cid = batch.cids[1]

    def repaired(last: int) -> "subprocess.CompletedProcess[str]":
        flip(node, leaves(node, cid)[0])
        command = [sys.executable, "-c", REPAIR, str(folder), cid, batch.root, str(last)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    calls = int(repaired(0).stdout)
    assert calls >= 3
    for last in [*range(1, calls + 1), *range(-calls, 0)]:
        killed = repaired(last)
        assert killed.returncode == -9, killed.stderr
        assert batch.root in pinned(node)
        mending.recover()
        mending.repair(cid, batch.root)
        assert batch.is_whole(mending)
