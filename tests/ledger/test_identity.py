"""Identities: what a folder holds, and which certificates are believed."""

import base64
import os
import shutil
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError, Unreadable
from orthanc_ledger.ledger.checkpoint import open_note, sign_note
from orthanc_ledger.ledger.identity import (
    ATTRIBUTES,
    IDENTITY_DAYS,
    ca_certificate,
    create_organisation,
    issue,
    load_identity,
    parse_certificate,
    read_certificate,
)
from orthanc_ledger.ledger.key_holders import keys_under
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.ledger.members import Members
from tests.ledger.channel import DAY, START


def clock() -> int:
    return START


@pytest.fixture
def organisation(tmp_path: Path) -> Path:
    create_organisation(tmp_path / "hospital", "HospitalMSP", clock)
    return tmp_path / "hospital"


@pytest.mark.parametrize("kind", ["person", "node"])
def test_an_issued_identity_signs_for_its_organisation(organisation: Path, kind: str) -> None:
    identity = load_identity(issue(organisation, "p-7", kind, clock))
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    caller = members.verify(identity.certificate, identity.sign(b"message"), b"message", START)
    assert (caller.organisation, caller.assurance) == ("HospitalMSP", kind)
    serial = x509.load_der_x509_certificate(identity.certificate).serial_number
    assert int(caller.serial, 16) == serial


def test_the_kind_stands_where_fabric_looks_for_attributes(organisation: Path) -> None:
    identity = load_identity(issue(organisation, "p-7", "person", clock))
    extension = x509.load_der_x509_certificate(identity.certificate).extensions.get_extension_for_oid(ATTRIBUTES)
    assert extension.oid.dotted_string == "1.2.3.4.5.6.7.8.1"
    assert extension.value.public_bytes() == b'{"attrs":{"kind":"person"}}'


def test_private_keys_are_for_their_owner_only(organisation: Path) -> None:
    folder = issue(organisation, "p-7", "person", clock)
    for key in (organisation / "keystore" / "key.pem", folder / "keystore" / "key.pem"):
        assert stat.S_IMODE(os.stat(key).st_mode) == 0o600


def test_keys_are_on_the_disk_before_anybody_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, synced = os.fsync, set[int]()
    monkeypatch.setattr(os, "fsync", lambda file: synced.add(os.fstat(file).st_ino) or fsync(file))
    folder = tmp_path / "organisation"
    create_organisation(folder, "HospitalMSP")
    issue(folder, "node", "node")
    assert [path for path in (folder, *folder.rglob("*")) if path.stat().st_ino not in synced] == []


def test_nothing_is_overwritten(organisation: Path) -> None:
    issue(organisation, "p-7", "person", clock)
    with pytest.raises(ConfigError, match="exists already"):
        issue(organisation, "p-7", "node", clock)
    with pytest.raises(ConfigError, match="exists already"):
        create_organisation(organisation, "HospitalMSP", clock)


@pytest.mark.parametrize("name", ["", "../escape", "Müller", "Anna Miller", "a" * 65])
def test_a_name_that_is_no_pseudonym_is_refused(organisation: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="pseudonym"):
        issue(organisation, name, "person", clock)


def test_an_msp_id_that_no_key_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MSP ID"):
        create_organisation(tmp_path / "new", "Hospital/MSP", clock)


@pytest.mark.parametrize("name", ["msp.yaml", "signcerts/cert.pem", "keystore/key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00nonsense: [", b"msp_id: 5"])
def test_a_damaged_folder_is_refused_by_the_files_name(organisation: Path, name: str, content: bytes | None) -> None:
    folder = issue(organisation, "p-7", "person", clock)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        load_identity(folder)


def test_a_certificate_whose_serial_number_is_negative_is_none(organisation: Path) -> None:
    certificate = bytearray(load_identity(issue(organisation, "p-7", "person", clock)).certificate)
    serial = certificate.index(b"\xa0\x03\x02\x01\x02\x02") + 7  # behind version 3 and the INTEGER's header
    certificate[serial] = 0x80
    with pytest.raises(Unreadable, match="serial number is not positive"):
        parse_certificate(bytes(certificate))


def test_a_key_of_another_certificate_is_refused(organisation: Path) -> None:
    folder = issue(organisation, "p-7", "person", clock)
    other = issue(organisation, "p-8", "person", clock)
    shutil.copy(other / "keystore" / "key.pem", folder / "keystore" / "key.pem")
    with pytest.raises(ConfigError, match=r"key\.pem"):
        load_identity(folder)


Forge = Callable[[Path], Path]


def impostor(base: Path) -> Path:
    """An organisation that gives itself the same name, and so its CA the same subject."""
    create_organisation(base / "impostor", "HospitalMSP", clock)
    return issue(base / "impostor", "p-7", "person", clock)


def stranger(base: Path) -> Path:
    create_organisation(base / "stranger", "StrangerMSP", clock)
    return issue(base / "stranger", "p-7", "person", clock)


@pytest.mark.parametrize("forge", [impostor, stranger])
def test_a_certificate_of_another_ca_is_refused(organisation: Path, tmp_path: Path, forge: Forge) -> None:
    forged = load_identity(forge(tmp_path))
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    with pytest.raises(ContractError, match="NOT_PERMITTED certificate"):
        members.verify(forged.certificate, forged.sign(b"message"), b"message", START)


def test_the_cas_own_certificate_signs_no_transaction(organisation: Path) -> None:
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    with pytest.raises(ContractError, match="NOT_PERMITTED certificate"):
        members.verify(ca_certificate(organisation), b"", b"message", START)


