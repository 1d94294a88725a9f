"""C-FIND: matches, keys, refusals, cancel."""

import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from itertools import count

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_FIND, C_GET
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelFind as PatientFind
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyFind
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as StudyGet

from dicom_scp.ports import Query
from orthanc_ledger.errors import ContentAway, LedgerAway, ServiceAway

from .client import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    File,
    associated,
    bundled,
    reactor_paused,
    run,
    study_level,
)
from .world import LOCAL, NODE, Node, head_of

Response = tuple[Dataset, Dataset | None]


@pytest.fixture(autouse=True)
def holdings(node: Node, series: list[File]) -> None:
    for file in [*series, bundled("MR_small.dcm"), bundled("CT_small.dcm")]:
        node.inbox.add(head_of(file.dataset, file.transfer_syntax), file.encoded)


def find(
    node: Node, identifier: Dataset, model: str = StudyFind, calling: str = "WORKSTATION", syntax: str = EXPLICIT
) -> list[Response]:
    with associated(node.port, [build_context(model, [syntax])], calling) as assoc:
        return list(assoc.send_c_find(identifier, model))


def final_of(responses: list[Response]) -> tuple[int, str | None]:
    status, identifier = responses[-1]
    assert identifier is None
    return status.Status, status.get("ErrorComment")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_each_study_is_one_answer_with_the_keys_asked_for(node: Node, series: list[File], syntax: str) -> None:
    identifier = study_level("")
    identifier.PatientName = ""
    *matches, final = find(node, identifier, syntax=syntax)
    assert final_of([final]) == (0x0000, None)
    answers = {str(answer.StudyInstanceUID): answer for _, answer in matches}
    assert answers.keys() == {series[0].study, bundled("MR_small.dcm").study, bundled("CT_small.dcm").study}
    assert {status.Status for status, _ in matches} == {0xFF00}
    answer = answers[bundled("CT_small.dcm").study]
    assert answer.PatientName == "CompressedSamples^CT1"
    assert (answer.QueryRetrieveLevel, answer.RetrieveAETitle) == ("STUDY", NODE)
    assert "PatientID" not in answer


def test_keys_reach_the_archive_as_they_were_asked(node: Node, series: list[File]) -> None:
    identifier = study_level(series[0].study)
    identifier.PatientID = ""
    identifier.ModalitiesInStudy = ["MR", "CT"]
    identifier.SpecificCharacterSet = "ISO_IR 100"
    identifier.PatientName = "Müller^Jörg"
    find(node, identifier)
    (asked,) = node.archive.finds
    assert (asked.level, asked.uids, asked.combined) == ("STUDY", Query(), False)
    assert asked.keys == {
        "StudyInstanceUID": series[0].study,
        "PatientID": "",
        "ModalitiesInStudy": "MR\\CT",
        "PatientName": "Müller^Jörg",
    }


def test_exact_key_selects_one_study(node: Node) -> None:
    match, final = find(node, study_level(bundled("CT_small.dcm").study))
    assert match[1] is not None
    assert match[1].StudyInstanceUID == bundled("CT_small.dcm").study
    assert final_of([final]) == (0x0000, None)


def test_no_match_is_success(node: Node) -> None:
    assert find(node, study_level("1.2.3"))[0][0].Status == 0x0000


def test_keys_that_are_not_supported_come_back_empty_with_each_match(node: Node) -> None:
    identifier = study_level(bundled("CT_small.dcm").study)
    identifier.StudyDescription = "Head"
    identifier.NumberOfFrames = 5
    identifier.Rows = 512
    item = Dataset()
    item.PatientID = "X"
    identifier.OtherPatientIDsSequence = Sequence([item])
    identifier.private_block(0x0021, "ACME", create=True).add_new(1, "LO", "secret")
    identifier.add_new(0x00091002, "OB", b"ab")
    (status, answer), final = find(node, identifier)
    assert (status.Status, final_of([final])) == (0xFF01, (0x0000, None))
    assert answer is not None
    assert "secret" not in str(answer)
    for keyword in ("StudyDescription", "NumberOfFrames", "Rows", "OtherPatientIDsSequence"):
        assert answer[keyword].is_empty
        assert answer[keyword].VR == identifier[keyword].VR
    assert answer.private_block(0x0021, "ACME")[1].is_empty
    assert (answer[0x00091002].VR, answer[0x00091002].is_empty) == ("OB", True)


