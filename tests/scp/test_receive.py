"""C-STORE: what arrives, what is answered, and what is left of a broken one."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dsutils import split_dataset
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyFind

from orthanc_ledger.errors import Unreadable
from orthanc_ledger.reasons import Reason

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
    WAIT_S,
    File,
    associated,
    bundled,
    reactor_paused,
    run,
    storage,
    store,
    store_bytes,
)
from .world import LOCAL, NODE, Node, Peer, config, serving

KINDS = {
    "MR_small.dcm": EXPLICIT,
    "MR_small_implicit.dcm": IMPLICIT,
    "MR_small_bigendian.dcm": BIG_ENDIAN,
    "image_dfl.dcm": DEFLATED,
    "MR_small_RLE.dcm": RLE,
    "MR_small_jpeg_ls_lossless.dcm": JPEG_LS,
    "MR_small_jp2klossless.dcm": JPEG_2000,
    "SC_rgb_jpeg_dcmtk.dcm": JPEG_LOSSY,
}
PEAK_RSS = 256 << 20
ROOT = Path(__file__).resolve().parents[2]


def answered(response: Dataset) -> tuple[int, str | None]:
    return response.Status, response.get("ErrorComment")


@pytest.mark.parametrize(("name", "syntax"), KINDS.items())
def test_data_set_arrives_byte_for_byte_in_every_kind_of_transfer_syntax(node: Node, name: str, syntax: str) -> None:
    file = bundled(name)
    with associated(node.port, storage([file])) as assoc:
        assert answered(store(assoc, file)) == (0x0000, None)
    held = node.inbox.held[file.sop_instance]
    assert held.data_set == file.encoded
    assert held.head.transfer_syntax == syntax == file.transfer_syntax


def test_head_names_both_sides_and_the_association(node: Node, series: list[File]) -> None:
    for calling in ("SCANNER", "WORKSTATION"):
        with associated(node.port, storage(series), calling) as assoc:
            port = assoc.requestor.port
            for file in series[:2]:
                store(assoc, file)
            head = node.inbox.heads[-1]
            assert (head.calling_ae, head.called_ae, head.origin) == (calling, NODE, "addressed-ae")
            assert (head.sop_class, head.sop_instance) == (series[1].dataset.SOPClassUID, series[1].sop_instance)
            assert head.peer_address == f"dicom://{LOCAL}:{port}"
            assert head.called_address == f"dicom://{LOCAL}:{node.port}"
    identities = [head.association for head in node.inbox.heads]
    assert identities[0] == identities[1] != identities[2] == identities[3]
    assert len(identities[0]) == 16


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_dcmtk_clients_store_a_series(node: Node, series: list[File], dcmtk: Callable[[str], str], tool: str) -> None:
    paths = [file.path for file in series]
    done = run(dcmtk(tool), "-aet", "SCANNER", "-aec", NODE, LOCAL, str(node.port), *paths)
    assert done.returncode == 0, done.stdout
    assert node.inbox.held.keys() == {file.sop_instance for file in series}
    for file in series:
        syntax = node.inbox.held[file.sop_instance].head.transfer_syntax
        assert syntax == EXPLICIT


def test_same_bytes_again_succeed(node: Node, series: list[File]) -> None:
    with associated(node.port, storage(series)) as assoc:
        assert [answered(store(assoc, series[0])) for _ in range(3)] == [(0x0000, None)] * 3
    assert len(node.inbox.held) == 1


@pytest.mark.parametrize(("duplicate", "expected"), [("refuse", (0x0111, "duplicate uid")), ("accept", (0x0000, None))])
def test_other_content_under_a_known_uid_is_answered_as_the_peer_wants(
    folder: Path, series: list[File], duplicate: str, expected: tuple[int, str | None]
) -> None:
    scanner = Peer("SCANNER", "modality", "HOSPITAL", duplicate=duplicate)
    changed = series[0].encoded[:-1] + bytes([series[0].encoded[-1] ^ 1])
    with serving(folder, config(peers=[scanner])) as node, associated(node.port, storage(series)) as assoc:
        store(assoc, series[0])
        second = store_bytes(assoc, changed, series[0].transfer_syntax, MR, series[0].sop_instance)
    assert answered(second) == expected


def test_full_spool_before_the_first_byte_is_out_of_resources(
    node: Node, series: list[File], caplog: pytest.LogCaptureFixture
) -> None:
    node.inbox.free_bytes = 0
    with associated(node.port, storage(series)) as assoc:
        assert answered(store(assoc, series[0])) == (0xA700, "spool full")
        assert "a C-STORE is refused: " in caplog.text
        node.inbox.free_bytes = None
        assert answered(store(assoc, series[0])) == (0x0000, None)


def test_spool_that_fills_up_half_way_swallows_the_rest_and_is_out_of_resources(
    node: Node, series: list[File], folder: Path
) -> None:
    node.inbox.free_bytes = 1000
    with associated(node.port, storage(series)) as assoc:
        assert answered(store(assoc, series[0])) == (0xA700, "spool full")
        assert not list(folder.iterdir())
        node.inbox.free_bytes = None
        assert answered(store(assoc, series[0])) == (0x0000, None)


def test_command_that_names_another_instance_does_not_match(node: Node, series: list[File], folder: Path) -> None:
    with associated(node.port, storage(series)) as assoc:
        assert answered(store(assoc, series[0], sop_instance="1.2.3")) == (0xA900, "uid mismatch")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("rubbish", [b"this is no data set at all", bytes(64), b"\x08\x00\x16\x00UI\xff\xff"])
def test_rubbish_cannot_be_understood(node: Node, series: list[File], folder: Path, rubbish: bytes) -> None:
    with associated(node.port, storage(series)) as assoc:
        assert answered(store_bytes(assoc, rubbish, EXPLICIT, MR, "1.2.3")) == (0xC000, "not readable")
    assert not list(folder.iterdir())


def test_fault_of_the_inbox_is_a_processing_failure_and_the_association_goes_on(
    node: Node, series: list[File], folder: Path
) -> None:
    node.inbox.broken = RuntimeError("a bug")
    with associated(node.port, storage(series)) as assoc:
        assert answered(store(assoc, series[0])) == (0x0110, None)
        assert not list(folder.iterdir())
        node.inbox.broken = Unreadable("odd")
        assert answered(store(assoc, series[0])) == (0xC000, "not readable")
        node.inbox.broken = None
        assert answered(store(assoc, series[0])) == (0x0000, None)


def test_research_peer_cannot_store_and_nothing_is_kept(research_node: Node, series: list[File], folder: Path) -> None:
    with associated(research_node.port, storage(series), "TRIAL") as assoc:
        assert answered(store(assoc, series[0])) == (0x0124, Reason.NO_APPROVAL)
    assert not research_node.inbox.heads
    assert not list(folder.iterdir())


def test_store_under_a_query_context_is_not_supported(node: Node, series: list[File]) -> None:
    with associated(node.port, [build_context(StudyFind, [EXPLICIT])]) as assoc:
        answer = store_bytes(assoc, series[0].encoded, EXPLICIT, StudyFind, series[0].sop_instance)
    assert answered(answer) == (0x0122, None)
    assert not node.inbox.held


def command(sop_instance: str, field: int = 0x0001, *, data_set: bool = True) -> bytes:
    """An encoded C-STORE-RQ command that announces a data set; or with another command field, or without one."""
    message = C_STORE_RQ()
    message.command_set.AffectedSOPClassUID = MR
    message.command_set.CommandField = field
    message.command_set.MessageID = 1
    message.command_set.Priority = 0
    message.command_set.CommandDataSetType = 1 if data_set else 0x0101
    if field == 0x8001:
        message.command_set.MessageIDBeingRespondedTo, message.command_set.Status = 1, 0
    if field == 0x0FFF:
        message.command_set.MessageIDBeingRespondedTo = 1
    message.command_set.AffectedSOPInstanceUID = sop_instance
    for keyword in ("MoveOriginatorApplicationEntityTitle", "MoveOriginatorMessageID"):
        delattr(message.command_set, keyword)
    message._set_command_group_length()
    (fragment,) = message.encode_msg(1, 0)
    return fragment.presentation_data_value_list[0][1]


def send_fragments(assoc: Association, *fragments: bytes, context_id: int = 1) -> None:
    """P-DATA with each fragment (control header first) as a PDV of one PDU."""
    primitive = P_DATA()
    primitive.presentation_data_value_list.extend([[context_id, fragment] for fragment in fragments])
    assoc.dul.send_pdu(primitive)


def test_command_and_all_fragments_in_one_pdu_are_one_object(node: Node) -> None:
    file = bundled("MR_small.dcm")
    parts = [file.encoded[start : start + 1000] for start in range(0, len(file.encoded), 1000)]
    with associated(node.port, storage([file])) as assoc, reactor_paused(assoc):
        fragments = [b"\x00" + part for part in parts[:-1]] + [b"\x02" + parts[-1]]
        send_fragments(assoc, command(file.sop_instance), *fragments)
        _, response = assoc.dimse.get_msg(block=True)
    assert response.Status == 0x0000
    assert node.inbox.held[file.sop_instance].data_set == file.encoded


@pytest.mark.parametrize("how", ["abort", "hang up"])
def test_association_lost_half_way_leaves_nothing(
    node: Node, series: list[File], folder: Path, how: str, wait_until: Callable[..., None]
) -> None:
    with associated(node.port, storage(series)) as assoc:
        send_fragments(assoc, command(series[0].sop_instance), b"\x00" + series[0].encoded[:5000])
        wait_until(lambda: node.inbox.heads, WAIT_S, "the object has begun")
        if how == "abort":
            assoc.abort()
        else:
            assoc.dul.socket._shutdown_socket()
        assert node.inbox.discarded.acquire(timeout=WAIT_S)
    assert not list(folder.iterdir())
    assert not node.inbox.held


@pytest.mark.parametrize(
    ("attack", "fragments"),
    [
        ("data before the command", [b"\x00" + bytes(10), command("1.2.3"), b"\x02" + bytes(10)]),
        ("last data without a command", [b"\x02" + bytes(10)]),
        ("a command that is none", [b"\x03" + b"rubbish"]),
        ("an unknown command", [command("1.2.3", 0x7777)]),
        ("an endless command", [b"\x01" + bytes(100_000)] * 11),
        ("an endless data set of no command", [b"\x00" + bytes(100_000)] * 11),
        ("an empty fragment", [b""]),
    ],
)
def test_broken_message_aborts_the_association_only(
    node: Node, series: list[File], attack: str, fragments: list[bytes], wait_until: Callable[..., None]
) -> None:
    with associated(node.port, storage(series)) as assoc:
        for fragment in fragments:
            send_fragments(assoc, fragment)
        wait_until(lambda: not assoc.is_established, WAIT_S, f"the association ends after {attack}")
    assert not node.inbox.held
    with associated(node.port, storage(series)) as assoc:
        assert answered(store(assoc, series[0])) == (0x0000, None)


@pytest.mark.parametrize("field", [0x0010, 0x0020, 0x0030, 0x0FFF, 0x8001], ids="{:#06x}".format)
def test_second_command_inside_a_data_set_discards_the_object_at_once(
    node: Node, series: list[File], folder: Path, field: int, wait_until: Callable[..., None]
) -> None:
    """C-GET, C-FIND, C-ECHO, C-CANCEL or a response must not make the node forget an open file."""
    with associated(node.port, storage(series)) as assoc:
        second = command("1.2.3", field, data_set=False)
        send_fragments(assoc, command(series[0].sop_instance), b"\x00" + bytes(100), second)
        assert node.inbox.discarded.acquire(timeout=WAIT_S / 2)
        wait_until(lambda: not assoc.is_established, WAIT_S, "the association ends")
    assert len(node.inbox.heads) == 1
    assert not list(folder.iterdir())


def test_message_on_a_context_that_was_not_accepted_aborts(
    node: Node, series: list[File], wait_until: Callable[..., None]
) -> None:
    with associated(node.port, storage(series)) as assoc:
        send_fragments(assoc, command("1.2.3"), b"\x02" + bytes(10), context_id=77)
        wait_until(lambda: not assoc.is_established, WAIT_S, "the association ends")
    assert not node.inbox.heads


@pytest.mark.parametrize("at", [20, None], ids=["in the command", "after it"])
def test_message_on_two_contexts_aborts(
    node: Node, folder: Path, at: int | None, wait_until: Callable[..., None]
) -> None:
    """Else a data set would be kept under a transfer syntax that it is not in."""
    small = bundled("MR_small.dcm")
    whole, data = command(small.sop_instance), b"\x02" + small.encoded
    fragments = [whole, data] if at is None else [b"\x01" + whole[1:at], b"\x03" + whole[at:], data]
    with associated(node.port, [build_context(MR, [EXPLICIT]), build_context(MR, [IMPLICIT])]) as assoc:
        for number, fragment in enumerate(fragments):
            send_fragments(assoc, fragment, context_id=3 if number else 1)
        wait_until(lambda: not assoc.is_established, WAIT_S, "the association ends")
        wait_until(lambda: not node.listener.associations, WAIT_S, "the node has forgotten it")
    assert not node.inbox.held
    assert not list(folder.iterdir())


def test_requests_piled_up_without_waiting_for_answers_abort(
    node: Node, series: list[File], folder: Path, wait_until: Callable[..., None]
) -> None:
    small = bundled("MR_small.dcm")
    with associated(node.port, storage([small])) as assoc:
        send_fragments(assoc, *[command("1.2.3"), b"\x02" + bytes(10)] * 3)
        wait_until(lambda: not assoc.is_established, WAIT_S, "the association ends")
        wait_until(lambda: not node.listener.associations, WAIT_S, "the node has forgotten it")
    assert not node.inbox.held
    assert not list(folder.iterdir())


def test_requests_sent_while_one_is_served_wait_on_the_wire_not_in_memory(
    node: Node, folder: Path, wait_until: Callable[..., None]
) -> None:
    small = bundled("MR_small.dcm")
    node.inbox.accepting.clear()
    with associated(node.port, storage([small])) as assoc, reactor_paused(assoc):
        for _ in range(30):
            send_fragments(assoc, command("1.2.3"), b"\x02" + bytes(10))
        wait_until(lambda: node.inbox.heads, WAIT_S, "the first is served")
        (served,) = node.listener.associations
        assert served.dimse.msg_queue.qsize() == 0
        node.inbox.accepting.set()
        answers = [assoc.dimse.get_msg(block=True)[1].Status for _ in range(30)]
    assert answers == [0xC000] * 30
    assert len(node.inbox.heads) == 30
    assert not list(folder.iterdir())


def test_announced_pdu_beyond_reason_is_not_waited_for(node: Node) -> None:
    with socket.create_connection((LOCAL, node.port), WAIT_S) as connection:
        connection.sendall(b"\x01\x00\xff\xff\xff\xff")
        assert connection.recv(1) == b""


def test_half_a_pdu_does_not_hold_a_thread_for_ever(folder: Path) -> None:
    with (
        serving(folder, config(dimse_timeout_s=0.2)) as node,
        socket.create_connection((LOCAL, node.port), WAIT_S) as connection,
    ):
        connection.sendall(b"\x01\x00\x00")
        assert connection.recv(1) == b""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A multi-frame MR of 300 MB, a sparse file."""
    path, size = tmp_path / "large.dcm", 300_000_000
    dataset = dcmread(bundled("MR_small.dcm").path)
    del dataset.PixelData, dataset.DataSetTrailingPadding
    dataset.NumberOfFrames = size // (dataset.Rows * dataset.Columns * 2)
    dcmwrite(path, dataset)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + size.to_bytes(4, "little"))
        file.truncate(file.tell() + size)
    return path


