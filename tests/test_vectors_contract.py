"""The product's contract against the second implementation's vectors, and those against the table written by hand."""

import csv
import json
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

import dag_cbor
import pytest

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract import answer, apply
from orthanc_ledger.ledger.contract.call import Applied, Call, Caller, Event
from tests.second import make_contract_vectors
from tests.second.ledger import table
from tests.second.ledger.cast import COLUMNS
from tests.second.ledger.forms import FUNCTIONS

FOLDER = make_contract_vectors.FOLDER
FILES = sorted(make_contract_vectors.FILES)
CODES = "|".join(make_contract_vectors.CODES)


@dataclass
class Records:
    """Every write of every key, in memory; the host of one ledger."""

    rows: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    commits: int = 0

    def get(self, key: str) -> Any:
        return self.rows[key][-1][1] if key in self.rows else None

    def scan(self, prefix: str, after: str = "") -> Iterator[tuple[str, Any]]:
        for key in sorted(self.rows):
            if key.startswith(prefix) and key > after:
                yield key, self.get(key)

    def history(self, key: str) -> Iterator[tuple[int, Any]]:
        yield from self.rows.get(key, [])

    def write(self, applied: Applied, sequence: int) -> None:
        self.commits = sequence
        for key, value in applied.changes.items():
            self.rows.setdefault(key, []).append((sequence, value))

    def whole(self) -> dict[str, Any]:
        return {key: rows[-1][1] for key, rows in self.rows.items()}


def plain(value: Any) -> Any:
    """A vector's value: DAG-JSON bytes as bytes."""
    if isinstance(value, dict):
        if value.keys() == {"/"}:
            encoded = value["/"]["bytes"]
            return b64decode(encoded + "=" * (-len(encoded) % 4))
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@cache
def all_stories() -> dict[str, dict[str, Any]]:
    """Every story on disk by its name."""
    files = (json.loads((FOLDER / f"{name}.json").read_text()) for name in FILES)
    return {story["name"]: plain(story) for stories in files for story in stories}


@cache
def told(name: str) -> tuple[Records, dict[str, Any]]:
    """The ledger as a story leaves it, and the policy it was started with."""
    story = all_stories()[name]
    records, policy = beginning(story)
    tell(story, records, policy)
    return records, policy


def beginning(story: dict[str, Any]) -> tuple[Records, dict[str, Any]]:
    """The ledger that a story begins on, and the policy it was started with."""
    if "start" not in story:
        return Records(), story["policy"]
    before, policy = told(story["start"])
    return Records({key: list(rows) for key, rows in before.rows.items()}, before.commits), policy


def tell(story: dict[str, Any], records: Records, policy: dict[str, Any]) -> None:
    """Makes the product take every step, and compares each outcome."""
    started_with = sha256(dag_cbor.encode(policy)).digest()
    for number, step in enumerate(story["steps"]):
        where = f"{story['name']}, step {number}: {step.get('function') or step['query']}"
        if "query" in step:
            same(asked(step, records), step["then"], where)
            continue
        caller = Caller(step["by"], step.get("assurance", "person"), step.get("serial", "1"))
        times = (step["at"], step.get("host_at", step["at"]), records.commits + 1)
        call = Call(step["function"], step["args"], step.get("nonce", bytes(16)), caller, *times, started_with)
        same(take(call, records), step["then"], where)


def same(came: Any, expected: Any, where: str) -> None:
    """Compares as the ledger keeps them: to Python true is 1."""
    assert came == expected, where
    assert dag_cbor.encode(came) == dag_cbor.encode(expected), where


def take(call: Call, records: Records) -> dict[str, Any]:
    """What the product makes of a call, as the vectors say it; its changes are written."""
    try:
        applied = apply(records, call)
    except ContractError as error:
        return {"error": [error.code, error.field]}
    if applied.repeats is not None:
        assert (applied.changes, applied.event) == ({}, None)
        return {"result": applied.result, "repeats": next(records.history(applied.repeats))[0]}
    records.write(applied, call.sequence)
    assert applied.event == Event(call.function, records.get(f"event/{call.sequence:020d}"))
    return {"result": applied.result, "sequence": call.sequence}


