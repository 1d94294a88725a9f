"""The purposes that people are shown."""

from orthanc_ledger import duo
from orthanc_ledger.asked import IMAGES
from orthanc_ledger.ledger.contract.codes import DUO

OFFICIAL = {  # GA4GH Data Use Ontology, rdfs:label
    4: "no restriction",
    6: "health or medical or biomedical research",
    7: "disease specific research",
    11: "population origins or ancestry research only",
    12: "research specific restrictions",
    15: "no general methods research",
    16: "genetic studies only",
    18: "not for profit, non commercial use only",
    19: "publication required",
    20: "collaboration required",
    21: "ethics approval required",
    22: "geographical restriction",
    24: "publication moratorium",
    25: "time limit on use",
    26: "user specific restriction",
    27: "project specific restriction",
    28: "institution specific restriction",
    29: "return to database or resource",
    42: "general research use",
    43: "clinical care use",
    44: "population origins or ancestry research prohibited",
    45: "not for profit organisation use only",
    46: "non-commercial use only",
}


def test_every_code_the_contract_takes_has_its_official_label_and_no_other() -> None:
    assert {code: duo.label(code) for code in DUO} == {f"DUO:{n:07d}": label for n, label in OFFICIAL.items()}
    assert duo.LABELS.keys() == DUO


def test_a_request_that_names_no_class_is_for_images() -> None:
    images = {"CT": "2", "MR": "4", "Enhanced MR": "4.1", "US": "6.1", "SC": "7", "CR": "1", "PET": "128"}
    others = {
        "Basic Text SR": "88.11",
        "Encapsulated PDF": "104.1",
        "Segmentation": "66.4",
        "RT Structure Set": "481.3",
    }
    others |= {"Presentation State": "11.1", "ECG": "9.1.1", "Raw Data": "66"}
    asked = {uid.removeprefix("1.2.840.10008.5.1.4.1.1.") for uid in IMAGES}
    assert asked >= set(images.values())
    assert not asked & set(others.values())
