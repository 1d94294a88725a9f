"""A network whose servers are processes of this machine: started, joined, deployed, stopped and frozen by name."""

import shutil
from functools import cached_property
from pathlib import Path

from orthanc_ledger.consortium import files, ipfs
from orthanc_ledger.consortium.administration import Administration
from orthanc_ledger.consortium.binaries import chaincode_binary, fabric_binaries
from orthanc_ledger.consortium.keys import issue_identity
from orthanc_ledger.consortium.running import Command, Servers
from orthanc_ledger.consortium.servers import chaincode_environment, orderer_environment, peer_environment
from orthanc_ledger.consortium.topology import (
    CHAINCODE,
    DEFAULTS,
    LOOPBACK,
    Cluster,
    Kubo,
    Orderer,
    Peer,
    Server,
    Settings,
    Topology,
)
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.contract.call import Assurance


class Network(Servers):
    """A prepared folder and its servers."""

    def __init__(self, directory: Path) -> None:
        """Raises ConfigError when the folder is not that of a network."""
        directory = directory.resolve()
        self.topology, self._policy_sha256 = files.read_state(directory)
        super().__init__(directory, self.topology.servers)
        self._deployed = self.directory / "deployed"
        self._places = files.places(self.directory)

    @classmethod
    def create(
        cls, directory: Path, policy_sha256: str, topology: Topology, settings: Settings = DEFAULTS
    ) -> "Network":
        """Prepare a new network in a new or empty folder. Nothing runs yet. Raises ConfigError."""
        files.prepare(directory.resolve(), fabric_binaries(), topology, settings, policy_sha256)
        return cls(directory)

    def up(self) -> None:
        """Start what does not run, join the channel and deploy the chaincode if that has not been done.

        Raises ConfigError when a port is taken, LedgerAway when a server does not come up.
        """
        if any(server.host != LOOPBACK for server in self.topology.servers):
            raise ConfigError(f"{self.directory}: its servers are containers: `docker compose` starts them")
        if not self._deployed.exists():  # nothing of value yet: a first start that came to grief is begun again
            self.down()
            shutil.rmtree(self._places.data, ignore_errors=True)
        with self.starting():
            self.establish()

    def establish(self) -> None:
        """Join the channel and deploy the chaincode, once, on servers that run, whoever started them."""
        if not self._deployed.exists():
            self._administration.establish()
            self._deployed.touch()

    def deploy(self, name: str) -> None:
        """Define the chaincode under a further name: a ledger of its own, in the same channel."""
        self._administration.define(name)
        for organisation in self.topology.organisations:
            files.write_connection(self.directory, self.topology, organisation, name)

    def connection(self, organisation: str, chaincode: str = CHAINCODE) -> Path:
        """The connection file of an organisation's nodes and people."""
        return files.connection(self.directory, organisation, chaincode)

    def party(self, organisation: str) -> Path:
        """An organisation's folder: CA, identities, connection files."""
        return files.party(self.directory, organisation)

    def identity(self, organisation: str, name: str, kind: Assurance) -> Path:
        """Issue an identity and return its folder. Raises ConfigError when it is there already."""
        return issue_identity(self.party(organisation), name, kind)

    def leader(self) -> str | None:
        """The orderer that leads, by its own word; None while nobody does."""
        return self._administration.leader()

    def wait_for_leader(self) -> str:
        """The same, once there is one. Raises LedgerAway after a minute."""
        return self._administration.wait_for_leader()

    @cached_property
    def _administration(self) -> Administration:
        return Administration(self.directory, self.topology, fabric_binaries())

    def _command(self, server: Server, program: Path | None) -> Command:
        organisation = self.topology.organisation(server.name)
        if isinstance(server, Kubo | Cluster):
            return ipfs.command(self.directory, server)
        if isinstance(server, Orderer):
            return [str(fabric_binaries() / "orderer")], orderer_environment(server, self._places)
        if isinstance(server, Peer):
            command = [str(fabric_binaries() / "peer"), "node", "start"]
            return command, peer_environment(organisation, server, self._places)
        package_id = files.package_id(self.directory, organisation)
        environment = chaincode_environment(organisation, package_id, self._policy_sha256, self._places)
        return [str(program or chaincode_binary())], environment
