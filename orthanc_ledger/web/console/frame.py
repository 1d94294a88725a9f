"""What all pages have: head, navigation by what one may, status messages, foot; and the parts they are made of."""

from collections.abc import Iterable, Sequence
from typing import Any

from orthanc_ledger.provenance import Tone
from orthanc_ledger.web.console.accounts import Role
from orthanc_ledger.web.console.html import Element, document, foreign, h
from orthanc_ledger.web.console.http import HTML, Response, address_of
from orthanc_ledger.web.console.visit import Visit
from orthanc_ledger.words import day, moment, spoken

LANGUAGE = "en"
_SHORT = 24
"""Characters of an identifier that is not broken into lines."""
STYLE, ICON = "/console.css", "/icon.svg"

_HEAD = (
    h("link", rel="stylesheet", href=STYLE),
    h("link", rel="icon", type="image/svg+xml", href=ICON),
    h("meta", name="color-scheme", content="light dark"),
)
# Address, name, who may, only where there is a node.
_NAVIGATION: tuple[tuple[str, str, Role, bool], ...] = (
    ("/studies", "Studies", "staff", True),
    ("/conflicts", "Conflicts", "staff", True),
    ("/quarantine", "Quarantine", "staff", True),
    ("/alarms", "Alarms", "staff", False),
    ("/requests", "Requests", "approver", False),
    ("/audit", "Audit", "auditor", False),
)


def page(visit: Visit, title: str, *parts: Any, status: int = 200, problem: str | None = None) -> Response:
    """A page for somebody who is logged in. ``problem``: what was wrong with what was sent."""
    said, visit.session.said = visit.session.said, None
    messages = h("div", h("p", said, class_="said") if said else None, role="status")
    wrong = h("p", problem, class_="problem", role="alert") if problem else None
    body = h(
        "body",
        h("a", "Skip to content", href="#content", class_="skip"),
        h("header", h("a", "orthanc-ledger", href="/", class_="brand"), _navigation(visit), _who(visit)),
        h("main", h("h1", title), messages, wrong, parts, id="content", tabindex="-1"),
        h("footer", h("p", f"{visit.house.organisation} · {visit.house.ae_title}")),
    )
    return Response(status, document(f"{title} · {visit.house.ae_title}", LANGUAGE, _HEAD, body), HTML)


def bare_page(title: str, *parts: Any, status: int = 200, head: Iterable[Element] = ()) -> Response:
    """A page for anybody: it says nothing of the house."""
    body = h("body", h("main", h("h1", title), parts, id="content"), class_="bare")
    return Response(status, document(title, LANGUAGE, (*_HEAD, *head), body), HTML)


def form(visit: Visit, path: str, *parts: Any, **attributes: Any) -> Element:
    """A form that changes something: it carries the session's token."""
    token = h("input", type="hidden", name="token", value=visit.session.token)
    return h("form", token, parts, method="post", action=path, **attributes)


def field(label: str, name: str, value: str = "", type_: str = "text", hint: str | None = None, **more: Any) -> Element:
    """An input with its label."""
    described = f"{name}-hint" if hint else None
    return h(
        "p",
        h("label", label, for_=name),
        h("input", id=name, name=name, type=type_, value=value, aria_describedby=described, **more),
        h("span", hint, id=described, class_="hint") if hint else None,
        class_="field",
    )


def choice(label: str, name: str, options: Iterable[tuple[str, str]], chosen: str = "") -> Element:
    """One of several (value, text)."""
    listed = [h("option", text, value=value, selected=value == chosen) for value, text in options]
    return h("p", h("label", label, for_=name), h("select", listed, id=name, name=name), class_="field")


def button(text: str, kind: str = "", **more: Any) -> Element:
    """What sends a form."""
    return h("button", text, type="submit", class_=kind or None, **more)


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Element:
    """Rows under their columns; the first cell of a row names it."""
    head = h("tr", [h("th", column, scope="col") for column in columns])
    lines = [
        h("tr", [h("th" if n == 0 else "td", cell, scope="row" if n == 0 else None) for n, cell in enumerate(row)])
        for row in rows
    ]
    made = h("table", h("caption", caption), h("thead", head), h("tbody", lines))
    return h("div", made, class_="scrolls", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Iterable[tuple[str, Any]]) -> Element:
    """Names and values; a value that is None is left out."""
    kept = [(name, value) for name, value in pairs if value is not None]
    return h("dl", [h("div", h("dt", name), h("dd", value)) for name, value in kept])


def badge(text: str, tone: Tone | str = Tone.NEUTRAL) -> Element:
    """A word that says a state, loud as its tone."""
    return h("span", text, class_=f"badge {tone}")


def time(seconds: int) -> Element:
    """A moment in UTC."""
    return h("time", spoken(seconds), datetime=moment(seconds))


def date(text: str) -> Element:
    """A DA value; anything else as it is."""
    shown = day(text)
    return foreign(text) if shown == text else h("time", shown, datetime=shown)


def code(text: str) -> Element:
    """An identifier, whole: to be read and compared."""
    return h("code", foreign(text), class_="long" if len(text) > _SHORT else None)


def link(text: Any, path: str, /, **query: Any) -> Element:
    """To another page of the console."""
    return h("a", text, href=address_of(path, **query))


def _navigation(visit: Visit) -> Element:
    here = "/" + visit.request.path.strip("/").partition("/")[0]
    items = [
        h("li", h("a", name, href=path, aria_current="page" if path == here else None))
        for path, name, role, of_node in _NAVIGATION
        if visit.account.may(role) and (visit.house.node is not None or not of_node)
    ]
    return h("nav", h("ul", items), aria_label="Main")


def _who(visit: Visit) -> Element:
    return form(visit, "/logout", h("span", visit.account.name), button("Log out", "quiet"), class_="who")
