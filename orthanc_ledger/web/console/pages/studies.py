"""Studies, found by patient, accession number, date or UID."""

from collections.abc import Iterator, Mapping
from typing import Any

from orthanc_ledger.provenance import TONES, State
from orthanc_ledger.web.console.frame import badge, button, date, field, link, page, table
from orthanc_ledger.web.console.html import Element, foreign, h
from orthanc_ledger.web.console.http import Response
from orthanc_ledger.web.console.search import Found, keys_of, place_of, search, text_of
from orthanc_ledger.web.console.visit import Visit, route

_NOT_SAID = "not named"
# Field, its label, its type.
_ASKED = (
    ("patient_id", "Patient ID", "text"),
    ("patient_name", "Patient name", "text"),
    ("accession", "Accession number", "text"),
    ("first", "Study date, from", "date"),
    ("last", "Study date, to", "date"),
    ("study", "Study Instance UID", "text"),
)


def _search(visit: Visit, names: Mapping[str, str]) -> Response:
    asked = {name: visit.request.query.get(name, "") for name, *_ in _ASKED}
    inputs = [field(label, name, asked[name], kind, autocomplete="off") for name, label, kind in _ASKED]
    parts: list[Any] = [h("form", inputs, button("Search"), class_="filters", role="search", method="get")]
    keys = keys_of(asked)
    if keys:
        found = search(visit.house.held.index.listing, keys, place_of(visit.request.query.get("after", "")))
        parts += _results(visit, found, asked)
    return page(visit, "Studies", parts)


def _results(visit: Visit, found: Found, asked: Mapping[str, str]) -> Iterator[Element]:
    states = visit.house.held.chronicle.states([row["StudyInstanceUID"] for row in found.rows])
    if found.rows:
        columns = ("Patient", "Patient ID", "Date", "Study", "Accession number", "State")
        yield table("Studies that fit", columns, _lines(found, states))
    elif found.after is None:
        yield h("p", "Nothing here fits.", role="status")
    else:
        yield h("p", f"Nothing fits among {found.read} studies; there are more.", role="status")
    if found.after is not None:
        yield h("p", link("Go on", "/studies", **asked, after=text_of(found.after)))


def _lines(found: Found, states: Mapping[str, State]) -> Iterator[tuple[Element, ...]]:
    for row in found.rows:
        uid = row["StudyInstanceUID"]
        state = states.get(uid, State.NOT_HELD)
        yield (
            foreign(row["PatientName"] or _NOT_SAID),
            foreign(row["PatientID"]),
            date(row["StudyDate"]),
            link(foreign(row["StudyDescription"] or uid), f"/studies/{uid}"),
            foreign(row["AccessionNumber"]),
            badge(state, TONES[state]),
        )


ROUTES = (route("GET", "/studies", "staff", _search, of_node=True),)
