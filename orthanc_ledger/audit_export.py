"""The ledger's events for other systems: CSV rows, and FHIR R4 AuditEvents as IHE BALP profiles them.

Nothing is added to what the ledger holds: a patient is named by the study's token only.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dag_cbor

from orthanc_ledger.ledger import Ledger
from orthanc_ledger.words import moment

CSV_COLUMNS = (
    "sequence",
    "time",
    "function",
    "organisation",
    "role",
    "assurance",
    "certificate",
    "study",
    "arguments",
    "result",
)

_IDS = ("id", "request", "release", "dataset")
_BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_URN = "urn:x-orthanc-ledger:"
_MACHINE_NAME, _URI = "1", "5"  # http://hl7.org/fhir/network-type

Resource = dict[str, Any]


def csv_lines(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Events as CSV (RFC 4180), the columns' names first."""
    line = io.StringIO()
    table = csv.DictWriter(line, CSV_COLUMNS)
    table.writeheader()
    for event in events:
        yield _taken(line)
        table.writerow(csv_row(event))
    yield _taken(line)


def fhir_lines(events: Iterable[Mapping[str, Any]], owner: str) -> Iterator[str]:
    """Events as AuditEvents, one a line (NDJSON)."""
    return (json.dumps(audit_event(event, owner)) + "\n" for event in events)


def owner_of(ledger: Ledger) -> str:
    """MSP ID of the owner. Raises as ``query``."""
    organisations: Mapping[str, str] = ledger.query("GetPolicy", {})["organisations"]
    return next(msp_id for msp_id, role in organisations.items() if role == "owner")


def details(event: Mapping[str, Any]) -> str:
    """What says something to a person: numbers, codes, nodes, of ids the beginning; no tokens."""
    words = []
    made = {name: value for name, value in (event["result"] or {}).items() if name in _IDS}
    for name, value in {**event["args"], **made}.items():
        if name in ("node", "peer"):
            words.append(f"{name}={value['organisation']}/{value['aeTitle']}")
        elif name == "until":
            words.append(f"until={moment(value)}")
        elif name in _IDS and isinstance(value, bytes):
            words.append(f"{name}={value.hex()[:8]}")
        elif isinstance(value, (str, int)):
            words.append(f"{name}={value}")
    return " ".join(words)


