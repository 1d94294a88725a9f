"""Requests for access: listed, looked at, and whether a description is the one that was asked with."""

from collections.abc import Iterator, Mapping
from typing import Any

from orthanc_ledger.asked import description_digest, row_of
from orthanc_ledger.ledger import one_page
from orthanc_ledger.ledger.contract.requests import STATES
from orthanc_ledger.web.console.frame import button, choice, field, form, link, page, table
from orthanc_ledger.web.console.html import Element, h
from orthanc_ledger.web.console.http import Response
from orthanc_ledger.web.console.pages.approval import actions
from orthanc_ledger.web.console.pages.request import Request, find_request, shown_request, state_badge
from orthanc_ledger.web.console.visit import Visit, route

_COLUMNS = ("Request", "State", "Who asks", "What for", "Studies", "How", "Approved by", "Still needed")


def _list(visit: Visit, names: Mapping[str, str]) -> Response:
    state, after = (visit.request.query.get(name, "") for name in ("state", "after"))
    question: dict[str, Any] = {"state": state} if state in STATES else {}
    if _is_id(after):
        question["after"] = bytes.fromhex(after)
    found, more = one_page(visit.house.ledger, "RequestsByState", question)
    rows = [_line(request) for request in found]
    options = [("", "all"), *((each, each) for each in STATES)]
    next_page = link("Go on", "/requests", state=state, after=found[-1]["id"].hex()) if more else None
    return page(
        visit,
        "Requests",
        h("form", choice("State", "state", options, state), button("Show"), class_="filters", method="get"),
        table("Who asks for access", _COLUMNS, rows) if rows else h("p", "There is none.", role="status"),
        h("p", next_page) if next_page else None,
    )


def _line(request: Request) -> tuple[Any, ...]:
    row = row_of(request, None)
    subject = f"dataset {row['dataset'][:8]}" if row["dataset"] else str(row["studies"])
    later = ", also later ones" if row["future"] else ""
    id_ = request["id"].hex()
    return (
        link(h("code", id_[:12]), f"/requests/{id_}"),
        state_badge(row["state"]),
        f"{row['organisation']}, {row['ae_title']}",
        ", ".join(row["purposes"]) or "no purpose named",
        f"{subject}{later}",
        f"{row['release']}, {row['days']} days",
        ", ".join(row["approved_by"]) or "–",
        ", ".join(row["missing"]) or "–",
    )


def _request(visit: Visit, names: Mapping[str, str]) -> Response:
    return _page(visit, find_request(visit, names["id"]))


def _describe(visit: Visit, names: Mapping[str, str]) -> Response:
    request = find_request(visit, names["id"])
    text, salt = visit.request.form.get("text", ""), visit.request.form.get("salt", "").strip().lower()
    if not _is_id(salt):
        return _page(visit, request, text, salt, problem="The salt is 64 hexadecimal digits, as `request` printed it.")
    # A browser sends line ends as CRLF (WHATWG HTML 4.10.22.4); who asked has most often typed LF.
    spellings = {text, text.replace("\r\n", "\n")}
    fits = request["descriptionDigest"] in {description_digest(bytes.fromhex(salt), each) for each in spellings}
    if not fits:
        problem = "This is not the description that was asked with: text or salt is another."
        return _page(visit, request, text, salt, problem=problem)
    visit.session.said = "It fits: this is the description that was asked with."
    return _page(visit, request, text, salt)


def _page(visit: Visit, request: Request, text: str = "", salt: str = "", problem: str | None = None) -> Response:
    status = 200 if problem is None else 422
    parts = shown_request(visit, request), _description(visit, request, text, salt), actions(visit, request)
    return page(visit, "Request for access", *parts, status=status, problem=problem)


def _description(visit: Visit, request: Request, text: str, salt: str) -> Iterator[Element]:
    yield h("h2", "The description")
    yield h(
        "p",
        "The ledger has only its salted digest. Put in what the research centre handed over, text and salt, to see "
        "whether it is what was asked with. Nothing of it is kept here.",
    )
    yield form(
        visit,
        f"/requests/{request['id'].hex()}/description",
        h(
            "p",
            h("label", "Description", for_="text"),
            h("textarea", text, id="text", name="text", rows=5),
            class_="field",
        ),
        field("Salt", "salt", salt, hint="64 hexadecimal digits", autocomplete="off", spellcheck="false"),
        button("Check", "quiet"),
        class_="card",
    )


def _is_id(text: str) -> bool:
    return len(text) == 64 and all(each in "0123456789abcdef" for each in text)


ROUTES = (
    route("GET", "/requests", "approver", _list),
    route("GET", "/requests/{id}", "approver", _request),
    route("POST", "/requests/{id}/description", "approver", _describe),
)
