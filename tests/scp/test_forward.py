"""Forwarding to real AEs: unchanged, again after every kill, and nobody held up by what another does."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from live_node import dcmtk_environment
from node_make import drain, make_node, open_node, store, variant
from pydicom.uid import generate_uid
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext, build_context

from dicom_scp import forward
from dicom_scp.forward import Forwarder
from dicom_scp.ports import Item, Peer
from dicom_scp.route import Requestor
from dicom_scp.sub_operations import Channel
from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.forwarding import Forwarding, Run
from orthanc_ledger.forwards import Forward
from orthanc_ledger.setup_node import CONFIG_NAME
from orthanc_ledger.spool import INBOX

from .client import BIG_ENDIAN, EXPLICIT, IMPLICIT, JPEG_LOSSY, MR, WAIT_S, File, bundled, load, run, storage
from .test_move import Destination
from .test_upper_layer import RELEASE_RP, answers, peer_that_plays
from .world import LOCAL

VERIFICATION = build_context("1.2.840.10008.1.1")
STOP = threading.Event()  # never set: for calls that end by themselves
MANY = 60


@pytest.fixture
def archive(free_port: Callable[[], int]) -> Destination:
    return Destination(free_port())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path, forward=("ARCHIVE",))


def hold(node: Node, files: list[File]) -> None:
    """Have the files taken in, not yet anchored: that is when they are forwarded."""
    for file in files:
        store(node, file.path)
    node.anchorer().take_in()


def to(archive: Destination, node: Node) -> Forwarder:
    """What forwards to it."""
    ae = ApplicationEntity("LEDGER")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = WAIT_S
    return Forwarder(Peer("ARCHIVE", "clinical", host=LOCAL, port=archive.port), node.forwarding, Requestor(ae))


def taking_all(files: list[File]) -> list[PresentationContext]:
    """A context for each SOP class, in all the files' transfer syntaxes."""
    syntaxes = sorted({file.transfer_syntax for file in files})
    return [build_context(each, syntaxes) for each in sorted({str(file.dataset.SOPClassUID) for file in files})]


def waiting(node: Node) -> list[Forward]:
    return node.forwards.rows()


def test_every_object_goes_as_it_came_once_over_one_association(
    node: Node, archive: Destination, series: list[File]
) -> None:
    names = ("MR_small_RLE.dcm", "image_dfl.dcm", "JPEG-lossy.dcm", "J2K_pixelrep_mismatch.dcm", "rtplan.dcm")
    files = [*series, *map(bundled, names)]
    hold(node, files)
    with archive.listening([*taking_all(files), VERIFICATION]):
        for _ in range(2):
            assert to(archive, node).forward(STOP)
    assert archive.received.objects == {file.sop_instance: (file.transfer_syntax, file.encoded) for file in files}
    assert archive.received.originators == [(None, None)] * len(archive.received.objects)
    assert len(archive.associations) == 1
    assert waiting(node) == []


def test_anchored_objects_go_verified_from_the_content_store(
    node: Node, archive: Destination, series: list[File]
) -> None:
    hold(node, series)
    drain(node)
    assert node.spool.names(INBOX) == []
    with archive.listening([*storage(series), VERIFICATION]):
        to(archive, node).forward(STOP)
    assert archive.received.objects == {file.sop_instance: (EXPLICIT, file.encoded) for file in series}


def test_a_destination_of_native_syntaxes_only_gets_the_same_fingerprint_and_lossy_waits_for_a_person(
    node: Node, archive: Destination
) -> None:
    big_endian, lossy = bundled("MR_small_bigendian.dcm"), bundled("JPEG-lossy.dcm")
    assert (big_endian.transfer_syntax, lossy.transfer_syntax[:-1]) == (BIG_ENDIAN, JPEG_LOSSY[:-1])
    hold(node, [lossy, big_endian])
    classes = {str(file.dataset.SOPClassUID) for file in (big_endian, lossy)}
    with archive.listening([*(build_context(each, [IMPLICIT]) for each in classes), VERIFICATION]):
        assert to(archive, node).forward(STOP)
    assert {uid: syntax for uid, (syntax, _) in archive.received.objects.items()} == {big_endian.sop_instance: IMPLICIT}
    (left,) = waiting(node)
    assert "no presentation context accepted" in str(left.trouble)
    (alarm,) = node.outbox.alarms()
    assert (alarm.kind, alarm.claim) == ("not forwarded to ARCHIVE", left.claim)


