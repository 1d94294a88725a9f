"""How a story is told: what happens on a channel until an organisation calls a function in some state."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.ledger.channel import Channel, Memory, policy

Args = dict[str, Any]
Story = Callable[[Channel, str], Args]
"""What happens on a channel before an organisation's call; the call's arguments."""

UNKNOWN = b"\x01" * 32


@dataclass(frozen=True)
class Scene:
    """One state, and the policy it plays under."""

    function: str
    state: str
    story: Story
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def called(self) -> str:
        return "RegisterNode" if self.function == "any" else self.function

    def play(self, organisation: str) -> tuple[Channel, Args]:
        """A channel in this state, and what the organisation calls next."""
        chosen = policy(**self.policy)
        channel = Channel(Memory(chosen), chosen)
        if self.state != "no policy":
            channel.init()
        return channel, self.story(channel, organisation)


class Book(dict[tuple[str, str], Story]):
    """Stories by function and state."""

    def state(self, function: str, *states: str) -> Callable[[Callable[..., Args]], Callable[..., Args]]:
        """Take in a story for states of a function; with several, it takes the state as its third argument."""

        def take(story: Callable[..., Args]) -> Callable[..., Args]:
            for name in states:
                self[function, name] = story if len(states) == 1 else _in_state(story, name)
            return story

        return take


def _in_state(story: Callable[..., Args], name: str) -> Story:
    return lambda channel, organisation: story(channel, organisation, name)


def own_node(organisation: str) -> dict[str, str]:
    return {"organisation": organisation, "aeTitle": "NODE"}
