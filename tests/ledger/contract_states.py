"""Every function of the contract in every state of what it is about, as short stories that end right before the call.

The names of functions and states are those of docs/contract.md's table and of tests/vectors/contract/table.csv. Where
another party did something before, it was the owner unless the state says otherwise.
"""

from collections.abc import Iterator

from orthanc_ledger.ledger.contract import FUNCTIONS
from tests.ledger import stories_of_access, stories_of_custody
from tests.ledger.stories import Scene, Story

STORIES: dict[tuple[str, str], Story] = {**stories_of_custody.STORIES, **stories_of_access.STORIES}
POLICIES = {("LogRelease", "not stored"): {"require_stored": True}, ("any", "clock skew"): {"max_clock_skew_s": 60}}


def scenes() -> Iterator[Scene]:
    """In the order of the functions; `any` stands for what every call goes through."""
    for called in (*FUNCTIONS, "any"):
        for (function, state), story in STORIES.items():
            if function == called:
                yield Scene(function, state, story, POLICIES.get((function, state), {}))
