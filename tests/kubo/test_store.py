"""The content store on real Kubo nodes: what it promises, and every fault that its nodes are known for."""

import io
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from orthanc_ledger.consortium.binaries import kubo_binary
from orthanc_ledger.content.cbor import CID, encode
from orthanc_ledger.content.cid import block_cid, cid_bytes, cid_of
from orthanc_ledger.content.kubo.places import block_path
from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.errors import ContentAway
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
    place = node.repo / block_path(cid)
    content = place.read_bytes()
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lose(node: Node, cid: str) -> None:
    (node.repo / block_path(cid)).unlink()


def holds(node: Node, cid: str) -> bool:
    return (node.repo / block_path(cid)).exists()


def pinned(node: Node) -> set[str]:
    return set(node.call("pin/ls", type="recursive")[0]["Keys"])


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