def peak_rss(pid: int) -> int:
    """The most memory a process ever held, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCAL, port)) == 0


def digest(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_300_mb_go_in_and_out_bit_for_bit_in_256_mb_of_memory(
    tmp_path: Path,
    folder: Path,
    large: Path,
    dcmtk: Callable[[str], str],
    free_port: Callable[[], int],
    start_process: Callable[..., "subprocess.Popen[bytes]"],
    wait_until: Callable[..., None],
) -> None:
    port, out = str(free_port()), tmp_path / "out"
    out.mkdir()
    server = start_process([sys.executable, "-m", "tests.scp.world", port, folder], cwd=ROOT)
    wait_until(lambda: listens(int(port)), WAIT_S, "the node listens")

    sent = run(dcmtk("storescu"), "-aet", "SCANNER", "-aec", NODE, LOCAL, port, large)
    assert sent.returncode == 0, sent.stdout
    (stored,) = folder.iterdir()
    study = f"StudyInstanceUID={bundled('MR_small.dcm').study}"
    fetched = run(
        *(dcmtk("getscu"), "-S", "+B", "-aet", "WORKSTATION", "-aec", NODE, "-od", out),
        *("-k", "QueryRetrieveLevel=STUDY", "-k", study, LOCAL, port),
    )
    assert fetched.returncode == 0, fetched.stdout
    (received,) = out.iterdir()
    _, offset = split_dataset(received)
    assert digest(received, offset) == digest(stored, 0)
    assert stored.stat().st_size > 300_000_000
    assert peak_rss(server.pid) <= PEAK_RSS
