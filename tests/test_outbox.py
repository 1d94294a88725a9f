"""Alarms and calls that wait for the ledger: none lost, none twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from node_make import drain, make_node

from orthanc_ledger.outbox import Alarm, Notice, Outbox

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


def test_each_new_alarm_has_one_notice_that_stays_until_dropped_and_no_id_comes_again(
    outbox: Outbox, path: Path
) -> None:
    for text in ("a", "a", "b"):
        outbox.alarm("conflict", "c1", text)
    outbox.settle("c1", kind="conflict")
    assert outbox.notices(0) == [Notice(1, 1000, "conflict", "a"), Notice(2, 1000, "conflict", "b")]
    outbox.drop_notices(2)
    again = Outbox(path, lambda: 2000)
    again.alarm("conflict", "c1", "a")  # anew, as it was taken back
    assert again.notices(0) == again.notices(2) == [Notice(3, 2000, "conflict", "a")]
    assert again.notices(3) == []


def test_notices_come_in_pages(outbox: Outbox) -> None:
    for n in range(5):
        outbox.alarm("integrity", f"c{n}", "t")
    assert [notice.id for notice in outbox.notices(1, limit=3)] == [2, 3, 4]


def test_an_alarm_whose_notice_cannot_be_kept_does_not_stand(outbox: Outbox, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON notices BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(sqlite3.DatabaseError, match="disk full"):
        outbox.alarm("integrity", "c", "t")
    assert (outbox.alarms(), outbox.notices(0)) == ([], [])


def test_alarms_are_settled_by_the_unit_they_name_or_by_kind_and_no_others(outbox: Outbox) -> None:
    standing = [
        ("conflict", "c", "about c.1"),
        ("conflict", "c", "about c.2"),
        ("integrity", "c", "i"),
        ("index", "d", ""),
    ]
    for alarm in standing:
        outbox.alarm(*alarm)
    outbox.settle("c", "c.1")
    assert [alarm.text for alarm in outbox.alarms()] == ["about c.2", "i", ""]
    outbox.settle("c", kind="integrity")
    assert [alarm.text for alarm in outbox.alarms()] == ["about c.2", ""]
    outbox.settle("c", kind="index")
    assert [alarm.kind for alarm in outbox.alarms()] == ["conflict", "index"]


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


def test_a_call_waits_once_under_its_name_and_may_come_again_when_it_was_answered(outbox: Outbox, path: Path) -> None:
    for observed in (1, 2):
        outbox.post("FlagTampered", {"observed": observed}, unanswered="tampered/1")
    outbox.post("FlagTampered", {"observed": 3}, unanswered="tampered/2")
    first, other = Outbox(path, lambda: 0).posted()
    assert (first.args["observed"], other.args["observed"]) == (1, 3)
    assert outbox.waits("tampered/1")
    outbox.done(first)
    assert (outbox.waits("tampered/1"), outbox.waits("tampered/2")) == (False, True)
    outbox.post("FlagTampered", {"observed": 4}, unanswered="tampered/1")
    assert [call.args["observed"] for call in outbox.posted()] == [3, 4]


def test_an_amended_call_keeps_its_place_its_name_and_its_new_arguments(outbox: Outbox, path: Path) -> None:
    outbox.post("FlagTampered", {"observed": None}, nonce=b"n" * 16, unanswered="tampered/1")
    outbox.post("LogOutcome", {})
    amended = outbox.amend(outbox.posted()[0], {"observed": None, "n": 2})
    assert Outbox(path, lambda: 0).posted()[0] == amended
    assert (amended.args, amended.nonce, outbox.waits("tampered/1")) == ({"observed": None, "n": 2}, b"n" * 16, True)


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
