"""Alarms: what a person has to look at, and what to do."""

from collections.abc import Mapping

from orthanc_ledger.alarm_advice import advice_on
from orthanc_ledger.outbox import CONFLICT, QUARANTINED, SUPERSESSION, Alarm
from orthanc_ledger.spool import CONFLICTS, QUARANTINE
from orthanc_ledger.web.console.frame import badge, link, page, table, time
from orthanc_ledger.web.console.html import Element, foreign, h
from orthanc_ledger.web.console.http import Response
from orthanc_ledger.web.console.search import PAGE
from orthanc_ledger.web.console.visit import Visit, route

_QUEUES = {CONFLICT: CONFLICTS, SUPERSESSION: CONFLICTS, QUARANTINED: QUARANTINE}
_COLUMNS = ("Kind", "Since", "What", "What to do")


def _alarms(visit: Visit, names: Mapping[str, str]) -> Response:
    start = visit.request.start
    alarms = visit.house.outbox.alarms()
    rows = [_line(visit, alarm) for alarm in alarms[start : start + PAGE]]
    return page(
        visit,
        "Alarms",
        table(f"{len(alarms)} stand", _COLUMNS, rows) if rows else h("p", "No alarm stands."),
        h("p", link("Go on", "/alarms", **{"from": str(start + PAGE)})) if start + PAGE < len(alarms) else None,
    )


def _line(visit: Visit, alarm: Alarm) -> tuple[Element | str, ...]:
    [advice] = advice_on([alarm])
    queue = _QUEUES.get(alarm.kind) if visit.house.node is not None else None
    what_to_do = link(advice.what_to_do, f"/{queue}") if queue else advice.what_to_do
    return badge(alarm.kind, advice.tone), time(alarm.time), foreign(alarm.text), what_to_do


ROUTES = (route("GET", "/alarms", "staff", _alarms),)
