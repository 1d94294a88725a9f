"""Key files against the second implementation's vectors, and what must not open or be read."""

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from orthanc_ledger.content import cbor
from orthanc_ledger.errors import ConfigError, CustodyError, IntegrityError, Unreadable
from orthanc_ledger.key_file import LARGEST, InstanceKeys, KeyFile, ReleasedKeys
from orthanc_ledger.ledger.identity import create_organisation, issue, load_identity
from orthanc_ledger.recipient_key import PRIVATE_FILE, PUBLIC_FILE, PrivateKey, PublicKey, read_private, read_public
from orthanc_ledger.tokens import ObjectKeys
from tests.second import cid, keyfile
from tests.second.make_keyfile_vectors import FOLDER

CASES: list[dict[str, Any]] = json.loads((FOLDER / "files.json").read_text())
PRIVATE, OTHER = PrivateKey(b"p" * 32), PrivateKey(b"o" * 32)
RELEASE = b"r" * 32
KEYS = ReleasedKeys(
    b"q" * 32,
    b"s" * 16,
    tuple(
        InstanceKeys(bytes([n]) * 32, cid.of_block(b""), cid.of_bytes(b""), ObjectKeys(b"k" * 32, b"t" * 32))
        for n in (1, 2)
    ),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    folder = tmp_path_factory.mktemp("hospital") / "organisation"
    create_organisation(folder, "HospitalMSP")
    return KeyFile.make(RELEASE, KEYS, PRIVATE.public, load_identity(issue(folder, "node", "node")))


def test_the_second_implementation_gives_the_published_secret() -> None:
    case = json.loads((FOLDER / "xwing.json").read_text())
    seed = bytes.fromhex(case["seed"])
    public = keyfile.public(seed).hex()
    assert (public.startswith(case["public_begins"]), public.endswith(case["public_ends"])) == (True, True)
    assert keyfile.decapsulate(seed, bytes.fromhex(case["ciphertext"])).hex() == case["secret"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(len(case["opened"]["instances"])))
def test_a_vector_opens(case: dict[str, Any]) -> None:
    private, data = PrivateKey(bytes.fromhex(case["private"])), bytes.fromhex(case["file"])
    file = KeyFile.decode(data)
    assert file.encode() == data
    assert (file.release.hex(), file.recipient.hex()) == (case["release"], case["recipient"])
    assert private.public.digest == file.recipient
    opened = file.open(private)
    rows = [
        {
            "instance": row.instance.hex(),
            "manifest": row.manifest,
            "object": row.object,
            "seal": row.keys.seal.hex(),
            "salt": row.keys.salt.hex(),
        }
        for row in opened.instances
    ]
    shown = {"request": opened.request.hex(), "study": opened.study.hex(), "instances": rows}
    assert shown == case["opened"]
    keyfile.check_signature(cbor.decode(data))


def test_the_second_implementation_opens_what_the_product_makes(made: KeyFile) -> None:
    fields = cbor.decode(made.encode())
    keyfile.check_signature(fields)
    plain = keyfile.unseal(b"p" * 32, RELEASE, fields["sealed"])
    assert ReleasedKeys.decode(plain) == KEYS
    assert fields["recipient"] == sha256(keyfile.public(b"p" * 32)).digest()


def test_another_recipient_opens_nothing(made: KeyFile) -> None:
    with pytest.raises(IntegrityError, match="do not open"):
        made.open(OTHER)


@pytest.mark.parametrize("changed", [{"release": b"x" * 32}, {"recipient": OTHER.public.digest}])
def test_sealed_keys_put_under_another_release_or_recipient_do_not_open(
    made: KeyFile, changed: dict[str, bytes]
) -> None:
    with pytest.raises(IntegrityError, match="do not open"):
        KeyFile(**{**vars(made), **changed}).open(PRIVATE)


def test_no_byte_of_the_sealed_keys_can_change_or_be_cut_off(made: KeyFile) -> None:
    sealed = made.sealed
    changed = [sealed[:n] + bytes([sealed[n] ^ 1]) + sealed[n + 1 :] for n in range(0, len(sealed), 37)]
    for other in (*changed, sealed[:-1], sealed[:1120], b"", sealed + b"\0"):
        with pytest.raises(IntegrityError, match="do not open"):
            KeyFile(**{**vars(made), "sealed": other}).open(PRIVATE)


def test_no_cut_off_or_longer_file_is_read(made: KeyFile) -> None:
    data = made.encode()
    for other in (*(data[:n] for n in range(0, len(data), 29)), data + b"\0", b"\xf6", b"\xff" * 9):
        with pytest.raises(Unreadable, match="not a key file"):
            KeyFile.decode(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": None},
        {"release": b"short"},
        {"recipient": "text"},
        {"colour": b"red"},
        {"sealed": [b"list"]},
    ],
)
def test_a_file_of_another_form_is_not_read(made: KeyFile, changes: dict[str, Any]) -> None:
    fields = {**cbor.decode(made.encode()), **changes}
    with pytest.raises(Unreadable):
        KeyFile.decode(cbor.encode({name: value for name, value in fields.items() if value is not None}))


