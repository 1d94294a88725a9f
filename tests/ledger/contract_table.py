"""What every function says to every role in every state, found out by running the contract.

`python -m tests.ledger.contract_table` writes the table into docs/contract.md.
"""

from collections.abc import Iterator
from pathlib import Path

from orthanc_ledger.errors import ContractError
from tests.ledger.channel import ROLES
from tests.ledger.contract_states import scenes
from tests.ledger.stories import Scene

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contract.md"
BEGIN, END = "<!-- table: generated, do not edit -->\n", "<!-- end of table -->"
COLUMNS = ("owner", "custodian", "research", "other research")
HEAD = f"""
## Every function, state and role

As the code has it (`python -m tests.ledger.contract_table` writes this section): {{count}} cells. Requests, nodes and
releases are those of *research*; where another party did something before, it was the owner. `yes`: committed; `same`:
recognised as a repeat; else the refusal.

| function | state | {" | ".join(COLUMNS)} |
|{"---|" * (2 + len(COLUMNS))}
"""

Row = tuple[str, str, tuple[str, ...]]


def rows() -> Iterator[Row]:
    """(function, state, what each of the columns is told)."""
    for scene in scenes():
        yield scene.function, scene.state, tuple(cell(scene, organisation) for organisation in ROLES)


def cell(scene: Scene, organisation: str) -> str:
    """`yes`, `same`, or the refusal's code and field."""
    channel, args = scene.play(organisation)
    caller = "StrangerMSP" if scene.state == "outside the policy" else organisation
    try:
        channel.call(caller, scene.called, **args)
    except ContractError as refusal:
        return f"{refusal.code} {refusal.field}"
    return "yes" if channel.host.last.repeats is None else "same"


def section() -> str:
    """The generated section of docs/contract.md."""
    table = list(rows())
    lines = [f"| `{function}` | {state} | {' | '.join(cells)} |\n" for function, state, cells in table]
    return HEAD.format(count=len(table) * len(COLUMNS)) + "".join(lines)


def replaced(page: str) -> str:
    """The page with the section as the code has it now, at its end when there is none."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] or "\n"
    return f"{before.rstrip()}\n\n{BEGIN}{section()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
