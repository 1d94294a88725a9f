"""Issuing receipts: of what, for which record, and what nobody learns from one."""

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from damage import flip
from node_make import drain, make_node, real_file, store, variant
from receipt_world import (
    FORMS,
    World,
    elements_of,
    leaves_of,
    uid_of,
)

from orthanc_ledger import receipt_issue, tokens
from orthanc_ledger.commands.receipt import _receipts
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld
from orthanc_ledger.fingerprint import metadata_leaves
from orthanc_ledger.instance import open_instance
from orthanc_ledger.leaves import leaf_hashes, show_path
from orthanc_ledger.ledger.identity import (
    ca_certificate,
)
from orthanc_ledger.receipt import Receipt, parse_path
from orthanc_ledger.receipt_check import check
from orthanc_ledger.spool import CONFLICTS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def receipt(world: World) -> Receipt:
    return world.receipts["native"]


@pytest.fixture
def disclosed(world: World) -> Receipt:
    return world.disclosed


class TestPrivacy:
    def test_a_disclosed_receipt_holds_no_other_value_uid_salt_or_key(self, world: World, disclosed: Receipt) -> None:
        seen = disclosed.encode()
        uid = uid_of(world.files["native"])
        instance = open_instance(io.BytesIO(world.files["native"]))
        shown = {element.path for element in elements_of(disclosed)}
        for salted, leaf in zip(
            leaves_of(world.receipts["native"]).metadata, metadata_leaves(instance, "decoded"), strict=True
        ):
            value = leaf.value if isinstance(leaf.value, bytes) else b"".join(leaf.value)
            assert (salted.salt.hex().encode() in seen) == (leaf.path in shown)
            if len(value) > 5 and leaf.path not in shown:
                assert value not in seen
                assert value.hex().encode() not in seen
                assert leaf_hashes(leaf._replace(value=value), [bytes(32)])[0].hex().encode() not in seen
        assert uid.encode().hex().encode() not in seen
        self.holds_no_key(world, uid, seen)

    @pytest.mark.parametrize("form", FORMS)
    def test_no_receipt_holds_a_key(self, world: World, form: str) -> None:
        self.holds_no_key(world, uid_of(world.files[form]), world.receipts[form].encode())

    def test_the_search_finds_what_is_in_the_clear(self, world: World, disclosed: Receipt) -> None:
        [modality, *_] = elements_of(disclosed)
        assert modality.salt.hex().encode() in disclosed.encode()
        assert modality.salt.hex().encode() in world.receipts["native"].encode()

    def holds_no_key(self, world: World, uid: str, seen: bytes) -> None:
        [held] = world.node.index.select(instances=[uid])
        study = world.node.keyring.study(held.study_uid)
        assert study is not None
        token = tokens.instance_token(study.k_study, uid)
        manifest = world.node.manifests.read(str(held.manifest), study.token)
        batch_key = world.node.keyring.batch_key(manifest.key_id)
        secrets = (batch_key, study.k_study, world.node.keyring.k_lookup)
        for key in (*secrets, tokens.salt_key(batch_key, token), tokens.seal_key(batch_key, token)):
            assert key.hex().encode() not in seen


class TestIssuing:
    def test_an_object_that_is_not_here_or_not_anchored_has_none(self, tmp_path: Path) -> None:
        node = make_node(tmp_path)
        with pytest.raises(NotHeld, match="not held here"):
            _receipts(node).issue("1.2.3")
        store(node, real_file())
        node.anchorer().take_in()
        [waiting] = node.index.select()
        with pytest.raises(NotHeld, match=r"not held here|not anchored yet"):
            _receipts(node).issue(waiting.sop_uid)
        drain(node)
        _receipts(node).issue(waiting.sop_uid)

    def test_an_object_that_differs_from_its_anchor_has_none(self, tmp_path: Path) -> None:
        node = make_node(tmp_path)
        store(node, real_file())
        drain(node)
        [held] = node.index.select()
        path = next((node.config.data_dir / "objects").rglob(str(held.object)))
        flip(path)
        with pytest.raises(IntegrityError):
            _receipts(node).issue(held.sop_uid)

    def test_a_decoder_that_changed_since_gives_none(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def shorter(*given: Any) -> Any:
            return itertools.islice(metadata_leaves(*given), 20)

        monkeypatch.setattr(receipt_issue, "metadata_leaves", shorter)
        for paths in ((), ("00080060",)):
            with pytest.raises(IntegrityError, match="a decoder changed"):
                world.issue(uid_of(world.files["native"]), *paths)

    def test_an_element_that_is_no_leaf_cannot_be_disclosed(self, world: World) -> None:
        for path in ("00100011", "7FE00010", "00020010", "00080060[0].00080100", "00280000"):
            with pytest.raises(NotHeld, match="has no such element"):
                world.issue(uid_of(world.files["native"]), "00080060", path)

    def test_a_superseded_object_gets_the_receipt_of_the_current_record(self, tmp_path: Path) -> None:
        node = make_node(tmp_path)
        store(node, real_file())
        drain(node)
        [held] = node.index.select()
        before = _receipts(node).issue(held.sop_uid)
        supersede(node, tmp_path)
        after = _receipts(node).issue(held.sop_uid, [parse_path("00100010")])
        assert (before.supersedes, after.supersedes) == (False, True)
        [name] = elements_of(after.receipt)
        assert name.value == b"Corrected"
        trusted = [ca_certificate(tmp_path / "node" / "organisations" / "owner")]
        manifests = {check(each.receipt, trusted).anchor.args["manifestCid"] for each in (before, after)}
        assert len(manifests) == 2


def supersede(node: Any, tmp_path: Path) -> None:
    """A correction of the one object, decided, proposed and confirmed."""
    from orthanc_ledger.index import Supersession

    store(node, variant(PatientName="Corrected"))
    [conflict] = node.spool.names(CONFLICTS)
    holder = node.index.instance(conflict.partition(".")[0])
    node.index.keep_supersession(Supersession(conflict, holder.claim, "metadata-corrected", "decided", holder.manifest))
    drain(node)
    drain(node)
    [proposed] = node.index.supersessions("proposed")
    custodian = tmp_path / "node" / "organisations" / "custodian" / "identities" / "person"
    node.ledger_as(custodian).submit("ConfirmSupersede", {"id": proposed.ledger_id})


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "path", "shown"),
        [
            ("00080060", "00080060", "(0008,0060)"),
            ("0010,0010", "00100010", "(0010,0010)"),
            ("(7fe0,0001)", "7fe00001", "(7FE0,0001)"),
            ("00081140[0].00081150", "000811400000000000081150", "(0008,1140)[0].(0008,1150)"),
            ("0040A730[12].(0040,A730)[3].0040A040", "0040a7300000000c0040a730000000030040a040", None),
        ],
    )
    def test_are_read_and_shown(self, text: str, path: str, shown: str | None) -> None:
        assert parse_path(text).hex() == path
        assert parse_path(show_path(parse_path(text))).hex() == path
        assert shown in (None, show_path(parse_path(text)))

    @pytest.mark.parametrize(
        "text", ["", "0008", "Modality", "00081140.00081150", "00080060[0]", "00080060[-1].00080060"]
    )
    def test_of_another_form_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="expected an element as"):
            parse_path(text)