@pytest.mark.parametrize("add", ["StudyDescription", "OtherPatientIDsSequence", None])
def test_each_key_that_is_not_supported_is_said(node: Node, add: str | None) -> None:
    identifier = study_level(bundled("CT_small.dcm").study)
    if add is None:
        identifier.private_block(0x0021, "ACME", create=True).add_new(1, "LO", "x")
    else:
        setattr(identifier, add, Sequence([]) if add.endswith("Sequence") else "")
    assert find(node, identifier)[0][0].Status == 0xFF01


@pytest.mark.parametrize(
    ("terms", "encoding", "name"),
    [
        ("\\ISO 2022 IR 87", "iso2022_jp", "俑五^予=乖与"),  # with bytes that look like delimiters
        ("GB18030", "gb18030", "乗^乛\\僜"),
        ("GBK", "gbk", "乗^乛"),
        ("ISO_IR 192", "utf-8", "Διονυσιος"),
        ("ISO_IR 100", "latin-1", "Müller^Jörg"),
    ],
)
def test_text_is_decoded_by_its_own_character_set_before_it_is_taken_apart(
    node: Node, terms: str, encoding: str, name: str
) -> None:
    identifier = study_level("1.2.3")
    identifier.SpecificCharacterSet = terms
    value = name.encode(encoding)
    raw = RawDataElement(BaseTag(0x00100010), "PN", len(value), value, 0, False, True)
    identifier._dict[raw.tag] = raw
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc, reactor_paused(assoc):
        request = C_FIND()
        request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 0, StudyFind
        request.Identifier = BytesIO(encode(identifier, False, True) or b"")
        assoc.dimse.send_msg(request, 1)
        assoc.dimse.get_msg(block=True)
    (asked,) = node.archive.finds
    assert asked.keys["PatientName"] == name


def test_values_that_are_not_of_their_vr_are_answered_as_they_are(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"SeriesInstanceUID": "1.2", "SeriesNumber": "first", "Modality": "M R, and more"}
    monkeypatch.setattr(node.archive, "find", lambda *query: iter([row]))
    identifier = study_level("1.2.3")
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.SeriesNumber = identifier.Modality = ""
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc, reactor_paused(assoc):
        request = C_FIND()
        request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 0, StudyFind
        request.Identifier = BytesIO(encode(identifier, False, True) or b"")
        assoc.dimse.send_msg(request, 1)
        _, pending = assoc.dimse.get_msg(block=True)
        assoc.dimse.get_msg(block=True)
    assert b"IS\x06\0first " in pending.Identifier.getvalue()


