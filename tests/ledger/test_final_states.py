"""Nothing leaves a final state, and what is written once is never written again: random calls by everybody."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.channel import DAY, OWNER, Channel, Memory, policy
from tests.ledger.contract_states import scenes
from tests.ledger.contract_table import PAGE
from tests.ledger.random_calls import EVERYBODY, Draw, Drawn, approve_every_request, call_one, crowded
from tests.ledger.stories import Scene

SCENES = [scene for scene in scenes() if scene.state != "no policy"]
CASES, CASES_A_STATE = 100, 5
FINAL = {
    "request/": ("denied", "revoked"),
    "policyProposal/": ("confirmed", "cancelled"),
    "supersede/": ("confirmed", "cancelled"),
    "withdrawal/": ("reinstated",),
    "erasure/": ("erased",),
}
ONCE = tuple(re.findall(r"`(\w+/)[A-Z/]+` ·", PAGE.read_text(encoding="utf-8")))
"""Kinds of records that are written once, as the page marks them: withdrawn datasets and resolved flags among them."""


def final(channel: Channel) -> dict[str, Any]:
    """Every record that may never change again."""
    records = {key: record for kind in (*FINAL, *ONCE) for key, record in channel.host.scan(kind)}

    def is_final(key: str, record: Any) -> bool:
        states = FINAL.get(key.partition("/")[0] + "/")
        return states is None or record["state"] in states

    return {key: record for key, record in records.items() if is_final(key, record)}


def check_final(draw: Draw, channel: Channel) -> None:
    """Up to 20 calls, seconds and days apart; at last both parties approve every request."""
    finished = final(channel)
    for _ in range(draw.number(1, 20)):
        channel.wait(draw.one_of([0, 1, 8 * DAY]))
        call_one(draw, channel, EVERYBODY)
        assert {key: channel.host.get(key) for key in finished} == finished
        finished = final(channel)
    approve_every_request(channel)
    assert {key: channel.host.get(key) for key in finished} == finished
    assert all(len([*channel.host.history(key)]) == 1 for key in finished if key.startswith(ONCE))


def test_the_page_marks_what_is_written_once() -> None:
    assert len(ONCE) == len(set(ONCE)) == 36
    assert not set(ONCE) & set(FINAL)


@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_nothing_leaves_a_final_state(data: st.DataObject) -> None:
    """100 cases, where there are requests in every state at once."""
    check_final(Drawn(data), crowded(Channel(Memory(policy()), policy()).init()))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.function}, {scene.state}")
@settings(max_examples=CASES_A_STATE, deadline=None)
@given(data=st.data())
def test_nor_does_it_from_any_state_of_the_table(scene: Scene, data: st.DataObject) -> None:
    """5 cases for each of the states."""
    channel, _ = scene.play(OWNER)
    check_final(Drawn(data), channel)