def test_objects_of_a_class_the_destination_does_not_know_hold_up_no_others(
    node: Node, archive: Destination, series: list[File]
) -> None:
    plan = bundled("rtplan.dcm")
    hold(node, [plan])
    with archive.listening([build_context(MR, [EXPLICIT]), VERIFICATION]):
        assert to(archive, node).forward(STOP)
        hold(node, series)
        assert to(archive, node).forward(STOP)
    assert set(archive.received.objects) == {file.sop_instance for file in series}
    assert len(waiting(node)) == len(node.outbox.alarms()) == 1


def test_what_was_refused_is_an_alarm_and_goes_when_retried(
    node: Node, archive: Destination, series: list[File]
) -> None:
    hold(node, series)
    archive.received.answers = {1: 0xC123, 2: 0xB007}  # cannot understand; a warning, which means stored
    with archive.listening([*storage(series), VERIFICATION]):
        assert to(archive, node).forward(STOP)
        (left,) = waiting(node)
        (alarm,) = node.outbox.alarms()
        assert left.claim in alarm.text
        assert "status 0xC123" in alarm.text
        assert "ARCHIVE" in alarm.text
        node.forwards.retry()
        assert to(archive, node).forward(STOP)
    assert archive.received.objects == {file.sop_instance: (EXPLICIT, file.encoded) for file in series}
    assert (waiting(node), node.outbox.alarms()) == ([], [])


def test_a_destination_without_room_is_left_alone_without_an_alarm(
    node: Node, archive: Destination, series: list[File]
) -> None:
    hold(node, series)
    archive.received.answers = {0: 0xA700}
    with archive.listening([*storage(series), VERIFICATION]):
        assert to(archive, node).forward(STOP)
        assert len(archive.received.originators) == 1
        node.forwards.retry()
        assert to(archive, node).forward(STOP)
    assert len(archive.received.objects) == len(series)
    assert (waiting(node), node.outbox.alarms()) == ([], [])


def test_an_object_at_which_the_association_breaks_lets_the_others_pass(
    node: Node, archive: Destination, series: list[File]
) -> None:
    hold(node, series)
    archive.received.abort_at = 0
    with archive.listening([*storage(series), VERIFICATION]):
        assert to(archive, node).forward(STOP)
        assert not archive.received.objects
        assert [row.due > 0 for row in waiting(node)] == [True, False, False, False]
        assert to(archive, node).forward(STOP)
    assert list(archive.received.objects)[:3] == [file.sop_instance for file in series[1:]]
    assert node.outbox.alarms() == []


def test_a_destination_that_is_away_or_rejects_keeps_its_objects_in_order_and_says_why(
    node: Node, archive: Destination, series: list[File]
) -> None:
    hold(node, series)
    before = [row.claim for row in waiting(node)]
    for title, said in ((None, "cannot be reached"), ("OTHER", "Called AE title not recognised")):
        if title is None:
            assert not to(archive, node).forward(STOP)
        else:
            with archive.listening([*storage(series), VERIFICATION], title):
                assert not to(archive, node).forward(STOP)
        (each,) = node.forwards.waiting()
        assert said in str(each.trouble)
    assert [row.claim for row in node.forwards.due("ARCHIVE", 9)] == before
    assert node.outbox.alarms() == []
    with archive.listening([*storage(series), VERIFICATION]):
        assert to(archive, node).forward(STOP)
    assert list(archive.received.objects) == [file.sop_instance for file in series]


def test_what_differs_from_what_arrived_is_withheld_with_alarms(
    node: Node, archive: Destination, series: list[File]
) -> None:
    hold(node, series)
    name = waiting(node)[0].claim
    unit = node.spool.folder / INBOX / name
    changed = bytearray(unit.read_bytes())
    changed[-1] ^= 1
    unit.write_bytes(changed)
    with archive.listening([*storage(series), VERIFICATION]):
        assert to(archive, node).forward(STOP)
    assert len(archive.received.objects) == len(series) - 1
    assert [row.claim for row in waiting(node)] == [name]
    assert {alarm.kind for alarm in node.outbox.alarms()} == {"integrity", "not forwarded to ARCHIVE"}


