"""X.509 identities: one small CA per organisation, certificates for its people and nodes.

EC P-256 with ECDSA over SHA-256. Folders are laid out like a Fabric MSP, and the kind of an identity stands in Fabric's
attribute extension, so that the same certificates can serve there:

    DIRECTORY/msp.yaml               msp_id: HospitalMSP
    DIRECTORY/cacerts/ca.pem         the organisation's CA
    DIRECTORY/signcerts/cert.pem     an identity's certificate (not in a CA's folder)
    DIRECTORY/keystore/key.pem       the private key, mode 0600

    DIRECTORY/ml-dsa.key             a second key, for checkpoints, where msp.yaml says `ml_dsa: ml-dsa.key`

What others made is read as well (`load_identity`): Fabric CA's folders, with a msp.yaml put into them, and files
anywhere, with a msp.yaml that names them.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.durable import sync, write_new
from orthanc_ledger.errors import ConfigError, Unreadable
from orthanc_ledger.ledger import encrypted_key
from orthanc_ledger.ledger.contract.call import Assurance
from orthanc_ledger.ledger.ml_dsa import read_private_key

ATTRIBUTES = ObjectIdentifier("1.2.3.4.5.6.7.8.1")  # Fabric CA's attribute extension, JSON {"attrs": {name: text}}
CA_DAYS = 3650
IDENTITY_DAYS = 1095
BACKDATED_S = 300  # a member whose clock is a little behind accepts a new certificate at once

ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())

# What cryptography raises on bytes that others made; no common error of its own.
_NO_CERTIFICATE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

_MSP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_PSEUDONYM = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True)
class Identity:
    """A certificate with its private key: who signs transactions."""

    msp_id: str
    certificate: bytes  # DER
    _key: ec.EllipticCurvePrivateKey = field(repr=False)
    ml_dsa: MLDSA65PrivateKey | None = field(default=None, repr=False)  # signs its checkpoints, too

    def sign(self, message: bytes) -> bytes:
        """An ECDSA-SHA256 signature over the message, DER encoded (RFC 3279 2.2.3)."""
        return self._key.sign(message, ECDSA_SHA256)


def create_organisation(directory: Path, msp_id: str, clock: Clock = system_clock) -> None:
    """Make an organisation's CA in a new folder.

    Raises ConfigError when the folder already holds something, cannot be written, or the MSP ID is not 1 to 64 letters,
    digits, dots and hyphens.
    """
    if not _MSP_ID.fullmatch(msp_id):
        raise ConfigError(f"MSP ID {msp_id!r}: expected 1 to 64 letters, digits, '.' or '-'")
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"ca.{msp_id}", msp_id)
    certificate = (
        certificate_builder(name, name, key.public_key(), clock(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_folder(directory, msp_id, _private(key), ca=certificate)


def issue(
    organisation: Path,
    name: str,
    kind: Assurance,
    clock: Clock = system_clock,
    days: int = IDENTITY_DAYS,
    passphrase: bytes | None = None,
) -> Path:
    """Issue an identity of an organisation into `identities/NAME` of its folder, and return that folder.

    With a passphrase its key lies under it. `name` becomes the certificate's CN and is seen by the whole channel: a
    pseudonym, never a person's name. Raises ConfigError when the organisation cannot be read, the name is not 1 to 64
    lower-case letters, digits and hyphens, or is taken.
    """
    if not _PSEUDONYM.fullmatch(name):
        raise ConfigError(f"identity name {name!r}: expected a pseudonym of 1 to 64 lower-case letters, digits or '-'")
    msp = _read_msp(organisation)
    ca = read_certificate(msp.ca)
    ca_key = _key_in(msp, ca)
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = json.dumps({"attrs": {"kind": kind}}, separators=(",", ":")).encode()
    certificate = (
        certificate_builder(_name(name, msp.msp_id, unit="client"), ca.subject, key.public_key(), clock(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.UnrecognizedExtension(ATTRIBUTES, attributes), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    directory = organisation / "identities" / name
    _write_folder(directory, msp.msp_id, _private(key, passphrase), ca=ca, certificate=certificate)
    return directory


def issue_server(organisation: Path, host: str, directory: Path, clock: Clock = system_clock) -> tuple[Path, Path]:
    """Issue a TLS server's certificate for a host name or IP address; returns the new files of certificate and key.

    It has no kind: it signs nothing on a ledger. Raises ConfigError as `issue`, and when the host is no name.
    """
    msp = _read_msp(organisation)
    ca = read_certificate(msp.ca)
    ca_key = _key_in(msp, ca)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(host[:64], msp.msp_id)
    certificate = (
        certificate_builder(name, ca.subject, key.public_key(), clock(), IDENTITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    files = directory / "https.pem", directory / "https.key"
    _write_files(directory, {files[0].name: certificate.public_bytes(Encoding.PEM), files[1].name: _private(key)})
    return files


def tls_files(path: Path) -> tuple[Path, Path]:
    """The PEM files of an identity's certificate and key; path as for `load_identity`. Raises ConfigError."""
    msp = _read_msp(path)
    certificate = read_certificate(msp.certificate)
    _ = _key_in(msp, certificate)
    return msp.certificate, next(key for key in msp.keys if _key_of(key, certificate))


