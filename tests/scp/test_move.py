"""C-MOVE: to whom, over which associations, and what is answered."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as StudyMove

from dicom_scp.ports import Item
from orthanc_ledger.errors import LedgerAway
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
    move,
    run,
    storage,
    study_level,
)
from .test_retrieve import counts, hold
from .world import LOCAL, NODE, PEERS, FolderPlan, Node, Peer, config, head_of, serving


@dataclass
class Destination:
    """A move destination and what it has seen."""

    port: int
    received: Received = field(default_factory=Received)
    associations: list[str] = field(default_factory=list)
    released: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @contextmanager
    def listening(self, contexts: list[PresentationContext], title: str = "ARCHIVE") -> Iterator[None]:
        ae = AE(title)
        ae.require_called_aet = True
        handlers = [
            (evt.EVT_C_STORE, self.received.take),
            (evt.EVT_REQUESTED, lambda event: self.associations.append(event.assoc.remote["ae_title"])),
            (evt.EVT_RELEASED, lambda event: self.released.release()),
        ]
        server = ae.start_server((LOCAL, self.port), block=False, contexts=contexts, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()


@pytest.fixture
def archive(free_port: Callable[[], int]) -> Destination:
    return Destination(free_port())


@pytest.fixture
def node(folder: Path, archive: Destination) -> Iterator[Node]:
    peers = [
        *PEERS,
        Peer("ARCHIVE", "clinical", "HOSPITAL", host=LOCAL, port=archive.port),
        Peer("LAB", "research", "INSTITUTE", host=LOCAL, port=archive.port),
    ]
    with serving(folder, config(peers=peers)) as running:
        yield running


@pytest.fixture
def held(node: Node, series: list[File]) -> list[File]:
    hold(node, *series)
    return series


def test_objects_move_byte_for_byte_and_name_who_asked(node: Node, held: list[File], archive: Destination) -> None:
    with (
        archive.listening(storage(held)),
        associated(node.port, [build_context(StudyMove, [EXPLICIT])], "SCANNER") as assoc,
    ):
        responses = list(assoc.send_c_move(study_level(held[0].study), "ARCHIVE", StudyMove, msg_id=11))
        assert archive.released.acquire(timeout=WAIT_S)
    *pending, (final, identifier) = responses
    assert [counts(status) for status, _ in pending] == [[3 - done, done + 1, 0, 0] for done in range(4)]
    assert (final.Status, counts(final), identifier) == (0x0000, [None, 4, 0, 0], None)
    assert archive.received.objects == {file.sop_instance: (EXPLICIT, file.encoded) for file in held}
    assert archive.received.originators == [("SCANNER", 11)] * 4
    assert len(archive.associations) == 1
    assert node.archive.asked[0][:3] == ("SCANNER", "ARCHIVE", "STUDY")


def test_unknown_destination_is_said_without_asking_the_archive(node: Node, held: list[File]) -> None:
    for title in ("NOWHERE", "WORKSTATION"):  # the latter has no address to move to
        out = move(node.port, study_level(held[0].study), title)
        assert (out.final.Status, out.final.ErrorComment) == (0xA801, "destination not permitted")
    assert not node.archive.plans


@pytest.mark.parametrize("reason", [Reason.NO_APPROVAL, Reason.DESTINATION])
def test_refused_move_opens_no_association(node: Node, held: list[File], archive: Destination, reason: Reason) -> None:
    node.archive.refuse["LAB"] = reason
    with archive.listening(storage(held), "LAB"):
        out = move(node.port, study_level(held[0].study), "LAB")
    assert (out.final.Status, out.final.ErrorComment, counts(out.final)) == (0x0124, reason, [None] * 4)
    assert not archive.associations
    assert node.archive.asked[0][:2] == ("WORKSTATION", "LAB")
    assert node.archive.plans[0].closed == [[]]


def test_ledger_away_opens_no_association(node: Node, held: list[File], archive: Destination) -> None:
    node.archive.away = LedgerAway("no answer")
    with archive.listening(storage(held)):
        out = move(node.port, study_level(held[0].study), "ARCHIVE")
    assert (out.final.Status, out.final.ErrorComment) == (0xA702, "ledger unavailable")
    assert not archive.associations


def test_nothing_left_to_send_opens_no_association(node: Node, held: list[File], archive: Destination) -> None:
    node.archive.withhold.update({file.sop_instance: Reason.WITHHELD_INTEGRITY for file in held})
    with archive.listening(storage(held)):
        out = move(node.port, study_level(held[0].study), "ARCHIVE")
    assert (out.final.Status, out.final.ErrorComment) == (0xA702, "withheld: integrity")
    assert set(out.failed) == {file.sop_instance for file in held}
    assert not archive.associations


def test_bad_identifier(node: Node, held: list[File]) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    out = move(node.port, identifier, "ARCHIVE")
    assert (out.final.Status, out.final.ErrorComment) == (0xA900, "bad identifier")


def test_destination_that_is_down_fails_every_uid(node: Node, held: list[File]) -> None:
    out = move(node.port, study_level(held[0].study), "ARCHIVE")
    assert (out.final.Status, counts(out.final)) == (0xA702, [None, 0, 0, 4])
    assert set(out.failed) == {file.sop_instance for file in held}
    assert (node.archive.plans[0].opened, node.archive.plans[0].closed) == ([], [[]])


def test_destination_that_rejects_fails_every_uid(node: Node, held: list[File], archive: Destination) -> None:
    with archive.listening(storage(held), "SOMEONE"):
        out = move(node.port, study_level(held[0].study), "ARCHIVE")
    assert (out.final.Status, len(out.failed)) == (0xA702, 4)


def test_destination_lost_half_way_fails_the_rest(node: Node, held: list[File], archive: Destination) -> None:
    archive.received.abort_at = 2
    with archive.listening(storage(held)):
        out = move(node.port, study_level(held[0].study), "ARCHIVE")
    assert (out.final.Status, counts(out.final)) == (0xB000, [None, 2, 0, 2])
    plan = node.archive.plans[0]
    assert plan.closed == [plan.opened[:3]]  # the fourth had been opened, and did not leave
    assert set(out.failed) == {file.sop_instance for file in held} - set(plan.opened[:2])


def test_destination_that_takes_implicit_only_gets_re_encoded(
    node: Node, held: list[File], archive: Destination
) -> None:
    with archive.listening([build_context(MR, [IMPLICIT])]):
        out = move(node.port, study_level(held[0].study), "ARCHIVE")
    assert out.final.Status == 0x0000
    assert {syntax for syntax, _ in archive.received.objects.values()} == {IMPLICIT}


def test_class_the_destination_does_not_take_fails_alone(node: Node, held: list[File], archive: Destination) -> None:
    ct = bundled("CT_small.dcm")
    ct.dataset.StudyInstanceUID = held[0].study
    hold(node, ct)
    keys = node.inbox.held[ct.sop_instance].keys
    assert isinstance(keys, dict)
    keys["StudyInstanceUID"] = held[0].study
    with archive.listening(storage(held)):
        out = move(node.port, study_level(held[0].study), "ARCHIVE")
    assert (out.final.Status, counts(out.final), out.failed) == (0xB000, [None, 4, 0, 1], [ct.sop_instance])


def test_more_classes_than_one_association_can_have(node: Node, archive: Destination) -> None:
    dataset = bundled("MR_small.dcm").dataset
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts[:70]]
    for number, sop_class in enumerate(classes):
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"1.2.{number}"
        encoded = encode(dataset, False, True)
        assert encoded is not None
        node.inbox.add(head_of(dataset, EXPLICIT), encoded)
    with archive.listening([build_context(uid, [EXPLICIT]) for uid in classes]):
        out = move(node.port, study_level(dataset.StudyInstanceUID), "ARCHIVE")
    assert (out.final.Status, counts(out.final)) == (0x0000, [None, 70, 0, 0])
    assert len(archive.associations) == 2


def test_cancel_stops_the_move_and_counts_what_remains(
    node: Node,
    held: list[File],
    archive: Destination,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaving = FolderPlan.leave

    def second_waits_for_the_cancel(plan: FolderPlan, item: Item) -> None:
        if plan.left:  # in the association's thread, which alone reads from the peer
            (assoc,) = node.listener.associations
            wait_until(lambda: assoc.is_cancelled(3), WAIT_S, "the cancel is here")
        leaving(plan, item)

    monkeypatch.setattr(FolderPlan, "leave", second_waits_for_the_cancel)
    with (
        archive.listening(storage(held)),
        associated(node.port, [build_context(StudyMove, [EXPLICIT])], "WORKSTATION") as assoc,
    ):
        responses = assoc.send_c_move(study_level(held[0].study), "ARCHIVE", StudyMove, msg_id=3)
        next(responses)
        assoc.send_c_cancel(3, context_id=1)
        *_, (final, _) = responses
    assert (final.Status, counts(final)) == (0xFE00, [2, 2, 0, 0])
    assert len(node.archive.plans[0].closed[0]) == 2


def test_asker_lost_half_way_ends_the_move_with_its_outcome_logged(
    node: Node, held: list[File], archive: Destination
) -> None:
    with (
        archive.listening(storage(held)),
        associated(node.port, [build_context(StudyMove, [EXPLICIT])], "WORKSTATION") as assoc,
    ):
        next(assoc.send_c_move(study_level(held[0].study), "ARCHIVE", StudyMove))
        assoc.abort()
        plan = node.archive.plans[0]
        assert plan.finished.wait(WAIT_S)
    assert plan.closed == [list(archive.received.objects)]


def test_dcmtk_moves_to_storescp(
    node: Node,
    held: list[File],
    archive: Destination,
    dcmtk: Callable[[str], str],
    tmp_path: Path,
    start_process: Callable[..., "subprocess.Popen[bytes]"],
    wait_until: Callable[..., None],
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    start_process([dcmtk("storescp"), "+B", "-aet", "ARCHIVE", "-od", out, str(archive.port)])
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={held[0].study}"]
    echo = [dcmtk("echoscu"), "-aec", "ARCHIVE", LOCAL, str(archive.port)]
    wait_until(lambda: run(*echo).returncode == 0, WAIT_S, "storescp answers")
    moved = run(
        *(dcmtk("movescu"), "-S", "-aet", "WORKSTATION", "-aec", NODE, "-aem", "ARCHIVE", *keys),
        *(LOCAL, str(node.port)),
    )
    assert moved.returncode == 0, moved.stdout
    assert all(any(path.read_bytes().endswith(file.encoded) for path in out.iterdir()) for file in held)
