"""What receipts prove of real files and single elements, and what somebody tries who holds file and salts."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from receipt_world import (
    FORMS,
    World,
    elements_of,
    leaves_of,
    prove,
    refuses,
    saved,
    swallowed,
    uid_of,
    with_elements,
)

from orthanc_ledger.errors import CustodyError, IntegrityError
from orthanc_ledger.leaves import FRAME, VALUE, show_path
from orthanc_ledger.ledger.identity import (
    ca_certificate,
)
from orthanc_ledger.receipt import Element, Receipt
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


class TestTheFile:
    """A receipt for who has the file."""

    @pytest.mark.parametrize("form", FORMS)
    def test_is_proven_as_it_was_sent(self, world: World, form: str) -> None:
        proven = prove(world, world.receipts[form], world.files[form])
        assert proven.anchor.authorities == tuple(world.trusted)
        assert proven.anchor.args["kind"] == "original"

    def test_is_proven_in_every_syntax_that_fp_v1_calls_equal(self, world: World) -> None:
        decoded = dcmread(io.BytesIO(world.files["RLE"]))
        decoded.decompress(generate_instance_uid=False)
        prove(world, world.receipts["RLE"], saved(decoded))
        native = dcmread(io.BytesIO(world.files["native"]))
        native.compress(RLELossless, generate_instance_uid=False)
        prove(world, world.receipts["native"], saved(native))
        implicit = dcmread(io.BytesIO(world.files["no pixels"]))
        implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        prove(world, world.receipts["no pixels"], saved(implicit, implicit_vr=True, little_endian=True))

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("place", [0.4, 0.6, 0.8, 0.95])
    def test_with_one_bit_changed_is_not(self, world: World, form: str, place: float) -> None:
        file = bytearray(world.files[form])
        file[int(len(file) * place)] ^= 1
        with pytest.raises(CustodyError):
            prove(world, world.receipts[form], bytes(file))

    @pytest.mark.parametrize("form", FORMS)
    def test_with_an_element_more_or_less_is_not(self, world: World, form: str) -> None:
        more, less = (dcmread(io.BytesIO(world.files[form])) for _ in range(2))
        more.FailureReason = 1
        del less.StudyDate
        for changed in (more, less):
            with pytest.raises(IntegrityError, match="the receipt has another one there, or none"):
                prove(world, world.receipts[form], saved(changed))

    def test_with_a_frame_more_or_none_is_not(self, world: World) -> None:
        more = dcmread(io.BytesIO(world.files["native"]))
        more.PixelData += b"\1\0"
        refuses(world, world.receipts["native"], "leaf", saved(more))
        none = dcmread(io.BytesIO(world.files["native"]))
        del none.PixelData
        refuses(world, world.receipts["native"], "expected 1 pixel leaves", saved(none))

    def test_lossily_compressed_is_not(self, world: World) -> None:
        """The pixel form is fixed by the transfer syntax: encoded pixels never pass as decoded ones."""
        ds = dcmread(io.BytesIO(world.files["native"]))
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        refuses(world, world.receipts["native"], "expected its pixels decoded, got them encoded", saved(ds))

    def test_of_another_object_is_not(self, world: World) -> None:
        for form, file in world.files.items():
            if form != "native":
                with pytest.raises(IntegrityError):
                    prove(world, world.receipts["native"], file)

    def test_of_another_object_with_the_same_elements_is_not(self, world: World) -> None:
        other = dcmread(io.BytesIO(world.files["native"]))
        other.SOPInstanceUID = "1.2.3"
        refuses(world, world.receipts["native"], "expected the metadata root", saved(other))


class TestItsLeaves:
    """What somebody does who holds the file and all salts."""

    def changed(self, receipt: Receipt, **lists: Any) -> Receipt:
        return replace(receipt, content=replace(leaves_of(receipt), **lists))

    def test_salts_swapped(self, world: World, receipt: Receipt) -> None:
        first, second, *rest = leaves_of(receipt).metadata
        swapped = (replace(first, salt=second.salt), replace(second, salt=first.salt), *rest)
        refuses(world, self.changed(receipt, metadata=swapped), "changed salts", world.files["native"])

    def test_a_salt_of_another_length(self, world: World, receipt: Receipt) -> None:
        for tree in ("metadata", "pixels"):
            first, *rest = getattr(leaves_of(receipt), tree)
            for salt in (first.salt[:-1], first.salt + b"\0", b""):
                changed = self.changed(receipt, **{tree: (replace(first, salt=salt), *rest)})
                refuses(world, changed, "expected a salt of 32 bytes", world.files["native"])

    def test_one_more_one_less_or_in_another_order(self, world: World, receipt: Receipt) -> None:
        for tree in ("metadata", "pixels"):
            found = getattr(leaves_of(receipt), tree)
            for listed in ((*found, found[-1]), found[:-1], (), found[::-1], (found[-1], *found)):
                if listed != found:
                    changed = self.changed(receipt, **{tree: listed})
                    refuses(world, changed, "leaves as the receipt|has another one", world.files["native"])

    def test_another_path_or_kind(self, world: World, receipt: Receipt) -> None:
        first, *rest = leaves_of(receipt).metadata
        for leaf in (replace(first, kind=2), replace(first, path=rest[0].path)):
            refuses(world, self.changed(receipt, metadata=(leaf, *rest)), "has another one", world.files["native"])

    def test_the_trees_swapped(self, world: World, receipt: Receipt) -> None:
        leaves = leaves_of(receipt)
        swapped = self.changed(receipt, metadata=leaves.pixels, pixels=leaves.metadata)
        refuses(world, swapped, "has another one", world.files["native"])

    def test_those_of_another_object_of_the_batch(self, world: World) -> None:
        neighbour = world.issue("1.2.826.0.1.3680043.10.1.1")
        mixed = replace(neighbour, content=world.receipts["RLE"].content)
        refuses(world, mixed, "expected the pixel root", world.files["RLE"])
        mixed = replace(world.receipts["RLE"], content=neighbour.content)
        refuses(world, mixed, "expected the pixel root", world.files["RLE"])


class TestElements:
    """Single elements, and nothing else."""

    def test_are_proven_with_their_values(self, world: World, disclosed: Receipt) -> None:
        prove(world, disclosed)
        shown = {show_path(element.path): element.value for element in elements_of(disclosed)}
        assert shown == {"(0008,0060)": b"CT", "(0010,0010)": b"CompressedSamples^CT1", "(0028,0010)": b"\x80\0"}

    def test_in_a_sequence_are_proven(self, world: World) -> None:
        report = dcmread(io.BytesIO(world.files["no pixels"]))
        receipt = world.issue(
            uid_of(world.files["no pixels"]), "0040A730", "0040A730[1].0040A040", "0040,A730[0].0040,A010"
        )
        prove(world, receipt)
        relation, content = report.ContentSequence[0].RelationshipType, report.ContentSequence[1].ValueType
        values = [element.value for element in elements_of(receipt)]
        assert values == [len(report.ContentSequence).to_bytes(4, "big"), relation.encode(), content.encode()]

    @pytest.mark.parametrize("form", FORMS)
    def test_are_proven_of_every_form(self, world: World, form: str) -> None:
        prove(world, world.issue(uid_of(world.files[form]), "00080018"))

    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({"value": b"MR"}, "expected root"),
            ({"value": b"CT "}, "expected root"),
            ({"path": bytes.fromhex("00080061")}, "expected root"),
            ({"path": bytes.fromhex("0008")}, "a path and kind of the metadata tree"),
            ({"path": b""}, "a path and kind of the metadata tree"),
            ({"kind": 2}, "expected root"),
            ({"kind": 3}, "a path and kind of the metadata tree"),
            ({"kind": 4}, "a path and kind of the metadata tree"),
            ({"kind": 257}, "a path and kind of the metadata tree"),
            ({"salt": bytes(32)}, "expected root"),
            ({"salt": bytes(31)}, "32 bytes"),
            ({"index": 0}, "expected root"),
            ({"index": -1}, "outside a tree"),
            ({"index": 1 << 40}, "outside a tree"),
            ({"proof": ()}, "too short"),
        ],
    )
    def test_changed_in_one_field_are_not(
        self, world: World, disclosed: Receipt, fields: dict[str, Any], match: str
    ) -> None:
        first, *_ = elements_of(disclosed)
        refuses(world, with_elements(disclosed, replace(first, **fields)), match)

    def test_with_a_value_under_anothers_path_are_not(self, world: World, disclosed: Receipt) -> None:
        modality, name, _ = elements_of(disclosed)
        for forged in (
            replace(modality, path=name.path),
            replace(name, value=modality.value),
            replace(name, value=modality.value, salt=modality.salt),
            replace(modality, path=name.path, value=name.value),
            replace(modality, index=name.index, proof=name.proof),
        ):
            refuses(world, with_elements(disclosed, forged), "expected root")

    def test_twice_or_in_another_order_are_not(self, world: World, disclosed: Receipt) -> None:
        first, second, third = elements_of(disclosed)
        for order in ((first, first), (second, first), (first, third, second)):
            refuses(world, with_elements(disclosed, *order), "expected after")

    def test_none_at_all_are_not(self, world: World, disclosed: Receipt) -> None:
        refuses(world, with_elements(disclosed), "at least one")

    def test_a_value_that_holds_another_leafs_bytes_is_no_other_element(self, tmp_path: Path) -> None:
        receipt, forgery = swallowed(tmp_path)
        trusted = [ca_certificate(tmp_path / "node" / "organisations" / "owner")]
        check(receipt, trusted)
        with pytest.raises(IntegrityError, match="expected a salt of 32 bytes"):
            check(forgery, trusted)

    def test_a_leaf_of_the_pixel_tree_is_none(self, world: World, receipt: Receipt) -> None:
        [frame] = leaves_of(receipt).pixels
        pixels = dcmread(io.BytesIO(world.files["native"])).PixelData
        assert frame.kind == FRAME
        for path, kind in ((frame.path, FRAME), (frame.path, VALUE)):
            element = Element(path, kind, pixels, frame.salt, 0, ())
            with pytest.raises(IntegrityError):
                prove(world, with_elements(receipt, element))

    def test_of_a_neighbour_in_the_batch_are_not(self, world: World) -> None:
        uid = uid_of(world.files["RLE"])
        theirs, ours = world.issue("1.2.826.0.1.3680043.10.1.1", "00080018"), world.issue(uid, "00080018")
        refuses(world, replace(theirs, content=ours.content), "expected root")
