"""A network's folder: settings, keys, the channel's first block, packages, and what each party's nodes need.

network.json              topology and policy digest: what `read_state` gives
config/                   core.yaml, orderer.yaml, configtx.yaml, genesis.block
crypto/                   keys of servers and administrators
packages/                 each organisation's chaincode package
parties/ORGANISATION/     CA, identities/, connection.yaml for `ledger: fabric:…`, kubo.yaml for `content: kubo:…`, and
                          what its IPFS nodes keep
data/ run/ logs/          what servers keep, their pids, what they say
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.consortium import ipfs, keys, packages, settings
from orthanc_ledger.consortium.binaries import run_program
from orthanc_ledger.consortium.servers import Places
from orthanc_ledger.consortium.topology import (
    CHAINCODE,
    CHANNEL,
    LOOPBACK,
    Chaincode,
    Cluster,
    Kubo,
    Orderer,
    Organisation,
    Orthanc,
    Peer,
    Settings,
    Topology,
)
from orthanc_ledger.errors import ConfigError

STATE = "network.json"
BUILDER = Path(__file__).parent / "ccaas"


def prepare(
    directory: Path,
    binaries: Path,
    topology: Topology,
    chosen: Settings,
    policy_sha256: str,
    builder: str = str(BUILDER),
    listen: str = LOOPBACK,
) -> None:
    """Write all files of a new network.

    ``builder``: the folder of the external builder, as the peers see it. ``listen``: where IPFS nodes listen.

    Raises ConfigError when there is something in the folder already, LedgerAway when a program fails.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # everybody's keys are in it
    if any(directory.iterdir()):
        raise ConfigError(f"{directory}: expected a new or empty folder for the network, there is something in it")
    config = directory / "config"
    config.mkdir()
    _write_yaml(config / "core.yaml", settings.core_yaml(chosen, builder))
    _write_yaml(config / "orderer.yaml", settings.orderer_yaml())
    _write_yaml(config / "configtx.yaml", settings.configtx(topology, chosen, str(directory / "crypto")))
    keys.generate(binaries / "cryptogen", topology, directory)
    run_program(
        binaries / "configtxgen",
        *("-profile", settings.PROFILE, "-channelID", CHANNEL, "-outputBlock", str(block(directory))),
        environment={"FABRIC_CFG_PATH": str(config), "FABRIC_LOGGING_SPEC": "error"},
    )
    (directory / "packages").mkdir()
    for organisation in topology.organisations:
        packed = packages.package(organisation, directory / "crypto" / "chaincode" / organisation.name)
        package(directory, organisation).write_bytes(packed)
        write_connection(directory, topology, organisation)
    ipfs.prepare(directory, topology, listen)
    state = {"topology": asdict(topology), "policy_sha256": policy_sha256}
    (directory / STATE).write_text(json.dumps(state, indent=1))


def read_state(directory: Path) -> tuple[Topology, str]:
    """Topology and policy digest of a prepared folder. Raises ConfigError when it is none, or not wholly prepared."""
    try:
        state = json.loads((directory / STATE).read_text())
    except OSError as error:
        raise ConfigError(
            f"{directory}: expected the folder of a network, with {STATE} ({error.strerror}): name it with --dir, "
            "or an empty one for a new network"
        ) from error
    return Topology(tuple(_organisation(each) for each in state["topology"]["organisations"])), state["policy_sha256"]


def places(directory: Path) -> Places:
    """The folders as servers on this machine see them."""
    return Places(str(directory / "config"), str(directory / "crypto"), str(directory / "data"), LOOPBACK)


def block(directory: Path) -> Path:
    """The channel's first block."""
    return directory / "config" / "genesis.block"


def package(directory: Path, organisation: Organisation) -> Path:
    """An organisation's chaincode package."""
    return directory / "packages" / f"{organisation.name}.tar.gz"


def package_id(directory: Path, organisation: Organisation) -> str:
    """The id of that package, by which peers and service know each other."""
    return packages.package_id(organisation, package(directory, organisation).read_bytes())


def party(directory: Path, name: str) -> Path:
    """What an organisation's nodes and people use."""
    return directory / ipfs.PARTIES / name


def connection(directory: Path, name: str, chaincode: str = CHAINCODE) -> Path:
    """A party's connection file for a definition of the chaincode."""
    return party(directory, name) / ("connection.yaml" if chaincode == CHAINCODE else f"connection-{chaincode}.yaml")


def write_connection(
    directory: Path, topology: Topology, organisation: Organisation, chaincode: str = CHAINCODE
) -> Path:
    """Write a party's connection file for a definition of the chaincode, with the certificates it names beside it."""
    folder = party(directory, organisation.name)
    certificates = folder / "certificates"
    certificates.mkdir(exist_ok=True)
    authority = directory / "crypto" / "peerOrganizations" / organisation.name / "tlsca"
    (certificates / "tls-ca.pem").write_bytes((authority / f"tlsca.{organisation.name}-cert.pem").read_bytes())
    for each in topology.organisations:
        ca = party(directory, each.name) / "cacerts" / "ca.pem"
        (certificates / f"{each.msp_id}.pem").write_bytes(ca.read_bytes())
    path = connection(directory, organisation.name, chaincode)
    _write_yaml(
        path,
        {
            "channel": CHANNEL,
            "chaincode": chaincode,
            "organisation": organisation.msp_id,
            "peers": [
                {"endpoint": f"{LOOPBACK}:{peer.port}", "tls_ca": "certificates/tls-ca.pem"}
                for peer in organisation.peers
            ],
            "identity": "identities/node",
            "organisations": {each.msp_id: f"certificates/{each.msp_id}.pem" for each in topology.organisations},
        },
    )
    return path


def _organisation(raw: dict[str, Any]) -> Organisation:
    return Organisation(
        raw["name"],
        raw["role"],
        Orderer(**raw["orderer"]) if raw["orderer"] else None,
        tuple(Peer(**each) for each in raw["peers"]),
        Chaincode(**raw["chaincode"]),
        tuple(Kubo(**each) for each in raw.get("kubos", ())),  # older folders have none
        tuple(Cluster(**each) for each in raw.get("clusters", ())),
        Orthanc(**raw["orthanc"]) if raw.get("orthanc") else None,
    )


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
