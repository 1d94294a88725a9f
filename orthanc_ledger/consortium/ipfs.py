"""The private IPFS of the organisations: Kubo nodes that hold the same swarm key, know each other, and nobody else.

Each node's repository (its IPFS_PATH) is a folder of its organisation's, with the bearer secret of its API beside it.
docs/ipfs.md has the reason of each setting.
"""

import json
import secrets
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.consortium import cluster
from orthanc_ledger.consortium.binaries import cluster_binary, kubo_binary, run_program
from orthanc_ledger.consortium.keys import write
from orthanc_ledger.consortium.running import Command, Servers
from orthanc_ledger.consortium.topology import LOOPBACK, Cluster, Kubo, Organisation, Server, Topology

PARTIES = "parties"
DAEMON = ("daemon", "--migrate=false")

# What a node's store asks for. Not among them: changing settings or connections, keys, ending the node.
_PATHS = ("add", "block/", "cat", "config/show", "dag/", "id", "pin/", "refs", "repo/", "swarm/peers", "version")


class IpfsNetwork(Servers):
    """The Kubo nodes and cluster peers of a topology alone, for what needs no Fabric; no other servers run."""

    def __init__(self, directory: Path, topology: Topology) -> None:
        """``directory``: prepared by ``prepare``."""
        super().__init__(directory, (*topology.kubos, *topology.clusters))
        self.topology = topology

    def up(self) -> None:
        """Start what does not run. Raises ConfigError when a port is taken, LedgerAway when one does not come up."""
        with self.starting():
            pass

    def _command(self, server: Server, program: Path | None) -> Command:
        assert isinstance(server, Kubo | Cluster)
        return command(self.directory, server)


def prepare(directory: Path, topology: Topology, listen: str = LOOPBACK) -> None:
    """Make the folders of all nodes and cluster peers, and each organisation's `kubo.yaml`.

    ``listen``: the IPv4 address that they listen on.

    Raises ConfigError when a program cannot be built, LedgerAway when it fails.
    """
    swarm_key = f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n".encode()
    identities = {kubo: _initialised(folder(directory, kubo)) for kubo in topology.kubos}
    for organisation in topology.organisations:
        asking: dict[Cluster, tuple[Kubo, str]] = {}
        for kubo, peer in zip_longest(organisation.kubos, organisation.clusters):
            repo, token, password = folder(directory, kubo), secrets.token_urlsafe(32), secrets.token_urlsafe(32)
            others = [(each.swarm, identity["PeerID"]) for each, identity in identities.items() if each != kubo]
            allowed = _authorizations(token, password if peer else None)
            chosen = settings(kubo, identities[kubo], others, allowed, listen)
            (repo / "config").write_text(json.dumps(chosen, indent=2))  # which Kubo has made 0600
            write(repo / "swarm.key", swarm_key, 0o600)
            write(token_file(directory, kubo), f"{token}\n".encode(), 0o600)
            if peer:
                asking[peer] = (kubo, password)
        cluster.prepare({peer: folder(directory, peer) for peer in organisation.clusters}, asking, listen)
        if organisation.kubos:
            _write_connection(directory, organisation)


def connection(directory: Path, organisation: str) -> Path:
    """The file that `content: kubo:…` of an organisation's nodes names."""
    return directory / PARTIES / organisation / "kubo.yaml"


def folder(directory: Path, server: Kubo | Cluster) -> Path:
    """What a node (its IPFS_PATH) or cluster peer keeps."""
    number, _, organisation = server.name.partition(".")
    return directory / PARTIES / organisation / number


def token_file(directory: Path, server: Kubo | Cluster) -> Path:
    """The file of what the API of a node or cluster peer is asked with."""
    return folder(directory, server).with_suffix(".token")


def peer_id(repo: Path) -> str:
    """The libp2p peer id of a repository's node."""
    return str(json.loads((repo / "config").read_text())["Identity"]["PeerID"])


def command(directory: Path, server: Kubo | Cluster) -> Command:
    """What starts a node or cluster peer on this machine."""
    own = str(folder(directory, server))
    if isinstance(server, Kubo):
        return [str(kubo_binary()), *DAEMON], environment(own)
    return [str(cluster_binary()), "daemon"], cluster.environment(own)


def environment(repo: str) -> dict[str, str]:
    """Of `ipfs`: without a swarm key it refuses to start."""
    return {"IPFS_PATH": repo, "LIBP2P_FORCE_PNET": "1", "IPFS_TELEMETRY": "off"}


