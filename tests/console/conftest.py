"""Consoles for tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_world import World, make_world

from orthanc_ledger.config import Console
from tests.browser import chromium as chromium
from tests.browser import pages as pages
from tests.console.world import Desk, opened


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A hospital's node with one study of three slices; nothing runs."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def desk(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The hospital's console, with an account for each role, named as it."""
    accounts = tmp_path_factory.mktemp("console") / "console.accounts"
    with opened(world.node.config, Console(accounts)) as made:
        made.account("staff", "staff")
        made.account("approver", "approver")
        made.account("auditor", "auditor")
        made.account("chief", "staff", "approver", "auditor")
        yield made


@pytest.fixture
def own(world: World, tmp_path: Path) -> Iterator[Desk]:
    """A console of the hospital's for one test, with nobody in it."""
    with opened(world.node.config, Console(tmp_path / "console.accounts")) as made:
        yield made
