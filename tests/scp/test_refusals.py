"""Refusals the leaf gives by itself are counted for the ledger too, and tell a research peer nothing."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyFind

from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.reasons import Reason

from .client import File, associated, get, move, storage, store, study_level
from .world import LOCAL, PEERS, Node, config, serving

CALLER = "TRIAL"


@pytest.fixture
def research_node(node: Node) -> Iterator[Node]:
    """The research port, its peers all move destinations."""
    peers = [replace(peer, host=LOCAL, port=1) for peer in PEERS]
    with serving(node.inbox.folder, config("research", peers), node.inbox) as running:
        yield running


def test_a_research_c_store_is_counted(research_node: Node, series: list[File]) -> None:
    with associated(research_node.port, storage(series), CALLER) as assoc:
        assert store(assoc, series[0]).Status == 0x0124
    assert research_node.archive.counted == [(CALLER, Reason.NO_APPROVAL)]


def test_a_bad_identifier_is_counted_in_every_service(research_node: Node, series: list[File]) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "NOWHERE"
    get(research_node.port, identifier, storage(series), CALLER)
    move(research_node.port, identifier, CALLER, CALLER)
    with associated(research_node.port, [build_context(StudyFind)], CALLER) as assoc:
        list(assoc.send_c_find(identifier, StudyFind))
    assert research_node.archive.counted == [(CALLER, Reason.BAD_IDENTIFIER)] * 3


def test_a_ledger_that_is_away_is_counted_in_every_service(research_node: Node, series: list[File]) -> None:
    research_node.archive.away = LedgerAway("no answer")
    get(research_node.port, study_level(series[0].study), storage(series), CALLER)
    move(research_node.port, study_level(series[0].study), CALLER, CALLER)
    with associated(research_node.port, [build_context(StudyFind)], CALLER) as assoc:
        list(assoc.send_c_find(study_level(series[0].study), StudyFind))
    assert research_node.archive.counted == [(CALLER, Reason.LEDGER_UNAVAILABLE)] * 3


@pytest.mark.parametrize("destination", ["NOBODY", "A B"])
def test_a_research_asker_is_not_told_which_destinations_are_known(research_node: Node, destination: str) -> None:
    out = move(research_node.port, study_level("1.2.3"), destination, CALLER)
    assert (out.final.Status, out.final.ErrorComment) == (0x0124, Reason.DESTINATION)
    assert research_node.archive.counted == [(CALLER, Reason.DESTINATION)]
