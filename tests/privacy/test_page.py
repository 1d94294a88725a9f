"""docs/privacy.md tells of every field that ledger and manifests have, and of no other."""

import re
from dataclasses import fields

import pytest

from orthanc_ledger.ledger.contract import FUNCTIONS
from orthanc_ledger.manifest import _ROOT_KEYS, Record
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
IN_EVERY_RECORD = {"by", "time", "sequence", "leaseEnd"}


def told(heading: str) -> set[str]:
    """The names in the first column of a section's table."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("heading", "there"),
    [
        ("On the ledger", {name for each in FUNCTIONS.values() for name in each.arguments} | IN_EVERY_RECORD),
        ("In IPFS", {field.name for field in fields(Record)} | _ROOT_KEYS),
    ],
)
def test_every_field_is_told(heading: str, there: set[str]) -> None:
    assert told(heading) == there
