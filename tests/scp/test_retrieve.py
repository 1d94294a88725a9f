"""C-GET: objects bit for bit or re-encoded without a change, counts, refusals, cancel, and what is logged of it."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelGet as PatientGet
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as StudyGet

from dicom_scp.ports import Item, Query, Refused
from orthanc_ledger.errors import ContentAway, IntegrityError, LedgerAway, ServiceAway
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance
from orthanc_ledger.reasons import Reason

from .client import (
    EXPLICIT,
    IMPLICIT,
    MR,
    WAIT_S,
    File,
    Received,
    associated,
    bundled,
    get,
    run,
    storage,
    study_level,
)
from .world import LOCAL, NODE, FolderPlan, Node, config, head_of, serving

COUNTS = ("Remaining", "Completed", "Warning", "Failed")


def hold(node: Node, *files: File) -> None:
    for file in files:
        node.inbox.add(head_of(file.dataset, file.transfer_syntax), file.encoded)


def counts(status: Dataset) -> list[int | None]:
    """Remaining, completed, warning and failed sub-operations of a response."""
    return [status.get(f"NumberOf{name}Suboperations") for name in COUNTS]


def part10(data_set: bytes, syntax: str) -> BytesIO:
    """A file with no more meta information than the transfer syntax."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return BytesIO(bytes(128) + b"DICM\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid + data_set)


def fingerprint(data_set: bytes, syntax: str) -> bytes:
    return fingerprints(open_instance(part10(data_set, syntax)), [None])[0].fingerprint


@pytest.fixture
def held(node: Node, series: list[File]) -> list[File]:
    """The series, held by the node."""
    hold(node, *series)
    return series


def test_counts_of_pending_and_final_responses(node: Node, held: list[File]) -> None:
    out = get(node.port, study_level(held[0].study), storage(held))
    assert [status.Status for status in out.pending] == [0xFF00] * 4
    assert [counts(status) for status in out.pending] == [[3 - done, done + 1, 0, 0] for done in range(4)]
    assert (out.final.Status, counts(out.final), out.failed) == (0x0000, [None, 4, 0, 0], [])
    assert [sorted(sent) for sent in node.archive.plans[0].closed] == [sorted(file.sop_instance for file in held)]
    assert node.archive.asked[0][:3] == ("WORKSTATION", "WORKSTATION", "STUDY")


@pytest.mark.parametrize("most", [1, 7, 127, 128, 0], ids="{} bytes".format)
def test_a_peer_that_takes_next_to_nothing_in_a_pdu_gets_128_bytes(node: Node, held: list[File], most: int) -> None:
    received, values = Received(), []
    ae = AE("WORKSTATION")
    contexts = [build_context(StudyGet, [EXPLICIT]), *storage(held)]
    handlers = [(evt.EVT_C_STORE, received.take), (evt.EVT_DATA_RECV, lambda event: values.append(event.data))]
    roles = [build_role(MR, scp_role=True)]
    assoc = ae.associate(
        LOCAL, node.port, contexts=contexts, ae_title=NODE, max_pdu=most, ext_neg=roles, evt_handlers=handlers
    )
    identifier = study_level(held[0].study)
    identifier.QueryRetrieveLevel, identifier.SeriesInstanceUID = "IMAGE", str(held[0].dataset.SeriesInstanceUID)
    identifier.SOPInstanceUID = held[0].sop_instance
    statuses = [status.Status for status, _ in assoc.send_c_get(identifier, StudyGet)]
    assoc.release()
    assert statuses == [0xFF00, 0x0000]
    assert received.objects == {held[0].sop_instance: (EXPLICIT, held[0].encoded)}
    longest = max(len(pdu) for pdu in values if pdu[0] == 0x04)
    assert longest == 6 + 128 if most else longest > len(held[0].encoded)


