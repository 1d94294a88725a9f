"""The purposes that people are shown."""

from orthanc_ledger import duo
from orthanc_ledger.ledger.contract.codes import DUO


def test_every_code_the_contract_takes_has_a_label_and_no_other() -> None:
    assert duo.LABELS.keys() == DUO


def test_labels_are_the_ontologys_each_of_one_code() -> None:
    assert duo.label("DUO:0000042") == "general research use"
    assert len(set(duo.LABELS.values())) == len(duo.LABELS)
