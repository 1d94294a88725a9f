"""The content store on real Kubo nodes: what it promises, and every fault that its nodes are known for."""

import contextlib
import io
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orthanc_ledger.consortium.binaries import kubo_binary
from orthanc_ledger.content import verify_cid
from orthanc_ledger.content.cbor import CID, encode
from orthanc_ledger.content.cid import block_cid, cid_bytes, cid_of
from orthanc_ledger.content.kubo.places import block_path
from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld
from tests.damage import flip as flip_file
from tests.kubo.live import Kubos, Node, write_yaml
from tests.test_content import get, put, stream

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

STALL_S = 2.0
LARGE = 2_500_000


@dataclass(frozen=True)
class Batch:
    """What a study's batch has: objects, a shard that links to them, a manifest that links to the shard."""

    objects: tuple[bytes, ...]

    @property
    def cids(self) -> list[str]:
        return [cid_of(io.BytesIO(content)) for content in self.objects]

    @property
    def shard(self) -> bytes:
        return encode([{"object": CID(cid_bytes(cid))} for cid in self.cids])

    @property
    def manifest(self) -> bytes:
        return encode({"shards": [CID(cid_bytes(block_cid(self.shard)))], "v": 1})

    @property
    def root(self) -> str:
        return block_cid(self.manifest)

    @property
    def all_cids(self) -> list[str]:
        return [*self.cids, block_cid(self.shard), self.root]

    def put(self, store: KuboStore) -> "Batch":
        put(store, *self.objects, blocks=(self.shard, self.manifest))
        return self

    def is_whole(self, store: KuboStore) -> bool:
        """Read from the nodes."""
        return [get(store, cid) for cid in self.cids] == list(self.objects) and all(
            store.get_block(block_cid(block)) == block for block in (self.shard, self.manifest)
        )


def fresh(*sizes: int) -> Batch:
    """A batch like no other, as sealed ones are."""
    return Batch(tuple(os.urandom(size) for size in sizes or (1000, LARGE)))


def store_of(folder: Path, *nodes: Node, **keys: object) -> KuboStore:
    if not (folder / "objects").exists():
        LocalStore.create(folder / "objects")
    return KuboStore(write_yaml(folder / "kubo.yaml", *nodes, **keys), STALL_S)


def leaves(node: Node, cid: str) -> list[str]:
    return [line["Ref"] for line in node.call("refs", cid, recursive="true", offline="true")]


def flip(node: Node, cid: str) -> None:
    flip_file(node.repo / block_path(cid))


def lose(node: Node, cid: str) -> None:
    (node.repo / block_path(cid)).unlink()


def holds(node: Node, cid: str) -> bool:
    return (node.repo / block_path(cid)).exists()


