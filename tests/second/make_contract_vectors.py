"""Makes `tests/vectors/contract/*.json` with the second implementation alone.

python -m tests.second.make_contract_vectors   writes all files and prints what they hold
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.second.ledger import (
    arguments,
    openings,
    stories_access,
    stories_custody,
    stories_general,
    stories_parties,
    stories_queries,
    table,
)
from tests.second.ledger.story import Story

FOLDER = Path(__file__).parents[1] / "vectors" / "contract"

FILES: dict[str, Callable[[], list[Story]]] = {
    "openings": openings.all_openings,
    "general": stories_general.stories,
    "custody": stories_custody.stories,
    "erasure": stories_custody.erasure_stories,
    "parties": stories_parties.stories,
    "access": stories_access.stories,
    "releases": stories_access.release_stories,
    "queries": stories_queries.stories,
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


def counts() -> tuple[int, int, int, Counter[str]]:
    """Stories, calls, queries, and calls refused by code."""
    told = [story for name in FILES for story in stories(name)]
    steps = [step for story in told for step in story.steps]
    calls = [step for step in steps if "function" in step]
    refused = Counter(step["then"]["error"][0] for step in calls if "error" in step["then"])
    return len(told), len(calls), len(steps) - len(calls), refused


if __name__ == "__main__":
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text(name))
    told, calls, queries, refused = counts()
    codes = ", ".join(f"{number} {code}" for code, number in sorted(refused.items()))
    print(f"{told} stories, {calls} calls, {queries} queries; refused: {codes}")
