"""Who stands where on the network: organisations, servers, ports, channel, policies. Everything else is made from this.

The trial network, the compose files in `docker/` and the table in `docs/fabric.md` come out of one `Topology`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

FABRIC_VERSION = "3.1.1"
KUBO_VERSION = "0.42.0"
CLUSTER_VERSION = "1.1.6"
CHANNEL = CHAINCODE = "custody"
LOOPBACK = "127.0.0.1"

_ROLES = {"hospital": "owner", "custodian": "custodian"}  # all others: research
_HOSPITAL = "hospital"  # its node goes on while one of its two peers is down
_FIRST_PORT = 7050
_PORTS_EACH = 20


@dataclass(frozen=True)
class Orderer:
    """An ordering node: TCP ports for blocks and envelopes, for osnadmin, for health and metrics.

    ``host``: by which the other servers call it.
    """

    name: str
    port: int
    admin_port: int
    operations_port: int
    host: str = LOOPBACK

    @property
    def msp_id(self) -> str:
        """Not its organisation's: no orderer can act as the organisation, nor the organisation as an orderer."""
        return f"{self.name.partition('.')[2].capitalize()}OrdererMSP"

    @property
    def domain(self) -> str:
        return f"ordering.{self.name.partition('.')[2]}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Peer:
    """A peer: TCP ports for clients and peers, for chaincode it would start itself (none), for health and metrics."""

    name: str
    port: int
    chaincode_port: int
    operations_port: int
    host: str = LOOPBACK

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Chaincode:
    """An organisation's chaincode service, which its own peers alone may call."""

    name: str
    port: int
    host: str = LOOPBACK

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class _IpfsPeer:
    """TCP ports for the others of its kind, and for its own organisation."""

    name: str
    port: int
    api_port: int
    host: str = LOOPBACK

    @property
    def swarm(self) -> str:
        """Where the others reach it, as a multiaddr without its peer id."""
        return multiaddr(self.host, self.port)


class Kubo(_IpfsPeer):
    """An organisation's IPFS node; its API is the RPC API."""


class Cluster(_IpfsPeer):
    """An ipfs-cluster peer beside a Kubo node of its number; its API is the REST API."""


@dataclass(frozen=True)
class Orthanc:
    """An organisation's Orthanc, in containers only: TCP ports of DICOM and HTTP. The hospital's has the plugin, and so
    the node with it; a research centre's receives what is released to it.
    """

    name: str
    port: int
    http_port: int


Server = Orderer | Peer | Chaincode | Kubo | Cluster
S = TypeVar("S", Orderer, Peer, Chaincode, Kubo, Cluster)


@dataclass(frozen=True)
class Organisation:
    """One party: its role in the contract, and the servers it runs."""

    name: str
    role: str
    orderer: Orderer | None
    peers: tuple[Peer, ...]
    chaincode: Chaincode
    kubos: tuple[Kubo, ...] = ()
    clusters: tuple[Cluster, ...] = ()  # one for each of the Kubo nodes, or none
    orthanc: Orthanc | None = None  # none of the network's servers

    @property
    def msp_id(self) -> str:
        return f"{self.name.capitalize()}MSP"

    @property
    def ae_title(self) -> str:
        """Of its Orthanc, and of the node that its requests name; the hospital's node has one of its own."""
        return f"{self.name.upper()}1"

    @property
    def servers(self) -> tuple[Server, ...]:
        return (*((self.orderer,) if self.orderer else ()), *self.peers, self.chaincode, *self.kubos, *self.clusters)