def csv_row(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of the query Audit by `CSV_COLUMNS`: time in ISO 8601 UTC, bytes as hex, arguments and result as JSON.

    No cell begins with what a spreadsheet takes for a formula: text of other parties (AE titles) stands inside JSON.
    """
    by = event["by"]
    study = event["args"].get("study")
    return {
        "sequence": event["sequence"],
        "time": _instant(event["time"]),
        "function": event["function"],
        "organisation": by["organisation"],
        "role": by["role"],
        "assurance": by["assurance"],
        "certificate": f"serial {by['serial']}",
        "study": "" if study is None else f"token {study.hex()}",
        "arguments": _json(event["args"]),
        "result": _json(event["result"]),
    }


def audit_event(event: Mapping[str, Any], owner: str) -> Resource:
    """An event of the query Audit as a FHIR R4 AuditEvent; `owner` is the MSP ID whose channel the ledger is.

    LogRelease is BALP's Privacy Disclosure at Source; everything else the Create of a record on the ledger. The id is
    made from the event's content, so that exporting twice gives the same resources.
    """
    resource = _disclosure(event) if event["function"] == "LogRelease" else _creation(event, owner)
    return {
        "resourceType": "AuditEvent",
        "id": hashlib.sha256(dag_cbor.encode([owner, dict(event)])).hexdigest(),
        "recorded": _instant(event["time"]),
        "outcome": "0",
        **resource,
    }


def _taken(line: io.StringIO) -> str:
    text = line.getvalue()
    line.seek(0)
    line.truncate()
    return text


def _disclosure(event: Mapping[str, Any]) -> Resource:
    args, node = event["args"], event["args"]["node"]
    releasing = _organisation(event["by"]["organisation"])
    recipient = f"{node['organisation']}/{node['aeTitle']}"
    return {
        "meta": {"profile": [f"{_BALP}PrivacyDisclosure.Source"]},
        "type": _coding(_DCM, "110106", "Export"),
        "subtype": [_coding(f"{_TERMINOLOGY}iso-21089-lifecycle", "disclose", "Disclose Record Lifecycle Event")],
        "action": "R",
        "purposeOfEvent": [{"coding": [_coding(f"{_TERMINOLOGY}v3-ActReason", "HRESCH", "healthcare research")]}],
        "agent": [
            _agent("110153", "Source Role ID", releasing, event["by"]["organisation"], _MACHINE_NAME),
            _agent("110152", "Destination Role ID", _identified("node", recipient), node["aeTitle"], _MACHINE_NAME),
            *_people(event),
        ],
        "source": {"observer": releasing},
        "entity": [
            {
                "what": {"type": "Patient", **_identified("study-token", args["study"].hex())},
                "type": _coding(f"{_TERMINOLOGY}audit-entity-type", "1", "Person"),
                "role": _coding(f"{_TERMINOLOGY}object-role", "1", "Patient"),
            },
            _record(event),
        ],
    }


def _creation(event: Mapping[str, Any], owner: str) -> Resource:
    organisation = event["by"]["organisation"]
    ledger = _identified("ledger", owner)
    return {
        "meta": {"profile": [f"{_BALP}Create"]},
        "type": _coding(f"{_TERMINOLOGY}audit-event-type", "rest", "Restful Operation"),
        "subtype": [
            _coding("http://hl7.org/fhir/restful-interaction", "create", "create"),
            _coding(f"{_URN}function", event["function"]),
        ],
        "action": "C",
        "agent": [
            _agent("110153", "Source Role ID", _organisation(organisation), organisation, _MACHINE_NAME),
            _agent("110152", "Destination Role ID", ledger, f"{_URN}ledger:{owner}", _URI),
            *_people(event),
        ],
        "source": {"observer": ledger},
        "entity": [_record(event)],
    }


def _people(event: Mapping[str, Any]) -> list[Resource]:
    """The person who signed, by the certificate's serial number: names are not on the ledger."""
    by = event["by"]
    if by["assurance"] != "person":
        return []
    author = {"coding": [_coding(f"{_TERMINOLOGY}v3-ParticipationType", "AUT", "author (originator)")]}
    role = [{"coding": [_coding(f"{_URN}role", by["role"])]}]
    who = _identified("certificate", f"{by['organisation']}/{by['serial']}")
    return [{"type": author, "who": who, "requestor": True, "role": role}]


def _agent(code: str, display: str, who: Resource, address: str, network: str) -> Resource:
    role = {"coding": [_coding(_DCM, code, display)]}
    return {"type": role, "who": who, "requestor": False, "network": {"address": address, "type": network}}


def _record(event: Mapping[str, Any]) -> Resource:
    """What was written: the ledger's own record, its arguments as details."""
    return {
        "what": _identified("event", str(event["sequence"])),
        "type": _coding(f"{_TERMINOLOGY}audit-entity-type", "2", "System Object"),
        "role": _coding(f"{_TERMINOLOGY}object-role", "4", "Domain Resource"),
        "detail": [
            {"type": "function", "valueString": event["function"]},
            *({"type": name, "valueString": _text(value)} for name, value in event["args"].items()),
            {"type": "result", "valueString": _json(event["result"])},
        ],
    }


def _organisation(msp_id: str) -> Resource:
    return {"type": "Organization", **_identified("msp", msp_id)}


def _identified(kind: str, value: str) -> Resource:
    return {"identifier": {"system": f"{_URN}{kind}", "value": value}}


def _coding(system: str, code: str, display: str | None = None) -> Resource:
    return {"system": system, "code": code} | ({} if display is None else {"display": display})


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, default=bytes.hex, sort_keys=True)
