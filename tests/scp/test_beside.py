"""What Orthanc's plugin asks on the Unix socket: moves that the node decides and sends, told object by object."""

import http.client
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicom_scp import beside
from dicom_scp.beside import Moves
from orthanc_ledger import local_socket
from orthanc_ledger.chronicle import Chronicle
from orthanc_ledger.errors import LedgerAway, ServiceAway
from orthanc_ledger.plugin.beside import Beside, MoveRefused, Outcome
from orthanc_ledger.reasons import Reason
from orthanc_ledger.web import lines
from orthanc_ledger.web.facts import Facts

from .client import EXPLICIT, WAIT_S, File, storage
from .test_move import Destination
from .world import LOCAL, NODE, PEERS, FolderArchive, FolderInbox, FolderPlan, Item, Peer, head_of

SENT = Outcome(True)


@dataclass
class Running:
    """A server on a socket, and the archive that it moves from."""

    socket: Path
    archive: FolderArchive
    destination: Destination

    @property
    def plugin(self) -> Beside:
        return Beside(self.socket)

    def moved(self, asker: str | None, study: str, destination: str = "LAB") -> list[Outcome]:
        """A move of a study, to its end."""
        with closing(self.plugin.move(asker, 11, destination, keys(study))) as move:
            return [move.next() for _ in range(move.count)]


def keys(study: str) -> dict[str, str]:
    return {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}


def no_chronicle() -> Chronicle:
    raise ServiceAway("this node has nothing")


@contextmanager
def serving(socket: Path, moves: Moves) -> Iterator[None]:
    """The server in a thread, until the end of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=beside.listen, args=(socket, moves, Facts(no_chronicle), stop))
    thread.start()
    deadline = time.monotonic() + WAIT_S
    while not listens(socket):
        assert time.monotonic() < deadline
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def listens(socket: Path) -> bool:
    try:
        local_socket.connect(socket, 1.0).close()
    except OSError:
        return False
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the socket is: its path is too long for the kernel."""
    folder = tmp_path / "a-hospital-with-a-long-name" / "data" / "of" / "the" / ("n" * 60)
    folder.mkdir(parents=True)
    assert len(os.fsencode(folder)) > 107
    return folder


@pytest.fixture
def running(folder: Path, series: list[File], free_port: Callable[[], int]) -> Iterator[Running]:
    inbox, destination = FolderInbox(folder), Destination(free_port())
    for file in series:
        inbox.add(head_of(file.dataset, file.transfer_syntax), file.encoded)
    archive = FolderArchive(inbox)
    lab = Peer("LAB", "research", "INSTITUTE", host=LOCAL, port=destination.port)
    ward = Peer("WARD", "clinical", host=LOCAL, port=destination.port)
    local_socket.listen(folder / "beside.sock").close()  # what a killed one leaves
    with serving(folder / "beside.sock", Moves(NODE, [*PEERS, lab, ward], archive)):
        yield Running(folder / "beside.sock", archive, destination)


def test_a_move_is_sent_byte_for_byte_and_names_who_asked(running: Running, series: list[File]) -> None:
    with running.destination.listening(storage(series), "LAB"):
        assert running.moved("TRIAL", series[0].study) == [SENT] * 4
    received = running.destination.received
    assert received.objects == {file.sop_instance: (EXPLICIT, file.encoded) for file in series}
    assert received.originators == [("TRIAL", 11)] * 4
    assert len(running.destination.associations) == 1
    assert running.archive.asked[0][:3] == ("TRIAL", "LAB", "STUDY")
    assert running.archive.plans[0].closed


def test_what_staff_send_names_no_originator(running: Running, series: list[File]) -> None:
    with running.destination.listening(storage(series), "LAB"):
        assert running.moved(None, series[0].study) == [SENT] * 4
    assert running.destination.received.originators == [(None, None)] * 4


def test_a_refusal_tells_its_reason_and_nothing_leaves(running: Running, series: list[File]) -> None:
    running.archive.refuse["LAB"] = Reason.NO_APPROVAL
    with running.destination.listening(storage(series), "LAB"), pytest.raises(MoveRefused, match="no approval"):
        running.moved("VIEWER", series[0].study)
    assert not running.destination.associations


def test_only_research_destinations_are_known_here(running: Running, series: list[File]) -> None:
    with running.destination.listening(storage(series), "WARD"):
        for asker in ("TRIAL", "VIEWER", None):
            with pytest.raises(MoveRefused, match="destination not permitted"):
                running.moved(asker, series[0].study, "WARD")
    assert not running.destination.associations
    assert running.archive.counted == [("TRIAL", Reason.DESTINATION)]


def test_ledger_away_refuses(running: Running, series: list[File]) -> None:
    running.archive.away = LedgerAway("no answer")
    with pytest.raises(MoveRefused, match="ledger unavailable"):
        running.moved("TRIAL", series[0].study)
    assert running.archive.counted == [("TRIAL", Reason.LEDGER_UNAVAILABLE)]


