"""No sequence of calls by research organisations alone turns a refused release into a permitted one."""

import dag_cbor
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.channel import OWNER, Channel, Memory, policy
from tests.ledger.contract_states import scenes
from tests.ledger.random_calls import RESEARCH, Draw, Drawn, call_one, crowded, permitted, releases
from tests.ledger.stories import Scene

SCENES = [scene for scene in scenes() if scene.state != "no policy"]
CASES, CASES_A_STATE = 100, 5


def now_permitted(channel: Channel) -> set[bytes]:
    return {dag_cbor.encode(release) for release in releases(channel) if permitted(channel, release)}


def check_research_alone(draw: Draw, channel: Channel) -> None:
    """Up to 12 calls of any function; whatever they did, nothing is permitted that was not before."""
    before = now_permitted(channel)
    for _ in range(draw.number(1, 12)):
        call_one(draw, channel, RESEARCH)
    assert now_permitted(channel) <= before


@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_research_organisations_alone_never_open_the_gate(data: st.DataObject) -> None:
    """100 cases, where there are requests in every state at once."""
    channel = crowded(Channel(Memory(policy()), policy()).init())
    assert len(now_permitted(channel)) == 3  # one study named, two of the dataset; each with what was anchored before
    check_research_alone(Drawn(data), channel)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.function}, {scene.state}")
@settings(max_examples=CASES_A_STATE, deadline=None)
@given(data=st.data())
def test_nor_do_they_in_any_state_of_the_table(scene: Scene, data: st.DataObject) -> None:
    """5 cases for each of the states."""
    channel, _ = scene.play(OWNER)
    check_research_alone(Drawn(data), channel)
