"""The trial network as `make consortium` makes it: the model's organisations, a policy, and for each organisation an
identity of its node and one of a person, and what its keeper, its pull or its HTTPS application is told.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from orthanc_ledger.consortium.files import write_connection
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import LOOPBACK, Organisation, Topology, trial
from orthanc_ledger.errors import ConfigError, ContractError
from orthanc_ledger.ledger import Value, first_record
from orthanc_ledger.ledger.contract.call import Assurance
from orthanc_ledger.ledger.contract.policy import default_policy, policy_digest
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import issue_server, load_identity

MAX_CLOCK_SKEW_S = 60

_KINDS: tuple[Assurance, ...] = ("person", "node")
_AS_IT_IS: Mapping[str, Value] = {}


def trial_policy(topology: Topology, changes: Mapping[str, Value] = _AS_IT_IS) -> dict[str, Value]:
    """The policy of a channel of these organisations; a signer's clock may differ from each endorser's by a minute.
    Where there are Kubo nodes, releases wait for the custodian's copy.
    """
    policy = default_policy({each.msp_id: each.role for each in topology.organisations})
    chosen = {"max_clock_skew_s": MAX_CLOCK_SKEW_S, "require_stored": bool(topology.kubos)}
    return {**policy, **chosen, **changes}


def trial_policy_sha256(topology: Topology, changes: Mapping[str, Value] = _AS_IT_IS) -> str:
    """The digest of that policy, which chaincode services are started with."""
    return policy_digest(trial_policy(topology, changes)).hex()


def start_trial(directory: Path, cluster: bool = False) -> Network:
    """Start the trial network in its folder, from nothing or with what it kept, so that it takes transactions.

    ``cluster``: the hospital has two Kubo nodes, and an ipfs-cluster peer beside each.

    Raises ConfigError, LedgerAway as `Network.up`; ConfigError when the folder is one that has no cluster.
    """
    if directory.is_dir() and any(directory.iterdir()):
        network = Network(directory)
        if cluster and not network.topology.clusters:
            raise ConfigError(f"{directory}: it was made without a cluster and stays so: name a new folder with --dir")
        for each in network.topology.organisations:  # an older version's lack what has been added
            write_connection(network.directory, network.topology, each)
    else:
        topology = trial(hospital_kubos=2, cluster=True) if cluster else trial()
        network = Network.create(directory, trial_policy_sha256(topology), topology)
    network.up()
    put_in_use(network)
    return network


def put_in_use(network: Network, changes: Mapping[str, Value] = _AS_IT_IS) -> None:
    """Issue the identities that are missing, and put the policy in force: a repeat of that changes nothing, and shows
    that the network takes transactions. Raises LedgerAway when it does not.

    ``changes``: of the trial's policy, as the network was created with. One that has a policy, of an older version too,
    keeps that.
    """
    for organisation in network.topology.organisations:
        for kind in _KINDS:
            if not identity_of(network, organisation.name, kind).exists():
                network.identity(organisation.name, kind, kind)
        if organisation.kubos:
            _write_settings(network, organisation)
    owner = network.topology.endorsing[0].name
    ledger = FabricLedger(network.connection(owner), load_identity(identity_of(network, owner, "node")))
    try:
        policy = trial_policy(network.topology, changes)
        with suppress(ContractError):  # there is none yet
            policy = first_record(ledger, "policy") or policy
        ledger.submit("InitPolicy", {"policy": policy})
    finally:
        ledger.close()


def party_file(network: Network, organisation: str) -> Path:
    """The configuration of the custodian's keeper, or of a research centre's pull."""
    return network.party(organisation) / "party.yaml"


def https_files(network: Network, owner: str) -> tuple[Path, Path]:
    """Certificate and key of the hospital's HTTPS application, on this machine."""
    folder = network.party(owner) / "https"
    return folder / "https.pem", folder / "https.key"


def identity_of(network: Network, organisation: str, name: str) -> Path:
    """The folder of one of an organisation's identities."""
    return network.party(organisation) / "identities" / name


def _write_settings(network: Network, organisation: Organisation) -> None:
    """What is missing of the two above."""
    party = network.party(organisation.name)
    if organisation.role == "owner":
        if not (folder := https_files(network, organisation.name)[0].parent).exists():
            issue_server(party, LOOPBACK, folder)
    elif not (path := party_file(network, organisation.name)).exists():
        content = {
            "organisation": organisation.msp_id,
            "ae_title": organisation.ae_title,
            "data_dir": "data",
            "identity": "identities/node",
            "content": "kubo:kubo.yaml",
            "ledger": "fabric:connection.yaml",
        }
        (party / content["data_dir"]).mkdir(mode=0o700, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