def test_bytes_that_are_no_certificate_are_refused(organisation: Path) -> None:
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    with pytest.raises(ContractError, match="NOT_PERMITTED certificate"):
        members.verify(b"nonsense", b"", b"message", START)


def as_version_10(certificate: bytes) -> bytes:
    return certificate.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020109"), 1)


def with_an_extension_twice(certificate: bytes) -> bytes:
    """Key usage as a second basicConstraints (RFC 5280 4.2 forbids)."""
    return certificate.replace(bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d13"), 1)


def with_a_key_of_no_known_kind(certificate: bytes) -> bytes:
    return certificate.replace(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209"), 1)


def with_a_subject_that_is_no_text(certificate: bytes) -> bytes:
    return certificate.replace(b"HospitalMSP", b"\xff" * 11)


ODD = (as_version_10, with_an_extension_twice, with_a_key_of_no_known_kind, with_a_subject_that_is_no_text)


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_certificate_is_refused_wherever_one_is_read(
    organisation: Path, tmp_path: Path, odd: Callable[[bytes], bytes]
) -> None:
    identity, ca = load_identity(issue(organisation, "p-7", "person", clock)), ca_certificate(organisation)
    assert odd(identity.certificate) != identity.certificate
    with pytest.raises(ContractError, match=r"NOT_PERMITTED certificate: not an X\.509 certificate: '"):
        Members({"HospitalMSP": ca}).verify(odd(identity.certificate), b"", b"message", START)
    with pytest.raises(ConfigError, match="not a CA certificate"):
        Members({"HospitalMSP": odd(ca)})
    note = sign_note(Checkpoint(7, bytes(32)), bytes(32), START, identity)
    there, forged = (base64.b64encode(der).decode() for der in (identity.certificate, odd(identity.certificate)))
    with pytest.raises(IntegrityError, match=r"^checkpoint: its certificate"):
        open_note(note.replace(there, forged), None, {"HospitalMSP": ca})
    (tmp_path / "odd.pem").write_text(ssl.DER_cert_to_PEM_cert(odd(ca)))
    with pytest.raises(ConfigError, match=r"odd\.pem: not an X\.509 certificate in PEM"):
        read_certificate(tmp_path / "odd.pem")


def test_an_odd_certificate_hides_no_key_whose_certificate_lies_beside_it(organisation: Path, tmp_path: Path) -> None:
    identity = issue(organisation, "p-7", "person", clock)
    certificate = identity / "signcerts" / "cert.pem"
    odd = ssl.DER_cert_to_PEM_cert(as_version_10(ca_certificate(organisation)))
    certificate.write_text(odd + certificate.read_text())
    found = keys_under(identity, {"HospitalMSP": ca_certificate(organisation)})
    assert list(found) == [(identity / "keystore" / "key.pem", "HospitalMSP")]


def test_what_is_no_bytes_is_no_ca_certificate() -> None:
    with pytest.raises(ConfigError, match="organisation HospitalMSP: not a CA certificate"):
        Members({"HospitalMSP": 7})  # type: ignore[dict-item]  # as a genesis may have it


def test_a_name_in_a_certificate_cannot_write_to_the_terminal(organisation: Path, tmp_path: Path) -> None:
    create_organisation(tmp_path / "evil", "EvilMSP", clock)
    evil = load_identity(issue(tmp_path / "evil", "p-7", "person", clock)).certificate
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    with pytest.raises(
        ContractError, match=r"NOT_PERMITTED certificate: issued by .* not under HospitalMSP$"
    ) as refused:
        members.identify(evil.replace(b"EvilMSP", b"\x1b[2J\nXX"))
    assert str(refused.value).isprintable()


def test_another_message_or_key_is_refused(organisation: Path) -> None:
    identity = load_identity(issue(organisation, "p-7", "person", clock))
    other = load_identity(issue(organisation, "p-8", "person", clock))
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    for signature, message in ((identity.sign(b"message"), b"massage"), (other.sign(b"message"), b"message")):
        with pytest.raises(ContractError, match="NOT_PERMITTED signature"):
            members.verify(identity.certificate, signature, message, START)


@pytest.mark.parametrize(("offset", "valid"), [(-301, False), (-300, True), (IDENTITY_DAYS * DAY, True)])
def test_a_certificate_is_valid_from_a_little_before_its_issue(organisation: Path, offset: int, valid: bool) -> None:
    check_validity(organisation, offset, valid)


@pytest.mark.parametrize(("offset", "valid"), [(DAY, True), (DAY + 1, False)])
def test_a_certificate_is_valid_to_its_last_second(organisation: Path, offset: int, valid: bool) -> None:
    check_validity(organisation, offset, valid, days=1)


def check_validity(organisation: Path, offset: int, valid: bool, days: int = IDENTITY_DAYS) -> None:
    identity = load_identity(issue(organisation, "p-7", "person", clock, days))
    members = Members({"HospitalMSP": ca_certificate(organisation)})
    signed = (identity.certificate, identity.sign(b"message"), b"message")
    if valid:
        members.verify(*signed, START + offset)
    else:
        with pytest.raises(ContractError, match="NOT_PERMITTED certificate"):
            members.verify(*signed, START + offset)


def test_two_organisations_need_two_cas(organisation: Path) -> None:
    der = ca_certificate(organisation)
    with pytest.raises(ConfigError, match="same subject"):
        Members({"HospitalMSP": der, "OtherMSP": der})


def test_an_organisation_is_named_by_a_ca_certificate(organisation: Path) -> None:
    identity = load_identity(issue(organisation, "p-7", "person", clock))
    for der in (b"nonsense", identity.certificate):
        with pytest.raises(ConfigError, match="CA certificate"):
            Members({"HospitalMSP": der})
