"""The same network as containers: `docker/compose.yaml`, made from the model.

Fabric's and Kubo's official images, named by version, with this project's settings and the folder that `prepare` has
written.
The hospital's node (with its HTTPS application) and the custodian's keeper run beside them, from an image of this
project. Only theirs and the chaincode's are built. Ports are published on 127.0.0.1 alone.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.consortium import cluster, files, ipfs
from orthanc_ledger.consortium.binaries import fabric_binaries
from orthanc_ledger.consortium.servers import Places, chaincode_environment, orderer_environment, peer_environment
from orthanc_ledger.consortium.topology import (
    CLUSTER_VERSION,
    DEFAULTS,
    FABRIC_VERSION,
    KUBO_VERSION,
    LOOPBACK,
    Chaincode,
    Cluster,
    Kubo,
    Orderer,
    Organisation,
    Peer,
    Server,
    Topology,
)

ENVIRONMENT = "compose.env"
_IMAGE_BUILDER = "/opt/hyperledger/ccaas_builder"  # in fabric-peer's image: chaincode as a service
_PLACES = Places("/consortium/config", "/consortium/crypto", "/consortium/data", "0.0.0.0")
_HEAD = """\
# Made by `python -m orthanc_ledger.consortium render` from orthanc_ledger/consortium/topology.py: change that.
# docs/fabric.md says how to start it. A container sees the settings, its own keys, and a volume of its own.
"""
PROFILE = "parties"  # of what starts once the channel is there
_PARTIES = {
    "owner": ("node", ("--config", "node/orthanc-ledger.yaml", "serve")),
    "custodian": ("keeper", ("--config", "party.yaml", "keeper")),
}


def compose_yaml(topology: Topology) -> str:
    """The text of `docker/compose.yaml`; hosts are the servers' names."""
    topology = topology.with_hosts(lambda name: name)
    services = {
        server.name: _service(organisation, server)
        for organisation in topology.organisations
        for server in organisation.servers
    }
    for organisation in topology.organisations:
        if organisation.role in _PARTIES:
            name, command = _PARTIES[organisation.role]
            services[f"{name}.{organisation.name}"] = _party_service(organisation, command)
    kept = [server.name for server in topology.servers if isinstance(server, Orderer | Peer)]
    content = {"name": "custody", "services": services, "volumes": {name: {} for name in kept}}
    return _HEAD + yaml.safe_dump(content, sort_keys=False, width=120)


def prepare_compose(directory: Path, topology: Topology, policy_sha256: str) -> None:
    """Write a network's files for the containers, and `compose.env` with what is only known with them.

    Raises ConfigError when there is something in the folder already.
    """
    topology = topology.with_hosts(lambda name: name)
    files.prepare(directory, fabric_binaries(), topology, DEFAULTS, policy_sha256, _IMAGE_BUILDER, _PLACES.listen)
    user = f"{os.getuid()}:{os.getgid()}"
    lines = {"CONSORTIUM": str(directory), "CONSORTIUM_USER": user, "POLICY_SHA256": policy_sha256}
    for each in topology.organisations:
        lines[_package_variable(each)] = files.package_id(directory, each)
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    (directory / ENVIRONMENT).write_text(text)


def _service(organisation: Organisation, server: Server) -> dict[str, Any]:
    if isinstance(server, Chaincode):
        package_id = f"${{{_package_variable(organisation)}:?}}"
        return {
            "build": {"context": "..", "dockerfile": "docker/chaincode.Dockerfile"},
            "environment": chaincode_environment(organisation, package_id, "${POLICY_SHA256:?}", _PLACES),
            "user": "${CONSORTIUM_USER:?}",  # whose keys they are
            "volumes": [_mounted(f"crypto/chaincode/{organisation.name}")],
            "restart": "unless-stopped",
        }
    if isinstance(server, Kubo | Cluster):
        if isinstance(server, Kubo):
            image, command, place = f"ipfs/kubo:v{KUBO_VERSION}", list(ipfs.DAEMON), "/data/ipfs"
            environment = ipfs.environment(place)
        else:
            image, command, place = f"ipfs/ipfs-cluster:v{CLUSTER_VERSION}", ["daemon"], "/data/ipfs-cluster"
            environment = cluster.environment(place)
        return {
            "image": image,
            "command": command,
            "environment": environment,
            "user": "${CONSORTIUM_USER:?}",  # whose folder it is, which the organisation's node reads, too
            "volumes": [f"${{CONSORTIUM:?}}/{ipfs.folder(Path(), server)}:{place}"],
            "ports": [f"{LOOPBACK}:{port}:{port}" for port in (server.port, server.api_port)],
            "healthcheck": {"disable": True},  # the image's own asks without the token
            "restart": "unless-stopped",
        }
    ports = [server.port, server.operations_port]
    if isinstance(server, Orderer):
        kind, own, environment = "orderer", _PLACES.orderer(server), orderer_environment(server, _PLACES)
        ports.append(server.admin_port)
    else:
        kind, own = "peer", _PLACES.peer(organisation, server)
        environment = peer_environment(organisation, server, _PLACES)
    return {
        "image": f"hyperledger/fabric-{kind}:{FABRIC_VERSION}",
        "environment": environment,
        "volumes": [
            _mounted("config"),
            _mounted(own.removeprefix("/consortium/")),
            f"{server.name}:{_PLACES.data}/{server.name}",
        ],
        "ports": [f"{LOOPBACK}:{port}:{port}" for port in ports],
        "restart": "unless-stopped",
    }


def _party_service(organisation: Organisation, command: tuple[str, ...]) -> dict[str, Any]:
    """A process of an organisation's own: its folder is as on the host, whose loopback its files name."""
    folder = f"${{CONSORTIUM:?}}/{files.party(Path(), organisation.name)}"
    return {
        "build": {"context": "..", "dockerfile": "docker/orthanc-ledger.Dockerfile"},
        "command": list(command),
        "working_dir": folder,
        "network_mode": "host",
        "user": "${CONSORTIUM_USER:?}",
        "volumes": [f"{folder}:{folder}"],
        "profiles": [PROFILE],
        "restart": "unless-stopped",
    }


def _mounted(folder: str) -> str:
    return f"${{CONSORTIUM:?}}/{folder}:/consortium/{folder}:ro"


def _package_variable(organisation: Organisation) -> str:
    return f"{organisation.name.upper()}_CHAINCODE_ID"
