"""A network whose servers are processes of this machine: started, joined, deployed, stopped and frozen by name."""

import shutil
import signal
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from orthanc_ledger.consortium import files
from orthanc_ledger.consortium.administration import Administration
from orthanc_ledger.consortium.binaries import chaincode_binary, fabric_binaries
from orthanc_ledger.consortium.keys import issue_identity
from orthanc_ledger.consortium.processes import Processes
from orthanc_ledger.consortium.servers import chaincode_environment, orderer_environment, peer_environment
from orthanc_ledger.consortium.topology import CHAINCODE, DEFAULTS, LOOPBACK, Orderer, Peer, Server, Settings, Topology
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.contract.call import Assurance

_READY_S = 60.0
_ANSWER_S = 2.0


class Network:
    """A prepared folder and its servers, which go by the topology's names: `orderer.custodian`, `peer1.hospital`, …

    Processes outlive the one that started them; whoever opens the folder can end them.
    """

    def __init__(self, directory: Path) -> None:
        """Raises ConfigError when the folder is not that of a network."""
        self.directory = directory.resolve()
        self.topology, self._policy_sha256 = files.read_state(self.directory)
        self.processes = Processes(self.directory)
        self._servers = {server.name: server for server in self.topology.servers}
        self._deployed = self.directory / "deployed"
        self._places = files.places(self.directory)

    @classmethod
    def create(
        cls, directory: Path, policy_sha256: str, topology: Topology, settings: Settings = DEFAULTS
    ) -> "Network":
        """Prepare a new network in a new or empty folder. Nothing runs yet. Raises ConfigError."""
        files.prepare(directory.resolve(), fabric_binaries(), topology, settings, policy_sha256)
        return cls(directory)

    def up(self, programs: Mapping[str, Path] | None = None) -> None:
        """Start what does not run, join the channel and deploy the chaincode if that has not been done.

        ``programs``: what chaincode services run instead of this project's chaincode, by organisation.

        Raises ConfigError when a port is taken, LedgerAway when a server does not come up.
        """
        if any(server.host != LOOPBACK for server in self.topology.servers):
            raise ConfigError(f"{self.directory}: its servers are containers: `docker compose` starts them")
        if not self._deployed.exists():  # nothing of value yet: a first start that came to grief is begun again
            self.down()
            shutil.rmtree(self._places.data, ignore_errors=True)
        idle = [server for server in self.topology.servers if self.processes.pid(server.name) is None]
        with ExitStack() as otherwise:
            for server in idle:
                otherwise.callback(self.processes.end, server.name)
                self._spawn(server, (programs or {}).get(self.topology.organisation(server.name).name))
            for server in idle:
                self._wait_ready(server)
            self.establish()
            otherwise.pop_all()

    def establish(self) -> None:
        """Join the channel and deploy the chaincode, once, on servers that run, whoever started them."""
        if not self._deployed.exists():
            self._administration.establish()
            self._deployed.touch()

    def down(self) -> None:
        """End every server, services first, so that nobody waits for another. What they keep stays in the folder."""
        for server in reversed(self.topology.servers):
            self.processes.signal(server.name, signal.SIGTERM)
        for server in reversed(self.topology.servers):
            self.processes.end(server.name)

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

    def start(self, name: str, program: Path | None = None) -> None:
        """Start a server and return once it takes connections.

        ``program``: what a chaincode service runs instead of this project's chaincode.

        Raises ConfigError when its port is taken, LedgerAway when it does not come up.
        """
        self._spawn(self._servers[name], program)
        self._wait_ready(self._servers[name])

    def stop(self, name: str) -> None:
        """End a server in good order."""
        self.processes.end(name)

    def kill(self, name: str) -> None:
        """End a server by SIGKILL."""
        self.processes.end(name, signal.SIGKILL)

    def freeze(self, name: str) -> None:
        """Stop a server by SIGSTOP: its connections stay, nothing is answered."""
        self.processes.signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen server go on."""
        self.processes.signal(name, signal.SIGCONT)

    def leader(self) -> str | None:
        """The orderer that leads, by its own word; None while nobody does."""
        return self._administration.leader()

    def wait_for_leader(self) -> str:
        """The same, once there is one. Raises LedgerAway after a minute."""
        return self._administration.wait_for_leader()

    @cached_property
    def _administration(self) -> Administration:
        return Administration(self.directory, self.topology, fabric_binaries())

    def _spawn(self, server: Server, program: Path | None) -> None:
        for what, port in vars(server).items():
            if what.endswith("port") and self.processes.pid(server.name) is None:
                _check_free(server.name, what, port)
        organisation = self.topology.organisation(server.name)
        if isinstance(server, Orderer):
            command, environment = [str(fabric_binaries() / "orderer")], orderer_environment(server, self._places)
        elif isinstance(server, Peer):
            command = [str(fabric_binaries() / "peer"), "node", "start"]
            environment = peer_environment(organisation, server, self._places)
        else:
            command = [str(program or chaincode_binary())]
            package_id = files.package_id(self.directory, organisation)
            environment = chaincode_environment(organisation, package_id, self._policy_sha256, self._places)
        self.processes.start(server.name, command, environment)

    def _wait_ready(self, server: Server) -> None:
        ports = [server.admin_port, server.port] if isinstance(server, Orderer) else [server.port]
        self.processes.wait_ready(server.name, lambda: all(_takes_connections(port) for port in ports), _READY_S)


def _check_free(name: str, what: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go's listeners do
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigError(
                f"{name}: its {what} {LOOPBACK}:{port} is taken ({error.strerror}): end what listens there, "
                "or, if it is another clone's network, `make consortium-down` there"
            ) from error


def _takes_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(_ANSWER_S)
        return probe.connect_ex((LOOPBACK, port)) == 0
