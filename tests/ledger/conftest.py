"""Channels to test on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.channel import Channel, Embedded, Memory, People, policy


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("organisations"))


@pytest.fixture(params=["memory", "embedded"])
def new_channel(request: pytest.FixtureRequest, tmp_path: Path, people: People) -> Iterator[Callable[..., Channel]]:
    """Make a channel under a policy (arguments: fields other than the default), on every host there is."""
    hosts: list[Embedded] = []

    def make(**fields: Any) -> Channel:
        chosen = policy(**fields)
        if request.param == "memory":
            return Channel(Memory(chosen), chosen)
        hosts.append(Embedded(tmp_path / "ledger.db", people, chosen))
        return Channel(hosts[-1], chosen)

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def channel(new_channel: Callable[..., Channel]) -> Channel:
    """A channel under the default policy."""
    return new_channel().init()


@pytest.fixture
def memory() -> Channel:
    """The contract alone, where a test must reach behind it."""
    chosen = policy()
    return Channel(Memory(chosen), chosen).init()