UPPER = {"PatientID": "1CT1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
OWN = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def at_level(model: str, level: str, **keys: str) -> Dataset:
    """An identifier with the unique keys above the level, and its own empty; ``keys`` overrule."""
    names = OWN[0 if model == PatientFind else 1 : ("PATIENT", "STUDY", "SERIES", "IMAGE").index(level) + 1]
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for name in names:
        setattr(identifier, name, keys.get(name, UPPER.get(name, "") if name != names[-1] else ""))
    return identifier


LEVELS = [
    *((PatientFind, level, position) for position, level in enumerate(("PATIENT", "STUDY", "SERIES", "IMAGE"))),
    *((StudyFind, level, position) for position, level in enumerate(("STUDY", "SERIES", "IMAGE"), 1)),
]


@pytest.mark.parametrize(("model", "level", "position"), LEVELS)
def test_every_level_asks_for_what_is_below_the_unique_keys_above(
    node: Node, model: str, level: str, position: int
) -> None:
    find(node, at_level(model, level), model)
    (asked,) = node.archive.finds
    top = 0 if model == PatientFind else 1
    above = [(UPPER[OWN[at]],) if top <= at < position else () for at in range(position)]
    assert (asked.level, asked.uids, asked.keys) == (level, Query(*above), {OWN[position]: ""})


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(("model", "level", "position"), LEVELS)
@pytest.mark.parametrize("bad", ["", "*", "1.2*", "1.2?", "1.2\\1.3"])
def test_a_unique_key_above_the_level_has_one_value(
    node: Node, model: str, level: str, position: int, bad: str
) -> None:
    for name in OWN[0 if model == PatientFind else 1 : position]:
        identifier = at_level(model, level)
        identifier.add_new(name, identifier[name].VR, bad)
        assert final_of(find(node, identifier, model)) == (0xA900, "bad identifier")
        delattr(identifier, name)
        assert final_of(find(node, identifier, model)) == (0xA900, "bad identifier")
    assert node.archive.finds == []


@pytest.mark.parametrize(("model", "level", "position"), LEVELS)
def test_an_answer_names_the_unique_keys_down_to_its_level(node: Node, model: str, level: str, position: int) -> None:
    held = node.inbox.held[bundled("CT_small.dcm").sop_instance].keys
    identifier = at_level(model, level, **{name: held[name] for name in UPPER})
    identifier[OWN[position]].value = held[OWN[position]]
    (_, answer), *_ = find(node, identifier, model)
    assert answer is not None
    assert (answer.QueryRetrieveLevel, answer.SpecificCharacterSet) == (level, "ISO_IR 192")
    assert answer.RetrieveAETitle == NODE
    top = 0 if model == PatientFind else 1
    assert [answer[name].value for name in OWN[top : position + 1]] == [held[name] for name in OWN[top : position + 1]]


@pytest.mark.parametrize(
    ("asked", "accepted"),
    [(b"\1", b"\0"), (b"\0\1", b"\0\1"), (b"\1\1\1\1", b"\0\1\0\0"), (b"\1\0\1", b"\0\0\0"), (b"\0\2", b"\0\0")],
)
def test_combined_date_time_matching_is_negotiated_and_nothing_else(node: Node, asked: bytes, accepted: bytes) -> None:
    items = []
    for sop_class in (StudyFind, StudyGet):
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = sop_class
        item.service_class_application_information = asked
        items.append(item)
    ae = AE("WORKSTATION")
    contexts = [build_context(StudyFind, [EXPLICIT]), build_context(PatientFind, [EXPLICIT])]
    assoc = ae.associate(LOCAL, node.port, contexts=contexts, ae_title=NODE, ext_neg=items)
    try:
        assert assoc.acceptor.sop_class_extended == {StudyFind: accepted}
        list(assoc.send_c_find(study_level(""), StudyFind))
        list(assoc.send_c_find(at_level(PatientFind, "PATIENT"), PatientFind))
    finally:
        assoc.release()
    assert [find.combined for find in node.archive.finds] == [accepted[1:2] == b"\1", False]


def test_text_beyond_ascii_is_answered_in_utf_8(node: Node) -> None:
    held = node.inbox.held[bundled("CT_small.dcm").sop_instance]
    assert isinstance(held.keys, dict)
    held.keys["PatientName"] = "山田^太郎"
    identifier = study_level(held.keys["StudyInstanceUID"])
    identifier.PatientName = ""
    (_, answer), _ = find(node, identifier)
    assert answer is not None
    assert (answer.SpecificCharacterSet, answer.PatientName) == ("ISO_IR 192", "山田^太郎")


def test_character_that_python_would_escape_is_answered_as_it_is(node: Node) -> None:
    held = node.inbox.held[bundled("CT_small.dcm").sop_instance]
    assert isinstance(held.keys, dict)
    held.keys["PatientName"] = "Zero\u200bWidth"
    identifier = study_level(held.keys["StudyInstanceUID"])
    identifier.PatientName = ""
    (_, answer), _ = find(node, identifier)
    assert answer is not None
    assert answer.PatientName == "Zero\u200bWidth"


def test_patient_root_finds_the_studies_of_one_patient(node: Node) -> None:
    identifier = study_level("")
    identifier.PatientID = bundled("CT_small.dcm").dataset.PatientID
    match, final = find(node, identifier, PatientFind)
    assert match[1] is not None
    assert match[1].StudyInstanceUID == bundled("CT_small.dcm").study
    assert final_of([final]) == (0x0000, None)


def _level(level: str | None) -> Dataset:
    identifier = Dataset()
    identifier.StudyInstanceUID = ""
    if level is not None:
        identifier.QueryRetrieveLevel = level
    return identifier


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("level", [None, "", "PATIENT", "study", "STUDY\\STUDY", "FRAME"])
def test_level_that_is_not_supported_is_a_bad_identifier(node: Node, level: str | None) -> None:
    assert final_of(find(node, _level(level))) == (0xA900, "bad identifier")


@pytest.mark.parametrize("patient_id", [None, "", "*", "1CT?", "A\\B"])
def test_patient_root_without_one_patient_is_a_bad_identifier(node: Node, patient_id: str | None) -> None:
    identifier = _level("STUDY")
    if patient_id is not None:
        identifier.PatientID = patient_id
    assert final_of(find(node, identifier, PatientFind)) == (0xA900, "bad identifier")


NESTED = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "rubbish", [b"rubbish", b"\x08\x00\x52\x00??\x06\x00STUDY ", NESTED * 3000, b"\x08\x00\x52\x00US\x01\x00\x00"]
)
def test_identifier_that_cannot_be_decoded_is_a_bad_identifier(node: Node, rubbish: bytes) -> None:
    request = C_FIND()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID = StudyFind
    request.Identifier = BytesIO(rubbish)
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc, reactor_paused(assoc):
        assoc.dimse.send_msg(request, 1)
        _, response = assoc.dimse.get_msg(block=True)
    assert (response.Status, response.ErrorComment) == (0xA900, "bad identifier")