@pytest.mark.parametrize("more", [{}, {"colour": b"red"}])
def test_a_later_version_is_called_one_whatever_it_has(made: KeyFile, more: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="a newer program may read it"):
        KeyFile.decode(cbor.encode({**cbor.decode(made.encode()), "v": 2, **more}))


@pytest.mark.parametrize("spoiled", ["swapped", "twice", "short key", "no object", "another file's CID", "more"])
def test_keys_of_another_form_are_refused_without_telling_them(spoiled: str) -> None:
    content = cbor.decode(KEYS.encode())
    first, second = content["instances"]
    match spoiled:
        case "swapped":
            content["instances"] = [second, first]
        case "twice":
            content["instances"] = [first, first]
        case "short key":
            first["seal"] = first["seal"][:31]
        case "no object":
            del first["object"]
        case "another file's CID":
            first["object"] = first["manifest"]
        case "more":
            content["k_study"] = bytes(32)
    with pytest.raises(IntegrityError) as refused:
        ReleasedKeys.decode(cbor.encode(content))
    assert "kkkk" not in str(refused.value)
    assert (b"kkkk").hex() not in str(refused.value)


def test_what_is_signed_is_all_but_the_signature(made: KeyFile) -> None:
    for name in ("release", "recipient", "sealed", "certificate"):
        *others, last = getattr(made, name)
        other = KeyFile(**{**vars(made), name: bytes([*others, last ^ 1])})
        assert other.signed != made.signed
    assert KeyFile(**{**vars(made), "signature": b""}).signed == made.signed


def test_keys_show_in_no_text_of_what_holds_them(made: KeyFile) -> None:
    for holder in (PRIVATE, KEYS, KEYS.instances[0], made, made.open(PRIVATE)):
        for secret in (b"p" * 32, b"k" * 32, b"t" * 32):
            assert repr(secret)[2:-1] not in repr(holder)
            assert secret.hex() not in repr(holder)


class TestKeyPair:
    def test_files_are_read_as_written_and_the_private_one_is_its_owners_only(self, tmp_path: Path) -> None:
        PRIVATE.write(tmp_path / "keys")
        assert read_public(tmp_path / "keys" / PUBLIC_FILE) == PRIVATE.public
        assert read_private(tmp_path / "keys" / PRIVATE_FILE).public == PRIVATE.public
        assert (tmp_path / "keys" / PRIVATE_FILE).stat().st_mode & 0o777 == 0o600

    def test_keys_are_never_overwritten(self, tmp_path: Path) -> None:
        PRIVATE.write(tmp_path)
        with pytest.raises(ConfigError, match="exists already"):
            OTHER.write(tmp_path)
        assert read_private(tmp_path / PRIVATE_FILE).public == PRIVATE.public

    def test_a_private_key_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        PRIVATE.write(tmp_path)
        os.chmod(tmp_path / PRIVATE_FILE, 0o640)
        with pytest.raises(ConfigError, match="chmod 600"):
            read_private(tmp_path / PRIVATE_FILE)

    def test_a_wrong_file_is_named_and_its_content_is_not_told(self, tmp_path: Path) -> None:
        PRIVATE.write(tmp_path)
        text = (tmp_path / PRIVATE_FILE).read_text()
        secret = text.split()[1]
        for name, content in (("swapped", text), ("cut", text[:-9]), ("other", f"{secret}"), ("binary", "\x00\xff")):
            (tmp_path / name).write_text(content, encoding="latin-1")
            for read in (read_public, read_private) if name != "swapped" else (read_public,):
                with pytest.raises(ConfigError, match="expected one line") as refused:
                    read(tmp_path / name)
                assert secret[:8] not in f"{refused.value}{refused.value.__cause__}"
        with pytest.raises(ConfigError, match="cannot be read"):
            read_private(tmp_path / "none")

    @pytest.mark.parametrize("raw", [b"", bytes(1215), bytes(1217), b"\xff" * 1216])
    def test_bytes_that_are_no_public_key_are_refused(self, raw: bytes) -> None:
        with pytest.raises(Unreadable, match="expected an ML-KEM-768"):
            PublicKey(raw)

    def test_a_point_of_low_order_is_refused_before_anything_is_sealed_to_it(self) -> None:
        """RFC 7748 6.1: all would have the same secret with it; else the release is on the ledger before it fails."""
        for point in (bytes(32), b"\1" + bytes(31)):
            with pytest.raises(Unreadable, match="none of low order"):
                PublicKey(PRIVATE.public.raw[:-32] + point)

    def test_the_largest_release_fits(self) -> None:
        row = len(replace(KEYS, instances=KEYS.instances[:1]).encode()) - len(replace(KEYS, instances=()).encode())
        assert 100_000 * row + 10_000 < LARGEST

    def test_nothing_of_what_failed_stays_in_the_error(self, made: KeyFile) -> None:
        with pytest.raises(CustodyError) as refused:
            made.open(OTHER)
        assert refused.value.__cause__ is None
        assert not isinstance(refused.value.__context__, InvalidTag)
