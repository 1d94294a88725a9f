"""The table function × state × role: the code, docs/contract.md and the one written by hand say the same."""

import csv
from pathlib import Path

import pytest

from orthanc_ledger.ledger.contract import FUNCTIONS
from tests.ledger.contract_table import COLUMNS, PAGE, Row, replaced, rows

BY_HAND = Path(__file__).resolve().parents[1] / "vectors" / "contract" / "table.csv"


@pytest.fixture(scope="module")
def table() -> list[Row]:
    return list(rows())


def test_every_function_is_in_the_table(table: list[Row]) -> None:
    assert {function for function, _, _ in table} == {*FUNCTIONS, "any"}


def test_the_page_shows_what_the_code_does() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == replaced(page), "run `python -m tests.ledger.contract_table`"


def test_the_code_does_what_was_written_by_hand_from_the_page(table: list[Row]) -> None:
    with BY_HAND.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == ("function", "state", *COLUMNS)
    assert {(line[0], line[1]): tuple(line[2:]) for line in lines} == {(row[0], row[1]): row[2] for row in table}
