"""Servers of a prepared folder as processes of this machine: started, stopped and frozen by their names."""

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orthanc_ledger.consortium.processes import Processes
from orthanc_ledger.consortium.topology import LOOPBACK, Cluster, Kubo, Orderer, Server
from orthanc_ledger.errors import ConfigError

_READY_S = 60.0
_ANSWER_S = 2.0

Command = tuple[list[str], dict[str, str]]  # its words, and the environment over this process's


class Servers:
    """A folder's servers, which go by the topology's names: `orderer.custodian`, `peer1.hospital`, `kubo0.research`, …

    Processes outlive the one that started them; whoever opens the folder can end them.
    """

    def __init__(self, directory: Path, servers: Iterable[Server]) -> None:
        """``servers``: in the order in which they are started."""
        self.directory = directory
        self.processes = Processes(directory)
        self._servers = {server.name: server for server in servers}

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Start what does not run; what was started here ends again when that fails, or the block.

        Raises ConfigError when a port is taken, LedgerAway when a server does not come up.
        """
        idle = [server for server in self._servers.values() if self.processes.pid(server.name) is None]
        with ExitStack() as otherwise:
            for server in idle:
                otherwise.callback(self.processes.end, server.name)
                self._spawn(server)
            for server in idle:
                self._wait_ready(server)
            yield
            otherwise.pop_all()

    def down(self) -> None:
        """End every server, the last started first, so that nobody waits for another. What they keep stays."""
        for name in reversed(self._servers):
            self.processes.signal(name, signal.SIGTERM)
        for name in reversed(self._servers):
            self.processes.end(name)

    def start(self, name: str, program: Path | None = None) -> None:
        """Start a server and return once it takes connections.

        ``program``: what it runs instead of its own program, where it can.

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

    def _command(self, server: Server, program: Path | None) -> Command:
        """What starts a server."""
        raise NotImplementedError

    def _spawn(self, server: Server, program: Path | None = None) -> None:
        if self.processes.pid(server.name) is None:
            for what, port in _ports(server).items():
                _check_free(server.name, what, port)
        self.processes.start(server.name, *self._command(server, program))

    def _wait_ready(self, server: Server) -> None:
        ports = [server.port]
        if isinstance(server, Orderer | Kubo | Cluster):
            ports.append(server.admin_port if isinstance(server, Orderer) else server.api_port)
        self.processes.wait_ready(server.name, lambda: all(_takes_connections(port) for port in ports), _READY_S)


def _ports(server: Server) -> dict[str, int]:
    return {what: port for what, port in vars(server).items() if what.endswith("port")}


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