def load_identity(path: Path, passphrase: bytes | None = None) -> Identity:
    """Read an identity: its folder, or its msp.yaml, which may be named otherwise and lie elsewhere; its key is under
    the passphrase, or none.

    msp.yaml says `msp_id`, and with `certificate`, `key` and `ca` where the files are; what it leaves out is beside it,
    as above, or is the only file of signcerts/ or cacerts/, or that file of keystore/ whose key is the certificate's.
    There is a second key only where it says `ml_dsa`.

    Raises ConfigError naming the file that is missing, unreadable or does not fit.
    """
    msp = _read_msp(path)
    certificate = read_certificate(msp.certificate)
    ml_dsa = None if msp.ml_dsa is None else read_private_key(msp.ml_dsa)
    return Identity(msp.msp_id, certificate.public_bytes(Encoding.DER), _key_in(msp, certificate, passphrase), ml_dsa)


def certificate_of(path: Path) -> x509.Certificate:
    """An identity's certificate; path as for `load_identity`. Raises ConfigError."""
    return read_certificate(_read_msp(path).certificate)


def is_encrypted(path: Path) -> bool:
    """Whether an identity's key lies under a passphrase; path as for `load_identity`. Raises ConfigError."""
    return all(encrypted_key.HEADER in _read(key) for key in _read_msp(path).keys)


def parse_certificate(
    data: bytes, load: Callable[[bytes], x509.Certificate] = x509.load_der_x509_certificate
) -> x509.Certificate:
    """An X.509 certificate (RFC 5280), in DER unless `load` takes another form. Raises Unreadable.

    Parsed whole: reading version, names, dates, extensions and public key raises nothing later. Its serial number is
    positive (4.1.2.2).
    """
    try:
        found = load(data)
        if found.serial_number < 1:
            raise ValueError("its serial number is not positive")
        _ = (found.version, found.subject, found.issuer, found.not_valid_before_utc, found.not_valid_after_utc)
        _ = (found.extensions, found.public_key())
    except _NO_CERTIFICATE as error:
        raise Unreadable(f"not an X.509 certificate: {str(error)!a}") from error
    return found