def settings(
    kubo: Kubo,
    identity: Mapping[str, str],
    others: list[tuple[str, str]],
    authorizations: Mapping[str, Any],
    listen: str,
) -> dict[str, Any]:
    """A node's `config`, whole. ``others``: swarm address and peer id of each node to be connected with."""
    off = {"Enabled": False}
    return {
        "Identity": dict(identity),
        "Addresses": {
            "Swarm": [f"/ip4/{listen}/tcp/{kubo.port}"],
            "API": f"/ip4/{listen}/tcp/{kubo.api_port}",
            "Gateway": [],
        },
        "API": {"Authorizations": dict(authorizations)},
        "Datastore": {
            "HashOnRead": True,
            "BlockKeyCacheSize": 0,  # what is written again replaces a damaged block
            "Spec": {
                "type": "mount",
                "mounts": [
                    {
                        "mountpoint": "/blocks",
                        "type": "flatfs",
                        "prefix": "flatfs.datastore",
                        "path": "blocks",
                        "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2",
                        "sync": True,
                    },
                    {
                        "mountpoint": "/",
                        "type": "levelds",
                        "prefix": "leveldb.datastore",
                        "path": "datastore",
                        "compression": "none",
                    },
                ],
            },
        },
        "Import": {
            "CidVersion": 1,
            "HashFunction": "sha2-256",
            "UnixFSChunker": "size-1048576",
            "UnixFSRawLeaves": True,
            "UnixFSFileMaxLinks": 1024,
            "UnixFSDAGLayout": "balanced",
        },
        # Bootstrapping connects at once at start, and asks again each half minute; peering keeps connections alive.
        "Bootstrap": [f"{address}/p2p/{peer}" for address, peer in others],
        "Peering": {"Peers": [{"ID": peer, "Addrs": [address]} for address, peer in others]},
        "Swarm": {
            "Transports": {
                "Network": {
                    "TCP": True,
                    **dict.fromkeys(("QUIC", "Relay", "WebRTCDirect", "Websocket", "WebTransport"), False),
                }
            },
            "DisableNatPortMap": True,
            "EnableHolePunching": False,
            "RelayClient": off,
            "RelayService": off,
        },
        # Without routing, a block is found by asking every peer for it.
        "Internal": {"Bitswap": {"BroadcastControl": {"Enable": False}}},
        "Routing": {"Type": "none", "DelegatedRouters": []},
        "Provide": off,
        "Ipns": {"DelegatedPublishers": []},
        "HTTPRetrieval": off,
        "Discovery": {"MDNS": off},
        "DNS": {"Resolvers": {}},
        "AutoConf": off,
        "AutoTLS": off,
        "AutoNAT": {"ServiceMode": "disabled"},
        "Gateway": {"NoFetch": True, "NoDNSLink": True},
        "Pubsub": off,
        "Version": {"SwarmCheckEnabled": False},
        "Plugins": {"Plugins": {"telemetry": {"Disabled": True}}},
    }


def _authorizations(token: str, cluster_password: str | None) -> dict[str, Any]:
    """Who may ask what of a node's API: its organisation's store, and its cluster peer where there is one."""
    asking: dict[str, tuple[str, tuple[str, ...]]] = {"node": (f"bearer:{token}", _PATHS)}
    if cluster_password is not None:
        asking[cluster.KUBO_USER] = (f"basic:{cluster.KUBO_USER}:{cluster_password}", cluster.KUBO_PATHS)
    return {
        name: {"AuthSecret": secret, "AllowedPaths": [f"/api/v0/{path}" for path in paths]}
        for name, (secret, paths) in asking.items()
    }


def _initialised(repo: Path) -> dict[str, str]:
    """Make a repository, and return the keys that Kubo has made for it."""
    repo.mkdir(parents=True)
    run_program(kubo_binary(), "init", "--empty-repo", environment=environment(str(repo)))
    identity: dict[str, str] = json.loads((repo / "config").read_text())["Identity"]
    return identity


def _write_connection(directory: Path, organisation: Organisation) -> None:
    path = connection(directory, organisation.name)
    content: dict[str, Any] = {
        "nodes": [
            {"name": kubo.name, **_reached(directory, kubo), "kubo_repo": folder(directory, kubo).name}
            for kubo in organisation.kubos
        ],
        "local": "objects",
    }
    if organisation.role != "owner":
        content["keep_days"] = 0  # a copy on its node is enough, as the hospital has the others
    if organisation.clusters:
        content["cluster"] = _reached(directory, organisation.clusters[0])
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _reached(directory: Path, server: Kubo | Cluster) -> dict[str, str]:
    return {"api": f"http://{LOOPBACK}:{server.api_port}", "token": token_file(directory, server).name}
