"""The ledger's part of a receipt, forged by others than the owner; every field of a receipt changed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_make import variant
from receipt_world import World, changed, prove, refused, refuses, saved, tampered

from orthanc_ledger.clock import system_clock
from orthanc_ledger.errors import ConfigError, IntegrityError, Unreadable
from orthanc_ledger.ledger.identity import (
    ca_certificate,
    create_organisation,
    issue,
    load_identity,
)
from orthanc_ledger.receipt import Receipt
from orthanc_ledger.receipt_check import check


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def receipt(world: World) -> Receipt:
    return world.receipts["native"]


@pytest.fixture
def disclosed(world: World) -> Receipt:
    return world.disclosed


DAY_S = 86_400


class TestEvidence:
    """The ledger's part, forged by whoever holds other keys than the owner's."""

    def test_made_by_the_owner_is_proven(self, world: World, disclosed: Receipt) -> None:
        """So that what is refused below is refused for what is forged."""
        prove(world, world.forged(disclosed))

    @pytest.mark.parametrize("role", ["custodian", "research"])
    def test_an_anchor_by_another_organisation(self, world: World, disclosed: Receipt, role: str) -> None:
        forged = world.forged(disclosed, by=world.person(role))
        refuses(world, forged, "^entry: not signed under a --trust certificate: .* not under --trust$")

    @pytest.mark.parametrize("role", ["custodian", "research"])
    def test_a_checkpoint_by_another_organisation(self, world: World, disclosed: Receipt, role: str) -> None:
        forged = world.forged(disclosed, keeper=world.person(role))
        refuses(world, forged, "^checkpoint: not signed under a --trust certificate: .* not under --trust$")

    def test_a_namesake_of_the_owners_ca(self, world: World, disclosed: Receipt, tmp_path: Path) -> None:
        create_organisation(tmp_path / "namesake", "HospitalMSP")
        impostor = load_identity(issue(tmp_path / "namesake", "person", "person"))
        refuses(world, world.forged(disclosed, by=impostor, keeper=impostor), "not issued under --trust")

    def test_an_owner_that_changed_its_ca_is_believed_under_both(
        self, world: World, disclosed: Receipt, tmp_path: Path
    ) -> None:
        create_organisation(tmp_path / "new", "HospitalMSP")
        new = load_identity(issue(tmp_path / "new", "person", "person"))
        receipt = world.forged(disclosed, keeper=new)
        authorities = [ca_certificate(tmp_path / "new"), *world.trusted]
        for order in (authorities, authorities[::-1]):
            assert set(check(receipt, order).anchor.authorities) == set(authorities)

    def test_a_person_is_no_authority(self, world: World, disclosed: Receipt) -> None:
        with pytest.raises(ConfigError, match=r"got an end-entity certificate|not a CA certificate"):
            check(disclosed, [world.person("owner").certificate])

    def test_a_log_does_not_pass_for_the_signatures_of_two_organisations(
        self, world: World, disclosed: Receipt
    ) -> None:
        roles = {"HospitalMSP": "owner", "CustodianMSP": "custodian"}
        peers = {msp_id: ca_certificate(world.organisations / role) for msp_id, role in roles.items()}
        for asked in (peers, {"HospitalMSP": peers["HospitalMSP"]}, {}):
            with pytest.raises(IntegrityError, match=r"^evidence: a log that one organisation keeps"):
                check(disclosed, asked)

    def test_no_authority_at_all(self, world: World, disclosed: Receipt) -> None:
        with pytest.raises(IntegrityError, match="not signed under"):
            check(disclosed, [])

    def test_an_anchor_of_another_log(self, world: World, disclosed: Receipt) -> None:
        refuses(world, world.forged(disclosed, log=bytes(32)), "checkpoint.*of another log")
        refuses(world, world.forged(disclosed, note_log=bytes(32)), "checkpoint.*of another log")

    def test_another_function_with_the_same_arguments(self, world: World, disclosed: Receipt) -> None:
        refuses(world, world.forged(disclosed, function="ConfirmStored"), "expected an Anchor")

    @pytest.mark.parametrize("args", [{"count": 0}, {"count": True}, {"root": bytes(31)}, {"root": None}, {"more": 1}])
    def test_arguments_that_no_ledger_takes(self, world: World, disclosed: Receipt, args: dict[str, Any]) -> None:
        refuses(world, world.forged(disclosed, **args), "^entry: INVALID")

    @pytest.mark.parametrize("args", [{"count": 2}, {"root": bytes(32)}])
    def test_an_anchor_of_other_records(self, world: World, disclosed: Receipt, args: dict[str, Any]) -> None:
        refuses(world, world.forged(disclosed, **args), "^record: inclusion proof")

    @pytest.mark.parametrize("ahead_s", [301, -7 * DAY_S - 1])
    def test_a_call_signed_long_before_or_after_its_entry(self, world: World, disclosed: Receipt, ahead_s: int) -> None:
        refuses(world, world.forged(disclosed, time=system_clock() + ahead_s), "too far from the entry's time")

    def test_a_certificate_that_had_expired(self, world: World, disclosed: Receipt, tmp_path: Path) -> None:
        create_organisation(tmp_path / "short", "ShortMSP")
        person = load_identity(issue(tmp_path / "short", "person", "person", days=1))
        authorities = [*world.trusted, ca_certificate(tmp_path / "short")]
        late = system_clock() + 2 * DAY_S
        check(world.forged(disclosed, by=person, keeper=person), authorities)
        with pytest.raises(IntegrityError, match=r"^entry: .*valid from"):
            check(world.forged(disclosed, by=person, time=late, entry_time=late), authorities)
        with pytest.raises(IntegrityError, match=r"^checkpoint: .*valid from"):
            check(world.forged(disclosed, keeper=person, note_time=late), authorities)

    def test_an_entry_that_is_not_under_the_checkpoint(self, world: World, disclosed: Receipt) -> None:
        other = world.forged(disclosed).evidence
        mixed = replace(disclosed, evidence=replace(disclosed.evidence, entry=other.entry))
        refuses(world, mixed, "^entry: inclusion proof")
        mixed = replace(disclosed, evidence=replace(disclosed.evidence, checkpoint=other.checkpoint))
        refuses(world, mixed, "^entry: inclusion proof")

    def test_a_record_of_another_batch(self, world: World, receipt: Receipt) -> None:
        other = world.receipts["no pixels"]
        mixed = replace(receipt, record=other.record, index=other.index, proof=other.proof)
        refuses(world, mixed, "^record: inclusion proof", world.files["native"])
        refuses(world, replace(mixed, content=other.content), "^record: inclusion proof", world.files["no pixels"])

    def test_another_record_of_the_same_batch_proves_that_other_object_only(self, world: World) -> None:
        first, second = world.receipts["RLE"], world.issue("1.2.826.0.1.3680043.10.1.1")
        mixed = replace(second, evidence=first.evidence)
        prove(world, mixed, saved(variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.1")))
        refuses(world, mixed, "file: ", world.files["RLE"])
        for swapped in (replace(first, index=second.index), replace(first, proof=second.proof)):
            refuses(world, swapped, "^record: inclusion proof", world.files["RLE"])


@pytest.mark.filterwarnings("ignore:Attribute's length")  # cryptography's, of names that no CA would sign
class TestTampering:
    @pytest.mark.parametrize("form", ["native", "no pixels", "RLE"])
    def test_every_field_of_a_files_receipt_counts(self, world: World, form: str) -> None:
        for at, data in tampered(world.receipts[form]):
            assert refused(world, data, world.files[form]), f"{at} may be changed"

    def test_every_field_of_a_disclosed_receipt_counts(self, world: World, disclosed: Receipt) -> None:
        tried = 0
        for at, data in tampered(disclosed):
            tried += 1
            assert refused(world, data), f"{at} may be changed"
        assert tried > 100

    @pytest.mark.parametrize(
        ("at", "right"),
        [
            ((), dict),
            (("v",), int),
            (("record",), str),
            (("index",), int),
            (("proof",), list),
            (("evidence",), dict),
            (("evidence", "kind"), str),
            (("evidence", "checkpoint"), str),
            (("content",), dict),
            (("content", "kind"), str),
            (("content", "elements"), list),
        ],
        ids=str,
    )
    def test_another_type_is_no_receipt(self, disclosed: Receipt, at: tuple[str, ...], right: type) -> None:
        for value in (None, 1.0, True, 1, "00", [], {}):
            if type(value) is not right:
                with pytest.raises(Unreadable, match=r"^receipt"):
                    Receipt.decode(json.dumps(changed(json.loads(disclosed.encode()), at, value)).encode())

    @pytest.mark.parametrize("digits", ["0", "AB", " 00", "00 ", "0g", "0x00"])
    def test_bytes_have_one_form(self, disclosed: Receipt, digits: str) -> None:
        with pytest.raises(Unreadable, match=r"^receipt\.record: expected"):
            Receipt.decode(json.dumps(changed(json.loads(disclosed.encode()), ("record",), digits)).encode())

    def test_a_name_more_less_or_twice_is_no_receipt(self, disclosed: Receipt) -> None:
        text = disclosed.encode().decode()
        for bad in (
            text.replace('"v": 1', '"v": 1, "w": 1'),
            text.replace(', "v": 1', ""),
            text.replace('"v": 1', '"v": 1, "v": 1'),
            text.replace('"kind": "elements"', '"kind": "elements", "kind": "elements"'),
        ):
            with pytest.raises(Unreadable, match=r"^receipt"):
                Receipt.decode(bad.encode())

    @pytest.mark.parametrize(
        "data",
        [b"", b"{", b"\xff", b"[" * 100_000, b"null", b'{"v": 1}', b"9" * 5000, "{}".encode("utf-16")],
    )
    def test_what_is_no_json_object_is_no_receipt(self, data: bytes) -> None:
        with pytest.raises(Unreadable, match=r"^receipt"):
            Receipt.decode(data)

    @pytest.mark.parametrize(
        "record", [b"", b"\xa0", b"\x80", b"\xff", b"\x9b" + b"\xff" * 8, b"\xa1fobject\x1a" + b"\xff" * 4]
    )
    def test_bytes_that_are_no_record(self, world: World, disclosed: Receipt, record: bytes) -> None:
        refuses(world, replace(disclosed, record=record), "^record: ")

    @pytest.mark.parametrize("entry", [b"", b"\xa0", b"\x80", b"\xff", b"\x9b" + b"\xff" * 8])
    def test_bytes_that_are_no_entry(self, world: World, disclosed: Receipt, entry: bytes) -> None:
        refuses(world, replace(disclosed, evidence=replace(disclosed.evidence, entry=entry)), "^entry: ")

    def test_a_record_whose_fingerprint_is_not_of_its_roots(self, world: World, disclosed: Receipt) -> None:
        other = prove(world, world.receipts["no pixels"], world.files["no pixels"]).record
        record = disclosed.record.replace(prove(world, disclosed).record.fingerprint, other.fingerprint)
        refuses(world, replace(disclosed, record=record), "its fingerprint is not that of its roots")
