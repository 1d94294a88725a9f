"""A channel of the contract's tests on Fabric: its four organisations, one signing identity each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import Settings, trial
from orthanc_ledger.ledger import Committed
from orthanc_ledger.ledger.contract.policy import policy_digest
from orthanc_ledger.ledger.fabric.channel import Channel
from orthanc_ledger.ledger.fabric.connection import read_connection
from orthanc_ledger.ledger.fabric.events import Event
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import Identity, load_identity
from tests.consortium.live import need_go
from tests.ledger.channel import CUSTODIAN, LAB, OWNER, START, policy

NAMES = ("hospital", "custodian", "lab", "otherlab")
WITHIN_S = 60
ONE_BY_ONE = Settings(max_message_count=1, time_window_s=None)  # a block for each transaction, at any time


@contextmanager
def network_of_tests(directory: Path, free_port: Callable[[], int]) -> Iterator[tuple[Network, Mapping[str, Identity]]]:
    """A network under the tests' default policy, on which time may be moved, and a person of each organisation."""
    need_go()
    topology = trial(NAMES, orderers=1, hospital_peers=1).with_ports(free_port)
    network = Network.create(directory, policy_digest(policy()).hex(), topology, ONE_BY_ONE)
    try:
        network.up()
        yield (
            network,
            {
                each.msp_id: load_identity(network.identity(each.name, "person", "person"))
                for each in topology.organisations
            },
        )
    finally:
        network.down()


class OnFabric:
    """A host of the contract (`tests.ledger.channel.Host`): a definition of the chaincode, so an empty ledger."""

    def __init__(self, network: Network, people: Mapping[str, Identity], chaincode: str) -> None:
        network.deploy(chaincode)
        self.now = START
        connections = {each.msp_id: network.connection(each.name, chaincode) for each in network.topology.organisations}
        self._ledgers = {
            msp_id: FabricLedger(path, people[msp_id], clock=lambda: self.now) for msp_id, path in connections.items()
        }
        self._asked_next = [  # who endorses, and who answers queries
            Channel(read_connection(connections[msp_id]), people[msp_id], lambda: self.now).gateway
            for msp_id in (OWNER, CUSTODIAN, LAB)
        ]

    def submit(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> Committed:
        committed = self._ledgers[organisation].submit(function, args, nonce)
        if committed.tx_id:  # else a repeat
            for gateway in self._asked_next:  # each answers once its peer has it
                assert gateway.commit_status(committed.tx_id.hex(), WITHIN_S) == "VALID"
        return committed

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        return self._ledgers[LAB].query(function, args)

    def events(self, count: int) -> list[Event]:
        """The first events there were."""
        return list(islice(self._ledgers[OWNER].events(), count))

    def close(self) -> None:
        for each in (*self._ledgers.values(), *self._asked_next):
            each.close()