def serial_of(certificate: x509.Certificate) -> str:
    """A certificate's serial number as the ledger's records have it: hex without leading zero."""
    return f"{certificate.serial_number:x}"


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file. Raises ConfigError."""
    try:
        return parse_certificate(_read(path), x509.load_pem_x509_certificate)
    except Unreadable as error:
        raise ConfigError(f"{path}: not an X.509 certificate in PEM") from error


def ca_certificate(path: Path) -> bytes:
    """The CA certificate (DER) of an organisation or identity, as a genesis names it; path as for `load_identity`.

    Raises ConfigError.
    """
    return read_certificate(_read_msp(path).ca).public_bytes(Encoding.DER)


def _name(common_name: str, organisation: str, unit: str | None = None) -> x509.Name:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            *units,  # OU=client: what Fabric's NodeOUs ask of one who submits
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, time: int, days: int
) -> x509.CertificateBuilder:
    """A certificate to be extended and signed: valid for ``days`` from `time` (UTC seconds), and a little before."""
    now = datetime.fromtimestamp(time, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=BACKDATED_S))
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_folder(
    directory: Path,
    msp_id: str,
    key: bytes,
    ca: x509.Certificate,
    certificate: x509.Certificate | None = None,
) -> None:
    files = {"msp.yaml": yaml.safe_dump({"msp_id": msp_id}).encode(), "cacerts/ca.pem": ca.public_bytes(Encoding.PEM)}
    if certificate is not None:
        files["signcerts/cert.pem"] = certificate.public_bytes(Encoding.PEM)
    _write_files(directory, {**files, "keystore/key.pem": key})


def _private(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    if passphrase is not None:
        return encrypted_key.encrypted(key, passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise ConfigError(f"host {host!r}: expected a DNS name or an IP address")
    return x509.DNSName(host)


def _write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write new files, durable; a key, by its name, for its owner only."""
    try:
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(path, content, 0o600 if "key" in path.name else 0o644)
        sync(directory)
        sync(directory.parent)
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename} exists already: keys are never overwritten, choose another folder or name"
        ) from error
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class _Msp:
    """What a msp.yaml says, and where the files are that belong to it."""

    msp_id: str
    certificate: Path
    keys: tuple[Path, ...]  # one of them is the certificate's
    ca: Path
    ml_dsa: Path | None


def _read_msp(path: Path) -> _Msp:
    file = path / "msp.yaml" if path.is_dir() else path
    try:
        content = yaml.safe_load(_read(file))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ConfigError(f"{file}: expected msp_id, and texts only, got {content!r}")
    if unknown := content.keys() - {"msp_id", "certificate", "key", "ca", "ml_dsa"}:
        raise ConfigError(
            f"{file}: {sorted(unknown)[0]}: unknown key; known here: msp_id, certificate, key, ca, ml_dsa"
        )
    if not _MSP_ID.fullmatch(content.get("msp_id", "")):
        raise ConfigError(f"{file}: expected msp_id: 1 to 64 letters, digits, '.' or '-'")

    def places(key: str, usual: str) -> tuple[Path, ...]:
        return (file.parent / content[key],) if key in content else _files(file.parent / usual)

    def place(key: str, usual: str) -> Path:
        found = places(key, usual)
        return found[0] if len(found) == 1 else file.parent / usual

    certificate, ca = place("certificate", "signcerts/cert.pem"), place("ca", "cacerts/ca.pem")
    ml_dsa = file.parent / content["ml_dsa"] if "ml_dsa" in content else None
    return _Msp(content["msp_id"], certificate, places("key", "keystore/key.pem"), ca, ml_dsa)


def _files(usual: Path) -> tuple[Path, ...]:
    """The usual file where there is one, or no other; else all that lie in its folder."""
    others = () if usual.exists() else tuple(sorted(path for path in usual.parent.glob("*") if path.is_file()))
    return others or (usual,)


def _key_in(msp: _Msp, certificate: x509.Certificate, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    for path in msp.keys:
        if key := _key_of(path, certificate, passphrase):
            return key
    how = "not encrypted" if passphrase is None else "under this passphrase"
    raise ConfigError(f"{msp.keys[0]}: not the EC key of the certificate beside it, in PEM and {how}")


def _key_of(
    path: Path, certificate: x509.Certificate, passphrase: bytes | None = None
) -> ec.EllipticCurvePrivateKey | None:
    """The private key in a PEM file when it is the certificate's."""
    try:
        key = load_pem_private_key(_read(path), password=passphrase)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key() else None
