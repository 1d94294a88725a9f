"""What the organisations' administrators do on a running network: join the channel, install, approve, commit.

By Fabric's own commands, `peer` and `osnadmin`, run on the machine on which all servers publish their ports.
"""

import re
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from orthanc_ledger.consortium import files
from orthanc_ledger.consortium.binaries import run_program
from orthanc_ledger.consortium.processes import until
from orthanc_ledger.consortium.servers import admin_environment
from orthanc_ledger.consortium.topology import CHAINCODE, CHANNEL, LOOPBACK, Orderer, Peer, Topology
from orthanc_ledger.errors import LedgerAway

_LEADER_S = 60.0
_ANSWER_S = 2.0
_SEEN_S = 10
_TRIES = 4
_UNKNOWN = re.compile("timed out waiting for txid|MVCC_READ_CONFLICT")
_DONE = re.compile("with unchanged content|new definition must be sequence 2")
_LEADER = re.compile(rb'^consensus_etcdraft_is_leader\{channel="[^"]+"\} 1$', re.MULTILINE)


class Administration:
    """The administrators of all organisations at once: for trial networks, where their keys lie side by side.

    Everything raises LedgerAway, with what Fabric's command said, when it does not succeed.
    """

    def __init__(self, directory: Path, topology: Topology, binaries: Path) -> None:
        self._directory = directory
        self._topology = topology
        self._binaries = binaries
        self._places = files.places(directory)

    def establish(self) -> None:
        """Make a network of servers that were just started: all join the channel, and the chaincode is deployed."""
        self._join()
        self._install()
        self.wait_for_leader()
        self.define(CHAINCODE)

    def define(self, name: str) -> None:
        """Approve a definition of the chaincode for every organisation, and commit it; returns once the peers of owner
        and custodian have it. Its endorsement policy is the channel's.

        Research approves, too: not because it counts, but so that its own peer knows its own package, for queries.
        """
        definition = ("-C", CHANNEL, "--name", name, "--version", "1", "--sequence", "1")
        approve = ("lifecycle", "chaincode", "approveformyorg", *definition, "--package-id")
        _at_once(
            *(
                partial(self._transact, each.peers, (*approve, files.package_id(self._directory, each)))
                for each in self._topology.organisations
            )
        )
        peers = [peer for each in self._topology.endorsing for peer in each.peers]
        self._transact(peers, ("lifecycle", "chaincode", "commit", *definition))

    def leader(self) -> str | None:
        """The name of the orderer that leads, by its own word; None while nobody does."""
        return next((each.name for each in self._topology.orderers if _leads(each)), None)

    def wait_for_leader(self) -> str:
        """The same, once there is one; LedgerAway after a minute."""
        return until(self.leader, _LEADER_S, lambda: LedgerAway("no orderer leads the channel: look at their logs"))

    def _join(self) -> None:
        command = ("channel", "join", "-b", str(files.block(self._directory)))
        _at_once(
            *(partial(self._join_orderer, orderer) for orderer in self._topology.orderers),
            *(partial(self._on_peer, peer, command) for peer in self._topology.peers),
        )

    def _install(self) -> None:
        command = ("lifecycle", "chaincode", "install")
        _at_once(
            *(
                partial(self._on_peer, peer, (*command, str(files.package(self._directory, organisation))))
                for organisation in self._topology.organisations
                for peer in organisation.peers
            )
        )

    def _join_orderer(self, orderer: Orderer) -> None:
        block = files.block(self._directory)
        users = f"{self._places.crypto}/ordererOrganizations/{orderer.domain}/users/Admin@{orderer.domain}/tls"
        said = run_program(
            self._binaries / "osnadmin",
            *("channel", "join", "--channelID", CHANNEL, "--config-block", str(block)),
            *("-o", f"{LOOPBACK}:{orderer.admin_port}", "--ca-file", f"{users}/ca.crt"),
            *("--client-cert", f"{users}/client.crt", "--client-key", f"{users}/client.key"),
        )
        if "Status: 201" not in said:  # osnadmin exits with 0 whatever the orderer answered
            raise LedgerAway(f"{orderer.name}: osnadmin channel join: expected status 201, got:\n{said}")

    def _by_way_of_leader(self) -> tuple[str, ...]:
        name = self.wait_for_leader()
        (orderer,) = [each for each in self._topology.orderers if each.name == name]
        authority = f"{self._places.orderer(orderer)}/tls/ca.crt"
        return ("-o", f"{LOOPBACK}:{orderer.port}", "--tls", "--cafile", authority)

    def _on_peer(self, peer: Peer, command: Sequence[str]) -> None:
        """Run `peer` against one peer, signed by its organisation's administrator."""
        organisation = self._topology.organisation(peer.name)
        admin = admin_environment(organisation, peer, f"{LOOPBACK}:{peer.port}", self._places)
        run_program(self._binaries / "peer", *command, environment=admin)

    def _transact(self, peers: Sequence[Peer], command: Sequence[str]) -> None:
        """The same for a transaction, endorsed by several peers and awaited on them.

        A try that they were not seen to commit may have come to nothing with an orderer that led until then, or have
        been overlooked among others' (`peer` listens from the newest block on); the next one says which.
        """
        targets: list[str] = []
        for peer in peers:
            authority = f"{self._places.peer(self._topology.organisation(peer.name), peer)}/tls/ca.crt"
            targets += ["--peerAddresses", f"{LOOPBACK}:{peer.port}", "--tlsRootCertFiles", authority]
        for more in reversed(range(_TRIES)):
            way = (*self._by_way_of_leader(), "--waitForEventTimeout", f"{_SEEN_S}s")
            try:
                return self._on_peer(peers[0], (*command, *way, *targets))
            except LedgerAway as error:
                if _DONE.search(str(error)):
                    return
                if not more or not _UNKNOWN.search(str(error)):
                    raise


def _at_once(*calls: Callable[[], None]) -> None:
    """Make all calls at the same time; raises what the first of them that failed has raised, when all are over."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for call in [pool.submit(call) for call in calls]:
            call.result()


def _leads(orderer: Orderer) -> bool:
    try:
        address = f"http://{LOOPBACK}:{orderer.operations_port}/metrics"
        with urllib.request.urlopen(address, timeout=_ANSWER_S) as answer:
            return bool(_LEADER.search(answer.read()))
    except OSError:
        return False
