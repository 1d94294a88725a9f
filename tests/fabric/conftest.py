"""What the tests of the Fabric client share: peers that endorse, and an identity that signs."""

import time
from pathlib import Path

import pytest

from orthanc_ledger.ledger.identity import Identity, issue, load_identity
from tests.fabric.peers import OWNER, Peers


@pytest.fixture
def peers(tmp_path: Path) -> Peers:
    return Peers(tmp_path / "organisations", int(time.time()))


@pytest.fixture
def identity(peers: Peers) -> Identity:
    return load_identity(issue(peers.folder / OWNER, "node-1", "node"))