@pytest.mark.parametrize("how", ["cancel", "abort", "hang up"])
def test_planning_ends_when_nobody_waits_for_it(
    node: Node, held: list[File], how: str, wait_until: Callable[..., None]
) -> None:
    """A research peer may name thousands of studies, and each of them is asked for."""
    node.archive.endless = True
    with associated(node.port, [build_context(StudyGet, [EXPLICIT])], "WORKSTATION") as assoc:
        answers = assoc.send_c_get(study_level(held[0].study), StudyGet, msg_id=5)
        wait_until(lambda: node.archive.asked, WAIT_S, "it is planned")
        if how == "cancel":
            assoc.send_c_cancel(5, query_model=StudyGet)
            assert [(status.Status, counts(status)) for status, _ in answers] == [(0xFE00, [None] * 4)]
        elif how == "abort":
            assoc.abort()
        else:
            assoc.dul.socket._shutdown_socket()
    wait_until(lambda: not node.listener.associations, WAIT_S, "the association has ended")


def test_levels_hand_their_unique_keys_to_the_archive(node: Node, held: list[File]) -> None:
    dataset = held[0].dataset
    study, series = held[0].study, str(dataset.SeriesInstanceUID)
    instances = (held[0].sop_instance, held[2].sop_instance)

    identifier = study_level(study)
    identifier.QueryRetrieveLevel, identifier.SeriesInstanceUID = "SERIES", series
    assert len(get(node.port, identifier, storage(held)).received.objects) == 4
    identifier.QueryRetrieveLevel, identifier.SOPInstanceUID = "IMAGE", list(instances)
    assert get(node.port, identifier, storage(held)).received.objects.keys() == set(instances)
    patient = Dataset()
    patient.QueryRetrieveLevel, patient.PatientID = "PATIENT", dataset.PatientID
    assert len(get(node.port, patient, storage(held), model=PatientGet).received.objects) == 4

    assert [(level, query) for _, _, level, query in node.archive.asked] == [
        ("SERIES", Query(studies=(study,), series=(series,))),
        ("IMAGE", Query(studies=(study,), series=(series,), instances=instances)),
        ("PATIENT", Query(patient_ids=(dataset.PatientID,))),
    ]


def _identifier(**values: str | list[str]) -> Dataset:
    identifier = Dataset()
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    return identifier


@pytest.mark.parametrize(
    "identifier",
    [
        _identifier(QueryRetrieveLevel="STUDY"),
        _identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID=""),
        _identifier(QueryRetrieveLevel="PATIENT", PatientID="A"),
        _identifier(QueryRetrieveLevel="SERIES", SeriesInstanceUID="1.2"),
        _identifier(QueryRetrieveLevel="IMAGE", StudyInstanceUID="1.2", SOPInstanceUID="1.2"),
        _identifier(QueryRetrieveLevel="SERIES", StudyInstanceUID=["1.2", "1.3"], SeriesInstanceUID="1.2"),
        _identifier(StudyInstanceUID="1.2"),
    ],
)
def test_identifier_without_its_unique_keys_is_bad(node: Node, held: list[File], identifier: Dataset) -> None:
    out = get(node.port, identifier, storage(held))
    assert (out.final.Status, out.final.ErrorComment) == (0xA900, "bad identifier")
    assert not node.archive.plans


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_wildcard_in_a_unique_key_is_bad(node: Node, held: list[File]) -> None:
    out = get(node.port, study_level("1.2.*"), storage(held))
    assert out.final.Status == 0xA900


def test_nothing_found_is_success_with_no_sub_operations(node: Node, held: list[File]) -> None:
    out = get(node.port, study_level("1.2.3"), storage(held))
    assert (out.final.Status, counts(out.final), out.pending) == (0x0000, [None, 0, 0, 0], [])


