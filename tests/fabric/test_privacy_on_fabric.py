"""The attacker of tests/privacy with the blocks of a Fabric channel: envelopes, read and write sets, certificates."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import node_make
import pytest

from orthanc_ledger.ledger import SCHEMES
from tests.fabric.moved import Settled, moving
from tests.privacy import world as worlds
from tests.privacy.attacker import attack

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time


class Place(NamedTuple):
    """Where a network is, and a copy of its blocks with another hospital's scans alone."""

    network: Path
    elsewhere: Path


def blocks(network: Path) -> list[Path]:
    """The files in which peers and orderers keep them."""
    return sorted(network.rglob("blockfile_*"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Place]:
    """Every node that a test makes has its ledger on a live network, where one of other scans was first."""
    network, elsewhere = tmp_path_factory.mktemp("network"), tmp_path_factory.mktemp("elsewhere")
    with moving(network, free_port) as mover, pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_make, "MOVES", [mover])
        patch.setitem(SCHEMES, "fabric", lambda location, *rest: Settled(Path(location), *rest))
        worlds.make(elsewhere / "node", worlds.others())
        for n, path in enumerate(blocks(network)):
            shutil.copy(path, elsewhere / f"{n}")
        yield Place(network, elsewhere)


def test_nothing_is_recognised_in_the_blocks(place: Place, tmp_path: Path) -> None:
    world = worlds.make(tmp_path, worlds.stored(), worlds.BUNDLED)
    places = [*blocks(place.network), world.node.config.data_dir / "objects"]
    told = b"".join(path.read_bytes() for path in places[:-1])
    for function in ("Anchor", "ReportConflict", "LogRelease", "LogOutcome", "RegisterDataset", "RequestErase"):
        assert function.encode() in told
    assert attack(places, worlds.archived(), [place.elsewhere]) == set()


def test_without_keys_the_same_program_recognises_them_there(place: Place, tmp_path: Path) -> None:
    with worlds.without("keys"):
        worlds.make(tmp_path, worlds.stored(), worlds.BUNDLED)
    found = attack(blocks(place.network), worlds.archived(), [place.elsewhere])
    assert {match.of for match in found if match.kind == "under a guessable key"} >= {"stored", "stored, as a conflict"}
