"""A research centre pulls through a Kubo node of its own, which has nothing of the study before."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from damage import flip
from gate_world import make_world
from key_world import served
from pull_world import Centre, erase

from orthanc_ledger.content import cbor
from orthanc_ledger.content.cbor import CID
from orthanc_ledger.content.cid import cid_bytes, is_block_cid
from orthanc_ledger.content.kubo.places import block_path
from orthanc_ledger.content.local import LocalStore
from tests.kubo.live import Kubos, Node, write_yaml

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time


@pytest.fixture(scope="module")
def own(kubos: Kubos) -> Node:
    return kubos.node("kubo0.research")


@pytest.fixture(scope="module")
def centre(kubos: Kubos, own: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    folder = tmp_path_factory.mktemp("pull")
    for name in ("hospital", "research"):
        (folder / name).mkdir()
        LocalStore.create(folder / name / "objects")
    hospital = write_yaml(folder / "hospital" / "kubo.yaml", kubos.node("kubo0.hospital"))
    research = write_yaml(folder / "research" / "kubo.yaml", own)
    with served(make_world(folder / "world", content=f"kubo:{hospital}")) as keys:
        yield Centre(keys, folder / "centre", f"kubo:{research}")


def blocks(centre: Centre, own: Node) -> list[Path]:
    """Files of the study's blocks that the own node has."""
    fetched = [cid for root in (True, False) for cid in centre.holdings.fetched(centre.keys.study, root)]
    return [path for path in (own.repo / block_path(cid) for cid in fetched) if path.exists()]


def test_all_that_was_released_comes_over_the_private_network(centre: Centre, own: Node) -> None:
    assert centre.pull(centre.keys.request()).objects == 3
    assert len(centre.files) == 3
    assert len(blocks(centre, own)) == 3 + 2  # objects, the manifest's root and its shard


def test_a_bad_copy_of_ones_own_is_mended_and_no_tampering(centre: Centre, own: Node) -> None:
    for path in blocks(centre, own):
        flip(path)
    assert centre.pull(centre.keys.request()).outcome == "complete"
    assert centre.told("ReportTamper") == []


def test_of_an_erased_study_the_own_node_keeps_no_block_but_what_another_pin_names_which_is_told(
    centre: Centre, own: Node, caplog: pytest.LogCaptureFixture
) -> None:
    files = blocks(centre, own)
    assert len(files) == 5
    named = next(cid for cid in centre.holdings.fetched(centre.keys.study, root=False) if not is_block_cid(cid))
    block = cbor.encode([CID(cid_bytes(named))])
    [line] = own.call("block/put", body=block, cid_codec="dag-cbor", mhtype="sha2-256")
    own.call("pin/add", line["Key"])
    erase(centre)
    assert centre.pulling().forget_erased() == [centre.keys.study]
    assert [path for path in files if path.exists()] == [own.repo / block_path(named)]
    assert f"1 blocks stay: {named} is indirect through {line['Key']}" in caplog.text
    assert centre.files == []