@pytest.mark.parametrize("reason", [Reason.NO_APPROVAL, Reason.APPROVAL_EXPIRED, Reason.WITHDRAWN, Reason.RELEASE_FORM])
def test_refusal_says_its_reason_and_nothing_of_what_is_held(
    research_node: Node, series: list[File], reason: Reason
) -> None:
    hold(research_node, *series)
    research_node.archive.refuse["TRIAL"] = reason
    out = get(research_node.port, study_level(series[0].study), storage(series), "TRIAL")
    assert (out.final.Status, out.final.ErrorComment) == (0x0124, reason)
    assert (counts(out.final), out.failed, out.received.objects) == ([None] * 4, [], {})
    (plan,) = research_node.archive.plans
    assert (plan.opened, plan.closed) == ([], [[]])


@pytest.mark.parametrize(("away", "comment"), [(LedgerAway(""), "ledger unavailable"), (ContentAway(""), None)])
def test_a_service_away_is_unable_to_perform(
    research_node: Node, series: list[File], away: ServiceAway, comment: str | None
) -> None:
    hold(research_node, *series)
    research_node.archive.away = away
    out = get(research_node.port, study_level(series[0].study), storage(series), "TRIAL")
    assert (out.final.Status, out.final.get("ErrorComment")) == (0xA702, comment)


def test_one_withheld_object_is_a_warning_with_its_uid(node: Node, held: list[File]) -> None:
    node.archive.withhold[held[1].sop_instance] = Reason.WITHHELD_INTEGRITY
    out = get(node.port, study_level(held[0].study), storage(held))
    assert (out.final.Status, out.final.ErrorComment) == (0xB000, "withheld: integrity")
    assert (counts(out.final), out.failed) == ([None, 3, 0, 1], [held[1].sop_instance])
    assert out.received.objects.keys() == {file.sop_instance for file in held} - {held[1].sop_instance}


def test_all_withheld_is_unable_to_perform_with_every_uid(node: Node, held: list[File]) -> None:
    node.archive.withhold.update({file.sop_instance: Reason.WITHDRAWN for file in held})
    out = get(node.port, study_level(held[0].study), storage(held))
    assert (out.final.Status, out.final.ErrorComment) == (0xA702, "withdrawn")
    assert (counts(out.final), set(out.failed)) == ([None, 0, 0, 4], {file.sop_instance for file in held})
    assert node.archive.plans[0].closed == [[]]


