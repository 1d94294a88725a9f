"""ipfs-cluster peers, one beside each Kubo node of an organisation: which node pins what is agreed between them.

Each has its folder (IPFS_CLUSTER_PATH) beside its node's repository. Of a batch, which a node has taken and pinned, the
peers see to it that it is pinned on as many nodes as there are replicas, and again on one that comes back.
"""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthanc_ledger.consortium.binaries import cluster_binary, run_program
from orthanc_ledger.consortium.keys import write
from orthanc_ledger.consortium.topology import Cluster, Kubo

REPLICAS = 2
USER = "node"  # of the REST API
KUBO_USER = "cluster"  # of Kubo's API

# What a peer asks its Kubo node for.
KUBO_PATHS = ("id", "pin/", "repo/stat", "swarm/peers", "version")


def prepare(folders: Mapping[Cluster, Path], kubos: Mapping[Cluster, tuple[Kubo, str]], listen: str) -> None:
    """Make the folders of an organisation's peers, each with its REST API's `USER:PASSWORD` in a file beside it.

    ``kubos``: each peer's node, and the password by which it asks that. ``listen``: the IPv4 address to listen on.

    Raises ConfigError when ipfs-cluster cannot be built, LedgerAway when it fails.
    """
    secret = secrets.token_hex(32)
    ids = {peer: _initialised(folder) for peer, folder in folders.items()}
    for peer, folder in folders.items():
        password = secrets.token_urlsafe(32)
        others = [f"{each.swarm}/p2p/{ids[each]}" for each in folders if each != peer]
        chosen = settings(peer, *kubos[peer], secret, password, others, sorted(ids.values()), listen)
        (folder / "service.json").write_text(json.dumps(chosen, indent=2))  # which has been made 0600
        write(folder.with_suffix(".token"), f"{USER}:{password}\n".encode(), 0o600)


def environment(folder: str) -> dict[str, str]:
    """Of `ipfs-cluster-service`."""
    return {"IPFS_CLUSTER_PATH": folder}


def settings(
    peer: Cluster,
    kubo: Kubo,
    kubo_password: str,
    secret: str,
    password: str,
    others: list[str],
    trusted: list[str],
    listen: str,
) -> dict[str, Any]:
    """A peer's `service.json`; what a section has not named is ipfs-cluster's default, a component not named is off."""
    replicas = min(REPLICAS, len(trusted))
    return {
        "cluster": {
            "peername": peer.name,
            "secret": secret,
            "listen_multiaddress": [f"/ip4/{listen}/tcp/{peer.port}"],
            "peer_addresses": others,
            "mdns_interval": "0s",
            "enable_relay_hop": False,
            "replication_factor_min": replicas,
            "replication_factor_max": replicas,
            # By the defaults (15 s, 12 m) nothing can be pinned in the first half minute, and a node that comes back
            # has what it lacks a quarter of an hour later.
            "monitor_ping_interval": "2s",
            "pin_recover_interval": "1m",
            "pubsub": {  # must be whole; but for the heartbeat (10 s) the defaults
                "heartbeat_interval": "1s",
                "seen_messages_ttl": "30m",
                "d_factor": 4,
                "history_gossip": 2,
                "history_length": 6,
            },
        },
        "consensus": {"crdt": {"cluster_name": "custody", "trusted_peers": trusted}},
        "api": {
            "restapi": {
                "http_listen_multiaddress": f"/ip4/{listen}/tcp/{peer.api_port}",
                "basic_auth_credentials": {USER: password},
            }
        },
        "ipfs_connector": {
            "ipfshttp": {
                # It has no setting for Kubo's API.Authorizations: USER:PASSWORD@HOST is a name, and makes the header.
                "node_multiaddress": f"/dns4/{KUBO_USER}:{kubo_password}@{kubo.host}/tcp/{kubo.api_port}",
                "connect_swarms_delay": "0s",  # never: Kubo has its peers
            }
        },
        "pin_tracker": {"stateless": {}},
        "monitor": {"pubsubmon": {"check_interval": "2s"}},
        "allocator": {"balanced": {"allocate_by": ["freespace"]}},
        "informer": {"disk": {"metric_ttl": "10s", "metric_type": "freespace"}},
        "datastore": {"pebble": {}},
    }


def _initialised(folder: Path) -> str:
    """Make a folder, and return the peer id of the key that was made for it."""
    run_program(
        cluster_binary(),
        *("init", "--consensus", "crdt", "--datastore", "pebble"),
        environment=environment(str(folder)),
    )
    return str(json.loads((folder / "identity.json").read_text())["id"])
