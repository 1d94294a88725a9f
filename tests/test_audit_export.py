"""The ledger's trail for spreadsheets and for audit repositories (FHIR R4, IHE BALP 1.1)."""

import csv
import io
import json
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from orthanc_ledger.audit_export import CSV_COLUMNS, audit_event, csv_row
from tests.ledger.channel import DAY, LAB, LAB_NODE, OWNER, STUDY, Channel, Memory, policy

BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
DCM = "http://dicom.nema.org/resources/ontology/DCM"
TERMS = "http://terminology.hl7.org/CodeSystem/"

Resource = dict[str, Any]


@pytest.fixture
def events() -> list[dict[str, Any]]:
    channel = Channel(Memory(policy()), policy()).init()
    request, manifest = channel.approved()
    release = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["release"]
    channel.call(OWNER, "LogOutcome", release=release, sent=3, withheld=0, bitmapDigest=bytes(32))
    channel.host.assurance = "node"
    channel.anchor()
    channel.register(LAB, "=1+1")  # a title that a spreadsheet would compute
    trail: list[dict[str, Any]] = channel.ask("Audit")
    return trail


def codings(resource: Resource, *path: str) -> set[tuple[str, str]]:
    """(system, code) of the codings that the elements at a path have, a CodeableConcept's or plain ones."""
    found = [resource]
    for name in path:
        found = [item for element in found for item in _listed(element.get(name, []))]
    return {(each["system"], each["code"]) for item in found for each in item.get("coding", [item])}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def agents(resource: Resource, system: str, code: str) -> list[Resource]:
    return [agent for agent in resource["agent"] if (system, code) in codings(agent, "type")]


def test_every_event_is_an_audit_event_as_fhir_defines_it(events: list[dict[str, Any]]) -> None:
    resources = [audit_event(event, OWNER) for event in events]
    for resource in resources:
        AuditEvent.model_validate_json(json.dumps(resource))
    assert len({resource["id"] for resource in resources}) == len(events)
    assert resources == [audit_event(event, OWNER) for event in events]


def test_a_release_is_a_privacy_disclosure_at_its_source(events: list[dict[str, Any]]) -> None:
    (event,) = [event for event in events if event["function"] == "LogRelease"]
    resource = audit_event(event, OWNER)
    assert resource["meta"]["profile"] == [f"{BALP}PrivacyDisclosure.Source"]
    assert codings(resource, "type") == {(DCM, "110106")}
    assert (f"{TERMS}iso-21089-lifecycle", "disclose") in codings(resource, "subtype")
    assert (resource["action"], resource["outcome"]) == ("R", "0")
    (source,) = agents(resource, DCM, "110153")
    (recipient,) = agents(resource, DCM, "110152")
    assert source["who"] == resource["source"]["observer"]  # constraint val-audit-source
    assert source["network"]
    assert recipient["network"]["address"] == LAB_NODE["aeTitle"]
    assert recipient["who"]["identifier"]["value"] == f"{LAB}/LAB1"
    (patient,) = [e for e in resource["entity"] if (f"{TERMS}audit-entity-type", "1") in codings(e, "type")]
    assert codings(patient, "role") == {(f"{TERMS}object-role", "1")}
    assert patient["what"]["type"] == "Patient"
    assert patient["what"]["identifier"]["value"] == STUDY.hex()
    assert len(resource["entity"]) >= 2


def test_every_other_event_is_the_creation_of_a_record(events: list[dict[str, Any]]) -> None:
    for event in events:
        if event["function"] == "LogRelease":
            continue
        resource = audit_event(event, OWNER)
        assert resource["meta"]["profile"] == [f"{BALP}Create"]
        assert codings(resource, "type") == {(f"{TERMS}audit-event-type", "rest")}
        assert ("http://hl7.org/fhir/restful-interaction", "create") in codings(resource, "subtype")
        assert (resource["action"], resource["outcome"]) == ("C", "0")
        (client,) = agents(resource, DCM, "110153")
        (server,) = agents(resource, DCM, "110152")
        assert client["who"]
        assert client["network"]
        assert server["who"]
        assert server["network"]
        (data,) = [e for e in resource["entity"] if (f"{TERMS}audit-entity-type", "2") in codings(e, "type")]
        assert codings(data, "role") == {(f"{TERMS}object-role", "4")}
        assert {"type": "function", "valueString": event["function"]} in data["detail"]


def test_a_person_is_an_author_by_certificate_and_a_node_is_nobody(events: list[dict[str, Any]]) -> None:
    resources = {event["sequence"]: audit_event(event, OWNER) for event in events}
    for event in events:
        people = agents(resources[event["sequence"]], f"{TERMS}v3-ParticipationType", "AUT")
        if event["by"]["assurance"] == "node":
            assert people == []
            continue
        (author,) = people
        assert author["requestor"] is True
        assert "network" not in author
        assert author["who"]["identifier"]["value"] == f"{event['by']['organisation']}/1f"
    assert {event["by"]["assurance"] for event in events} == {"person", "node"}


def test_csv_has_every_event_and_nothing_a_spreadsheet_computes(events: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, CSV_COLUMNS)
    table.writeheader()
    table.writerows(csv_row(event) for event in events)
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [int(row["sequence"]) for row in rows] == [event["sequence"] for event in events]
    assert [row["function"] for row in rows] == [event["function"] for event in events]
    assert json.loads(rows[-1]["arguments"])["aeTitle"] == "=1+1"
    assert not [cell for row in rows for cell in row.values() if cell[:1] in "=+-@\t\r" and cell]
    assert rows[1]["study"] == f"token {STUDY.hex()}"
    assert rows[1]["time"] == "2027-01-15T08:00:00+00:00"


def test_times_are_the_ledgers(events: list[dict[str, Any]]) -> None:
    later = {**events[1], "time": events[1]["time"] + DAY}
    assert audit_event(later, OWNER)["recorded"] == "2027-01-16T08:00:00+00:00"