@pytest.mark.parametrize("failing", [1, 2000])
def test_every_failed_uid_is_named_however_many_they_are(
    node: Node, held: list[File], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    uids = [f"1.2.840.113619.2.408.5282380.4562341.27155.1537232354.{number}" for number in range(failing)]
    withheld = dict.fromkeys(uids, Reason.WITHHELD_INTEGRITY)
    monkeypatch.setattr(node.archive, "plan", lambda *_: FolderPlan([], withheld=withheld))
    out = get(node.port, study_level(held[0].study), storage(held))
    assert (out.final.Status, counts(out.final)) == (0xA702, [None, 0, 0, failing])
    assert out.failed == uids


@pytest.mark.parametrize(
    ("error", "comment"),
    [
        (IntegrityError("differs"), "withheld: integrity"),
        (Refused(Reason.APPROVAL_EXPIRED), "approval expired"),
        (ContentAway("no answer"), None),
    ],
)
def test_object_that_cannot_be_opened_fails_alone(
    node: Node, held: list[File], error: Exception, comment: str | None
) -> None:
    node.archive.errors[held[2].sop_instance] = error
    out = get(node.port, study_level(held[0].study), storage(held))
    assert (out.final.Status, out.final.get("ErrorComment")) == (0xB000, comment)
    assert (counts(out.final), out.failed) == ([None, 3, 0, 1], [held[2].sop_instance])
    assert held[2].sop_instance not in node.archive.plans[0].closed[0]


def test_what_the_client_refuses_fails_and_what_it_warns_of_was_sent(node: Node, held: list[File]) -> None:
    out = get(node.port, study_level(held[0].study), storage(held), received=Received(answers={0: 0xA700, 2: 0xB000}))
    assert (out.final.Status, counts(out.final)) == (0xB000, [None, 2, 1, 1])
    order = node.archive.plans[0].opened
    assert out.failed == [order[0]]
    assert node.archive.plans[0].closed == [order]  # what the client refused, it had all the same


def test_class_without_a_context_fails_unopened_with_its_uid(node: Node, held: list[File]) -> None:
    ct = bundled("CT_small.dcm")
    out = get(node.port, study_level(held[0].study), storage([ct]))
    assert (out.final.Status, counts(out.final)) == (0xA702, [None, 0, 0, 4])
    assert set(out.failed) == {file.sop_instance for file in held}
    assert not node.archive.plans[0].opened


def test_context_without_the_scp_role_is_not_sent_on(node: Node, held: list[File]) -> None:
    with associated(node.port, [build_context(StudyGet, [EXPLICIT]), *storage(held)], "WORKSTATION") as assoc:
        *_, (final, _) = assoc.send_c_get(study_level(held[0].study), StudyGet)
    assert final.Status == 0xA702
    assert not node.archive.plans[0].opened


def test_re_encoding_that_would_change_the_fingerprint_fails_with_its_uid(
    node: Node, held: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_scp.transcode._fingerprint", lambda file: hashlib.sha256(file.getvalue()).digest())
    out = get(node.port, study_level(held[0].study), [build_context(MR, [IMPLICIT])])
    assert (out.final.Status, len(out.failed), out.received.objects) == (0xA702, 4, {})


def test_object_too_large_to_re_encode_fails_with_its_uid(
    node: Node, held: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_scp.transcode.LARGEST", 1000)
    out = get(node.port, study_level(held[0].study), [build_context(MR, [IMPLICIT])])
    assert (out.final.Status, len(out.failed)) == (0xA702, 4)


def test_cancel_stops_after_the_running_object(node: Node, held: list[File]) -> None:
    received = Received(cancel=(9, 1))
    contexts = [build_context(StudyGet, [EXPLICIT]), *storage(held)]
    with associated(node.port, contexts, "WORKSTATION", receives=received, roles=[MR]) as assoc:
        *_, (final, identifier) = assoc.send_c_get(study_level(held[0].study), StudyGet, msg_id=9)
    assert (final.Status, counts(final)) == (0xFE00, [3, 1, 0, 0])
    assert not identifier
    assert node.archive.plans[0].closed == [list(received.objects)]


def test_client_that_aborts_half_way_still_has_its_outcome_logged(node: Node, held: list[File]) -> None:
    contexts = [build_context(StudyGet, [EXPLICIT]), *storage(held)]
    received = Received(abort_at=2)
    with associated(node.port, contexts, "WORKSTATION", receives=received, roles=[MR]) as assoc:
        assoc.dimse_timeout = 0.5
        list(assoc.send_c_get(study_level(held[0].study), StudyGet))
    (plan,) = node.archive.plans
    assert plan.finished.wait(WAIT_S)
    assert plan.closed == [plan.opened[:3]]  # the fourth had been opened, and did not leave


def test_next_object_is_opened_before_the_client_answers_and_leaves_after(
    node: Node, held: list[File], wait_until: Callable[..., None]
) -> None:
    opened_and_left: list[tuple[int, int]] = []

    class Watching(Received):
        def take(self, event: evt.Event) -> int:
            (plan,) = node.archive.plans
            expected = min(len(plan.left) + 1, len(held))
            wait_until(lambda: len(plan.opened) == expected, WAIT_S, "the next object is open")
            opened_and_left.append((len(plan.opened), len(plan.left)))
            return super().take(event)

    assert get(node.port, study_level(held[0].study), storage(held), received=Watching()).final.Status == 0x0000
    assert opened_and_left == [(2, 1), (3, 2), (4, 3), (4, 4)]


def test_large_object_is_not_opened_ahead(node: Node, held: list[File], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_scp.ahead._LARGEST", 1000)
    received = Received(abort_at=1)
    contexts = [build_context(StudyGet, [EXPLICIT]), *storage(held)]
    with associated(node.port, contexts, "WORKSTATION", receives=received, roles=[MR]) as assoc:
        assoc.dimse_timeout = 0.5
        list(assoc.send_c_get(study_level(held[0].study), StudyGet))
    (plan,) = node.archive.plans
    assert plan.finished.wait(WAIT_S)
    assert plan.opened == plan.left


def test_client_that_does_not_answer_loses_the_association(
    folder: Path, series: list[File], wait_until: Callable[..., None]
) -> None:
    over = threading.Event()

    class Silent(Received):
        def take(self, event: evt.Event) -> int:
            over.wait(WAIT_S)
            return 0x0000

    contexts = [build_context(StudyGet, [EXPLICIT]), *storage(series)]
    with serving(folder, config(dimse_timeout_s=0.3)) as node:
        hold(node, *series)
        with associated(node.port, contexts, "WORKSTATION", receives=Silent(), roles=[MR]) as assoc:
            answers = threading.Thread(target=lambda: list(assoc.send_c_get(study_level(series[0].study), StudyGet)))
            answers.start()
            wait_until(lambda: node.archive.plans, WAIT_S, "the retrieve has begun")
            assert node.archive.plans[0].finished.wait(WAIT_S)
            wait_until(lambda: not node.listener.associations, WAIT_S, "the node has given the association up")
            over.set()
            answers.join(WAIT_S)
        assert node.archive.plans[0].closed == [node.archive.plans[0].opened[:1]]


@pytest.mark.parametrize("error", [OSError("the disk is gone"), IntegrityError("differs")])
def test_read_error_in_the_middle_of_an_object_cannot_pass_for_its_end(
    node: Node, held: list[File], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise error
            return super().read(1000)

    @contextmanager
    def broken(plan: FolderPlan, item: Item) -> Iterator[BytesIO]:
        plan.opened.append(item.sop_instance)
        yield Broken(bytes(5000))

    monkeypatch.setattr(FolderPlan, "open", broken)
    contexts = [build_context(StudyGet, [EXPLICIT]), *storage(held)]
    received = Received()
    with associated(node.port, contexts, "WORKSTATION", receives=received, roles=[MR]) as assoc:
        responses = list(assoc.send_c_get(study_level(held[0].study), StudyGet))
    assert [status.get("Status") for status, _ in responses] == [None]
    assert received.objects == {}
    assert node.archive.plans[0].finished.wait(WAIT_S)
    assert node.archive.plans[0].closed == [node.archive.plans[0].opened]


def test_association_serves_storing_and_retrieving(node: Node, held: list[File]) -> None:
    for _ in range(2):
        assert get(node.port, study_level(held[0].study), storage(held), "SCANNER").final.Status == 0x0000


def test_dcmtk_gets_a_study(node: Node, held: list[File], dcmtk: Callable[[str], str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={held[0].study}"]
    done = run(
        dcmtk("getscu"), "-S", "+B", "-aet", "WORKSTATION", "-aec", NODE, "-od", out, *keys, LOCAL, str(node.port)
    )
    assert done.returncode == 0, done.stdout
    assert all(any(path.read_bytes().endswith(file.encoded) for path in out.iterdir()) for file in held)


def test_dcmtk_gets_nothing_when_refused(
    research_node: Node, series: list[File], dcmtk: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    hold(research_node, *series)
    research_node.archive.refuse["TRIAL"] = Reason.NO_APPROVAL
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={series[0].study}"]
    done = run(
        *(dcmtk("getscu"), "-v", "-S", "-aet", "TRIAL", "-aec", NODE, "-od", out, *keys),
        *(LOCAL, str(research_node.port)),
    )
    assert "0x124" in done.stdout
    assert not list(out.iterdir())
