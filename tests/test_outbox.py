"""Alarms and calls that wait for the ledger: none lost, none twice."""

from pathlib import Path

import pytest
from node_make import drain, make_node

from orthanc_ledger.outbox import Alarm, Outbox

NODE = {"organisation": "HospitalMSP", "aeTitle": "NODE"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path: Path) -> Outbox:
    return Outbox(path, lambda: 1000)


def test_same_alarm_stands_once(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("a", "a", "b"):
        outbox.alarm("conflict", "c1", text)
    assert outbox.alarms() == [Alarm(1000, "conflict", "c1", "a"), Alarm(1000, "conflict", "c1", "b")]
    assert caplog.messages == ["alarm: conflict"] * 2


def test_calls_survive_the_process_in_order_with_their_nonce_until_done(outbox: Outbox, path: Path) -> None:
    outbox.post("LogOutcome", {"release": b"r", "sent": 2})
    outbox.post("ReportConflict", {"study": b"s"}, nonce=b"n" * 16)
    again = Outbox(path, lambda: 0)
    assert [(call.function, call.args, call.nonce) for call in again.posted()] == [
        ("LogOutcome", {"release": b"r", "sent": 2}, None),
        ("ReportConflict", {"study": b"s"}, b"n" * 16),
    ]
    again.done(again.posted()[0])
    assert [call.function for call in outbox.posted()] == ["ReportConflict"]


def test_posted_gives_no_more_than_its_limit(outbox: Outbox) -> None:
    for number in range(5):
        outbox.post("LogOutcome", {"sent": number})
    assert [call.args["sent"] for call in outbox.posted(limit=2)] == [0, 1]


def test_call_posted_once_is_not_queued_again_even_when_done(outbox: Outbox) -> None:
    for _ in range(2):
        outbox.post("FlagTampered", {"n": 0}, once="tampered/1")
    [call] = outbox.posted()
    outbox.done(call)
    outbox.post("FlagTampered", {"n": 0}, once="tampered/1")
    assert outbox.posted() == []


def test_denials_are_counted_by_peer_and_reason_and_numbered_rising(outbox: Outbox, path: Path) -> None:
    for ae_title, reason in (("A", "no approval"), ("A", "no approval"), ("A", "withdrawn"), ("B", "no approval")):
        outbox.deny("ResearchMSP", ae_title, reason)
    outbox.post_denials(NODE)
    Outbox(path, lambda: 0).deny("ResearchMSP", "A", "no approval")
    outbox.post_denials(NODE)
    outbox.post_denials(NODE)
    reports = [call.args for call in outbox.posted()]
    told = sorted((report["peer"]["aeTitle"], report["reason"], report["count"]) for report in reports)
    assert told == [
        ("A", "no approval", 1),
        ("A", "no approval", 2),
        ("A", "withdrawn", 1),
        ("B", "no approval", 1),
    ]
    assert [report["seq"] for report in reports] == [1, 2, 3, 4]
    assert all(report["reportingNode"] == NODE for report in reports)


def test_denials_of_an_unregistered_peer_reach_the_ledger_without_its_name(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    for _ in range(3):
        node.outbox.deny("ResearchMSP", "STRANGER", "no approval")
    for _ in range(2):
        drain(node)
    assert (node.outbox.posted(), node.outbox.alarms()) == ([], [])
    told = node.ledger.query("Audit", {"organisation": node.config.organisation})
    assert "LogDenials" in repr(told)
    assert "STRANGER" not in repr(told)


def test_database_is_its_owners_only(outbox: Outbox, path: Path) -> None:
    outbox.alarm("conflict", "c", "t")
    assert {file.name: file.stat().st_mode & 0o077 for file in path.parent.glob("outbox.db*")} == {
        "outbox.db": 0,
        "outbox.db-shm": 0,
        "outbox.db-wal": 0,
    }
