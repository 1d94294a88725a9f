"""The ledger's records for auditors, by function, organisation, study, request and time; and the same as a file."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from orthanc_ledger.asked import audit_question
from orthanc_ledger.audit_export import csv_lines, details, fhir_lines, owner_of
from orthanc_ledger.clock import system_clock
from orthanc_ledger.code_labels import ASSURANCES
from orthanc_ledger.errors import ConfigError, ContractError, NotHeld
from orthanc_ledger.ledger.contract.functions import FUNCTIONS
from orthanc_ledger.web.console.frame import button, choice, code, field, link, page, table, time
from orthanc_ledger.web.console.html import Element, foreign, h
from orthanc_ledger.web.console.http import Response, address_of
from orthanc_ledger.web.console.records import Event, Filter, all_of, page_of
from orthanc_ledger.web.console.visit import Visit, route
from orthanc_ledger.words import moment

_WEEK_S = 7 * 86_400
_COLUMNS = ("Record", "Time", "Function", "By", "Signed with", "Study", "Details")
_NAMES = ("function", "organisation", "study", "request", "first", "last")
_REQUEST_DIGITS = 64


def _audit(visit: Visit, names: Mapping[str, str]) -> Response:
    asked = _asked(visit)
    inputs = _inputs(visit, asked)
    try:
        after = visit.request.query.get("after", "")
        sequence = int(after) if after.isdecimal() and len(after) < 20 else None
        found = page_of(visit.house.ledger, _filter(visit, asked), sequence)
    except (ConfigError, ContractError, NotHeld) as error:
        return page(visit, "Audit", inputs, problem=f"{error}.", status=422)
    rows = [_line(event) for event in found.events]
    return page(
        visit,
        "Audit",
        inputs,
        table("The ledger's records, in the order of their commits", _COLUMNS, rows)
        if rows
        else h("p", "Nothing fits here.", role="status"),
        h("p", link("Go on", "/audit", **asked, after=str(found.after))) if found.after is not None else None,
        h(
            "p",
            "All that fits, as a file: ",
            link("CSV", "/audit.csv", **asked),
            " · ",
            link("FHIR AuditEvents", "/audit.ndjson", **asked),
        ),
    )


def _csv(visit: Visit, names: Mapping[str, str]) -> Response:
    return _file(csv_lines(_all(visit)), "text/csv; charset=utf-8", "audit.csv")


def _fhir(visit: Visit, names: Mapping[str, str]) -> Response:
    lines = fhir_lines(_all(visit), owner_of(visit.house.ledger))
    return _file(lines, "application/fhir+ndjson", "audit.ndjson")


def _all(visit: Visit) -> Iterator[Event]:
    """All events that fit; what is wrong with the filter shows with the first, before an answer has begun."""
    found = all_of(visit.house.ledger, _filter(visit, _asked(visit)))
    first = next(found, None)
    return iter(()) if first is None else chain([first], found)


def _file(lines: Iterable[str], media_type: str, name: str) -> Response:
    body = (line.encode() for line in lines)
    return Response(200, body, media_type, (("Content-Disposition", f'attachment; filename="{name}"'),))


def _asked(visit: Visit) -> dict[str, str]:
    """What is asked for; a week's records where nothing is."""
    given = visit.request.query
    asked = {name: given.get(name, "").strip() for name in _NAMES}
    if not given:
        asked["first"] = moment(system_clock() - _WEEK_S)[:16]
    return asked


def _filter(visit: Visit, asked: Mapping[str, str]) -> Filter:
    """Raises ConfigError, NotHeld."""
    typed = (asked[name] for name in ("study", "organisation", "first", "last"))
    question = audit_question(lambda: visit.house.held, *typed)
    return Filter(question, asked["function"], _request(asked["request"]))


def _request(text: str) -> bytes | None:
    if not text:
        return None
    try:
        if len(text) == _REQUEST_DIGITS:
            return bytes.fromhex(text)
    except ValueError:
        pass
    raise ConfigError(f"request: expected its digest of {_REQUEST_DIGITS} hexadecimal digits")


def _inputs(visit: Visit, asked: Mapping[str, str]) -> Element:
    organisations = sorted(visit.house.ledger.query("GetPolicy", {})["organisations"])
    study = "its token or UID" if visit.house.node is not None else "its token"
    return h(
        "form",
        choice("Function", "function", _options(sorted(FUNCTIONS)), asked["function"]),
        choice("Organisation", "organisation", _options(organisations), asked["organisation"]),
        field("Study", "study", asked["study"], hint=study, autocomplete="off"),
        field("Request", "request", asked["request"], hint="its digest", autocomplete="off"),
        field("From (UTC)", "first", asked["first"], "datetime-local"),
        field("Before (UTC)", "last", asked["last"], "datetime-local"),
        button("Show"),
        class_="filters",
        method="get",
        action="/audit",
    )


def _options(values: Iterable[str]) -> list[tuple[str, str]]:
    return [("", "all"), *((value, value) for value in values)]


def _line(event: Event) -> tuple[Any, ...]:
    by, study = event["by"], event["args"].get("study")
    return (
        code(str(event["sequence"])),
        time(event["time"]),
        event["function"],
        f"{by['organisation']} ({by['role']})",
        ASSURANCES[by["assurance"]],
        h("a", h("code", study.hex()[:8]), href=address_of("/audit", study=study.hex())) if study else "–",
        foreign(details(event)),
    )


ROUTES = (
    route("GET", "/audit", "auditor", _audit),
    route("GET", r"/audit\.csv", "auditor", _csv),
    route("GET", r"/audit\.ndjson", "auditor", _fhir),
)