def test_a_list_of_a_thousand_uids_is_a_key(node: Node) -> None:
    uids = [f"{'1' * 59}.{number}" for number in range(1000, 2000)]
    assert final_of(find(node, study_level(uids))) == (0x0000, None)
    (asked,) = node.archive.finds
    assert asked.keys["StudyInstanceUID"] == "\\".join(uids)


@pytest.mark.parametrize("calling", ["WORKSTATION", "SCANNER"])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", [f"1.{number}" for number in range(1025)]),
        ("StudyInstanceUID", ["1"] * 30_000),
        ("StudyDescription", [f"{number:x}" for number in range(13_000)]),
        ("StudyDescription", "?" * 1025),
        ("PatientName", "*a" * 30_000),
        ("PatientName", "=" * 1025),
        ("SeriesNumber", ["1"] * 30_000),  # not even where it would be no key
        ("StudyDate", ["19990101-"] * 114),
        ("SpecificCharacterSet", ["ISO_IR 100"] * 3_000),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "long",
)
def test_a_key_that_is_too_much_is_a_bad_identifier(
    node: Node, calling: str, keyword: str, value: str | list[str]
) -> None:
    encoded = "\\".join([value] if isinstance(value, str) else value).encode()
    encoded += b" " * (len(encoded) % 2)
    elements = [(0x00080052, b"STUDY "), (int(tag_for_keyword(keyword) or 0), encoded)]
    if keyword != "StudyInstanceUID":
        elements.append((0x0020000D, b"1."))
    identifier = b"".join(struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(of)) + of for tag, of in sorted(elements))
    for request, model in ((C_FIND(), StudyFind), (C_GET(), StudyGet)):
        request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 0, model
        request.Identifier = BytesIO(identifier)
        with associated(node.port, [build_context(model, [IMPLICIT])], calling) as assoc, reactor_paused(assoc):
            assoc.dimse.send_msg(request, 1)
            _, response = assoc.dimse.get_msg(block=True)
        assert (response.Status, response.ErrorComment) == (0xA900, "bad identifier")
    assert node.archive.finds == node.archive.plans == []


def test_an_identifier_of_more_than_64_kib_ends_the_association(node: Node, wait_until: Callable[..., None]) -> None:
    request = C_FIND()
    request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 0, StudyFind
    request.Identifier = BytesIO(struct.pack("<HHL", 0x0008, 0x1030, 1 << 16) + bytes(1 << 16))
    with associated(node.port, [build_context(StudyFind, [IMPLICIT])]) as assoc, reactor_paused(assoc):
        assoc.dimse.send_msg(request, 1)
        wait_until(lambda: not node.listener.associations, 20, "the node has ended the association")


@pytest.mark.parametrize(("away", "comment"), [(LedgerAway(""), "ledger unavailable"), (ContentAway(""), None)])
def test_a_service_away_is_out_of_resources(node: Node, away: ServiceAway, comment: str | None) -> None:
    node.archive.away = away
    assert final_of(find(node, study_level(""))) == (0xA700, comment)