@pytest.mark.parametrize(
    "asked",
    [
        {"QueryRetrieveLevel": "STUDY"},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2*"},
        {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2"},
        {"QueryRetrieveLevel": "PATIENT", "PatientID": "A\\B"},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "\\".join(["1.2"] * 1025)},
    ],
)
def test_keys_that_a_c_move_may_not_have_are_refused(running: Running, asked: dict[str, str]) -> None:
    with pytest.raises(MoveRefused, match="bad identifier"):
        running.plugin.move("TRIAL", 1, "LAB", asked)
    assert not running.archive.plans


def test_withheld_objects_are_told_with_their_reason(running: Running, series: list[File]) -> None:
    running.archive.withhold[series[1].sop_instance] = Reason.WITHHELD_INTEGRITY
    with running.destination.listening(storage(series), "LAB"):
        outcomes = running.moved("TRIAL", series[0].study)
    assert outcomes == [Outcome(False, "withheld: integrity"), SENT, SENT, SENT]
    assert series[1].sop_instance not in running.destination.received.objects


def test_all_withheld_is_told_without_an_association(running: Running, series: list[File]) -> None:
    running.archive.withhold.update({file.sop_instance: Reason.WITHHELD_INTEGRITY for file in series})
    assert running.moved("TRIAL", series[0].study) == [Outcome(False, "withheld: integrity")] * 4
    assert not running.destination.associations


def test_a_destination_that_is_down_fails_each(running: Running, series: list[File]) -> None:
    assert running.moved("TRIAL", series[0].study) == [Outcome(False)] * 4


def test_a_plugin_that_leaves_ends_the_move(
    running: Running, series: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, left = FolderPlan.leave, threading.Event()

    def second_waits_for_the_end(plan: FolderPlan, item: Item) -> None:
        if plan.left:
            assert left.wait(WAIT_S)
        leaving(plan, item)

    monkeypatch.setattr(FolderPlan, "leave", second_waits_for_the_end)
    await_end = lines._await_end

    async def told(receive: lines.Receive, event: threading.Event) -> None:
        await await_end(receive, event)
        left.set()

    monkeypatch.setattr(lines, "_await_end", told)
    with running.destination.listening(storage(series), "LAB"):
        with closing(running.plugin.move("TRIAL", 11, "LAB", keys(series[0].study))) as move:
            assert move.next() == SENT
        plan = running.archive.plans[0]
        assert plan.finished.wait(WAIT_S)
    assert len(plan.closed[0]) <= 2  # one may have been on its way


def test_a_plugin_that_leaves_ends_the_planning(running: Running, series: list[File]) -> None:
    running.archive.endless, planning, ended = True, running.archive.plan, threading.Event()

    def plan(*asked: Any) -> FolderPlan:
        try:
            return planning(*asked)
        finally:
            ended.set()

    running.archive.plan = plan
    with closing(local_socket.connect(running.socket, WAIT_S)) as connection:
        body = json.dumps({"asker": "TRIAL", "message_id": 1, "destination": "LAB", "keys": keys(series[0].study)})
        connection.sendall(f"POST /moves HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert not ended.is_set()
    assert ended.wait(WAIT_S)


def test_a_long_wait_is_told_to_be_one(running: Running, series: list[File], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BEAT_S", 0.05)
    beats = threading.Semaphore(0)
    following = lines._next

    async def counted(told: "lines.asyncio.Queue[bytes | None]") -> bytes | None:
        line = await following(told)
        if line == b"\n":
            beats.release()
        return line

    monkeypatch.setattr(lines, "_next", counted)
    running.archive.plan = lambda *_: [beats.acquire(timeout=WAIT_S) for _ in range(3)] and _refused()
    with pytest.raises(MoveRefused, match="no approval"):
        running.moved("TRIAL", series[0].study)


def _refused() -> FolderPlan:
    return FolderPlan([], Reason.NO_APPROVAL)


def test_an_answer_that_breaks_off_counts_what_is_missing_as_not_sent(
    running: Running, series: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    running.archive.errors[series[2].sop_instance] = RuntimeError("a fault")
    with running.destination.listening(storage(series), "LAB"):
        outcomes = running.moved("TRIAL", series[0].study)
    assert outcomes.count(SENT) < 4
    assert outcomes[-1] == Outcome(False)
    assert running.archive.plans[0].closed


def test_only_the_nodes_own_user_may_connect(running: Running) -> None:
    assert stat.S_IMODE(running.socket.stat().st_mode) == 0o600


def test_nobody_there_is_a_service_away(folder: Path) -> None:
    with pytest.raises(ServiceAway, match="the node's processes cannot be asked"):
        Beside(folder / "beside.sock").move("TRIAL", 1, "LAB", {})
    local_socket.listen(folder / "beside.sock").close()  # its name stays
    with pytest.raises(ServiceAway, match="the node's processes cannot be asked"):
        Beside(folder / "beside.sock").move("TRIAL", 1, "LAB", {})


@pytest.mark.parametrize(
    ("method", "path", "size", "status"),
    [("GET", "/moves", 0, 404), ("POST", "/moves/x", 0, 404), ("POST", "/moves", lines.LARGEST_CALL + 1, 413)],
)
def test_other_calls_are_refused(running: Running, method: str, path: str, size: int, status: int) -> None:
    with ExitStack() as stack:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = stack.enter_context(closing(local_socket.connect(running.socket, WAIT_S)))
        connection.request(method, path, b"x" * size)
        answer = stack.enter_context(connection.getresponse())
        assert answer.status == status
