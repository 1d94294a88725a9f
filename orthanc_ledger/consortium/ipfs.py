"""The private IPFS of the organisations: Kubo nodes that hold the same swarm key, know each other, and nobody else.

Each node's repository (its IPFS_PATH) is a folder of its organisation's, with the bearer secret of its API beside it.
docs/ipfs.md has the reason of each setting.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.consortium.binaries import kubo_binary, run_program
from orthanc_ledger.consortium.running import Command, Servers
from orthanc_ledger.consortium.topology import LOOPBACK, Kubo, Server, Topology

PARTIES = "parties"
DAEMON = ("daemon", "--migrate=false")

# What a node's store asks for. Not among them: changing settings or connections, keys, ending the node.
_PATHS = ("add", "block/", "cat", "config/show", "dag/", "id", "pin/", "refs", "repo/", "swarm/peers", "version")


class IpfsNetwork(Servers):
    """The Kubo nodes of a topology alone, for what needs no Fabric; none of its other servers run."""

    def __init__(self, directory: Path, topology: Topology) -> None:
        """``directory``: prepared by ``prepare``."""
        super().__init__(directory, topology.kubos)
        self.topology = topology

    def up(self) -> None:
        """Start what does not run. Raises ConfigError when a port is taken, LedgerAway when a node does not come up."""
        with self.starting():
            pass

    def _command(self, server: Server, program: Path | None) -> Command:
        assert isinstance(server, Kubo)
        return command(self.directory, server)


def prepare(directory: Path, topology: Topology, listen: str = LOOPBACK) -> None:
    """Make all nodes' repositories and each organisation's `kubo.yaml`.

    ``listen``: the IPv4 address that nodes listen on.

    Raises ConfigError when Kubo cannot be built, LedgerAway when it fails.
    """
    swarm_key = f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n"
    identities = {kubo.name: _initialised(repository(directory, kubo)) for kubo in topology.kubos}
    addresses = {kubo.name: (kubo.swarm, identities[kubo.name]["PeerID"]) for kubo in topology.kubos}
    for kubo in topology.kubos:
        token = secrets.token_urlsafe(32)
        others = [address for name, address in addresses.items() if name != kubo.name]
        chosen = settings(kubo, identities[kubo.name], others, token, listen)
        repo = repository(directory, kubo)
        _write_secret(repo / "config", json.dumps(chosen, indent=2))
        _write_secret(repo / "swarm.key", swarm_key)
        _write_secret(token_file(directory, kubo), token + "\n")
    for organisation in topology.organisations:
        write_connection(directory / PARTIES / organisation.name / "kubo.yaml", directory, organisation.kubos)


def repository(directory: Path, kubo: Kubo) -> Path:
    """A node's repository, its IPFS_PATH."""
    number, _, organisation = kubo.name.partition(".")
    return directory / PARTIES / organisation / number


def token_file(directory: Path, kubo: Kubo) -> Path:
    """The file of the bearer secret of a node's API."""
    return repository(directory, kubo).with_suffix(".token")


def peer_id(repo: Path) -> str:
    """The libp2p peer id of a repository's node."""
    return str(json.loads((repo / "config").read_text())["Identity"]["PeerID"])


def write_connection(
    path: Path, directory: Path, kubos: tuple[Kubo, ...], chosen: Mapping[str, Any] | None = None
) -> Path:
    """Write the file that `content: kubo:…` names, with these nodes and further keys as ``chosen``."""
    nodes = [
        {
            "name": kubo.name,
            "api": f"http://{LOOPBACK}:{kubo.api_port}",
            "token": os.path.relpath(token_file(directory, kubo), path.parent),
            "kubo_repo": os.path.relpath(repository(directory, kubo), path.parent),
        }
        for kubo in kubos
    ]
    path.write_text(yaml.safe_dump({"nodes": nodes, "local": "objects", **(chosen or {})}, sort_keys=False))
    return path


def command(directory: Path, kubo: Kubo) -> Command:
    """What starts a node on this machine."""
    return [str(kubo_binary()), *DAEMON], environment(str(repository(directory, kubo)))


def environment(repo: str) -> dict[str, str]:
    """Of `ipfs`: without a swarm key it refuses to start."""
    return {"IPFS_PATH": repo, "LIBP2P_FORCE_PNET": "1", "IPFS_TELEMETRY": "off"}


def settings(
    kubo: Kubo, identity: Mapping[str, str], others: list[tuple[str, str]], token: str, listen: str
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
        "API": {
            "Authorizations": {
                "node": {
                    "AuthSecret": f"bearer:{token}",
                    "AllowedPaths": [f"/api/v0/{path}" for path in _PATHS],
                }
            }
        },
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


def _initialised(repo: Path) -> dict[str, str]:
    """Make a repository, and return the keys that Kubo has made for it."""
    repo.mkdir(parents=True)
    run_program(kubo_binary(), "init", "--empty-repo", environment=environment(str(repo)))
    identity: dict[str, str] = json.loads((repo / "config").read_text())["Identity"]
    return identity


def _write_secret(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
