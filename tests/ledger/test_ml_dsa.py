"""The second signature under checkpoints: pinned by a trust file, and then nothing less counts."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from orthanc_ledger import setup_node
from orthanc_ledger.errors import ConfigError, IntegrityError
from orthanc_ledger.ledger.checkpoint import Pins, open_note, read_trusted, sign_note
from orthanc_ledger.ledger.identity import Identity, ca_certificate, create_organisation, issue, load_identity
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.setup_node import create_checkpoint_key
from tests.conftest import ROOT
from tests.ledger.channel import CUSTODIAN, OWNER, START, People

LOG = bytes(range(32))
CHECKPOINT = Checkpoint(1234, bytes(reversed(range(32))))
CASES = json.loads((ROOT / "tests" / "vectors" / "checkpoint" / "notes.json").read_text())


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    create_organisation(tmp_path / "hospital", OWNER)
    return tmp_path / "hospital"


@pytest.fixture
def node(hospital: Path) -> Path:
    return issue(hospital, "node", "node")


@pytest.fixture
def two_keys(people: People) -> Identity:
    return replace(people.identities[OWNER], ml_dsa=MLDSA65PrivateKey.generate())


@pytest.fixture
def pins(people: People, two_keys: Identity) -> Pins:
    assert two_keys.ml_dsa is not None
    return {people.ca_certificates[OWNER]: [two_keys.ml_dsa.public_key()]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_the_vectors_of_the_second_reading_count_or_do_not(case: dict[str, Any], tmp_path: Path) -> None:
    for file in ("ca", "trust"):
        (tmp_path / file).write_text(case[file])
        certificates, pins = read_trusted([tmp_path / file])
        believed = {"hospital": certificates[tmp_path / file]}
        if case[f"by_{file}"]:
            note = open_note(case["note"], bytes.fromhex(case["log"]), believed, pins)
            found = (note.checkpoint.size, note.checkpoint.root.hex(), note.time, note.ml_dsa)
            assert found == (case["size"], case["root"], case["time"], file == "trust")
        else:
            with pytest.raises(IntegrityError, match=r"^checkpoint"):
                open_note(case["note"], None, believed, pins)


def test_who_pins_nothing_reads_it_by_the_ca_certificate(people: People, two_keys: Identity, pins: Pins) -> None:
    note = sign_note(CHECKPOINT, LOG, START, two_keys)
    assert note.count("\N{EM DASH}") == 2
    assert not open_note(note, LOG, people.ca_certificates).ml_dsa
    assert open_note(note, LOG, people.ca_certificates, pins).ml_dsa


def test_who_has_broken_ecdsa_signs_no_checkpoint(people: People, pins: Pins) -> None:
    forged = sign_note(CHECKPOINT, LOG, START, people.identities[OWNER])
    with pytest.raises(IntegrityError, match="no ML-DSA signature of a key that is trusted"):
        open_note(forged, LOG, people.ca_certificates, pins)


def test_who_has_broken_ml_dsa_signs_no_checkpoint(people: People, two_keys: Identity, pins: Pins) -> None:
    forged = sign_note(CHECKPOINT, LOG, START, replace(people.identities[CUSTODIAN], ml_dsa=two_keys.ml_dsa))
    certificate = sign_note(CHECKPOINT, LOG, START, two_keys).split("\n")[4]
    for note in (forged.replace(forged.split("\n")[4], certificate), forged):
        with pytest.raises(IntegrityError, match=r"not signed by the key of the certificate|not under"):
            open_note(note, LOG, {OWNER: people.ca_certificates[OWNER]}, pins)


def test_another_organisation_s_checkpoints_are_not_asked_for_it(people: People, pins: Pins) -> None:
    note = sign_note(CHECKPOINT, LOG, START, people.identities[CUSTODIAN])
    assert open_note(note, LOG, people.ca_certificates, pins).msp_id == CUSTODIAN


def test_one_of_several_pinned_keys_is_enough(people: People, two_keys: Identity, pins: Pins) -> None:
    (ca, keys), *_ = pins.items()
    note = sign_note(CHECKPOINT, LOG, START, two_keys)
    assert open_note(note, LOG, people.ca_certificates, {ca: [MLDSA65PrivateKey.generate().public_key(), *keys]}).ml_dsa


def test_with_fifteen_witnesses_it_is_still_a_note(people: People, two_keys: Identity, pins: Pins) -> None:
    note, witness = (
        sign_note(CHECKPOINT, LOG, START, two_keys),
        "\N{EM DASH} witness.example/w1 " + "A" * 4 * 811 + "\n",
    )
    assert open_note(note + 15 * witness, LOG, people.ca_certificates, pins).ml_dsa  # C2SP: ML-DSA-44, 4 + 8 + 2,420


class TestKey:
    def test_an_identity_gets_one_and_signs_with_both(self, node: Path) -> None:
        trust = create_checkpoint_key(node)
        assert (node / "ml-dsa.key").stat().st_mode & 0o777 == 0o600
        certificates, pins = read_trusted([trust])
        assert certificates == {trust: ca_certificate(node)}
        note = sign_note(CHECKPOINT, LOG, START, load_identity(node))
        assert open_note(note, LOG, {OWNER: ca_certificate(node)}, pins).ml_dsa

    def test_a_repeat_makes_no_other(self, node: Path) -> None:
        trust = create_checkpoint_key(node).read_bytes()
        assert create_checkpoint_key(node / "msp.yaml").read_bytes() == trust

    @pytest.mark.parametrize("write", range(3))
    @pytest.mark.parametrize("done", [False, True])
    def test_killed_at_any_write_a_repeat_goes_on(
        self, node: Path, monkeypatch: pytest.MonkeyPatch, write: int, done: bool
    ) -> None:
        real, count = setup_node.write_over, iter(range(9))

        def killed(path: Path, content: bytes, mode: int = 0o600) -> None:
            last = next(count) == write
            if not last or done:
                real(path, content, mode)
            if last:
                path.with_name(f"{path.name}.new").write_bytes(content[:9])
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(setup_node, "write_over", killed)
            with pytest.raises(KeyboardInterrupt):
                create_checkpoint_key(node)
        assert (load_identity(node).ml_dsa is None) == ((write, done) != (2, True))
        keys = [path.read_bytes() for path in node.glob("ml-dsa.key")]
        _, pins = read_trusted([create_checkpoint_key(node)])
        assert keys in ([], [(node / "ml-dsa.key").read_bytes()])
        note = sign_note(CHECKPOINT, LOG, START, load_identity(node))
        assert open_note(note, LOG, {OWNER: ca_certificate(node)}, pins).ml_dsa

    def test_an_identity_whose_second_key_is_gone_signs_nothing(self, node: Path) -> None:
        create_checkpoint_key(node)
        (node / "ml-dsa.key").unlink()
        with pytest.raises(ConfigError, match=r"ml-dsa\.key: cannot be read"):
            load_identity(node)

    def test_it_may_lie_elsewhere(self, node: Path, tmp_path: Path) -> None:
        create_checkpoint_key(node)
        (node / "ml-dsa.key").rename(tmp_path / "kept.key")
        (node / "msp.yaml").write_text(yaml.safe_dump({"msp_id": OWNER, "ml_dsa": str(tmp_path / "kept.key")}))
        assert load_identity(node).ml_dsa is not None
        create_checkpoint_key(node)
        assert not (node / "ml-dsa.key").exists()

    @pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None])
    def test_another_key_in_its_place_is_told(self, node: Path, content: bytes | None) -> None:
        create_checkpoint_key(node)
        other = (node / "keystore" / "key.pem").read_bytes() if content is None else content
        (node / "ml-dsa.key").write_bytes(other)
        with pytest.raises(ConfigError, match=r"ml-dsa\.key: expected an ML-DSA-65 private key"):
            load_identity(node)


@pytest.mark.parametrize(
    "key",
    [
        lambda ca: (
            MLDSA44PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ),
        lambda ca: (
            load_pem_x509_certificate(ca).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ),
        lambda ca: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ],
)
def test_a_trust_file_with_a_key_of_another_kind_is_refused(
    hospital: Path, tmp_path: Path, key: Callable[[bytes], bytes]
) -> None:
    ca = (hospital / "cacerts" / "ca.pem").read_bytes()
    (tmp_path / "trust.pem").write_bytes(ca + key(ca))
    with pytest.raises(ConfigError, match=r"trust\.pem: (expected ML-DSA-65 public keys only|a public key in it)"):
        read_trusted([tmp_path / "trust.pem"])
