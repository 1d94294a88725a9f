"""The same network as containers: a file for each organisation in `docker/`, and one that has all, made from the model.

Fabric's and Kubo's official images, named by version, with this project's settings and the folder that `prepare` has
written. Beside them run the hospital's Orthanc with the plugin, or its node alone, the custodian's keeper, and a
research centre's Orthanc, from images of this project; only these and the chaincode's are built. Ports are published on
127.0.0.1 alone.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.consortium import cluster, files, ipfs, orthanc
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
_PROJECT = "custody"
_HEAD = """\
# Made by `python -m orthanc_ledger.consortium render` from orthanc_ledger/consortium/topology.py: change that.
# docs/fabric.md says how to start it. A container sees the settings, its own keys, and a volume of its own.
"""
WHOLE = "compose.yaml"
PROFILE, ALONE = "parties", "node"  # of what starts once the channel is there; with the node in Orthanc's place
_COMMANDS = {
    "owner": ("node", ("--config", "node/orthanc-ledger.yaml", "serve"), [ALONE]),
    "custodian": ("keeper", ("--config", "party.yaml", "keeper"), [PROFILE, ALONE]),
}


def compose_files(topology: Topology) -> dict[str, str]:
    """The texts of the files in `docker/` by their names; hosts are the servers' names."""
    topology = topology.with_hosts(lambda name: name)
    each = {f"{organisation.name}.yaml": _content(organisation) for organisation in topology.organisations}
    whole = {"name": _PROJECT, "include": list(each)}
    return {
        name: _HEAD + yaml.safe_dump(content, sort_keys=False, width=120)
        for name, content in {WHOLE: whole, **each}.items()
    }


def _content(organisation: Organisation) -> dict[str, Any]:
    """What one organisation runs."""
    services = {server.name: _service(organisation, server) for server in organisation.servers}
    if organisation.orthanc:
        services[organisation.orthanc.name] = _orthanc_service(organisation)
    if organisation.role in _COMMANDS:
        name, command, profiles = _COMMANDS[organisation.role]
        own = {"command": list(command), "profiles": profiles}
        services[f"{name}.{organisation.name}"] = _party_service(organisation, "orthanc-ledger") | own
    kept = [server.name for server in organisation.servers if isinstance(server, Orderer | Peer)]
    return {"name": _PROJECT, "services": services, "volumes": {name: {} for name in kept}}


def prepare_compose(directory: Path, topology: Topology, policy_sha256: str) -> None:
    """Write a network's files for the containers, and `compose.env` with what is only known with them.

    Raises ConfigError when there is something in the folder already.
    """
    topology = topology.with_hosts(lambda name: name)
    files.prepare(directory, fabric_binaries(), topology, DEFAULTS, policy_sha256, _IMAGE_BUILDER, _PLACES.listen)
    user = f"{os.getuid()}:{os.getgid()}"
    for each in topology.organisations:
        if each.orthanc:
            orthanc.prepare(directory, each, each.orthanc)
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


def _orthanc_service(organisation: Organisation) -> dict[str, Any]:
    """The hospital's runs the node, too: its plugin starts the node's processes."""
    service = _party_service(organisation, "orthanc")
    settings = f"${{CONSORTIUM:?}}/{orthanc.configuration(Path(), organisation)}:/etc/orthanc/orthanc.json:ro"
    return service | {"volumes": [*service["volumes"], settings], "profiles": [PROFILE]}


def _party_service(organisation: Organisation, image: str) -> dict[str, Any]:
    """A process of an organisation's own: its folder is as on the host, whose loopback its files name."""
    folder = f"${{CONSORTIUM:?}}/{files.party(Path(), organisation.name)}"
    return {
        "build": {"context": "..", "dockerfile": f"docker/{image}.Dockerfile"},
        "working_dir": folder,
        "network_mode": "host",
        "user": "${CONSORTIUM_USER:?}",
        "volumes": [f"{folder}:{folder}"],
        "restart": "unless-stopped",
    }


def _mounted(folder: str) -> str:
    return f"${{CONSORTIUM:?}}/{folder}:/consortium/{folder}:ro"


def _package_variable(organisation: Organisation) -> str:
    return f"{organisation.name.upper()}_CHAINCODE_ID"
