"""Keys and certificates of a trial network: cryptogen's for servers and administrators, the organisations' own CA's for
nodes and persons, and a pair of TLS certificates for each chaincode service.

Everybody's keys lie in one folder, so this is for one machine; `ledger/fabric/authorities.py` refuses it elsewhere.
"""

import ipaddress
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.consortium.binaries import run_program
from orthanc_ledger.consortium.settings import crypto_config
from orthanc_ledger.consortium.topology import LOOPBACK, Chaincode, Organisation, Topology
from orthanc_ledger.durable import write_new
from orthanc_ledger.ledger.contract.call import Assurance
from orthanc_ledger.ledger.identity import BACKDATED_S, certificate_builder, issue, read_certificate

_CHAINCODE_DAYS = 3650

# What Fabric's MSP needs beside a certificate to tell by its OU what it may do (NodeOUs).
_NODE_OUS = {
    "NodeOUs": {
        "Enable": True,
        **{
            f"{kind.capitalize()}OUIdentifier": {"Certificate": "cacerts/ca.pem", "OrganizationalUnitIdentifier": kind}
            for kind in ("client", "peer", "admin", "orderer")
        },
    }
}


def generate(cryptogen: Path, topology: Topology, directory: Path, clock: Clock = system_clock) -> None:
    """Make all keys of a network: `crypto/` as cryptogen has it, with `crypto/chaincode/ORGANISATION/` beside, and
    `parties/ORGANISATION/`, a CA's folder as `identity.py` has it.
    """
    plan = directory / "crypto-config.yaml"
    plan.write_text(yaml.safe_dump(crypto_config(topology)))
    crypto = directory / "crypto"
    run_program(cryptogen, "generate", "--config", str(plan), "--output", str(crypto))
    for organisation in topology.organisations:
        _party(organisation, crypto / "peerOrganizations" / organisation.name / "ca", directory / "parties")
        _chaincode_keys(organisation.chaincode, crypto / "chaincode" / organisation.name, clock)


def issue_identity(party: Path, name: str, kind: Assurance, clock: Clock = system_clock) -> Path:
    """Issue an identity of an organisation's folder: usable by nodes and commands, and by Fabric's as an MSP folder.

    Raises ConfigError as ``identity.issue``.
    """
    # cryptogen rounds a CA's start up to half a minute; Fabric checks a chain as of the start of its last certificate.
    earliest = int(read_certificate(party / "cacerts" / "ca.pem").not_valid_before_utc.timestamp()) + BACKDATED_S
    folder = issue(party, name, kind, lambda: max(clock(), earliest))
    (folder / "config.yaml").write_text(yaml.safe_dump(_NODE_OUS))
    return folder


def _party(organisation: Organisation, authority: Path, parties: Path) -> None:
    folder = parties / organisation.name
    write(folder / "msp.yaml", yaml.safe_dump({"msp_id": organisation.msp_id}).encode())
    write(folder / "cacerts" / "ca.pem", (authority / f"ca.{organisation.name}-cert.pem").read_bytes())
    write(folder / "keystore" / "key.pem", (authority / "priv_sk").read_bytes(), mode=0o600)


def _chaincode_keys(service: Chaincode, folder: Path, clock: Clock) -> None:
    """server.crt and .key for the service, client.crt and .key for the peers that call it, ca.crt for both to check.

    Its CA's key is forgotten at once. A certificate of the organisation's TLS CA, as every server has, calls nothing.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _name(f"ca.{service.name}")
    write(folder / "ca.crt", _pem(_builder(ca, ca, ca_key, clock(), ca=True).sign(ca_key, hashes.SHA256())))
    host = (
        x509.IPAddress(ipaddress.ip_address(service.host)) if service.host == LOOPBACK else x509.DNSName(service.host)
    )
    for file, usage in (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(f"{file}.{service.name}"), ca, key, clock(), ca=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(x509.SubjectAlternativeName([host]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        write(folder / f"{file}.crt", _pem(certificate))
        write(folder / f"{file}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, time: int, ca: bool
) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca, path_length=0 if ca else None)
    builder = certificate_builder(subject, issuer, key.public_key(), time, _CHAINCODE_DAYS)
    return builder.add_extension(constraints, critical=True)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file, durable, with its folder where there is none. Raises FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_new(path, content, mode)
