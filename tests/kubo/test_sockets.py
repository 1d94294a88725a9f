"""Every socket call of Kubo and ipfs-cluster, from start to end: only the ports and peers that are configured."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orthanc_ledger.consortium.running import Command
from orthanc_ledger.consortium.topology import LOOPBACK, Cluster, Kubo, Server
from tests.kubo.live import WAIT_S, Kubos, Stray, running_kubos, stray

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

_SOCKET = re.compile(r" socket\((AF_INET6?), (\w+)")
_ADDRESS = re.compile(
    r" (bind|connect)\(.*sin6?_port=htons\((\d+)\).*(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\""
)
_CALLS = "trace=socket,bind,connect"


class Traced(Kubos):
    """Nodes whose socket calls are written down, those of all threads."""

    def trace(self, name: str) -> Path:
        return self.directory / f"{name}.trace"

    def _command(self, server: Server, program: Path | None) -> Command:
        command, environment = super()._command(server, program)
        strace = [str(shutil.which("strace")), "-f", "-qq", "-A", "-e", _CALLS, "-o", str(self.trace(server.name))]
        return [*strace, *command], environment


class TracedStray(Traced, Stray):
    """The same of a node that is set wrong."""


def not_configured(kubos: Traced, server: Kubo | Cluster) -> list[str]:
    """What a node or cluster peer did with sockets that it was not set to do."""
    own = {server.port, server.api_port}
    alike = kubos.topology.kubos if isinstance(server, Kubo) else kubos.topology.clusters
    called = {each.port for each in alike if each != server}
    if isinstance(server, Cluster):
        called |= {each.api_port for each in kubos.topology.kubos if each.name[-10:] == server.name[-10:]}
    found = []
    for line in kubos.trace(server.name).read_text().splitlines():
        if (made := _SOCKET.search(line)) and made[2] != "SOCK_STREAM":
            found.append(line)
        if named := _ADDRESS.search(line):
            call, port, address = named[1], int(named[2]), named[3]
            # Go binds a socket of IPv6 once, and closes it, to see whether there is IPv6.
            probe = call == "bind" and port == 0 and "AF_INET6" in line
            if not probe and (address != LOOPBACK or port not in (called if call == "connect" else own)):
                found.append(line)
    return found


def listening(kubos: Kubos, name: str) -> set[tuple[str, int]]:
    """Addresses that a server listens on; strace has it for a child. None when it has ended."""
    pid = kubos.processes.pid(name)
    if pid is None:
        return set()
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    open_ones = [each for process in processes for each in process.net_connections("inet")]
    return {each.laddr for each in open_ones if each.status == psutil.CONN_LISTEN}


@pytest.fixture
def traced(tmp_path: Path, free_port: Callable[[], int], strace: str) -> Iterator[Traced]:
    with running_kubos(tmp_path, free_port, cluster=True, kind=Traced) as started:
        assert isinstance(started, Traced)
        yield started


def test_no_socket_but_those_configured_over_start_add_read_pin_and_reconnect(traced: Traced) -> None:
    (told,) = traced.node().call("add", body=b"sealed")
    assert traced.node("kubo0.research").call("cat", told["Hash"]) == b"sealed"
    traced.cluster().pin(told["Hash"])
    traced.stop("kubo1.hospital")
    traced.start("kubo1.hospital")
    traced.wait_connected()
    servers = (*traced.topology.kubos, *traced.topology.clusters)
    for server in servers:
        assert listening(traced, server.name) == {(LOOPBACK, server.port), (LOOPBACK, server.api_port)}
    traced.down()
    for server in servers:
        assert " connect(" in traced.trace(server.name).read_text()  # it was watched
        assert not_configured(traced, server) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"Discovery.MDNS.Enabled": True},
        {"Swarm.DisableNatPortMap": False},
        {"Routing.Type": "auto", "Bootstrap": ["/ip4/192.0.2.1/tcp/4001/p2p/{peer}"]},
        {"Addresses.Gateway": "/ip4/127.0.0.1/tcp/0"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_setting_left_open_is_found(
    tmp_path: Path,
    free_port: Callable[[], int],
    strace: str,
    changes: dict[str, object],
    wait_until: Callable[..., None],
) -> None:
    peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
    filled = {
        name: [each.format(peer=peer) for each in value] if name == "Bootstrap" else value
        for name, value in changes.items()
    }
    kubos = stray(tmp_path, free_port, filled, kind=TracedStray)
    try:
        kubos.up()
        wait_until(lambda: not_configured(kubos, kubos.topology.kubos[0]), WAIT_S, "it was found")
    finally:
        kubos.down()
