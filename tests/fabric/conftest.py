"""What the tests of the Fabric client share: peers that endorse, an identity that signs, a live network."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import node_make
import pytest

from orthanc_ledger.consortium.network import Network
from orthanc_ledger.ledger import SCHEMES
from orthanc_ledger.ledger.identity import Identity, issue, load_identity
from tests.consortium.live import one_network  # noqa: F401  # a fixture
from tests.fabric.live import Ledgers
from tests.fabric.moved import Settled, moving
from tests.fabric.peers import OWNER, Peers
from tests.fabric.world import World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take out the cases that a module names in LEFT_OUT_CASES, with the reason."""
    items[:] = [item for item in items if not any(name in item.name for name in _left_out_cases(item))]


def _left_out_cases(item: pytest.Item) -> Iterable[str]:
    return getattr(item.module, "LEFT_OUT_CASES", ()) if isinstance(item, pytest.Function) else ()


@pytest.fixture
def peers(tmp_path: Path) -> Peers:
    return Peers(tmp_path / "organisations", int(time.time()))


@pytest.fixture
def identity(peers: Peers) -> Identity:
    return load_identity(issue(peers.folder / OWNER, "node-1", "node"))


@pytest.fixture
def world(tmp_path: Path, peers: Peers, identity: Identity) -> Iterator[World]:
    world = World(tmp_path, peers, identity)
    yield world
    world.close()


@pytest.fixture
def ledgers(network: Network, free_port: Callable[[], int]) -> Iterator[Ledgers]:
    ledgers = Ledgers(network, free_port)
    yield ledgers
    ledgers.close()


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[None]:
    """Every node that a test makes has its ledger on a live network, one network for all tests of a file."""
    with moving(tmp_path_factory.mktemp("network"), free_port) as mover, pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_make, "MOVES", [mover])
        patch.setitem(SCHEMES, "fabric", lambda location, *rest: Settled(Path(location), *rest))
        yield
