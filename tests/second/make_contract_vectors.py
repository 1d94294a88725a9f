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
    stories_custody,
    stories_datasets,
    stories_erasure,
    stories_general,
    stories_nodes,
    stories_policies,
    stories_queries,
    stories_releases,
    stories_reports,
    stories_requests,
    table,
)
from tests.second.ledger.forms import FUNCTIONS
from tests.second.ledger.story import Json, Story

FOLDER = Path(__file__).parents[1] / "vectors" / "contract"
CODES = ("NOT_FOUND", "NOT_PERMITTED", "WRONG_STATE", "EXPIRED", "CONFLICT", "INVALID", "SKEW")

FILES: dict[str, Callable[[], list[Story]]] = {
    "openings": openings.all_openings,
    "table": lambda: [story for *_, story in table.cells()],
    "general": stories_general.stories,
    "arguments": arguments.stories,
    "custody": stories_custody.stories,
    "erasure": stories_erasure.stories,
    "nodes": stories_nodes.stories,
    "datasets": stories_datasets.stories,
    "policies": stories_policies.stories,
    "requests": stories_requests.stories,
    "releases": stories_releases.stories,
    "reports": stories_reports.stories,
    "queries": stories_queries.stories,
}


@cache
def stories(name: str) -> list[Story]:
    """A file's stories."""
    return FILES[name]()


def text(name: str) -> str:
    """A file's whole text."""
    return "[\n" + ",\n".join(story.text() for story in stories(name)) + "\n]\n"


def coverage() -> str:
    """How many calls of each function commit, are recognised as repeats, or are refused, by code; a line a function."""
    steps = [step for name in FILES for story in stories(name) for step in story.steps]
    came = Counter((step["function"], _outcome(step["then"])) for step in steps if "function" in step)
    columns = ("yes", "same", *CODES)
    lines = [f"{'':20}" + "".join(f"{column:>14}" for column in columns)]
    for function in FUNCTIONS:
        counted = (came[function, column] or "." for column in columns)
        lines.append(f"{function:20}" + "".join(f"{number:>14}" for number in counted))
    calls, refused = came.total(), sum(number for (_, column), number in came.items() if column in CODES)
    told = sum(len(stories(name)) for name in FILES)
    lines.append(f"{told} stories, {calls} calls, of them {refused} refused, {len(steps) - calls} queries")
    return "\n".join(lines)


def _outcome(then: Json) -> str:
    if "error" in then:
        return then["error"][0]
    return "same" if "repeats" in then else "yes"


if __name__ == "__main__":
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text(name))
    print(coverage())
