"""`orthanc-ledger init`: a new node's folders, keys, identities, ledger and configuration."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from orthanc_ledger.assemble import KEYRING
from orthanc_ledger.config import Config, load
from orthanc_ledger.content.kubo.connection import read_connection
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.durable import write_over
from orthanc_ledger.errors import ConfigError, ContractError
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.ledger import ml_dsa, open_ledger
from orthanc_ledger.ledger.contract.policy import default_policy
from orthanc_ledger.ledger.embedded import EmbeddedLedger, create_ledger
from orthanc_ledger.ledger.identity import ca_certificate, create_organisation, issue, load_identity, read_certificate
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.node_key import locate, read_passphrase

CONFIG_NAME = "orthanc-ledger.yaml"
ORGANISATIONS = "organisations"
ROLES = ("owner", "custodian", "research")
DEFAULT_MSP_IDS = {"owner": "HospitalMSP", "custodian": "CustodianMSP", "research": "ResearchMSP"}

_CONFIG = """\
# A node of orthanc-ledger. Every key is explained in the project's config/orthanc-ledger.yaml.
# Paths count from this file's folder.
organisation: {organisation}
{all_roles}ae_title: {ae_title}
data_dir: data
node_key: {node_key}
identity: {identity}
content: {content}
ledger: {ledger}
{clinical}research:
  host: {host}
  port: {research_port}
peers: []
{modality}# - ae_title: RESEARCH1
#   role: research
#   organisation: ResearchMSP
#   hosts: [192.0.2.20]
#   host: 192.0.2.20
#   port: 11112
"""

_CLINICAL = """\
clinical:
  host: {host}
  port: {clinical_port}
"""
_MODALITY = """\
# - ae_title: MRI1
#   role: modality
#   hosts: [192.0.2.10]
"""

_ORTHANC = """\
orthanc: true
"""

_ALL_ROLES = """\
# The keys of all organisations lie here: for trying out. A hospital's node refuses to sign, and to start, with them.
all_roles: true
"""


@dataclass(frozen=True)
class Plan:
    """What to set up. ``members``: CA certificates (PEM files) of organisations that keep their keys themselves, as
    role → (MSP ID, file).

    With ``all_roles`` the organisations that are missing are made here, keys and all: for trying out, not for a
    hospital.

    ``ledger``: the connection file of a channel of Fabric, whose organisations are there already, with ``identity``
    for the node's own (as `load_identity` takes it); None: a new embedded ledger.

    ``content``: the connection file of Kubo nodes, whose local store is made; None: a folder of the node's alone.

    ``passphrase``: the node key lies under one, which `read_passphrase` gives.

    ``orthanc``: for Orthanc's plugin; there is no clinical port then.
    """

    directory: Path
    key_backup: Path
    ae_title: str = "ORTHANCLEDGER"
    host: str = "127.0.0.1"
    clinical_port: int = 11112
    research_port: int = 11113
    msp_ids: Mapping[str, str] | None = None
    members: Mapping[str, tuple[str, Path]] | None = None
    all_roles: bool = False
    ledger: Path | None = None
    identity: Path | None = None
    content: Path | None = None
    passphrase: bool = False
    orthanc: bool = False


@dataclass(frozen=True)
class _Seat:
    """Whose node it is, as whom it signs, on which ledger: as the configuration has them."""

    organisation: str
    identity: Path
    ledger: str


def create_node(plan: Plan) -> Config:
    """Set up a node of the owner organisation and return its configuration.

    Raises ConfigError when something is there already, the key backup would lie with what it opens, a role has no
    organisation, or the identity is no node's of the connection file's organisation.
    """
    directory = plan.directory.resolve()
    backup = plan.key_backup.resolve()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory}: there is something here already; choose a new or empty folder")
    if backup.is_relative_to(directory):
        raise ConfigError(
            f"--key-backup {backup}: must lie outside {directory}: a backup beside what it opens is lost, or stolen, "
            "with it"
        )
    if not backup.parent.is_dir():
        raise ConfigError(f"--key-backup {backup}: expected a folder at {backup.parent}; is its disk mounted?")
    if backup.exists():
        raise ConfigError(f"--key-backup {backup}: exists already; an older key there would be lost")
    objects = directory / "data" / "objects" if plan.content is None else read_connection(plan.content).local
    if objects.exists():
        raise ConfigError(f"--content {plan.content}: local: {objects}: there is something already; name a new folder")
    if plan.passphrase:
        read_passphrase(new=True)  # before anything is made: one that is not there is no reason for half a node
    seat = _founded(plan, directory) if plan.ledger is None else _joined(plan, plan.ledger)
    (directory / "data").mkdir(parents=True, mode=0o700, exist_ok=True)
    (directory / "keys").mkdir(mode=0o700)
    url = f"{'passphrase' if plan.passphrase else 'file'}:keys/node.key"
    node_key = locate(url, directory)
    Keyring.create(directory / "data" / KEYRING, node_key)
    node_key.back_up(backup)
    LocalStore.create(objects)
    text = _CONFIG.format(
        organisation=seat.organisation,
        all_roles=_ALL_ROLES if plan.all_roles else "",
        ae_title=plan.ae_title,
        node_key=url,
        identity=seat.identity,
        content="local:data/objects" if plan.content is None else f"kubo:{plan.content.resolve()}",
        ledger=seat.ledger,
        clinical=_ORTHANC if plan.orthanc else _CLINICAL.format(host=plan.host, clinical_port=plan.clinical_port),
        modality="" if plan.orthanc else _MODALITY,  # Orthanc has a list of its own of these
        host=plan.host,
        research_port=plan.research_port,
    )
    (directory / CONFIG_NAME).write_text(text, encoding="utf-8")
    return load(directory / CONFIG_NAME)


def create_member(directory: Path, msp_id: str) -> Path:
    """Make an organisation's CA with a person's and a node's identity; returns the CA certificate to hand to the
    owner. Raises ConfigError.
    """
    create_organisation(directory, msp_id)
    issue(directory, "person", "person")
    issue(directory, "node", "node")
    return directory / "cacerts" / "ca.pem"


def create_checkpoint_key(identity: Path) -> Path:
    """Give an identity a second key, ML-DSA-65, that signs its checkpoints, too; a repeat makes no other.

    Returns the trust file to hand out: the CA's certificate and the public key. Raises ConfigError.
    """
    msp = identity / "msp.yaml" if identity.is_dir() else identity
    load_identity(msp)
    said = yaml.safe_load(msp.read_bytes())
    named = {"ml_dsa": "ml-dsa.key", **said}
    key, trust = msp.parent / named["ml_dsa"], msp.parent / "trust.pem"
    try:
        if not key.exists():
            write_over(key, ml_dsa.new_key(), 0o600)
        authority = load_der_x509_certificate(ca_certificate(msp)).public_bytes(Encoding.PEM)
        write_over(trust, authority + ml_dsa.public_pem(ml_dsa.read_private_key(key)), 0o644)
        write_over(msp, yaml.safe_dump(named).encode(), 0o644)  # last: from now on it is needed
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return trust


def _founded(plan: Plan, directory: Path) -> _Seat:
    """An embedded ledger of this node's own, with its policy in force. Raises ConfigError."""
    if plan.identity is not None:
        raise ConfigError("--identity goes with --ledger: for an embedded ledger the node's identity is made here")
    certificates = _members(plan, directory)
    policy = default_policy({msp_id: role for role, (msp_id, _) in certificates.items()})
    (directory / "data").mkdir(mode=0o700)
    path = Path("data") / "ledger.db"
    create_ledger(directory / path, dict(certificates.values()), policy)
    identity = Path(ORGANISATIONS) / "owner" / "identities" / "node"
    with closing(EmbeddedLedger(directory / path, load_identity(directory / identity))) as ledger:
        ledger.submit("InitPolicy", {"policy": policy})
    return _Seat(certificates["owner"][0], identity, f"embedded:{path}")


