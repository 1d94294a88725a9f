"""A person's key under a passphrase: opened by it, by nothing else, and by other programs, too."""

import shutil
import subprocess
from pathlib import Path

import pytest

from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.identity import ca_certificate, create_organisation, is_encrypted, issue, load_identity
from orthanc_ledger.ledger.members import Members
from tests.ledger.channel import START

PASSPHRASE = "correct horse, battery — staple".encode()


def clock() -> int:
    return START


@pytest.fixture
def organisation(tmp_path: Path) -> Path:
    create_organisation(tmp_path / "hospital", "HospitalMSP", clock)
    return tmp_path / "hospital"


def test_it_signs_with_its_passphrase_as_any_other(organisation: Path) -> None:
    folder = issue(organisation, "p-7", "person", clock, passphrase=PASSPHRASE)
    identity = load_identity(folder, PASSPHRASE)
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    assert members.verify(identity.certificate, identity.sign(b"m"), b"m", START).assurance == "person"
    assert is_encrypted(folder)


@pytest.mark.parametrize("passphrase", [None, b"", b"another one", PASSPHRASE + b" "])
def test_nothing_else_opens_it(organisation: Path, passphrase: bytes | None) -> None:
    folder = issue(organisation, "p-7", "person", clock, passphrase=PASSPHRASE)
    with pytest.raises(ConfigError, match="not the EC key of the certificate"):
        load_identity(folder, passphrase)


def test_a_key_in_the_clear_is_not_taken_for_one_under_a_passphrase(organisation: Path) -> None:
    folder = issue(organisation, "p-7", "person", clock)
    assert not is_encrypted(folder)
    with pytest.raises(ConfigError, match="under this passphrase"):
        load_identity(folder, PASSPHRASE)


def test_openssl_opens_it(organisation: Path) -> None:
    key = issue(organisation, "p-7", "person", clock, passphrase=PASSPHRASE) / "keystore" / "key.pem"
    openssl = shutil.which("openssl")
    assert openssl is not None
    command = [openssl, "pkey", "-in", str(key), "-passin", "stdin", "-noout", "-check"]
    done = subprocess.run(command, input=PASSPHRASE + b"\n", capture_output=True)
    assert done.returncode == 0, done.stderr
