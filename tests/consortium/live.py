"""Live networks for tests, and a client that does what an honest one would not: chooses its endorsers itself."""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.consortium import files
from orthanc_ledger.consortium.binaries import fabric_binaries
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.servers import admin_environment
from orthanc_ledger.consortium.topology import CHAINCODE, CHANNEL, DEFAULTS, LOOPBACK, Peer, Settings, Topology, trial
from orthanc_ledger.consortium.trial import identity_of, put_in_use, trial_policy_sha256
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.ledger.fabric import dagjson
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import load_identity

YES = Path(__file__).parent / "yes"
STUDY = b"s" * 16
SUBMIT_S = 60
WITHOUT_KEEPER = {"require_stored": False}
"""What differs from the trial's policy: no custodian's keeper runs."""


def need_go() -> None:
    """Skip where nothing can be built; in CI that is a failure."""
    if shutil.which("go") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Go is not installed")


@contextmanager
def running(directory: Path, topology: Topology, settings: Settings = DEFAULTS) -> Iterator[Network]:
    """A network that takes transactions under the trial policy, and is gone afterwards."""
    need_go()
    network = Network.create(directory, trial_policy_sha256(topology, WITHOUT_KEEPER), topology, settings)
    try:
        network.up()
        put_in_use(network, WITHOUT_KEEPER)
        yield network
    finally:
        network.down()


@pytest.fixture(name="network", scope="module")
def one_network(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Network]:
    """One for all live tests of a file: three organisations, three orderers, four peers."""
    with running(tmp_path_factory.mktemp("network"), trial().with_ports(free_port)) as started:
        yield started


@contextmanager
def ledger_of(
    network: Network,
    organisation: str,
    chaincode: str = CHAINCODE,
    clock: Clock = system_clock,
    patience_s: float = 30.0,
) -> Iterator[FabricLedger]:
    """The channel as an organisation's node sees it."""
    identity = load_identity(identity_of(network, organisation, "node"))
    connection = network.connection(organisation, chaincode)
    with closing(FabricLedger(connection, identity, clock, patience_s)) as ledger:
        yield ledger


def anchor(name: str) -> dict[str, Any]:
    """Arguments of Anchor."""
    return {"manifestCid": block_cid(name.encode()), "study": STUDY, "root": b"r" * 32, "count": 1, "kind": "original"}


def back_dated(seconds: int) -> Clock:
    """A clock that is behind."""
    return lambda: int(time.time()) - seconds


def submit_by(
    network: Network, organisation: str, endorsers: Sequence[str], function: str, args: Mapping[str, Any]
) -> str:
    """Submit as an organisation's node with the endorsements of these peers alone; returns what came of it.

    Fabric's command, not our client: it sends whatever it collected for ordering, and waits for the verdict.
    """
    topology, places = network.topology, files.places(network.directory)
    caller = topology.organisation(organisation)
    targets = []
    for peer in [each for name in endorsers for each in topology.peers if each.name == name]:
        authority = f"{places.peer(topology.organisation(peer.name), peer)}/tls/ca.crt"
        targets += ["--peerAddresses", address(peer), "--tlsRootCertFiles", authority]
    (orderer,) = [each for each in topology.orderers if each.name == network.wait_for_leader()]
    call = json.dumps({"Args": [function, dagjson.encode(dict(args)), secrets.token_hex(16)]})
    done = subprocess.run(
        [
            *(fabric_binaries() / "peer", "chaincode", "invoke", "-C", CHANNEL, "-n", CHAINCODE, "-c", call),
            *("-o", f"{LOOPBACK}:{orderer.port}", "--tls", "--cafile", f"{places.orderer(orderer)}/tls/ca.crt"),
            *(*targets, "--waitForEvent"),
        ],
        env={
            **os.environ,
            **admin_environment(caller, caller.peers[0], address(caller.peers[0]), places),
            "CORE_PEER_MSPCONFIGPATH": str(identity_of(network, organisation, "node")),
            "FABRIC_LOGGING_SPEC": "info",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SUBMIT_S,
    )
    return done.stdout


def address(peer: Peer) -> str:
    """Where clients on this machine reach it."""
    return f"{LOOPBACK}:{peer.port}"
