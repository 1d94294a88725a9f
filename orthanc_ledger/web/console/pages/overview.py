"""The first page: what waits for whoever looks at it."""

from collections.abc import Iterator, Mapping

from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger import one_page
from orthanc_ledger.provenance import Tone
from orthanc_ledger.spool import CONFLICTS, QUARANTINE
from orthanc_ledger.web.console.frame import badge, link, page, table
from orthanc_ledger.web.console.html import Element, h
from orthanc_ledger.web.console.http import Response
from orthanc_ledger.web.console.visit import Visit, route


def _overview(visit: Visit, names: Mapping[str, str]) -> Response:
    waiting = list(_waiting(visit))
    what = table("What waits for a decision", ("Where", "How many"), waiting) if waiting else None
    roles = ", ".join(sorted(visit.account.roles))
    return page(visit, "Overview", what, h("p", f"You are logged in as {visit.account.name}: {roles}."))


def _waiting(visit: Visit) -> Iterator[tuple[Element, Element]]:
    house, account = visit.house, visit.account
    if account.may("staff"):
        if house.node is not None:
            for queue, name in ((CONFLICTS, "Conflicts"), (QUARANTINE, "Quarantine")):
                yield link(name, f"/{queue}"), _count(len(house.node.spool.names(queue)))
        yield link("Alarms", "/alarms"), _count(len(house.outbox.alarms()))
    if account.may("approver"):
        try:
            open_requests, more = one_page(house.ledger, "RequestsByState", {"state": "open"})
        except LedgerAway:
            yield link("Open requests", "/requests", state="open"), badge("not known now: the ledger is away")
        else:
            yield link("Open requests", "/requests", state="open"), _count(len(open_requests), more)


def _count(number: int, more: bool = False) -> Element:
    return badge(f"{number} or more" if more else str(number), Tone.ATTENTION if number else Tone.GOOD)


ROUTES = (route("GET", "/", None, _overview),)
