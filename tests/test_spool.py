"""The inbox: what Success promises, who wins a UID, and what is refused."""

import contextlib
import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from node_make import arrives, begin, drain, make_node, real_file, store, variant

from orthanc_ledger import incoming as incoming_module
from orthanc_ledger import spool as spool_module
from orthanc_ledger.arrival import read_head
from orthanc_ledger.assemble import Node
from orthanc_ledger.errors import ConfigError, NotHeld, SpoolFull, UidMismatch, Unreadable
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE
from orthanc_ledger.verify import hash_data_set

OTHER = "1.2.840.99999.1"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


def spooled(node: Node) -> list[Path]:
    return [path for path in node.spool.folder.rglob("*") if path.is_file()]


def test_unit_holds_the_data_set_byte_for_byte_and_its_digest(node: Node) -> None:
    incoming, data_set = begin(node, real_file())
    incoming.write(data_set)
    assert incoming.accept() is Receipt.STORED
    [name] = node.spool.names()
    with node.spool.open(name) as unit:
        head = read_head(unit)
        assert unit.read() == data_set
        unit.seek(0)
        assert hash_data_set(unit) == head.arrival.sha256


def test_received_is_when_the_last_byte_came(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((1_800_000_000_000_000, 1_800_000_009_000_000))
    monkeypatch.setattr(node.spool, "_now_us", lambda: next(times))
    store(node, real_file())
    monkeypatch.undo()
    with node.spool.open(node.spool.names()[0]) as unit:
        assert read_head(unit).arrival.received_us == 1_800_000_009_000_000


def test_clock_jumping_from_1970_while_receiving_is_not_accepted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((1_000, 1_800_000_000_000_000))
    monkeypatch.setattr(node.spool, "_now_us", lambda: next(times))
    with pytest.raises(SpoolFull, match="1970"):
        store(node, real_file())
    assert spooled(node) == []


def test_sync_of_file_comes_before_its_name_and_sync_of_folder_before_success(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    link, fsync = os.link, os.fsync
    kind = {True: "folder", False: "file"}
    monkeypatch.setattr(os, "link", lambda *a, **k: (steps.append("link"), link(*a, **k)))
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(kind[os.path.isdir(f"/proc/self/fd/{fd}")]), fsync(fd)))
    store(node, real_file())
    assert steps == ["file", "link", "folder"]


def test_nothing_has_a_name_before_success_nor_after_discard(node: Node) -> None:
    incoming, data_set = begin(node, real_file())
    incoming.write(data_set)
    assert spooled(node) == []
    incoming.discard()
    incoming.discard()
    assert spooled(node) == []
    with pytest.raises(ValueError, match="already"):
        incoming.write(b"")


def test_same_object_again_is_success_without_a_second_copy(node: Node) -> None:
    store(node, real_file())
    assert store(node, real_file()) is Receipt.SAME_AGAIN
    assert len(spooled(node)) == 1


def test_other_content_goes_to_the_conflict_queue_once(node: Node) -> None:
    store(node, real_file())
    for _ in range(2):
        assert store(node, variant(PatientName="Corrected")) is Receipt.CONFLICT
    assert [len(node.spool.names(queue)) for queue in (INBOX, CONFLICTS)] == [1, 1]


