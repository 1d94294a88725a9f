"""Makes `tests/vectors/contract/*.json` with the second implementation alone.

python -m tests.second.make_contract_vectors   writes all files and prints what they hold
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.second.ledger import arguments, openings, stories_general, table
from tests.second.ledger.story import Story

FOLDER = Path(__file__).parents[1] / "vectors" / "contract"

FILES: dict[str, Callable[[], list[Story]]] = {
    "openings": openings.all_openings,
    "general": stories_general.stories,
    "arguments": arguments.stories,
    "table": lambda: [story for *_, story in table.cells()],
}


@cache
def stories(name: str) -> list[Story]:
    """A file's stories."""
    return FILES[name]()


def text(name: str) -> str:
    """A file's whole text."""
    return "[\n" + ",\n".join(story.text() for story in stories(name)) + "\n]\n"


def counts() -> tuple[int, int, Counter[str]]:
    """Stories, steps, and calls refused by code."""
    told = [story for name in FILES for story in stories(name)]
    steps = [step for story in told for step in story.steps]
    return len(told), len(steps), Counter(step["then"]["error"][0] for step in steps if "error" in step["then"])


if __name__ == "__main__":
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text(name))
    told, steps, refused = counts()
    print(f"{told} stories, {steps} steps, refused: " + ", ".join(f"{n} {code}" for code, n in sorted(refused.items())))
