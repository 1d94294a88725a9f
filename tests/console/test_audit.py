"""Auditors see the ledger's records by what they ask for, and export exactly these."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from gate_world import World, make_world
from node_make import anchoring

from orthanc_ledger.audit_export import CSV_COLUMNS
from orthanc_ledger.config import Console
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.web.console import records
from orthanc_ledger.web.console.records import PAGE
from tests.console.world import Answer, Client, opened

FORMULA, MARKUP = "=1+1", "<b>AE</b>"


class Story:
    """A ledger on which a study was released; one request of two, and nodes with hostile titles."""

    def __init__(self, world: World, auditor: Client) -> None:
        self.world, self.auditor = world, auditor
        for title in (FORMULA, MARKUP, "@SUM(A1)", "+1", "-1"):
            args = {"aeTitle": title, "role": "research", "certDigests": []}
            world.ledger("research").submit("RegisterNode", args)
        self.request, self.other = world.request(), world.request(days=5)
        world.approve(self.request, "owner", "custodian")
        world.approve(self.other, "owner", days=5)
        plan = world.plan()
        plan.close()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [dict(event) for event in all_rows(self.world.ledger("owner"), "Audit", {})]

    def csv(self, **asked: str) -> list[dict[str, str]]:
        answer = self.auditor.get("/audit.csv", **asked)
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.csv"'
        return list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("audited")
    world = make_world(folder / "hospital")
    with opened(world.node.config, Console(folder / "accounts")) as desk:
        desk.account("auditor", "auditor")
        yield Story(world, desk.client("auditor"))


def functions(answer: Answer) -> set[str]:
    """The functions of the records on a page."""
    return {row.split("</td>")[1].removeprefix("<td>") for row in answer.html.split("<tr>")[2:]}


def test_without_a_question_the_latest_week_is_shown(story: Story) -> None:
    answer = story.auditor.get("/audit")
    assert {"Anchor", "RequestAccess", "LogRelease"} <= functions(answer)
    assert 'name="first" type="datetime-local" value="20' in answer.html


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"function": "Approve"}, {"Approve"}),
        ({"organisation": "CustodianMSP"}, {"Approve", "ConfirmNode"}),
        ({"organisation": "CustodianMSP", "function": "Approve"}, {"Approve"}),
        ({"last": "2020-01-01T00:00"}, set()),
        ({"first": "2090-01-01T00:00"}, set()),
    ],
)
def test_records_are_picked_by_what_is_asked(story: Story, asked: dict[str, str], expected: set[str]) -> None:
    assert functions(story.auditor.get("/audit", **asked)) == expected
    assert {row["function"] for row in story.csv(**asked)} == expected


def test_a_study_is_named_by_uid_or_token(story: Story) -> None:
    token = story.world.node.keyring.ensure_study(story.world.study_uid).token.hex()
    by_uid, by_token = (story.csv(study=each) for each in (story.world.study_uid, token))
    assert by_uid == by_token
    assert {"Anchor", "RequestAccess", "Approve", "LogRelease"} <= {row["function"] for row in by_uid}
    assert "RegisterNode" not in {row["function"] for row in by_uid}


def test_a_requests_records_are_all_that_came_of_it(story: Story) -> None:
    [release] = [event for event in story.events if event["function"] == "LogRelease"]
    outcome = {"release": release["result"]["release"], "sent": 1, "withheld": 0, "bitmapDigest": bytes(32)}
    story.world.ledger("owner", "node").submit("LogOutcome", outcome)
    rows = story.csv(request=release["args"]["request"].hex())
    assert [row["function"] for row in rows] == ["RequestAccess", "Approve", "Approve", "LogRelease", "LogOutcome"]


@pytest.mark.parametrize(
    "asked",
    [{"study": "1.2.3"}, {"request": "xyz"}, {"first": "yesterday"}, {"organisation": "no such one!"}],
    ids=str,
)
def test_what_cannot_be_asked_is_said(story: Story, asked: dict[str, str]) -> None:
    answer = story.auditor.get("/audit", **asked)
    assert (answer.status, 'role="alert"' in answer.html) == (422, True)
    assert story.auditor.get("/audit.csv", **asked).status in (404, 409)


def test_the_csv_holds_each_record_and_no_formula(story: Story) -> None:
    rows = story.csv(first="2020-01-01")
    assert [int(row["sequence"]) for row in rows] == [event["sequence"] for event in story.events]
    assert tuple(rows[0]) == CSV_COLUMNS
    cells = [cell for row in rows for cell in row.values()]
    assert any(FORMULA in cell for cell in cells)
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


def test_the_audit_events_are_as_fhir_has_them(story: Story) -> None:
    answer = story.auditor.get("/audit.ndjson", function="LogRelease")
    assert answer.headers["Content-Type"] == "application/fhir+ndjson"
    lines = [json.loads(line) for line in answer.body.decode().splitlines()]
    assert [AuditEvent.model_validate(line).action for line in lines] == ["R"]


def test_titles_of_others_are_text(story: Story) -> None:
    answer = story.auditor.get("/audit", function="RegisterNode")
    assert MARKUP in answer.text
    assert MARKUP not in answer.html


def test_many_records_come_page_by_page(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = story.world.ledger("owner", "node")
    for number in range(PAGE + 5):
        ledger.submit("Anchor", anchoring(block_cid(b"%d" % number)))
    monkeypatch.setattr(records, "_MOST_READ", 30)  # a page may end before it is full
    seen: list[int] = []
    answer = story.auditor.get("/audit", function="Anchor")
    for _ in range(20):
        seen += [int(row.split("</bdi>")[0].rpartition(">")[2]) for row in answer.html.split("<tr>")[2:]]
        if "Go on" not in answer.text:
            break
        answer = story.auditor.get(answer.html.split('">Go on</a>')[0].rpartition('href="')[2].replace("&amp;", "&"))
    assert seen == [event["sequence"] for event in story.events if event["function"] == "Anchor"]


def test_an_export_of_a_ledger_that_is_away_is_no_empty_file(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    path = story.world.folder / "node" / "data" / "ledger.db"
    away = path.rename(path.with_suffix(".away"))
    try:
        assert story.auditor.get("/audit.csv", function="Anchor").status == 503
    finally:
        away.rename(path)
