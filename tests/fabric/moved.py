"""Nodes' tests on Fabric: each new node gets an empty ledger on one live network, and tests are collected again."""

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from orthanc_ledger.clock import system_clock
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import trial
from orthanc_ledger.ledger import Committed
from orthanc_ledger.ledger.contract.policy import default_policy, policy_digest
from orthanc_ledger.ledger.fabric.channel import Channel
from orthanc_ledger.ledger.fabric.connection import read_connection
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.setup_node import CONFIG_NAME, ORGANISATIONS, ROLES
from tests.consortium.live import need_go
from tests.fabric.on_fabric import ONE_BY_ONE, WITHIN_S


class Settled(FabricLedger):
    """The ledger as tests have it who ask on at once, in anybody's name: a commit is told when every party's peers
    have it.
    """

    def __init__(self, path: Path, *rest: Any) -> None:
        super().__init__(path, *rest)
        self._asked_next = []
        for role in ROLES:
            connection = read_connection(path.parent.parent / role / path.name)
            assert connection.identity is not None
            self._asked_next.append(Channel(connection, load_identity(connection.identity), system_clock).gateway)

    def submit(self, function: str, args: Mapping[str, Any], nonce: bytes | None = None) -> Committed:
        committed = super().submit(function, args, nonce)
        if committed.tx_id:  # else a repeat
            for gateway in self._asked_next:
                assert gateway.commit_status(committed.tx_id.hex(), WITHIN_S) == "VALID"
        return committed

    def close(self) -> None:
        super().close()
        for gateway in self._asked_next:
            gateway.close()


class Mover:
    """What `node_make.MOVES` takes: moves a node that `init` made to a ledger of its own on the network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._policy = default_policy({each.msp_id: each.role for each in network.topology.organisations})
        self._names = itertools.count()

    def __call__(self, folder: Path) -> None:
        chaincode = f"node{next(self._names)}"
        self._network.deploy(chaincode)
        for each in self._network.topology.organisations:
            party = folder / ORGANISATIONS / each.role
            shutil.rmtree(party)
            shutil.copytree(self._network.party(each.name), party)
        connection = self._connection(folder, chaincode)
        for path in (folder / "data").glob("ledger.db*"):
            path.unlink()
        config = folder / CONFIG_NAME
        raw = yaml.safe_load(config.read_text())
        config.write_text(yaml.safe_dump({**raw, "ledger": f"fabric:{connection.relative_to(folder)}"}))
        ledger = Settled(connection, load_identity(folder / raw["identity"]))
        ledger.submit("InitPolicy", {"policy": self._policy})
        ledger.close()

    def _connection(self, folder: Path, chaincode: str) -> Path:
        """The hospital's connection file, in the node's copy of the hospital's folder: its envelopes stay there."""
        (owner,) = (each for each in self._network.topology.organisations if each.role == "owner")
        return folder / ORGANISATIONS / owner.role / self._network.connection(owner.name, chaincode).name


@contextmanager
def moving(directory: Path, free_port: Callable[[], int]) -> Iterator[Mover]:
    """A live network under `init`'s policy, on which time may be moved, and what moves nodes to it."""
    need_go()
    topology = trial(hospital_peers=1).with_ports(free_port)
    policy = default_policy({each.msp_id: each.role for each in topology.organisations})
    network = Network.create(directory, policy_digest(policy).hex(), topology, ONE_BY_ONE)
    try:
        network.up()
        for each in topology.organisations:
            network.identity(each.name, "person", "person")
            network.identity(each.name, "node", "node")
        yield Mover(network)
    finally:
        network.down()


def again(module: ModuleType, left_out: Mapping[str, str]) -> dict[str, Any]:
    """What a module of tests has, for another module to have and collect. ``left_out``: which tests not, and why."""
    assert left_out.keys() <= vars(module).keys(), "what is left out is there"
    return {name: value for name, value in vars(module).items() if name[:2] != "__" and name not in left_out}