def test_many_receivers_of_one_uid_have_one_winner(node: Node) -> None:
    """All have everything on disk before the first links: the link decides, not the look before it."""
    barrier, receipts = threading.Barrier(6), []
    incomings = []
    for number in range(6):
        incoming, data_set = begin(node, variant(PatientName=f"P{number % 2}"))
        incoming.write(data_set)
        incomings.append(incoming)

    def accept(incoming: Any) -> None:
        barrier.wait(30)
        receipts.append(incoming.accept())
        node.index.close()

    threads = [threading.Thread(target=accept, args=(incoming,)) for incoming in incomings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(receipt.name for receipt in receipts) == ["CONFLICT"] * 3 + ["SAME_AGAIN"] * 2 + ["STORED"]
    assert [len(node.spool.names(queue)) for queue in (INBOX, CONFLICTS)] == [1, 1]


def test_unit_put_aside_between_link_and_look_frees_the_name(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    store(node, real_file())
    [claim] = node.spool.names()
    link = incoming_module._link_unnamed

    def link_then_lose(fd: int, folder: Path, name: str) -> bool:
        linked = link(fd, folder, name)
        if not linked:
            node.spool.put_aside(claim, QUARANTINE)
        return linked

    monkeypatch.setattr(incoming_module, "_link_unnamed", link_then_lose)
    assert store(node, variant(PatientName="Other")) is Receipt.STORED
    assert [len(node.spool.names(queue)) for queue in (INBOX, CONFLICTS, QUARANTINE)] == [1, 0, 1]


def test_below_the_reserve_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(SpoolFull, match="reserve"):
        store(make_node(tmp_path, spool_reserve_mb=1 << 40), real_file())


def open_in(folder: Path) -> list[str]:
    """What this process holds open there."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if path.startswith(str(folder))]


@pytest.mark.parametrize("call", ["write", "pwrite", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_full_or_failing_disk_is_no_success_and_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(SpoolFull):
        store(node, real_file())
    monkeypatch.undo()
    assert spooled(node) == []
    assert store(node, real_file()) is Receipt.STORED
    assert open_in(node.spool.folder) == []


def test_folder_that_cannot_be_synced_is_no_success(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fail_on_folder(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail_on_folder)
    with pytest.raises(SpoolFull):
        store(node, real_file())
    with pytest.raises(SpoolFull):  # its name is there now: a repeat must not be Success without the sync either
        store(node, real_file())
    monkeypatch.undo()
    assert store(node, real_file()) is Receipt.SAME_AGAIN


@pytest.mark.parametrize("said", [{"sop_class": "1.2.3"}, {"sop_instance": OTHER}])
def test_uids_unlike_the_commands_are_refused(node: Node, said: dict[str, str]) -> None:
    with pytest.raises(UidMismatch, match=next(iter(said.values()))):
        store(node, real_file(), **said)
    assert spooled(node) == []


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "1.2.\u00e9", "1" * 65])
def test_command_with_a_uid_that_is_none_is_refused(node: Node, uid: str) -> None:
    with pytest.raises(Unreadable, match="SOP Instance UID"):
        begin(node, real_file(), sop_instance=uid)


@pytest.mark.parametrize("data_set", [b"", b"\x00" * 600, bytes(range(256)) * 4])
def test_bytes_that_are_no_data_set_are_refused(node: Node, data_set: bytes) -> None:
    incoming, _ = begin(node, real_file())
    incoming.write(data_set)
    with pytest.raises(Unreadable):
        incoming.accept()
    assert spooled(node) == []


def test_folder_version_changes_with_every_unit_and_settles(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two units in one tick of the file system's clock: the second one is seen too."""
    now = [os.stat(node.spool.folder / INBOX).st_mtime_ns // 1000]
    monkeypatch.setattr(node.spool, "_now_us", lambda: now[0])
    young = node.spool.version(INBOX)
    now[0] += 1
    assert node.spool.version(INBOX) != young
    now[0] += 1_000_000
    assert node.spool.version(INBOX) == node.spool.version(INBOX)


def test_unit_taken_back_is_in_the_inbox_and_a_missing_one_is_named(node: Node) -> None:
    store(node, real_file())
    [claim] = node.spool.names()
    aside = node.spool.put_aside(claim, QUARANTINE)
    assert node.spool.take_back(aside) == claim
    assert (node.spool.names(), node.spool.names(QUARANTINE)) == ([claim], [])
    with pytest.raises(NotHeld, match=r"quarantine.*shows"):
        node.spool.take_back(aside)


def test_unit_is_not_taken_back_over_another_of_its_uid(node: Node) -> None:
    store(node, real_file())
    aside = node.spool.put_aside(node.spool.names()[0], QUARANTINE)
    store(node, variant(PatientName="Came since"))
    with pytest.raises(ConfigError, match="just arrived"):
        node.spool.take_back(aside)
    assert len(spooled(node)) == 2


def test_reserve_is_kept_while_an_object_grows(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming, _ = begin(node, real_file())
    incoming.write(bytes(15 << 20))
    full = os.statvfs_result((4096, 4096, 1000, 100, 100, 10, 10, 10, 0, 255))
    monkeypatch.setattr(spool_module.os, "statvfs", lambda _: full)
    with pytest.raises(SpoolFull, match="409600 bytes free, reserve is 1048576"):
        incoming.write(bytes(1 << 20))
    incoming.discard()


def test_object_larger_than_the_largest_is_refused_while_it_arrives(tmp_path: Path) -> None:
    node = make_node(tmp_path, largest_object_mb=1)
    incoming, _ = begin(node, real_file())
    incoming.write(bytes(1 << 20))
    with pytest.raises(SpoolFull, match=r"more than 1048576 bytes.*largest_object_mb"):
        incoming.write(b"\x00")
    incoming.discard()
    assert store(node, real_file()) is Receipt.STORED


def test_file_system_without_unnamed_files_is_refused_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(spool_module, "unnamed_file", unsupported)
    with pytest.raises(ConfigError, match="O_TMPFILE"):
        _ = make_node(tmp_path).spool


def test_what_is_stored_elsewhere_already_is_kept_although_it_cannot_be_read(node: Node) -> None:
    head, _ = arrives(node, real_file(), sop_class="", sop_instance="")
    receipts = [node.spool.keep(head, data_set) for data_set in (b"not DICOM", b"neither", b"not DICOM")]
    assert receipts == [Receipt.STORED, Receipt.STORED, Receipt.SAME_AGAIN]
    assert len(node.spool.names()) == 2
    anchorer = node.anchorer()
    anchorer.take_in()
    assert [len(node.spool.names(queue)) for queue in (INBOX, QUARANTINE)] == [0, 2]
    assert [alarm.kind for alarm in node.outbox.alarms()] == ["quarantine"] * 2


def test_half_of_the_reserve_is_for_what_is_stored_elsewhere_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(tmp_path, spool_reserve_mb=4)
    head, data_set = arrives(node, real_file())
    for megabytes, kept in ((3, True), (1, False)):
        free = os.statvfs_result((1 << 20, 1 << 20, 1000, 100, megabytes, 10, 10, 10, 0, 255))
        monkeypatch.setattr(spool_module.os, "statvfs", lambda _, free=free: free)
        with pytest.raises(SpoolFull, match="reserve is 4194304"):
            node.spool.check_room()
        if kept:
            assert node.spool.keep(head, data_set) is Receipt.STORED
        else:
            with pytest.raises(SpoolFull, match="reserve is 2097152"):
                node.spool.keep(head, data_set)


def test_the_holder_of_a_uid_is_known_before_and_after_it_is_taken_in(node: Node) -> None:
    head, data_set = arrives(node, real_file())
    assert node.spool.holder(head.sop_instance) is None
    node.spool.keep(head, data_set)
    spooled_as = node.spool.holder(head.sop_instance)
    drain(node)
    assert node.spool.names() == []
    assert node.spool.holder(head.sop_instance) == spooled_as == hashlib.sha256(data_set).digest()


def test_an_object_larger_than_the_largest_has_no_room(tmp_path: Path) -> None:
    node = make_node(tmp_path, largest_object_mb=1)
    node.spool.check_room(1 << 20)
    with pytest.raises(SpoolFull, match="largest_object_mb"):
        node.spool.check_room((1 << 20) + 1)
