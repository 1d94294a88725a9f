"""What tests on Kubo share: connected private nodes, one set for all tests of a file; nodes set wrong; a custodian."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from orthanc_ledger import assemble
from orthanc_ledger.content import ContentStore, open_store
from orthanc_ledger.content.kubo import pins
from orthanc_ledger.content.kubo.store import KuboStore
from tests.gate_world import World
from tests.kubo.custodian import Custodian
from tests.kubo.live import Kubos, Node, running_kubos, stray
from tests.kubo.world import STALL_S, make_hospital


@pytest.fixture(scope="module")
def kubos(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Kubos]:
    """`kubo0.hospital`, `kubo1.hospital`, `kubo0.custodian`, `kubo0.research`, connected with each other."""
    with running_kubos(tmp_path_factory.mktemp("kubos"), free_port) as started:
        yield started


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Kubos]:
    """The same, and `cluster0.hospital` and `cluster1.hospital` beside the hospital's."""
    with running_kubos(tmp_path_factory.mktemp("clustered"), free_port, cluster=True) as started:
        yield started


@pytest.fixture
def hospital(kubos: Kubos) -> Node:
    return kubos.node("kubo0.hospital")


@pytest.fixture
def stray_node(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Callable[..., Node]]:
    """Starts a node of its own with settings changed as ``stray`` says; it is gone after the test."""
    started: list[Kubos] = []

    def start(changes: Mapping[str, object] | None = None, swarm_key: Path | None = None) -> Node:
        started.append(stray(tmp_path_factory.mktemp("stray"), free_port, changes or {}, swarm_key))
        started[-1].up()
        return started[-1].node()

    yield start
    for each in started:
        each.down()


@pytest.fixture
def world(tmp_path: Path, hospital: Node) -> World:
    """The hospital's node, on its first Kubo node."""
    return make_hospital(tmp_path, hospital)


@pytest.fixture
def theirs(kubos: Kubos) -> Node:
    return kubos.node("kubo0.custodian")


@pytest.fixture
def custodian(world: World, tmp_path: Path, theirs: Node, monkeypatch: pytest.MonkeyPatch) -> Custodian:
    """Whose keeper does not wait long."""

    def open_soon(url: str) -> ContentStore:
        scheme, _, rest = url.partition(":")
        return KuboStore(Path(rest), STALL_S) if scheme == "kubo" else open_store(url)

    monkeypatch.setattr(assemble, "open_store", open_soon)
    monkeypatch.setattr(pins, "PATIENCE_S", 1.0)
    return Custodian(world, tmp_path / "custodian", theirs)
