"""What is written down while Orthanc stores an object counts for who sent it, and for nobody else."""

import ctypes
import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from node_make import make_node, part10, real_file

from orthanc_ledger.arrival import read_head
from orthanc_ledger.assemble import Node
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.plugin.pending import Pending
from orthanc_ledger.sender import Sender

_LIBC = ctypes.CDLL(None)

FIRST = Sender("addressed-ae", "MRI1", "PACS", "dicom://192.0.2.1", "dicom://here:4242")
OTHER = replace(FIRST, peer="dicom://192.0.2.2")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def peers(node: Node) -> list[str]:
    found = []
    for name in node.spool.names():
        with node.spool.open(name) as unit:
            found.append(read_head(unit).arrival.peer)
    return found


@pytest.mark.parametrize("expected", [FIRST, OTHER, None], ids=["the expected sender", "another", "nobody expected"])
def test_the_record_says_who_sent_it_whoever_was_expected(
    node: Node, workers: ThreadPoolExecutor, expected: Sender | None
) -> None:
    pending = Pending(part10(real_file()), node.spool, workers)
    if expected:
        pending.begin(expected)
    _, receipt = pending.keep(FIRST)
    assert receipt is Receipt.STORED
    assert peers(node) == [FIRST.peer]
    _, again = pending.keep(OTHER)
    assert again is Receipt.SAME_AGAIN
    assert peers(node) == [FIRST.peer]


def test_what_comes_as_a_second_begins_is_not_older_than_orthanc_dates_it(
    node: Node, workers: ThreadPoolExecutor
) -> None:
    spool, until = node.spool, int(time.time()) + 2
    while time.time() < until + 0.01:  # the clock that Orthanc dates by goes on by the tick, of 10 ms at most
        if time.time() > until - 0.001:
            pending = Pending(b"", spool, workers)
            assert int(pending.since_s) <= _LIBC.time(None)


def test_what_is_dropped_or_not_used_leaves_nothing(node: Node, workers: ThreadPoolExecutor) -> None:
    _ = node.spool
    workers.submit(node.index.claimed, "").result()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        pending = Pending(part10(real_file()), node.spool, workers)
        pending.begin(OTHER)
        pending.drop()
        pending.drop()
    used = Pending(part10(real_file()), node.spool, workers)
    used.begin(OTHER)
    used.keep(FIRST)
    workers.submit(int).result()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert len(node.spool.names()) == 1


def test_an_index_that_cannot_be_read_costs_no_descriptor(
    node: Node, workers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    times, before = 20, len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(node.index, "claimed", unreadable)
    for _ in range(times):
        with pytest.raises(sqlite3.OperationalError):
            Pending(part10(real_file()), node.spool, workers).keep(FIRST)
    assert len(os.listdir("/proc/self/fd")) < before + times


def test_a_spool_without_room_is_asked_again_when_the_object_is_stored(
    node: Node, workers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = node.spool.folder / "inbox"
    inbox.rename(inbox.with_name("gone"))
    pending = Pending(part10(real_file()), node.spool, workers)
    pending.begin(FIRST)
    workers.submit(int).result()
    inbox.with_name("gone").rename(inbox)
    assert pending.keep(FIRST)[1] is Receipt.STORED
