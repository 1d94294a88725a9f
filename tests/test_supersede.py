"""A correction replaces the first content when it is anchored, proposed and confirmed by the custodian; only then."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_make import HOUR_US, drain, make_node, open_node, real_file, store, variant

from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock_us
from orthanc_ledger.errors import ContractError, LedgerAway
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.index import Supersession
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import Query
from orthanc_ledger.setup_node import ORGANISATIONS
from orthanc_ledger.spool import CONFLICTS


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with one anchored object, and a correction of it in the conflict queue."""
    node = make_node(tmp_path)
    store(node, real_file())
    store(node, variant(PatientName="Corrected"))
    drain(node)
    return node


def decide(node: Node) -> str:
    """A person's decision, as the command enters it; the unit's name."""
    [conflict] = node.spool.names(CONFLICTS)
    holder = node.index.instance(conflict.partition(".")[0])
    assert holder is not None
    assert holder.manifest is not None
    node.index.keep_supersession(Supersession(conflict, holder.claim, "metadata-corrected", "decided", holder.manifest))
    return conflict


def confirm(node: Node) -> None:
    [proposed] = node.index.supersessions("proposed")
    custodian = node.config.data_dir.parent / ORGANISATIONS / "custodian" / "identities" / "person"
    node.ledger_as(custodian).submit("ConfirmSupersede", {"id": proposed.ledger_id})


def state(node: Node) -> str:
    [supersession] = node.index.supersessions()
    return supersession.state


def served_name(node: Node) -> str:
    [(_, _, attributes)] = node.index.studies()
    [instance] = node.index.select()
    with node.library.open(instance) as data_set:
        return "Corrected" if b"Corrected" in data_set.read() else attributes["PatientName"]


def test_first_content_is_served_until_the_custodian_confirms(node: Node) -> None:
    first = served_name(node)
    decide(node)
    for expected in ("proposed", "proposed"):
        drain(node)
        assert (state(node), served_name(node)) == (expected, first)
    confirm(node)
    drain(node)
    assert (state(node), served_name(node)) == ("confirmed", "Corrected")
    assert node.spool.names(CONFLICTS) == []
    assert store(node, variant(PatientName="Corrected")) is Receipt.SAME_AGAIN
    assert store(node, real_file()) is Receipt.CONFLICT


def test_killed_after_any_state_change_goes_on_and_anchors_the_correction_once(node: Node, tmp_path: Path) -> None:
    decide(node)
    for _ in range(2):
        again = open_node(tmp_path)
        again.anchorer().prepare_due(system_clock_us() + HOUR_US)
    assert [batch.count for batch in node.index.unanchored()] == [1]
    drain(node)
    drain(open_node(tmp_path))
    [(_, token, _)] = node.index.studies()
    assert len(node.ledger.query("AnchorsOfStudy", {"study": token})) == 2


def test_killed_before_the_confirmed_unit_was_removed(node: Node) -> None:
    conflict = decide(node)
    drain(node)
    confirm(node)
    unit = node.spool.folder / CONFLICTS / conflict
    content = unit.read_bytes()
    drain(node)
    unit.write_bytes(content)
    drain(node)
    assert node.spool.names(CONFLICTS) == []
    assert served_name(node) == "Corrected"


def test_correction_of_another_study_is_refused_with_an_alarm(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    store(node, real_file())
    store(node, variant(StudyInstanceUID="1.2.826.0.2"))
    drain(node)
    decide(node)
    drain(node)
    assert state(node).startswith("refused: it is of another study")
    assert [alarm.kind for alarm in node.outbox.alarms()] == ["conflict", "supersession"]


def test_refusal_by_the_ledger_ends_it_and_stops_nothing_else(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(node)
    with refusing(node, monkeypatch, ContractError("WRONG_STATE", "oldManifest")):
        drain(node)
    assert state(node) == "refused: WRONG_STATE oldManifest"


def test_ledger_away_at_the_proposal_is_tried_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(node)
    with refusing(node, monkeypatch, LedgerAway("away")), pytest.raises(LedgerAway):
        drain(node)
    assert state(node) == "prepared"
    drain(node)
    assert state(node) == "proposed"


def test_unit_discarded_after_the_decision_is_refused(node: Node) -> None:
    node.spool.remove(decide(node), CONFLICTS)
    drain(node)
    assert state(node).startswith("refused: spool: no unit")


def test_confirmed_but_unit_gone_stays_proposed_with_an_alarm(node: Node) -> None:
    conflict = decide(node)
    drain(node)
    confirm(node)
    node.spool.remove(conflict, CONFLICTS)
    drain(node)
    drain(node)
    assert state(node) == "proposed"
    assert [alarm.kind for alarm in node.outbox.alarms()] == ["conflict", "supersession"]


def test_refused_one_can_be_decided_again(node: Node) -> None:
    conflict = decide(node)
    [decision] = node.index.supersessions()
    node.index.keep_supersession(replace(decision, state="refused: once"))
    drain(node)
    assert state(node) == "refused: once"
    assert decide(node) == conflict
    drain(node)
    assert state(node) == "proposed"


@contextlib.contextmanager
def refusing(node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[None]:
    """Supersede raises; all other calls work."""
    submit = node.anchorer_ledger.submit

    def refuse(function: str, args: Any, nonce: bytes | None = None) -> Any:
        if function == "Supersede":
            raise error
        return submit(function, args, nonce)

    with monkeypatch.context() as patch:
        patch.setattr(node.anchorer_ledger, "submit", refuse)
        yield


def test_corrected_patient_is_found_by_the_right_name_and_no_more_by_the_wrong_one(node: Node) -> None:
    (wrong,) = (attributes["PatientName"] for _, _, attributes in node.index.studies())
    decide(node)
    drain(node)
    confirm(node)
    drain(node)
    clinical = Peer("VIEWER", "clinical")

    def found(name: str) -> list[str]:
        matches = node.catalogue.find(clinical, "STUDY", Query(), {"PatientName": name}, combined=False)
        return [match["PatientName"] for match in matches]

    assert (found(wrong), found("Corrected")) == ([], ["Corrected"])


def test_object_of_another_patient_is_retrieved_by_the_corrected_id(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    store(node, variant(PatientID="WRONG", SeriesDescription="wrong"))
    store(node, variant(PatientID="RIGHT", SeriesDescription="right"))
    drain(node)
    decide(node)
    drain(node)
    confirm(node)
    drain(node)
    assert [len(node.index.select(patient_ids=[patient])) for patient in ("WRONG", "RIGHT")] == [0, 1]
    [(_, series)] = node.index.series_attributes(variant().StudyInstanceUID)
    assert series["SeriesDescription"] == "right"
