"""Embedded ledger and Fabric do the same: long random stories, told to both side by side."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orthanc_ledger.ledger.contract import FUNCTIONS
from tests.fabric.on_fabric import OnFabric, network_of_tests
from tests.ledger.channel import Channel, Embedded, People, policy
from tests.ledger.random_calls import Dice
from tests.ledger.random_story import RandomStory
from tests.ledger.side_by_side import SAME, YES, SideBySide
from tests.ledger.test_contract_coverage import CODES, MAY_OCCUR

STORIES, CALLS = 8, 320  # a story has some 110 more at its two ends
LEAST_CALLS, LEAST_SUCCESS = 3000, 0.4


@pytest.mark.timeout(1800)  # with what is built the first time
def test_embedded_ledger_and_fabric_behave_as_one(
    tmp_path: Path, free_port: Callable[[], int], figure: Callable[[str], None]
) -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    people = People(tmp_path / "people")
    with network_of_tests(tmp_path / "network", free_port) as (network, persons):
        for number in range(STORIES):
            with (
                closing(Embedded(tmp_path / f"{number}.db", people, policy())) as embedded,
                closing(OnFabric(network, persons, f"story{number}")) as fabric,
            ):
                side = SideBySide(policy(), {"embedded": embedded, "fabric": fabric})
                RandomStory(Dice(random.Random(number)), Channel(side, policy())).tell(CALLS)
                side.compare_state()
                side.compare_events("fabric", [(each.name, each.record) for each in fabric.events(side.entries())])
                outcomes += side.outcomes
    total, succeeded = outcomes.total(), sum(outcomes[function, each] for function in FUNCTIONS for each in (YES, SAME))
    figure(f"differential test: {total} calls, {succeeded / total:.0%} succeed")
    figure(as_table(outcomes))
    assert total >= LEAST_CALLS
    assert succeeded / total >= LEAST_SUCCESS
    seen = {pair for pair in outcomes if pair[1] in CODES}
    assert seen == {(function, code) for function, codes in MAY_OCCUR.items() for code in codes if code != "SKEW"}
    assert {function for function, outcome in outcomes if outcome == YES} == set(FUNCTIONS)


def as_table(outcomes: Counter[tuple[str, str]]) -> str:
    """One line a function: how often it came to what."""
    columns = (YES, SAME, *(code for code in CODES if code != "SKEW"))
    lines = [" " * 20 + "".join(f"{column:>14}" for column in columns)]
    lines += [f"{name:<20}" + "".join(f"{outcomes[name, each] or '-':>14}" for each in columns) for name in FUNCTIONS]
    return "\n".join(lines)
