"""Which function can be refused with which code: by the page; and that vectors and stories show every such refusal."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from orthanc_ledger.ledger.contract import FUNCTIONS
from tests.ledger.contract_table import rows

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "contract"
CODES = ("NOT_FOUND", "NOT_PERMITTED", "WRONG_STATE", "EXPIRED", "CONFLICT", "INVALID", "SKEW")
ALWAYS = {"NOT_PERMITTED", "WRONG_STATE", "INVALID", "SKEW"}  # WRONG_STATE policy at least
FOUND = ALWAYS | {"NOT_FOUND"}

# Written by hand from the tables of docs/contract.md.
MAY_OCCUR: dict[str, set[str]] = {
    "InitPolicy": ALWAYS - {"WRONG_STATE"},
    "ProposePolicy": ALWAYS,
    "ConfirmPolicy": FOUND,
    "Anchor": ALWAYS | {"CONFLICT"},
    "ConfirmStored": FOUND,
    "ReportConflict": ALWAYS,
    "Supersede": FOUND,
    "ConfirmSupersede": FOUND,
    "Withdraw": ALWAYS,
    "Reinstate": FOUND,
    "FlagTampered": FOUND | {"CONFLICT"},
    "Resolve": FOUND,
    "ReportRepair": ALWAYS,
    "RegisterNode": ALWAYS,
    "ConfirmNode": FOUND,
    "RevokeNode": FOUND,
    "RegisterDataset": ALWAYS | {"CONFLICT"},
    "WithdrawDataset": FOUND,
    "RequestAccess": FOUND,
    "Approve": FOUND | {"EXPIRED"},
    "Deny": FOUND,
    "Revoke": FOUND,
    "LogRelease": FOUND | {"EXPIRED"},
    "LogOutcome": FOUND,
    "LogDenials": FOUND | {"CONFLICT"},
    "LogRetrieval": FOUND | {"CONFLICT"},
    "ReportTamper": FOUND | {"CONFLICT"},
    "RequestErase": ALWAYS,
    "CancelErase": ALWAYS,
    "ConfirmErase": ALWAYS,
    "ErasureDone": ALWAYS,
    "Cancel": FOUND,
    "RevokeCertificate": ALWAYS,
    "RegisterTrainingRun": FOUND,
    "RegisterModel": FOUND,
}

Refusal = tuple[str, str]


def in_vectors() -> Iterator[Refusal]:
    """(function, code) of every refused call of the vectors; some steps are queries, some call what does not exist."""
    for path in sorted(VECTORS.glob("*.json")):
        for story in json.loads(path.read_text(encoding="utf-8")):
            called = (step for step in story["steps"] if step.get("function") in FUNCTIONS)
            refused = (step for step in called if "error" in step["then"])
            yield from ((step["function"], step["then"]["error"][0]) for step in refused)


def in_stories() -> Iterator[Refusal]:
    for function, _, cells in rows():
        yield from ((function, cell.split()[0]) for cell in cells if " " in cell and function != "any")


def as_table(seen: Counter[Refusal]) -> str:
    """One line a function: how often each code was seen, `-` where it cannot occur, `HOLE` where it was missed."""

    def cell(function: str, code: str) -> str:
        missing = "HOLE" if code in MAY_OCCUR[function] else "-"
        return str(seen[function, code] or missing)

    lines = [" " * 20 + "".join(f"{code:>14}" for code in CODES)]
    lines += [f"{function:<20}" + "".join(f"{cell(function, code):>14}" for code in CODES) for function in MAY_OCCUR]
    return "\n".join(lines)


def test_every_function_is_in_the_table() -> None:
    assert set(MAY_OCCUR) == set(FUNCTIONS)


def test_every_refusal_the_page_permits_is_shown_and_no_other(figure: Callable[[str], None]) -> None:
    seen = Counter([*in_vectors(), *in_stories()])
    expected = {(function, code) for function, codes in MAY_OCCUR.items() for code in codes}
    figure(f"refusals of the contract in vectors and stories: {len(expected)} pairs can occur")
    figure(as_table(seen))
    assert set(seen) == expected