def pinned(node: Node) -> set[str]:
    return set(node.call("pin/ls", type="recursive")[0]["Keys"])


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Put a disk of so many MB under a folder, with what is in there."""
    aside = folder.with_name("aside")
    try:
        aside.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", aside], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    try:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        subprocess.run(["mount", "--move", aside, folder], check=True)
        yield
    finally:
        for place in (aside, folder):
            subprocess.run(["umount", place], check=False, capture_output=True)


@pytest.fixture
def store(tmp_path: Path, hospital: Node) -> KuboStore:
    """On one node."""
    return store_of(tmp_path, hospital)


@pytest.fixture
def two(tmp_path: Path, kubos: Kubos) -> KuboStore:
    """On two nodes, pinned on both."""
    return store_of(tmp_path, kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital"))


class TestBatch:
    def test_committed_objects_and_blocks_are_held_by_kubo_and_near(self, store: KuboStore) -> None:
        batch = fresh().put(store)
        assert batch.is_whole(store)
        assert get(store.near, batch.cids[1]) == batch.objects[1]
        assert store.near.get_block(batch.root) == batch.manifest

    def test_a_batch_is_one_pin(self, store: KuboStore, hospital: Node) -> None:
        before = pinned(hospital)
        batch = fresh().put(store)
        assert pinned(hospital) - before == {batch.root}

    def test_what_nothing_links_to_is_pinned_by_itself(self, store: KuboStore, hospital: Node) -> None:
        cids = put(store, *fresh(10, LARGE).objects, b"", blocks=(b"\x81\x03",))
        assert pinned(hospital) >= set(cids)

    @pytest.mark.parametrize("size", [0, 1, 1_048_575, 1_048_576, 1_048_577, LARGE])
    def test_objects_have_the_cids_that_kubo_s_add_gives(self, store: KuboStore, hospital: Node, size: int) -> None:
        (cid,) = put(store, stream(size))
        (told,) = hospital.call("add", body=stream(size), only_hash="true")
        assert told["Hash"] == cid
        assert hospital.call("cat", cid, offline="true") == stream(size)

    def test_so_has_one_of_more_chunks_than_a_node_has_links(self, hospital: Node, tmp_path: Path) -> None:
        sparse = tmp_path / "sparse"
        with sparse.open("wb") as file:
            file.truncate((1025 << 20) + 1)
        told = subprocess.run(
            [kubo_binary(), f"--api-auth=bearer:{hospital.token}", "add", "--quieter", "--only-hash", sparse],
            env={"IPFS_PATH": str(hospital.repo), "IPFS_TELEMETRY": "off"},
            capture_output=True,
            text=True,
            check=True,
        )
        with sparse.open("rb") as file:
            assert cid_of(file) == told.stdout.strip()

    def test_batch_left_without_commit_never_reaches_kubo(self, store: KuboStore, hospital: Node) -> None:
        batch = fresh()
        before = pinned(hospital)
        with store.begin() as writer:
            cid = writer.add_object(lambda sink: sink.write(batch.objects[0])).cid
            with writer.open(cid) as file:
                assert file.read() == batch.objects[0]
        assert pinned(hospital) == before
        assert not holds(hospital, cid)

    def test_an_empty_batch_is_committed(self, store: KuboStore) -> None:
        with store.begin() as writer:
            writer.commit()

    def test_same_batch_again_is_the_same(self, store: KuboStore) -> None:
        batch = fresh().put(store)
        assert batch.put(store).is_whole(store)

    def test_with_two_nodes_both_have_it_pinned(self, two: KuboStore, kubos: Kubos) -> None:
        batch = fresh().put(two)
        for name in ("kubo0.hospital", "kubo1.hospital"):
            assert batch.root in pinned(kubos.node(name))
            assert all(holds(kubos.node(name), cid) for cid in batch.all_cids)

    def test_other_organisations_fetch_it_and_keep_pins_all_of_it(
        self, store: KuboStore, kubos: Kubos, tmp_path: Path
    ) -> None:
        batch = fresh().put(store)
        custodian = kubos.node("kubo0.custodian")
        (tmp_path / "custodian").mkdir()
        theirs = store_of(tmp_path / "custodian", custodian, keep_days=0)
        with pytest.raises(NotHeld, match=r"kubo0\.custodian"):
            theirs.get_block(batch.root)
        assert theirs.repair(batch.root, batch.root) == ["kubo0.custodian"]
        assert theirs.get_block(batch.root) == batch.manifest
        theirs.keep(batch.root)
        theirs.keep(batch.root)
        assert batch.root in pinned(custodian)
        assert all(holds(custodian, cid) for cid in [*batch.all_cids, *leaves(custodian, batch.cids[1])])
        assert theirs.repair(batch.cids[0], batch.root) == []  # no local copy is missed

    def test_keep_says_when_nobody_has_the_rest(
        self, store: KuboStore, monkeypatch: pytest.MonkeyPatch, hospital: Node
    ) -> None:
        monkeypatch.setattr("orthanc_ledger.content.kubo.pins.PATIENCE_S", 1.0)
        with pytest.raises(ContentAway, match=r"kubo0\.hospital.*nobody sent"):
            store.keep(fresh().root)


class TestReading:
    """docs/ipfs.md, "Faults": told apart, with node and CID."""

    def test_a_corrupt_object_of_one_block_is_told(self, store: KuboStore, hospital: Node) -> None:
        batch = fresh().put(store)
        flip(hospital, batch.cids[0])
        with pytest.raises(IntegrityError, match=rf"kubo0\.hospital: {batch.cids[0]}: .*different hash"):
            store.open(batch.cids[0])

    def test_a_corrupt_block_of_many_is_told(self, store: KuboStore, hospital: Node) -> None:
        batch = fresh().put(store)
        flip(hospital, leaves(hospital, batch.cids[1])[2])
        with pytest.raises(IntegrityError, match=rf"kubo0\.hospital: {batch.cids[1]}: .*different hash"):
            store.open(batch.cids[1])

    @pytest.mark.parametrize("which", ["object", "leaf", "root of an object"])
    def test_a_missing_block_is_told_in_time(self, store: KuboStore, hospital: Node, which: str) -> None:
        batch = fresh().put(store)
        cid = batch.cids[0 if which == "object" else 1]
        lose(hospital, leaves(hospital, cid)[1] if which == "leaf" else cid)
        began = time.monotonic()
        with pytest.raises(NotHeld, match=rf"kubo0\.hospital: {cid}: a block is missing"):
            store.open(cid)
        assert time.monotonic() - began < 2 * STALL_S

    def test_manifest_blocks_corrupt_or_missing_are_told(self, store: KuboStore, hospital: Node) -> None:
        batch = fresh(10).put(store)
        flip(hospital, batch.root)
        with pytest.raises(IntegrityError, match=rf"kubo0\.hospital: {batch.root}"):
            store.get_block(batch.root)
        lose(hospital, batch.root)
        with pytest.raises(NotHeld, match=rf"kubo0\.hospital: {batch.root}"):
            store.get_block(batch.root)

    def test_another_node_serves_what_one_has_lost_or_damaged(self, two: KuboStore, kubos: Kubos) -> None:
        batch = fresh().put(two)
        flip(kubos.node("kubo0.hospital"), batch.cids[0])
        lose(kubos.node("kubo0.hospital"), leaves(kubos.node("kubo0.hospital"), batch.cids[1])[0])
        assert batch.is_whole(two)

    def test_without_hash_on_read_the_bytes_of_a_damaged_block_are_refused(
        self, stray_node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orthanc_ledger.content.kubo.store.check_node", lambda *_: None)  # which refuses such a one
        node = stray_node({"Datastore.HashOnRead": False})
        batch = fresh().put(store := store_of(tmp_path, node))
        for cid in (batch.cids[0], leaves(node, batch.cids[1])[0], batch.root):
            flip(node, cid)
        for read, cid in ((store.open, batch.cids[0]), (store.open, batch.cids[1]), (store.get_block, batch.root)):
            with pytest.raises(IntegrityError, match=rf"kubo0\.hospital: expected {cid}, got .*HashOnRead"):
                read(cid)

    def test_a_peer_that_is_away_may_have_what_is_missing(self, kubos: Kubos, tmp_path: Path) -> None:
        node = kubos.node("kubo0.custodian")
        store = store_of(tmp_path, node)
        kubos.kill("kubo0.research")
        try:
            with pytest.raises(ContentAway, match=r"kubo0\.custodian: .* 1 of its peers are not connected"):
                store.repair(fresh().cids[0], fresh().root)
        finally:
            kubos.start("kubo0.research")
            kubos.wait_connected()

    def test_a_large_object_is_read_into_no_named_file(self, store: KuboStore, tmp_path: Path) -> None:
        batch = fresh(17 << 20).put(store)
        with store.open(batch.cids[0]) as file:
            verify_cid(file, batch.cids[0])
            assert list((tmp_path / "objects" / "staging").iterdir()) == []

    def test_a_full_disk_here_is_away(self, store: KuboStore, monkeypatch: pytest.MonkeyPatch) -> None:
        [place] = store._places
        pieces = (bytes(65_537) for _ in range(400))  # of a size that leaves something in the file's buffer
        monkeypatch.setattr(place.kubo, "read", lambda *_: pieces)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, limits[1]))
        try:
            with pytest.raises(ContentAway, match="File too large"):
                store.open(cid_of(io.BytesIO(b"")))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_no_more_is_read_than_was_asked_for(self, store: KuboStore) -> None:
        batch = fresh(3 << 20).put(store)
        with pytest.raises(IntegrityError, match="at most 1000 bytes expected"):
            store.open(batch.cids[0], 1000)

    def test_what_is_no_cid_is_asked_of_nobody(self, store: KuboStore) -> None:
        for name in ("", "../x", fresh().root):
            with pytest.raises(IntegrityError, match="CIDv1"):
                store.open(name)


class TestAway:
    def test_killed_node_is_away_at_once_and_back_by_itself(self, store: KuboStore, kubos: Kubos) -> None:
        batch = fresh().put(store)
        kubos.kill("kubo0.hospital")
        try:
            began = time.monotonic()
            for call in (store.begin, store.check, lambda: store.open(batch.cids[0])):
                with pytest.raises(ContentAway, match=r"kubo0\.hospital"):
                    call()
            assert time.monotonic() - began < 1.0
            assert get(store.near, batch.cids[0]) == batch.objects[0]
        finally:
            kubos.start("kubo0.hospital")
        assert batch.is_whole(store)
        fresh().put(store)

    def test_frozen_node_keeps_nobody_waiting(self, store: KuboStore, kubos: Kubos) -> None:
        batch = fresh(1000, 60 << 20).put(store)
        large = store._places[0].kubo.read(batch.cids[1])
        next(large)
        with store.begin() as writer:
            writer.add_object(lambda sink: sink.write(os.urandom(30 << 20)))
            kubos.freeze("kubo0.hospital")
            try:
                for call in (lambda: list(large), store.check, writer.commit, lambda: store.open(batch.cids[0])):
                    began = time.monotonic()
                    with pytest.raises(ContentAway, match=r"kubo0\.hospital"):
                        call()
                    assert time.monotonic() - began < 2 * STALL_S + 1
            finally:
                kubos.resume("kubo0.hospital")
        assert batch.is_whole(store)

    def test_one_of_two_is_enough_to_read_and_not_to_write(self, two: KuboStore, kubos: Kubos) -> None:
        batch = fresh().put(two)
        kubos.kill("kubo0.hospital")
        try:
            assert batch.is_whole(two)
            with pytest.raises(ContentAway, match=r"kubo0\.hospital"):
                two.begin()
        finally:
            kubos.start("kubo0.hospital")

    def test_with_one_replica_the_other_node_takes_the_batch(self, kubos: Kubos, tmp_path: Path) -> None:
        store = store_of(tmp_path, kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital"), replicas=1)
        kubos.kill("kubo0.hospital")
        try:
            batch = fresh().put(store)
            assert batch.root in pinned(kubos.node("kubo1.hospital"))
        finally:
            kubos.start("kubo0.hospital")

    def test_what_died_in_the_middle_of_a_batch_leaves_no_pin(
        self, two: KuboStore, kubos: Kubos, tmp_path: Path
    ) -> None:
        first, second = kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")
        batch = fresh(1000)
        with two.begin() as writer:
            for content in batch.objects:
                writer.add_object(lambda sink, content=content: sink.write(content))
            for block in (batch.shard, batch.manifest):
                writer.add_block(block)
            kubos.kill("kubo1.hospital")
            with pytest.raises(ContentAway, match=r"1 of 2 .*kubo1\.hospital"):
                writer.commit()
        kubos.start("kubo1.hospital")
        assert batch.root not in pinned(first)
        two.recover()
        assert os.listdir(tmp_path / "objects" / "unfinished") == []
        assert batch.root not in pinned(first) | pinned(second)
        assert batch.put(two).is_whole(two)

    def test_local_disk_that_fails_leaves_no_pin(
        self, store: KuboStore, hospital: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = fresh()
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise OSError(5, "Input/output error")

            patch.setattr(os, "replace", fail)
            with pytest.raises(ContentAway, match="Input/output error"):
                batch.put(store)
        assert batch.root not in pinned(hospital)
        assert batch.put(store).is_whole(store)

    def test_full_disk_of_kubo_is_away_and_what_was_acknowledged_stays(
        self, stray_node: Callable[..., Node], tmp_path: Path
    ) -> None:
        node = stray_node({})
        store = store_of(tmp_path, node)
        batch = fresh(1000, 1_500_000).put(store)
        with small_disk(node.repo / "blocks", 8):
            with pytest.raises(ContentAway, match=r"kubo0\.hospital.*no space left"):
                fresh(12 << 20).put(store)
            assert batch.is_whole(store)
            assert fresh(1000).put(store).is_whole(store)


WRITER = """
import os, sys
from pathlib import Path
from orthanc_ledger.content.kubo.store import KuboStore
from tests.kubo.test_store import fresh
store = KuboStore(Path(sys.argv[1]))
while True:
    batch = fresh(1000, 100_000, 1_200_000).put(store)
    print(batch.root, *batch.cids, flush=True)
"""


def test_whatever_was_acknowledged_outlives_the_node_s_sudden_end(
    kubos: Kubos, tmp_path: Path, wait_until: Callable[[Callable[[], object], float, str], None]
) -> None:
    node = kubos.node("kubo1.hospital")
    store_of(tmp_path, node)
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    with contextlib.ExitStack() as stack:
        for log in logs:
            file = stack.enter_context(log.open("wb"))
            command = [sys.executable, "-c", WRITER, str(tmp_path / "kubo.yaml")]
            writer = stack.enter_context(subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL))
            stack.callback(writer.kill)
        wait_until(lambda: all(log.read_bytes().count(b"\n") >= 3 for log in logs), 60, "each has written")
        kubos.kill("kubo1.hospital")
    kubos.start("kubo1.hospital")
    store = store_of(tmp_path, node)
    acknowledged = [line.split() for log in logs for line in log.read_text().splitlines(keepends=True) if "\n" in line]
    for root, *cids in acknowledged:
        assert root in pinned(node)
        for cid in cids:
            get(store, cid)
    assert len(acknowledged) >= 9
