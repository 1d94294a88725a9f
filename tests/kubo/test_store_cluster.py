"""The content store where ipfs-cluster pins: added through one Kubo node, held by both."""

from pathlib import Path

import pytest

from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.errors import ConfigError, ContentAway
from tests.kubo.live import Kubos
from tests.kubo.test_store import fresh, holds, pinned, store_of

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

NAMES = ("kubo0.hospital", "kubo1.hospital")


@pytest.fixture
def store(tmp_path: Path, clustered: Kubos) -> KuboStore:
    peer = clustered.cluster()
    return store_of(
        tmp_path,
        *(clustered.node(name) for name in NAMES),
        cluster={"api": peer.api, "token": str(peer.token_file)},
    )


def test_a_batch_counts_once_both_nodes_have_it_pinned(store: KuboStore, clustered: Kubos) -> None:
    batch = fresh().put(store)
    for name in NAMES:
        assert batch.root in pinned(clustered.node(name))
        assert all(holds(clustered.node(name), cid) for cid in batch.all_cids)
    assert set(clustered.cluster().status(batch.root).values()) == {"pinned"}
    assert batch.is_whole(store)
    store.keep(batch.root)


def test_a_node_is_killed_and_its_studies_are_served_by_the_other(store: KuboStore, clustered: Kubos) -> None:
    batch = fresh().put(store)
    clustered.kill(NAMES[0])
    try:
        assert batch.is_whole(store)
        with pytest.raises(ContentAway, match=r"kubo0\.hospital"):
            store.begin()
    finally:
        clustered.start(NAMES[0])
        clustered.wait_connected()
    assert batch.is_whole(store)
    assert batch.root in pinned(clustered.node(NAMES[0]))
    fresh(1000).put(store)


def test_what_a_node_has_unpinned_and_lost_the_cluster_fetches_again(store: KuboStore, clustered: Kubos) -> None:
    batch = fresh().put(store)
    node = clustered.node(NAMES[1])
    node.call("pin/rm", batch.root)
    node.call("repo/gc")
    assert not holds(node, batch.cids[0])
    store.keep(batch.root)
    assert batch.root in pinned(node)
    assert all(holds(node, cid) for cid in batch.all_cids)


def test_what_is_forgotten_is_pinned_by_nobody(store: KuboStore, clustered: Kubos) -> None:
    erased, kept = fresh().put(store), fresh().put(store)
    store.forget([erased.root], erased.all_cids)
    store.forget([erased.root], erased.all_cids)
    for name in NAMES:
        assert erased.root not in pinned(clustered.node(name))
        assert not any(holds(clustered.node(name), cid) for cid in erased.all_cids)
    assert set(clustered.cluster().status(erased.root).values()) == {"unpinned"}
    assert kept.is_whole(store)


def test_a_wrong_password_is_told(store: KuboStore, tmp_path: Path, clustered: Kubos) -> None:
    (tmp_path / "wrong").write_text("node:wrong")
    yaml = tmp_path / "kubo.yaml"
    yaml.write_text(yaml.read_text().replace(str(clustered.cluster().token_file), "wrong"))
    with pytest.raises(ConfigError, match=r"cluster: token: .* 401"):
        KuboStore(yaml).check()


def test_a_cluster_that_is_away_keeps_batches_waiting(store: KuboStore, clustered: Kubos) -> None:
    clustered.kill("cluster0.hospital")
    try:
        with pytest.raises(ContentAway, match="ipfs-cluster"):
            store.begin()
    finally:
        clustered.start("cluster0.hospital")
    fresh(1000).put(store)


def test_a_node_of_the_cluster_that_is_not_named_is_refused(tmp_path: Path, clustered: Kubos) -> None:
    """It would be given sealed objects, and no erasure would reach it."""
    peer = clustered.cluster()
    cluster = {"api": peer.api, "token": str(peer.token_file)}
    store = store_of(tmp_path, clustered.node(NAMES[0]), cluster=cluster, replicas=1)
    with pytest.raises(ConfigError, match="cluster: pins on 1 Kubo nodes that nodes: does not name"):
        store.check()
