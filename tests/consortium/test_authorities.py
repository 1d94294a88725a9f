"""cryptogen's CA, whose keys one person had all of, is believed on this machine alone."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orthanc_ledger.consortium.binaries import fabric_binaries
from orthanc_ledger.consortium.settings import crypto_config
from orthanc_ledger.consortium.topology import trial
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.fabric.authorities import check_trial_authority
from orthanc_ledger.ledger.identity import create_organisation, read_certificate
from tests.consortium.live import need_go

AWAY = "peer0.hospital.example:7051"
TLS = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


@pytest.fixture(scope="module")
def cryptogens(tmp_path_factory: pytest.TempPathFactory) -> list[x509.Certificate]:
    """CAs of a trial network: of identities and of TLS, of organisations and of orderers."""
    need_go()
    folder = tmp_path_factory.mktemp("crypto")
    plan = crypto_config(trial())
    plan["PeerOrgs"][0]["CA"] = {"Country": "CH", "Province": "Zurich", "Locality": "Zurich"}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [
        fabric_binaries() / "cryptogen",
        "generate",
        "--config",
        folder / "plan.yaml",
        "--output",
        folder / "out",
    ]
    subprocess.run(command, check=True, capture_output=True)
    found = [read_certificate(path) for path in sorted((folder / "out").glob("*/*/*ca/*.pem"))]
    assert len(found) == 12
    return found


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("endpoint", [AWAY, "192.0.2.1:7051", "[2001:db8::1]:7051", "127.example:7051"])
def test_cryptogen_s_ca_is_refused_away_from_this_machine(cryptogens: list[x509.Certificate], endpoint: str) -> None:
    for certificate in cryptogens:
        with pytest.raises(ConfigError, match="cryptogen's CA, of a trial network") as refused:
            check_trial_authority(certificate, endpoint)
        assert endpoint in str(refused.value)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("endpoint", ["127.0.0.1:7051", "127.8.9.1:7051", "[::1]:7051", "localhost:7051"])
def test_on_this_machine_it_serves(cryptogens: list[x509.Certificate], endpoint: str) -> None:
    for certificate in cryptogens:
        check_trial_authority(certificate, endpoint)


def test_an_organisation_s_own_ca_serves_anywhere(tmp_path: Path) -> None:
    create_organisation(tmp_path / "own", "HospitalMSP")
    check_trial_authority(read_certificate(tmp_path / "own" / "cacerts" / "ca.pem"), AWAY)


@pytest.mark.parametrize(
    ("common_name", "organisation", "usages"),
    [
        ("fabric-ca-server", "Hyperledger", ()),  # Fabric CA as it comes
        ("ca.hospital.example", "hospital.example", ()),  # named like cryptogen's
        ("ca.hospital.example", "hospital.example", TLS[:1]),
        ("Hospital Issuing CA", "Hospital", TLS),
    ],
)
def test_a_ca_that_shares_one_trait_only_is_not_taken_for_it(
    common_name: str, organisation: str, usages: tuple[x509.ObjectIdentifier, ...]
) -> None:
    check_trial_authority(made(common_name, organisation, usages), AWAY)


def made(common_name: str, organisation: str, usages: tuple[x509.ObjectIdentifier, ...]) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = ((NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, common_name))
    name = x509.Name([x509.NameAttribute(oid, text) for oid, text in attributes])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(key, hashes.SHA256())
