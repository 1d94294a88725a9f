"""ipfs-cluster over the hospital's two nodes: what one has taken both hold, also after one has lost its disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orthanc_ledger.consortium import ipfs
from orthanc_ledger.consortium.binaries import kubo_binary, run_program
from tests.kubo.live import WAIT_S, Kubos, Refused

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

BOTH = {"cluster0.hospital": "pinned", "cluster1.hospital": "pinned"}


@pytest.fixture
def cid(clustered: Kubos, request: pytest.FixtureRequest, wait_until: Callable[..., None]) -> str:
    """Of what one node has taken, and the cluster pinned on both."""
    (told,) = clustered.node().call("add", body=request.node.name.encode())
    clustered.cluster().pin(told["Hash"])
    wait_until(lambda: clustered.cluster().status(told["Hash"]) == BOTH, WAIT_S, "both nodes hold it")
    return str(told["Hash"])


def test_right_after_the_start_pins_are_refused_until_the_peers_have_met_then_both_nodes_hold_it(
    clustered: Kubos, figure: Callable[[str], None], wait_until: Callable[..., None]
) -> None:
    (told,) = clustered.node().call("add", body=b"first")
    figure(f"ipfs-cluster: pins refused right after the start: {clustered.cluster().pin(told['Hash'])}")
    wait_until(lambda: clustered.cluster("cluster1.hospital").status(told["Hash"]) == BOTH, WAIT_S, "both hold it")
    for name in ("kubo0.hospital", "kubo1.hospital"):
        assert clustered.node(name).call("cat", told["Hash"], offline="true") == b"first"


def test_a_node_is_killed_and_others_get_it_from_the_second(clustered: Kubos, cid: str) -> None:
    clustered.kill("kubo0.hospital")
    try:
        assert clustered.node("kubo0.research").call("cat", cid, timeout="10s")
    finally:
        clustered.start("kubo0.hospital")
        clustered.wait_connected()


def test_a_node_that_comes_back_with_an_empty_disk_is_made_whole_by_recover(
    clustered: Kubos, cid: str, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    node, cluster = clustered.node(), clustered.cluster("cluster1.hospital")
    clustered.kill(node.name)
    run_program(kubo_binary(), "init", "--empty-repo", environment=ipfs.environment(str(tmp_path / "new")))
    for kept in ("blocks", "datastore"):
        shutil.rmtree(node.repo / kept)
        (tmp_path / "new" / kept).rename(node.repo / kept)
    clustered.start(node.name)
    clustered.wait_connected()
    with pytest.raises(Refused):
        node.call("cat", cid, offline="true")

    def whole() -> bool:
        cluster.call(f"/pins/{cid}/recover", "POST")
        return cluster.status(cid) == BOTH

    wait_until(whole, WAIT_S, "it is pinned on both again")
    assert node.call("cat", cid, offline="true")
    assert list(node.call("pin/ls", cid)[0]["Keys"]) == [cid]


@pytest.mark.parametrize("credentials", ["", "node:wrong", ":"], ids=["none", "wrong", "empty"])
def test_its_api_answers_nobody_without_the_password(clustered: Kubos, credentials: str) -> None:
    with pytest.raises(Refused, match=r"^401 "):
        clustered.cluster().call("/id", credentials=credentials)
    assert clustered.cluster().call("/id")["peername"] == "cluster0.hospital"


def test_what_the_cluster_may_ask_of_kubo_suffices_and_no_log_shows_the_password(clustered: Kubos, cid: str) -> None:
    asking = (
        clustered.node().settings()["API"]["Authorizations"]["cluster"]["AuthSecret"].removeprefix("basic:cluster:")
    )
    for name in ("cluster0.hospital", "cluster1.hospital", "kubo0.hospital"):
        log = clustered.processes.log(name).read_text()
        assert "Access Denied" not in log
        assert asking not in log