def test_find_under_a_retrieve_context_is_not_supported(node: Node) -> None:
    request = C_FIND()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID = StudyGet
    request.Identifier = BytesIO(b"\x08\x00\x52\x00CS\x06\x00STUDY ")
    with associated(node.port, [build_context(StudyGet, [EXPLICIT])]) as assoc, reactor_paused(assoc):
        assoc.dimse.send_msg(request, 1)
        _, response = assoc.dimse.get_msg(block=True)
    assert response.Status == 0x0122


def test_cancel_ends_an_endless_search(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*query: object) -> Iterator[Mapping[str, str]]:
        return ({"StudyInstanceUID": f"1.2.{number}"} for number in count())

    monkeypatch.setattr(node.archive, "find", endless)
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc:
        responses = assoc.send_c_find(study_level(""), StudyFind, msg_id=7)
        assert next(responses)[0].Status == 0xFF00
        assoc.send_c_cancel(7, context_id=1)
        assert final_of(list(responses)) == (0xFE00, None)


def fruitless(begun: threading.Event) -> Callable[..., Iterator[Mapping[str, str]]]:
    """A search in which nothing ever fits."""

    def find(*query: object) -> Iterator[Mapping[str, str]]:
        *_, meanwhile = query
        assert callable(meanwhile)
        while True:
            begun.set()
            meanwhile()
            yield from ()

    return find


@pytest.mark.parametrize("end", ["cancel", "abort", "hang up"])
def test_a_search_in_which_nothing_fits_ends_when_nobody_waits_for_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None], end: str
) -> None:
    begun = threading.Event()
    monkeypatch.setattr(node.archive, "find", fruitless(begun))
    request = C_FIND()
    request.MessageID, request.Priority, request.AffectedSOPClassUID = 7, 0, StudyFind
    request.Identifier = BytesIO(encode(study_level(""), False, True) or b"")
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc, reactor_paused(assoc):
        assoc.dimse.send_msg(request, 1)
        assert begun.wait(20)
        if end == "cancel":
            assoc.send_c_cancel(7, context_id=1)
            _, response = assoc.dimse.get_msg(block=True)
            assert response.Status == 0xFE00
            return
        if end == "abort":
            assoc.acse.send_abort(0)
        else:
            assoc.dul.socket.close()
        wait_until(lambda: not node.listener.associations, 20, "the node has forgotten the association")


def test_late_cancel_does_not_touch_the_next_operation_with_its_message_id(node: Node) -> None:
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc:
        for _ in range(2):
            assert final_of(list(assoc.send_c_find(study_level(""), StudyFind, msg_id=7))) == (0x0000, None)
            assoc.send_c_cancel(7, context_id=1)


def test_lost_client_ends_the_search(
    node: Node, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    def endless(*query: object) -> Iterator[Mapping[str, str]]:
        return ({"StudyInstanceUID": f"1.2.{number}"} for number in count())

    monkeypatch.setattr(node.archive, "find", endless)
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc:
        next(assoc.send_c_find(study_level(""), StudyFind))
        assoc.abort()
    wait_until(lambda: not node.listener.associations, 20, "the node has forgotten the association")


@pytest.mark.parametrize(("model", "level", "position"), LEVELS)
def test_dcmtk_finds_at_every_level(
    node: Node, dcmtk: Callable[[str], str], model: str, level: str, position: int
) -> None:
    held = node.inbox.held[bundled("CT_small.dcm").sop_instance].keys
    top = 0 if model == PatientFind else 1
    keys = [f"QueryRetrieveLevel={level}", "PatientName", OWN[position]]
    keys += [f"{name}={held[name]}" for name in OWN[top:position]]
    words = [word for key in keys for word in ("-k", key)]
    for calling in ("WORKSTATION", "SCANNER"):
        option = "-P" if model == PatientFind else "-S"
        found = run(dcmtk("findscu"), option, "-aet", calling, "-aec", NODE, *words, LOCAL, str(node.port))
        assert found.returncode == 0, found.stdout
        assert held[OWN[position]] in found.stdout
