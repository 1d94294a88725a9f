"""Identities as others make them: folders of Fabric CA, files anywhere."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orthanc_ledger.clock import system_clock
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.identity import Identity, ca_certificate, create_organisation, issue, load_identity


@pytest.fixture
def organisation(tmp_path: Path) -> Path:
    create_organisation(tmp_path / "hospital", "HospitalMSP", system_clock)
    return tmp_path / "hospital"


@pytest.fixture
def issued(organisation: Path) -> Path:
    return issue(organisation, "node-1", "node")


@pytest.fixture
def enrolled(issued: Path, organisation: Path, tmp_path: Path) -> Path:
    """What fabric-ca-client leaves after enrolling twice: the first key is still there. With a msp.yaml."""
    msp = tmp_path / "msp"
    for folder in ("signcerts", "keystore", "cacerts", "intermediatecerts", "user"):
        (msp / folder).mkdir(parents=True)
    shutil.copy(issued / "signcerts" / "cert.pem", msp / "signcerts" / "cert.pem")
    shutil.copy(issued / "cacerts" / "ca.pem", msp / "cacerts" / "localhost-7054.pem")
    earlier = issue(organisation, "node-0", "node")
    shutil.copy(earlier / "keystore" / "key.pem", msp / "keystore" / "0a1b_sk")
    shutil.copy(issued / "keystore" / "key.pem", msp / "keystore" / "9f8e_sk")
    (msp / "msp.yaml").write_text("msp_id: HospitalMSP\n")
    return msp


def same(found: Identity, issued: Path) -> bool:
    expected = load_identity(issued)
    return (found.msp_id, found.certificate) == (expected.msp_id, expected.certificate)


def test_a_folder_of_fabric_ca_is_read(enrolled: Path, issued: Path) -> None:
    assert same(load_identity(enrolled), issued)
    assert ca_certificate(enrolled) == ca_certificate(issued)


def test_a_certificate_of_another_name_is_found_where_it_is_the_only_one(enrolled: Path, issued: Path) -> None:
    (enrolled / "signcerts" / "cert.pem").rename(enrolled / "signcerts" / "node@hospital-cert.pem")
    assert same(load_identity(enrolled), issued)


@pytest.mark.parametrize(("folder", "read"), [("signcerts", load_identity), ("cacerts", ca_certificate)])
def test_which_of_two_certificates_is_meant_is_not_guessed(
    enrolled: Path, folder: str, read: Callable[[Path], object]
) -> None:
    (first,) = (enrolled / folder).iterdir()
    for name in ("one.pem", "two.pem"):
        shutil.copy(first, enrolled / folder / name)
    first.unlink()
    with pytest.raises(ConfigError, match=f"{folder}/c.*cannot be read"):
        read(enrolled)


def test_files_anywhere_are_named_by_a_file_of_any_name(issued: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "etc").mkdir()
    shutil.copy(issued / "keystore" / "key.pem", tmp_path / "keys" / "node.key")
    shutil.copy(issued / "signcerts" / "cert.pem", tmp_path / "keys" / "node.crt")
    shutil.copy(issued / "cacerts" / "ca.pem", tmp_path / "keys" / "ca.crt")
    named = {"certificate": "../keys/node.crt", "key": str(tmp_path / "keys" / "node.key"), "ca": "../keys/ca.crt"}
    path = tmp_path / "etc" / "node.yaml"
    path.write_text(yaml.safe_dump({"msp_id": "HospitalMSP", **named}))
    assert same(load_identity(path), issued)
    assert ca_certificate(path) == ca_certificate(issued)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("msp_id: HospitalMSP\nkeys: x\n", "keys: unknown key; known here: msp_id, certificate, key, ca"),
        ("msp_id: 7\n", "msp_id, and texts only"),
        ("certificate: x\n", "expected msp_id"),
        ("- HospitalMSP\n", "expected msp_id"),
        ("msp_id: HospitalMSP\nkey: gone.pem\n", "gone.pem: cannot be read"),
        ("msp_id: HospitalMSP\ncertificate: gone.pem\n", "gone.pem: cannot be read"),
        ("msp_id: HospitalMSP\nkey: signcerts/cert.pem\n", "cert.pem: not the EC key"),
    ],
)
def test_a_wrong_msp_yaml_is_told(enrolled: Path, content: str, told: str) -> None:
    (enrolled / "msp.yaml").write_text(content)
    with pytest.raises(ConfigError, match=told):
        load_identity(enrolled)


def test_a_keystore_without_the_certificates_key_is_told(enrolled: Path) -> None:
    (enrolled / "keystore" / "9f8e_sk").unlink()
    with pytest.raises(ConfigError, match="keystore/0a1b_sk: not the EC key of the certificate"):
        load_identity(enrolled)


def test_a_folder_of_fabric_ca_needs_its_msp_id(enrolled: Path) -> None:
    (enrolled / "msp.yaml").unlink()
    with pytest.raises(ConfigError, match=r"msp\.yaml: cannot be read"):
        load_identity(enrolled)
