"""docs/conformance.md: its tables are what the code makes, and what a live association shows."""

import pytest
from pynetdicom import AE, build_context
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
)

from dicom_scp import status
from dicom_scp.contexts import MOST_PROPOSED
from dicom_scp.status import Answer
from orthanc_ledger import store_status
from orthanc_ledger.reasons import Reason

from .client import MR, associated
from .conformance import PAGE, TABLES
from .conformance_page import marked, replaced, rows_of
from .world import LOCAL, NODE, Node

TEXT = PAGE.read_text(encoding="utf-8")


def column(name: str, at: int) -> list[str]:
    return [row[at] for row in rows_of(TEXT, name)]


def test_every_table_is_on_the_page_as_the_code_makes_it() -> None:
    assert sorted(marked(TEXT)) == sorted(TABLES)
    assert replaced(TEXT, TABLES) == TEXT, "changed: run python -m tests.scp.conformance"


def test_every_status_that_the_node_can_answer_stands_on_the_page() -> None:
    values = [*vars(status).values(), *vars(store_status).values()]
    values += [*store_status._REFUSALS.values(), *map(status.retrieve_refusal, status._RETRIEVE_REFUSALS)]
    answers = {value for value in values if isinstance(value, Answer)}
    codes = {value for value in values if type(value) is int} | {answer.status for answer in answers}
    told = [row for name in marked(TEXT) if name.endswith("statuses") for row in rows_of(TEXT, name)]
    assert {f"0x{code:04X}" for code in codes} <= {row[1] for row in told}
    assert {(f"0x{each.status:04X}", str(each.comment or "")) for each in answers} <= {(row[1], row[2]) for row in told}
    assert set(Reason) <= {row[2] for row in told}


@pytest.mark.parametrize("research", [False, True], ids=["clinical", "research"])
def test_the_listed_sop_classes_are_accepted_in_both_roles_and_in_explicit_vr(
    node: Node, research_node: Node, research: bool
) -> None:
    classes, (first, *_) = column("storage", 1), column("transfer_syntaxes", 2)
    port, calling = (research_node.port, "TRIAL") if research else (node.port, "SCANNER")
    for start in range(0, len(classes), MOST_PROPOSED):
        proposed = classes[start : start + MOST_PROPOSED]
        contexts = [build_context(uid, first) for uid in proposed]
        with associated(port, contexts, calling) as sends, associated(port, contexts, calling, roles=proposed) as gets:
            assert [each.abstract_syntax for each in sends.accepted_contexts if each.as_scu] == proposed
            assert [each.abstract_syntax for each in gets.accepted_contexts if each.as_scp] == proposed


def test_the_listed_services_are_accepted_in_the_listed_syntaxes_and_no_other_is(node: Node) -> None:
    services, others = column("services", 1), [ModalityWorklistInformationFind, StorageCommitmentPushModel]
    syntaxes = dict(zip(column("transfer_syntaxes", 1), column("transfer_syntaxes", 2), strict=True))
    listed = [syntaxes[name] for name in column("services", 2)[0].split("; ")]
    contexts = [build_context(uid, syntax) for uid in (*services, *others) for syntax in listed]
    with associated(node.port, contexts) as assoc:
        accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in assoc.accepted_contexts}
    assert accepted == {(uid, syntax) for uid in services for syntax in listed}


def test_of_a_context_s_transfer_syntaxes_the_first_of_the_table_is_accepted(node: Node) -> None:
    listed = column("transfer_syntaxes", 2)
    contexts = [build_context(f"1.2.826.0.1.{at}", listed[at:][::-1]) for at in range(len(listed))]  # private classes
    with associated(node.port, contexts) as assoc:
        assert [context.transfer_syntax[0] for context in assoc.accepted_contexts] == listed


def test_what_the_acceptor_says_of_itself_is_as_listed(node: Node) -> None:
    listed = dict(rows_of(TEXT, "parameters"))
    with associated(node.port, [build_context(MR)]) as assoc:
        acceptor = assoc.acceptor
        assert acceptor.implementation_class_uid == listed["Implementation Class UID"]
        assert (acceptor.implementation_version_name or "").strip() == listed["Implementation Version Name"]
        assert str(acceptor.maximum_length) == listed["Maximum PDU Length"].partition(" ")[0]
        assert acceptor.asynchronous_operations == (1, 1)


def test_extended_negotiation_accepts_what_is_listed_and_nothing_else(node: Node) -> None:
    model = StudyRootQueryRetrieveInformationModelFind
    wanted = SOPClassExtendedNegotiation()
    wanted.sop_class_uid = model
    wanted.service_class_application_information = bytes([1] * len(rows_of(TEXT, "negotiation")))
    ae = AE("SCANNER")
    assoc = ae.associate(LOCAL, node.port, [build_context(model)], NODE, ext_neg=[wanted])
    try:
        accepted = [each == "0; 1" for each in column("negotiation", 2)]
        assert list(assoc.acceptor.sop_class_extended[model]) == accepted
    finally:
        assoc.release()