@dataclass(frozen=True)
class Topology:
    """A channel's organisations, the owner first, the custodian second; what needs both of them is a rule here."""

    organisations: tuple[Organisation, ...]

    @property
    def endorsing(self) -> tuple[Organisation, ...]:
        """Owner and custodian: each has to agree to every transaction, chaincode and change of the channel."""
        return tuple(each for each in self.organisations if each.role in ("owner", "custodian"))

    @property
    def orderers(self) -> tuple[Orderer, ...]:
        return tuple(each.orderer for each in self.organisations if each.orderer)

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(peer for each in self.organisations for peer in each.peers)

    @property
    def kubos(self) -> tuple[Kubo, ...]:
        return tuple(kubo for each in self.organisations for kubo in each.kubos)

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        return tuple(cluster for each in self.organisations for cluster in each.clusters)

    @property
    def servers(self) -> tuple[Server, ...]:
        """All, in the order in which they are started: orderers, peers, chaincode services, IPFS, its clusters."""
        chaincodes = (each.chaincode for each in self.organisations)
        return (*self.orderers, *self.peers, *chaincodes, *self.kubos, *self.clusters)

    @property
    def endorsement(self) -> str:
        """Signature policy of transactions and of the chaincode's definition."""
        return _all_of("peer", [each.msp_id for each in self.endorsing])

    @property
    def admins(self) -> str:
        """Signature policy of changes of the channel, its organisations and their rules."""
        return _all_of("admin", [each.msp_id for each in self.endorsing])

    @property
    def orderer_admins(self) -> str:
        """Signature policy of changes of the ordering service."""
        return _all_of("admin", [each.orderer.msp_id for each in self.endorsing if each.orderer])

    def organisation(self, name: str) -> Organisation:
        """The organisation of that name, or that has a server of that name. Raises KeyError."""
        for each in self.organisations:
            if name == each.name or name in [server.name for server in each.servers]:
                return each
        raise KeyError(name)

    def with_ports(self, take: Callable[[], int]) -> "Topology":
        """The same on other ports, each given by ``take``."""
        return self._with(lambda server: {name: take() for name in vars(server) if name.endswith("port")})

    def with_hosts(self, host: Callable[[str], str]) -> "Topology":
        """The same on other hosts, each given by ``host`` for a server's name."""
        return self._with(lambda server: {"host": host(server.name)})

    def _with(self, changes: Callable[[Server], dict[str, Any]]) -> "Topology":
        def changed(server: S) -> S:
            return replace(server, **changes(server))

        return Topology(
            tuple(
                replace(
                    each,
                    orderer=changed(each.orderer) if each.orderer else None,
                    peers=tuple(changed(peer) for peer in each.peers),
                    chaincode=changed(each.chaincode),
                    kubos=tuple(changed(kubo) for kubo in each.kubos),
                    clusters=tuple(changed(cluster) for cluster in each.clusters),
                )
                for each in self.organisations
            )
        )


@dataclass(frozen=True)
class Settings:
    """What may differ from network to network.

    ``time_window_s``: how far a proposal's time may be from the peer's clock (auth filter TimeWindowCheck); None: any.
    """

    batch_timeout_ms: int = 100
    max_message_count: int = 50
    time_window_s: int | None = 300


DEFAULTS = Settings()


def trial(
    names: tuple[str, ...] = ("hospital", "custodian", "research"),
    orderers: int = 3,
    hospital_peers: int = 2,
    hospital_kubos: int = 1,
    cluster: bool = False,
) -> Topology:
    """The trial network: hospital and custodian, and any number of research organisations after them.

    The first ``orderers`` organisations run an orderer each: three of them outlive the loss of any one. ``cluster``: an
    ipfs-cluster peer beside each of the hospital's Kubo nodes.
    """
    if names[:2] != ("hospital", "custodian"):
        raise ValueError(f"organisations {names}: expected hospital and custodian first")
    return Topology(
        tuple(
            _organisation(
                name,
                _FIRST_PORT + number * _PORTS_EACH,
                number < orderers,
                *((hospital_peers, hospital_kubos, cluster) if name == _HOSPITAL else (1, 1, False)),
            )
            for number, name in enumerate(names)
        )
    )


def _organisation(
    name: str, first_port: int, has_orderer: bool, peer_count: int, kubo_count: int, cluster: bool
) -> Organisation:
    ports = iter(range(first_port, first_port + _PORTS_EACH))
    orderer = Orderer(f"orderer.{name}", next(ports), next(ports), next(ports)) if has_orderer else None
    peers = tuple(_peer(f"peer{number}.{name}", ports) for number in range(peer_count))
    chaincode = Chaincode(f"chaincode.{name}", next(ports))
    kubos = tuple(Kubo(f"kubo{number}.{name}", next(ports), next(ports)) for number in range(kubo_count))
    cluster_count = kubo_count if cluster else 0
    clusters = tuple(Cluster(f"cluster{number}.{name}", next(ports), next(ports)) for number in range(cluster_count))
    role = _ROLES.get(name, "research")
    orthanc = None if role == "custodian" else Orthanc(f"orthanc.{name}", next(ports), next(ports))
    return Organisation(name, role, orderer, peers, chaincode, kubos, clusters, orthanc)


def _peer(name: str, ports: Iterator[int]) -> Peer:
    return Peer(name, next(ports), next(ports), next(ports))


def multiaddr(host: str, port: int) -> str:
    """A TCP port as libp2p has it; ``host`` is a name unless it is 127.0.0.1."""
    return f"/{'ip4' if host == LOOPBACK else 'dns4'}/{host}/tcp/{port}"


def _all_of(kind: str, msp_ids: list[str]) -> str:
    return f"AND({', '.join(repr(f'{msp_id}.{kind}') for msp_id in msp_ids)})"