def _joined(plan: Plan, connection: Path) -> _Seat:
    """A channel's ledger; nobody on it is asked yet. Raises ConfigError."""
    if plan.identity is None:
        raise ConfigError("--ledger needs --identity: the folder of the node's identity, from its organisation's CA")
    if plan.members or plan.msp_ids or plan.all_roles:
        raise ConfigError("--ledger: its organisations are there: leave --member, --organisation and --all-roles out")
    identity, url = load_identity(plan.identity), f"fabric:{connection.resolve()}"
    with closing(open_ledger(url, identity)) as ledger:
        members = Members(ledger.authorities())
    try:
        caller = members.identify(identity.certificate).caller
    except ContractError as error:
        raise ConfigError(
            f"--identity {plan.identity}: a certificate that nobody on {connection} takes ({error.detail}): have "
            f"the CA of {identity.msp_id} issue one of kind node"
        ) from error
    if (caller.organisation, caller.assurance) != (identity.msp_id, "node"):
        raise ConfigError(
            f"--identity {plan.identity}: expected a node's of {identity.msp_id}, got a {caller.assurance}'s of "
            f"{caller.organisation}: have its CA issue one of kind node"
        )
    return _Seat(identity.msp_id, plan.identity.resolve(), url)


def _members(plan: Plan, directory: Path) -> dict[str, tuple[str, bytes]]:
    """Role → (MSP ID, CA certificate DER), the owner made here."""
    msp_ids = {**DEFAULT_MSP_IDS, **(plan.msp_ids or {})}
    members = plan.members or {}
    missing = [role for role in ROLES[1:] if role not in members]
    if missing and not plan.all_roles:
        raise ConfigError(
            f"no organisation for {', '.join(missing)}: give --member ROLE=MSPID:CA.pem (they make it with "
            "`orthanc-ledger identity create`), or --all-roles to make all keys here, for trying out"
        )
    found = {}
    for role in ROLES:
        if role in members:
            msp_id, path = members[role]
            found[role] = (msp_id, read_certificate(path).public_bytes(Encoding.DER))
        else:
            folder = directory / ORGANISATIONS / role
            create_member(folder, msp_ids[role])
            found[role] = (msp_ids[role], ca_certificate(folder))
    return found