def asked(step: dict[str, Any], records: Records) -> dict[str, Any]:
    """What the product answers to a query, as the vectors say it."""
    try:
        return {"answer": answer(records, step["query"], step["args"], step["at"])}
    except ContractError as error:
        return {"error": [error.code, error.field]}


@pytest.mark.parametrize("name", FILES)
def test_the_product_tells_every_story_as_the_second_implementation_does(name):
    for story in json.loads((FOLDER / f"{name}.json").read_text()):
        before, _ = beginning(all_stories()[story["name"]])
        after, _ = told(story["name"])
        same(after.whole(), before.whole() | plain(story["state"]), story["name"])


def test_true_is_not_taken_for_one():
    with pytest.raises(AssertionError, match="here"):
        same({"permitted": 1}, {"permitted": True}, "here")


def test_the_table_written_by_hand_is_what_the_second_implementation_does():
    with (FOLDER / "table.csv").open(newline="") as file:
        by_hand = {
            (row["function"], row["state"], column): row[column] for row in csv.DictReader(file) for column in COLUMNS
        }
    assert {(function, state, column): came for function, state, column, came, _ in table.cells()} == by_hand


@pytest.mark.parametrize("name", FILES)
def test_the_committed_vectors_are_what_the_second_implementation_makes(name):
    assert (FOLDER / f"{name}.json").read_text() == make_contract_vectors.text(name)


def rules() -> dict[str, str]:
    """For each function the page's column *refused*; for LogRelease the text that it points to."""
    page = (FOLDER.parents[2] / "docs" / "contract.md").read_text()
    section = page.split("## Functions", 1)[1].split("## Queries", 1)[0]
    texts = dict(re.findall(r"^\| `(\w+)`.*? \| .+? \| .+? \| .+? \| (.+) \|$", section, re.MULTILINE))
    assert texts.keys() == FUNCTIONS.keys()
    return texts | {"LogRelease": section.split("**LogRelease** is the decision", 1)[1].split("\n\n", 1)[0]}


def refusals() -> Counter[tuple[str, str, str]]:
    """How many calls of the vectors are refused, by function, code and field."""
    calls = [step for story in all_stories().values() for step in story["steps"] if step.get("function") in FUNCTIONS]
    return Counter((call["function"], *call["then"]["error"]) for call in calls if "error" in call["then"])


def test_the_vectors_show_every_error_that_the_page_permits_and_no_other():
    permitted = {
        (function, code) for function in FUNCTIONS for code in ("INVALID", "WRONG_STATE", "SKEW", "NOT_PERMITTED")
    }
    permitted -= {("InitPolicy", "WRONG_STATE")}  # it brings the policy
    permitted |= {(function, code) for function, text in rules().items() for code in re.findall(rf"`({CODES})\b", text)}
    assert {(function, code) for function, code, _ in refusals()} == permitted


def test_the_vectors_show_every_field_that_the_page_names_with_an_error():
    named = {
        (function, code, field)
        for function, text in rules().items()
        for code, field in re.findall(rf"`({CODES})\s(\w+)`", text)
    }
    named |= {
        (function, "WRONG_STATE", state)
        for function, text in rules().items()
        for states in re.findall(r"`WRONG_STATE` (\w+(?:, \w+)*)", text)
        for state in states.split(", ")
    }
    assert named <= refusals().keys()


def test_every_function_commits_and_is_repeated_somewhere():
    calls = [step for story in all_stories().values() for step in story["steps"] if "function" in step]
    for kind in ("sequence", "repeats"):
        assert {call["function"] for call in calls if kind in call["then"]} == FUNCTIONS.keys()
