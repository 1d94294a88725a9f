"""Each code that the contract takes for a reason or outcome has its words."""

from orthanc_ledger.code_labels import LABELS, code_label
from orthanc_ledger.ledger.contract import codes


def test_each_code_has_a_label() -> None:
    assert {function: set(labels) for function, labels in LABELS.items()} == {
        "Deny": set(codes.DENIAL_REASONS),
        "Revoke": set(codes.REVOCATION_REASONS),
        "Supersede": set(codes.SUPERSEDE_REASONS),
        "Withdraw": set(codes.WITHDRAWAL_REASONS),
        "LogRetrieval": set(codes.RETRIEVAL_OUTCOMES),
    }


def test_a_code_that_nobody_here_knows_stands_for_itself() -> None:
    assert code_label("Withdraw", "113037") == "rejected for patient safety reasons"
    assert code_label("Deny", "of another time") == "of another time"
