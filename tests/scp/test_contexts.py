"""Which presentation contexts are accepted, and in which transfer syntax."""

import pytest
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from dicom_scp.contexts import TRANSFER_SYNTAXES, is_storage, proposals, wanted
from dicom_scp.ports import Item

from .client import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    JPEG_LOSSY,
    JPEG_LS,
    MR,
    RLE,
    associated,
    bundled,
    storage,
    store_bytes,
)
from .world import Node

PRIVATE = "1.3.12.2.1107.5.9.1"  # Siemens CSA non-image
RETIRED = {
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image",
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame Image",
    "1.2.840.10008.5.1.4.1.1.5": "Nuclear Medicine Image",
    "1.2.840.10008.5.1.4.1.1.12.3": "X-Ray Angiographic Bi-Plane Image",
    "1.2.840.10008.5.1.4.1.1.8": "Standalone Overlay",
}


@pytest.mark.parametrize(
    ("proposed", "accepted"),
    [
        ([JPEG_LOSSY, IMPLICIT, EXPLICIT], EXPLICIT),
        ([JPEG_LS, EXPLICIT], EXPLICIT),
        ([JPEG_LOSSY, IMPLICIT, DEFLATED], DEFLATED),
        ([IMPLICIT, BIG_ENDIAN, JPEG_2000], JPEG_2000),
        ([IMPLICIT, RLE], RLE),
        ([JPEG_LOSSY, BIG_ENDIAN, IMPLICIT], IMPLICIT),
        ([JPEG_LOSSY, BIG_ENDIAN], BIG_ENDIAN),
        ([JPEG_LOSSY], JPEG_LOSSY),
        (["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.66"], "1.2.840.10008.1.2.4.66"),
    ],
)
def test_acceptor_picks_by_its_own_order(node: Node, proposed: list[str], accepted: str) -> None:
    with associated(node.port, [build_context(MR, proposed)]) as assoc:
        assert [context.transfer_syntax[0] for context in assoc.accepted_contexts] == [accepted]


def test_every_context_of_a_class_is_answered_alone(node: Node) -> None:
    syntaxes = [EXPLICIT, JPEG_LS, JPEG_LOSSY, IMPLICIT]
    with associated(node.port, [build_context(MR, [syntax]) for syntax in syntaxes]) as assoc:
        assert [context.transfer_syntax[0] for context in assoc.accepted_contexts] == syntaxes


def test_every_transfer_syntax_of_self_contained_objects_is_accepted(node: Node) -> None:
    known = [str(syntax) for syntax in AllTransferSyntaxes if "JPIP" not in syntax.name and "SMPTE" not in syntax.name]
    with associated(node.port, [build_context(MR, [syntax]) for syntax in known]) as assoc:
        assert [context.transfer_syntax[0] for context in assoc.accepted_contexts] == known


def test_pixels_that_lie_elsewhere_are_not_accepted(node: Node) -> None:
    jpip = "1.2.840.10008.1.2.4.94"
    with associated(node.port, [build_context(MR, [jpip]), build_context(Verification)]) as assoc:
        assert [context.result for context in assoc.rejected_contexts] == [0x04]


def test_every_storage_class_is_accepted_over_several_associations(node: Node) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts] + list(RETIRED)
    assert len(classes) > 128
    for start in (0, 128):
        part = classes[start : start + 128]
        with associated(node.port, [build_context(uid, [EXPLICIT]) for uid in part]) as assoc:
            assert [context.abstract_syntax for context in assoc.accepted_contexts] == part


def test_private_sop_class_is_accepted_and_stored(node: Node) -> None:
    file = bundled("MR_small.dcm")
    data_set = file.encoded.replace(MR.encode() + b"\0", PRIVATE.encode().ljust(26, b"\0"), 1)
    with associated(node.port, [build_context(PRIVATE, [EXPLICIT])]) as assoc:
        answer = store_bytes(assoc, data_set, EXPLICIT, PRIVATE, file.sop_instance)
    assert answer.Status == 0x0000
    assert node.inbox.held[file.sop_instance].head.sop_class == PRIVATE


def test_services_that_are_not_offered_are_rejected(node: Node) -> None:
    others = [ModalityWorklistInformationFind, StorageCommitmentPushModel, ModalityPerformedProcedureStep]
    others += ["1.2.840.10008.1.3.10", "1.2.840.10008.5.1.1.9"]  # media directory, print management
    contexts = [build_context(uid, [EXPLICIT]) for uid in others]
    with associated(node.port, [*contexts, build_context(Verification)]) as assoc:
        assert {context.abstract_syntax for context in assoc.rejected_contexts} == set(others)
        assert {context.result for context in assoc.rejected_contexts} == {0x03}


def test_roles_are_accepted_for_storage_only(node: Node) -> None:
    contexts = [build_context(MR, [EXPLICIT]), build_context(StudyRootQueryRetrieveInformationModelFind, [EXPLICIT])]
    roles = [str(context.abstract_syntax) for context in contexts]
    with associated(node.port, contexts, roles=roles) as assoc:
        assert [context.as_scp for context in assoc.accepted_contexts] == [True, False]


def test_context_without_a_role_is_for_storing(node: Node) -> None:
    with associated(node.port, storage([bundled("MR_small.dcm")])) as assoc:
        (context,) = assoc.accepted_contexts
        assert (context.as_scu, context.as_scp) == (True, False)


@pytest.mark.parametrize("uid", [MR, PRIVATE, *RETIRED])
def test_storage_classes(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize("uid", [Verification, StorageCommitmentPushModel, EXPLICIT, "1.2.840.10008.1.3.10"])
def test_known_uids_that_are_no_storage_classes(uid: str) -> None:
    assert not is_storage(uid)


def test_order_has_no_repeats_and_lossy_syntaxes_stand_last() -> None:
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES)
    first_lossy = TRANSFER_SYNTAXES.index(JPEG_LOSSY)
    assert first_lossy == TRANSFER_SYNTAXES.index(BIG_ENDIAN) + 1
    assert not [
        uid for uid in TRANSFER_SYNTAXES[first_lossy:] if "Lossless" in UID(uid).name and "Only" in UID(uid).name
    ]


def test_native_forms_are_wanted_only_for_what_is_decoded() -> None:
    assert wanted(EXPLICIT) == (EXPLICIT, IMPLICIT)
    assert wanted(IMPLICIT) == (IMPLICIT, EXPLICIT)
    assert wanted(JPEG_LS) == (JPEG_LS, EXPLICIT, IMPLICIT)
    assert wanted(JPEG_LOSSY) == (JPEG_LOSSY,)
    assert wanted("1.2.840.10008.1.2.4.91") == ("1.2.840.10008.1.2.4.91",)


def test_proposals_stay_within_128_contexts_and_lose_no_item() -> None:
    items = [Item(f"1.2.{index % 70}", f"1.3.{index}", JPEG_LS, 1) for index in range(140)]
    groups = proposals(items)
    assert len(groups) == 2
    for contexts, members in groups:
        assert [context.context_id for context in contexts] == list(range(1, 2 * len(contexts), 2))
        assert len(contexts) <= 128
        assert {item.sop_class for item in members} == {context.abstract_syntax for context in contexts}
    assert sorted(item.sop_instance for _, members in groups for item in members) == sorted(
        item.sop_instance for item in items
    )