@pytest.mark.parametrize("step", ["run", "sent"])
def test_killed_before_or_after_an_object_was_sent_it_is_sent_again(
    node: Node, archive: Destination, series: list[File], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    hold(node, series)
    with archive.listening([*storage(series), VERIFICATION]):
        with monkeypatch.context() as patch:
            patch.setattr(Forwarding, step, die)
            with pytest.raises(Killed):
                to(archive, node).forward(STOP)
        assert len(waiting(node)) == len(series)
        assert to(archive, node).forward(STOP)
    assert len(archive.received.originators) == len(series) + (step == "sent")
    assert archive.received.objects == {file.sop_instance: (EXPLICIT, file.encoded) for file in series}
    assert waiting(node) == []


def test_one_destination_that_hangs_holds_up_no_other(
    tmp_path: Path, free_port: Callable[[], int], series: list[File], wait_until: Callable[..., None]
) -> None:
    hanging, archive = Destination(free_port()), Destination(free_port())
    node = make_node(tmp_path, forward=("HANGING", "ARCHIVE"))
    hold(node, series)
    go_on, stop = threading.Event(), threading.Event()
    take = hanging.received.take
    hanging.received.take = lambda event: take(event) if go_on.wait(WAIT_S) else 0xC000  # type: ignore[method-assign]
    ports = {"HANGING": hanging.port, "ARCHIVE": archive.port}
    peers = [Peer(title, "clinical", host=LOCAL, port=port) for title, port in ports.items()]
    serving = threading.Thread(target=forward.serve, args=(node.forwarding, "LEDGER", peers, stop))
    contexts: list[PresentationContext] = [*storage(series), VERIFICATION]
    with hanging.listening(contexts, "HANGING"), archive.listening(contexts):
        serving.start()
        wait_until(lambda: {row.destination for row in waiting(node)} == {"HANGING"}, WAIT_S, "one has all")
        assert len(waiting(node)) == len(series)
        go_on.set()
        wait_until(lambda: waiting(node) == [], WAIT_S, "the other has all, too")
        stop.set()
        serving.join(WAIT_S)
    assert archive.received.objects == hanging.received.objects


@contextmanager
def forwarding(node: Node, *peers: Peer) -> Iterator[None]:
    """Forward until the end of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=forward.serve, args=(node.forwarding, "LEDGER", peers, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)


def test_a_fault_nobody_foresaw_is_told_by_its_type_and_forwarding_goes_on(
    node: Node,
    archive: Destination,
    series: list[File],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wait_until: Callable[..., None],
) -> None:
    faults, run = [OSError("no space left for patient Doe"), RuntimeError("Doe")], Forwarding.run

    def full(self: Forwarding, destination: str) -> Run | None:
        if faults:
            raise faults.pop()
        return run(self, destination)

    hold(node, series)
    monkeypatch.setattr(forward, "_LOOK_S", 0.01)
    monkeypatch.setattr(Forwarding, "run", full)
    peer = Peer("ARCHIVE", "clinical", host=LOCAL, port=archive.port)
    with archive.listening([*storage(series), VERIFICATION]), forwarding(node, peer):
        wait_until(lambda: waiting(node) == [], WAIT_S, "all were sent")
    told = [record.getMessage() for record in caplog.records if "forwarding failed" in record.getMessage()]
    assert told == [f"ARCHIVE: forwarding failed: {kind}" for kind in ("RuntimeError", "OSError")]


def test_a_fault_that_lasts_is_an_alarm(node: Node, series: list[File], monkeypatch: pytest.MonkeyPatch) -> None:
    hold(node, series)
    monkeypatch.setattr(Forwarding, "run", lambda *_: [][0])
    monkeypatch.setattr("orthanc_ledger.forwarding.LATE_S", -1)
    stop = threading.Event()
    forwarder = to(Destination(1), node)
    monkeypatch.setattr(stop, "wait", lambda _: bool(node.outbox.alarms()))
    forwarder.run(stop)
    assert [alarm.kind for alarm in node.outbox.alarms()] == ["forwarding to ARCHIVE is late"]


def test_a_fault_over_one_object_lets_the_others_pass(
    node: Node, archive: Destination, series: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(node, series)
    poison, store_one = series[0].sop_instance, Channel.store

    def fail(self: Channel, item: Item, *rest: Any) -> int:
        return store_one(self, item, *rest) if item.sop_instance != poison else [][0]

    monkeypatch.setattr(Channel, "store", fail)
    now = system_clock()
    monkeypatch.setattr(node.forwards, "_clock", lambda: now)  # what is put off is not due again in this test
    with archive.listening([*storage(series), VERIFICATION]):
        with pytest.raises(IndexError):
            to(archive, node).forward(STOP)
        assert to(archive, node).forward(STOP)
    assert [row.trouble for row in waiting(node)] == ["IndexError"]
    assert len(archive.received.objects) == len(series) - 1


def test_a_destination_whose_name_is_not_known_holds_up_no_other(
    tmp_path: Path,
    free_port: Callable[[], int],
    series: list[File],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    resolve = socket.getaddrinfo

    def unknown(host: str, *rest: Any, **options: Any) -> Any:
        if host == "pacs.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    archive, node = Destination(free_port()), make_node(tmp_path, forward=("NAMELESS", "ARCHIVE"))
    nameless = Peer("NAMELESS", "clinical", host="pacs.example", port=104)
    hold(node, series)
    with (
        archive.listening([*storage(series), VERIFICATION]),
        forwarding(node, nameless, Peer("ARCHIVE", "clinical", host=LOCAL, port=archive.port)),
    ):
        wait_until(lambda: {row.destination for row in waiting(node)} == {"NAMELESS"}, WAIT_S, "one has all")
        wait_until(lambda: any(row.trouble for row in waiting(node)), WAIT_S, "the other's trouble is known")
    assert [row.trouble for row in waiting(node) if row.trouble] == [
        "NAMELESS cannot be reached: Name or service not known"
    ]


def accept_without_syntaxes() -> bytes:
    """An A-ASSOCIATE-AC that accepts context 1 and names no transfer syntax for it (PS3.8 9.3.3.2)."""
    application = b"\x10\x00\x00\x15" + b"1.2.840.10008.3.1.1.1"
    user = b"\x50\x00\x00\x11" + b"\x51\x00\x00\x04\x00\x00\x40\x00" + b"\x52\x00\x00\x05" + b"1.2.3"
    body = b"\x00\x01\x00\x00" + b"ARCHIVE".ljust(16) + b"LEDGER".ljust(16) + bytes(32)
    body += application + b"\x21\x00\x00\x04\x01\x00\x00\x00" + user
    return b"\x02\x00" + len(body).to_bytes(4, "big") + body


def test_an_accepted_context_without_a_transfer_syntax_is_none(node: Node, series: list[File]) -> None:
    hold(node, series[:1])
    with peer_that_plays(answers(accept_without_syntaxes(), RELEASE_RP)) as (port, seen):
        assert to(Destination(port), node).forward(STOP)
    assert seen == [[(0x01,), (0x05,)]]  # associated, and released: nothing could be sent
    (left,) = waiting(node)
    assert "no presentation context accepted" in str(left.trouble)


def test_killed_in_the_middle_it_brings_everything_to_storescp_after_its_restart(
    tmp_path: Path,
    dcmtk: Callable[[str], str],
    free_port: Callable[[], int],
    start_process: Callable[..., "subprocess.Popen[bytes]"],
    wait_until: Callable[..., None],
    series: list[File],
) -> None:
    port, out = free_port(), tmp_path / "pacs"
    make_node(tmp_path)
    path = tmp_path / "node" / CONFIG_NAME
    peer = {"ae_title": "ARCHIVE", "role": "clinical", "host": LOCAL, "port": port}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"peers": [peer], "forward": ["ARCHIVE"]}))
    node = open_node(tmp_path)
    for _ in range(MANY):
        store(node, variant(series[0].path, SOPInstanceUID=generate_uid()))
    drain(node)
    sent = {}
    for instance in node.index.select():
        with node.library.open(instance) as data_set:
            sent[instance.sop_uid] = data_set.read()
    assert len(sent) == len(waiting(node)) == MANY

    out.mkdir()
    start_process([dcmtk("storescp"), "+B", "-aet", "ARCHIVE", "-od", out, str(port)], env=dcmtk_environment())
    echo = [dcmtk("echoscu"), "-aec", "ARCHIVE", LOCAL, str(port)]
    wait_until(lambda: run(*echo).returncode == 0, WAIT_S, "storescp answers")
    command = [sys.executable, "-m", "dicom_scp", "--config", path, "forwarder"]
    for enough in (1, MANY):
        process = start_process(command)
        wait_until(lambda enough=enough: len(waiting(node)) <= MANY - enough, WAIT_S, f"{enough} were confirmed")
        process.kill()
        process.wait()
        assert bool(waiting(node)) is (enough < MANY)
    received = {file.sop_instance: file.encoded for file in map(load, out.iterdir())}
    assert received == sent
