"""Retrieves over sockets that lose their approval half way, every node with its ledger on Fabric."""

import tempfile

import pytest
import scp.attacked as worlds
from scp import conftest, test_lease_midway
from scp.book import Book

from tests.fabric.moved import again

LEFT_OUT_CASES = {"take_ledger_away": "renames an embedded ledger's file; on Fabric a server is lost: test_failures.py"}

globals().update(again(conftest, {}) | again(test_lease_midway, {}))
pytestmark = [pytest.mark.usefixtures("moved"), pytest.mark.timeout(1200)]  # with what is built the first time


@pytest.fixture(autouse=True)
def own_ledgers(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A copied folder has its template's ledger, so each world is made from the beginning, in its own time."""
    make, begun = worlds._template.__wrapped__, worlds._begun.__wrapped__

    def template() -> tuple[tempfile.TemporaryDirectory[str], Book]:
        folder, book = make()
        request.addfinalizer(folder.cleanup)
        return folder, book

    monkeypatch.setattr(worlds, "_template", template)
    monkeypatch.setattr(worlds, "_begun", begun)
