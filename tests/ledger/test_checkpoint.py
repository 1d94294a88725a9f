"""Signed checkpoints: what a CA certificate is enough to check, and what is refused."""

import base64
import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger.checkpoint import Note, open_note, origin, sign_note
from orthanc_ledger.ledger.identity import IDENTITY_DAYS
from orthanc_ledger.ledger.log import Checkpoint
from tests.conftest import ROOT
from tests.ledger.channel import CUSTODIAN, DAY, OWNER, START, People

LOG = bytes(range(32))
CHECKPOINT = Checkpoint(1234, bytes(reversed(range(32))))


@pytest.fixture
def note(people: People) -> str:
    return sign_note(CHECKPOINT, LOG, START, people.identities[OWNER])


def lines_of(note: str) -> list[str]:
    return note.split("\n")


def test_a_signed_note_opens_with_the_ca_certificate_alone(people: People, note: str) -> None:
    serial = f"{x509.load_der_x509_certificate(people.identities[OWNER].certificate).serial_number:x}"
    opened = open_note(note, LOG, {OWNER: people.ca_certificates[OWNER]})
    assert opened == Note(CHECKPOINT, START, OWNER, serial, LOG)
    assert open_note(note, None, people.ca_certificates) == opened


def test_its_lines_are_those_of_a_c2sp_checkpoint(people: People, note: str) -> None:
    first, size, root, time, certificate, empty, signature, end = lines_of(note)
    assert (first, size, root) == (origin(LOG), "1234", base64.b64encode(CHECKPOINT.root).decode())
    assert first == "orthanc-ledger/000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    assert (time, empty, end) == (f"time {START}", "", "")
    assert base64.b64decode(certificate.removeprefix("certificate ")) == people.identities[OWNER].certificate
    assert signature.startswith(f"\N{EM DASH} {first} ")


@pytest.mark.parametrize("changed", [False, True])
def test_the_commands_of_the_page_check_it(people: People, note: str, tmp_path: Path, changed: bool) -> None:
    (commands,) = re.findall("```sh\n(.*?)```", (ROOT / "docs" / "checkpoint.md").read_text(), re.DOTALL)
    (tmp_path / "note").write_text(note.replace("\n1234\n", "\n1235\n") if changed else note)
    ca = x509.load_der_x509_certificate(people.ca_certificates[OWNER])
    (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    environment = {**os.environ, "NOTE": "note", "CA": "ca.pem"}
    done = subprocess.run(["sh", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == ("Verification failure\n" if changed else "Verified OK\n") + "signer.pem: OK\n", done.stderr


def test_its_key_id_is_that_of_the_public_key(people: People, note: str) -> None:
    key = x509.load_der_x509_certificate(people.identities[OWNER].certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert base64.b64decode(lines_of(note)[6].split(" ")[2])[:4] == hashlib.sha256(spki).digest()[:4]


def test_signatures_of_witnesses_are_passed_over(people: People, note: str) -> None:
    cosignature = base64.b64encode(b"\0\0\0\1" + bytes(72)).decode()
    witnesses = [f"\N{EM DASH} witness.example/w{n} {cosignature}" for n in range(15)]
    body, own = note.rsplit("\n\n")
    cosigned = f"{body}\n\n" + "".join(f"{line}\n" for line in witnesses) + own
    assert open_note(cosigned, LOG, people.ca_certificates).checkpoint == CHECKPOINT


def test_a_signature_under_another_keys_name_is_passed_over(people: People, note: str) -> None:
    text, _, line = note.rpartition("\n\n")
    renamed = f"{text}\n\n\N{EM DASH} witness.example/w1 {line.split(' ')[2]}"
    with pytest.raises(IntegrityError, match="not signed by the key of the certificate"):
        open_note(renamed, LOG, people.ca_certificates)


def test_a_note_without_end_is_refused(people: People, note: str) -> None:
    with pytest.raises(IntegrityError, match="expected a signed note"):
        open_note(note + "\N{EM DASH} witness.example/w1 AAAA\n" * 3000, LOG, people.ca_certificates)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n1234\n", "\n1235\n"),
        lambda note: note.replace(f"time {START}", f"time {START + 1}"),
        lambda note: note.replace(base64.b64encode(CHECKPOINT.root).decode(), base64.b64encode(bytes(32)).decode()),
        lambda note: note.replace("\n1234\n", "\n01234\n"),
        lambda note: note.replace("\n1234\n", "\n-1\n"),
        lambda note: note.replace("\n1234\n", "\n\N{FULLWIDTH DIGIT ONE}\n"),
        lambda note: note.replace("\n", "\r\n"),
        lambda note: note.replace("\n\n", "\nmore\n\n"),
        lambda note: note.replace("\N{EM DASH}", "-"),
        lambda note: note.rstrip("\n"),
        lambda note: note + "\n",
        lambda note: note[: note.index("\n\n") + 2],
        lambda note: note.replace(lines_of(note)[6].split(" ")[2], "AAAAAAAA"),
        lambda note: note.replace(lines_of(note)[6].split(" ")[2], "A"),
        lambda note: note.replace(lines_of(note)[4], "certificate AAAA"),
        lambda note: note.replace(lines_of(note)[4], "certificate A"),
        lambda _: "",
    ],
)
def test_a_changed_note_is_refused(people: People, note: str, change: Callable[[str], str]) -> None:
    with pytest.raises(IntegrityError, match=r"^checkpoint"):
        open_note(change(note), LOG, people.ca_certificates)


def test_a_note_of_another_log_is_refused(people: People, note: str) -> None:
    with pytest.raises(IntegrityError, match="of another log: expected orthanc-ledger/0000"):
        open_note(note, bytes(32), people.ca_certificates)


def test_a_signer_of_no_organisation_that_is_trusted_is_refused(people: People, note: str) -> None:
    with pytest.raises(IntegrityError, match=f"issued by .* not under {CUSTODIAN}$"):
        open_note(note, LOG, {CUSTODIAN: people.ca_certificates[CUSTODIAN]})


def test_a_certificate_put_in_by_another_than_the_signer_is_refused(people: People, note: str) -> None:
    foreign = sign_note(CHECKPOINT, LOG, START, people.identities[CUSTODIAN])
    swapped = note.replace(lines_of(note)[4], lines_of(foreign)[4])
    with pytest.raises(IntegrityError, match="not signed by the key of the certificate"):
        open_note(swapped, LOG, people.ca_certificates)


@pytest.mark.parametrize("time", [START - DAY, START + (IDENTITY_DAYS + 1) * DAY])
def test_a_note_from_outside_its_certificates_validity_is_refused(people: People, time: int) -> None:
    note = sign_note(CHECKPOINT, LOG, time, people.identities[OWNER])
    with pytest.raises(IntegrityError, match="valid from"):
        open_note(note, LOG, people.ca_certificates)
