"""Conflicts and quarantine: what waits, in what it differs, and what staff decide about it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orthanc_ledger import decisions
from orthanc_ledger.assemble import Node
from orthanc_ledger.code_labels import code_label
from orthanc_ledger.decisions import Waiting
from orthanc_ledger.difference import difference
from orthanc_ledger.errors import DataError, ServiceAway
from orthanc_ledger.ledger.contract.codes import SUPERSEDE_REASONS
from orthanc_ledger.outbox import QUARANTINED
from orthanc_ledger.provenance import Tone
from orthanc_ledger.spool import CONFLICTS, QUARANTINE, claim_of
from orthanc_ledger.web.console.frame import badge, button, choice, code, facts, form, link, page, table, time
from orthanc_ledger.web.console.html import Element, foreign, h
from orthanc_ledger.web.console.http import Response, redirect
from orthanc_ledger.web.console.search import PAGE
from orthanc_ledger.web.console.visit import Handler, Visit, route

LOGGER = logging.getLogger(__name__)

_TITLES = {CONFLICTS: "Conflicts", QUARANTINE: "Quarantine"}
_MEANING = {
    CONFLICTS: "Other content that came under a UID that is taken. The first content stays in use until you decide.",
    QUARANTINE: "Objects that could not be read. They are kept as they came and are not anchored.",
}
_KEPT = "The first content stays; the other is deleted."
_PROPOSED = "Decided: it is proposed on the ledger, and in use once the custodian has confirmed it."
_AGAIN = "It is in the inbox again."
_GONE = "Discarded."
_MOST_DIFFERENCES = 200
_COLUMNS = ("Object", "Received", "From", "SOP Instance UID", "State")


def _list(queue: str) -> Handler:
    def answer(visit: Visit, names: Mapping[str, str]) -> Response:
        start = visit.request.start
        found = decisions.waiting(visit.house.held, queue, start, PAGE + 1)
        shown = found[:PAGE]
        rows = [
            (
                link(h("code", each.name[:12]), f"/{queue}/{each.name}"),
                time(each.arrival.received_us // 1_000_000) if each.arrival else "not known",
                foreign(each.arrival.calling_ae) if each.arrival else "not known",
                code(each.arrival.sop_instance) if each.arrival else "not known",
                _state(each),
            )
            for each in shown
        ]
        more = link("Go on", f"/{queue}", **{"from": str(start + PAGE)}) if len(found) > PAGE else None
        listed = table(_TITLES[queue], _COLUMNS, rows) if rows else h("p", "Nothing waits here.")
        return page(visit, _TITLES[queue], h("p", _MEANING[queue]), listed, h("p", more) if more else None)

    return answer


def _conflict(visit: Visit, names: Mapping[str, str]) -> Response:
    node = visit.house.held
    unit = decisions.look(node, CONFLICTS, names["unit"])
    here = f"/{CONFLICTS}/{unit.name}"
    decide = None
    if unit.is_undecided:
        reasons = [(reason, code_label("Supersede", reason)) for reason in SUPERSEDE_REASONS]
        decide = (
            h("h2", "Decide"),
            form(
                visit,
                f"{here}/discard",
                h("p", "The first content stays. This one is deleted, for good."),
                _sure("discard", "Delete the new content for good"),
                button("Keep the first content", "danger"),
                class_="card",
            ),
            form(
                visit,
                f"{here}/supersede",
                h("p", "It is proposed as the current content. Nothing changes until the custodian confirms it."),
                choice("Why", "reason", reasons),
                button("Propose the new content"),
                class_="card",
            )
            if unit.arrival is not None
            else None,
        )
    return page(visit, "Conflict", _came(node, unit), _differences(node, unit), decide)


def _quarantined(visit: Visit, names: Mapping[str, str]) -> Response:
    node = visit.house.held
    unit = decisions.look(node, QUARANTINE, names["unit"])
    here = f"/{QUARANTINE}/{unit.name}"
    alarms = [alarm.text for alarm in node.outbox.standing(QUARANTINED, claim_of(unit.name))]
    return page(
        visit,
        "Object in quarantine",
        _came(node, unit),
        h("p", "Why: ", foreign("; ".join(alarms))) if alarms else None,
        h("h2", "Decide"),
        form(
            visit,
            f"{here}/retry",
            h("p", "It is read again: after an update of this software that can read it."),
            button("Try it again"),
            class_="card",
        ),
        form(
            visit,
            f"{here}/discard",
            h("p", "Nothing of it was anchored. It is deleted, for good."),
            _sure("discard", "Delete it for good"),
            button("Discard it", "danger"),
            class_="card",
        ),
    )


def _decide(queue: str, what: str, act: Callable[[Visit, str], None], said: str, is_final: bool = False) -> Handler:
    def answer(visit: Visit, names: Mapping[str, str]) -> Response:
        name = names["unit"]
        if is_final and visit.request.form.get("sure") != "yes":
            visit.session.said = "Nothing was changed: tick the box if you are sure."
            return redirect(f"/{queue}/{name}")
        act(visit, name)
        LOGGER.info("%s decided about %s in %s: %s", visit.account.name, name, queue, what)
        visit.session.said = said
        return redirect(f"/{queue}")

    return answer


def _supersede(visit: Visit, name: str) -> None:
    reason = visit.request.form.get("reason", "")
    if reason not in SUPERSEDE_REASONS:
        raise DataError(f"reason: expected one of {', '.join(SUPERSEDE_REASONS)}")
    decisions.supersede(visit.house.held, name, reason)


def _came(node: Node, unit: Waiting) -> Element:
    arrival, holder = unit.arrival, node.index.instance(claim_of(unit.name))
    study = holder.study_uid if holder is not None else ""
    return facts(
        [
            ("State", _state(unit)),
            ("Received", None if arrival is None else time(arrival.received_us // 1_000_000)),
            ("From", None if arrival is None else (foreign(arrival.calling_ae), ", ", foreign(arrival.peer))),
            ("Origin", None if arrival is None else foreign(arrival.origin)),
            ("SOP Instance UID", None if arrival is None else code(arrival.sop_instance)),
            ("Study", link(code(study), f"/studies/{study}") if study else None),
            ("Object", code(unit.name)),
        ]
    )


def _differences(node: Node, unit: Waiting) -> Iterator[Any]:
    yield h("h2", "In what it differs")
    if unit.arrival is None:
        yield h("p", "The disk damaged it: it can only be discarded.")
        return
    try:
        found = difference(node, unit.name)
    except (DataError, ServiceAway) as error:
        yield h("p", f"Both cannot be compared now: {error}.")
        return
    if not found:
        yield h("p", "Nothing that a fingerprint holds: only how it is encoded.")
    rows = [(each.change, code(each.where)) for each in found[:_MOST_DIFFERENCES]]
    if rows:
        yield table("The new content against the first", ("Change", "Where"), rows)
    if len(found) > len(rows):
        yield h("p", f"{len(found) - len(rows)} more places differ.")


def _state(unit: Waiting) -> Element:
    return badge(unit.state, Tone.ATTENTION if unit.is_undecided else Tone.NEUTRAL)


def _sure(id_: str, text: str) -> Element:
    box = h("input", type="checkbox", name="sure", value="yes", id=f"{id_}-sure", required=True)
    return h("p", box, h("label", text, for_=f"{id_}-sure"), class_="check")


_ACTIONS: tuple[tuple[str, str, Callable[[Visit, str], None], str, bool], ...] = (
    (CONFLICTS, "discard", lambda visit, name: decisions.discard_conflict(visit.house.held, name), _KEPT, True),
    (CONFLICTS, "supersede", _supersede, _PROPOSED, False),
    (QUARANTINE, "retry", lambda visit, name: decisions.retry(visit.house.held, name), _AGAIN, False),
    (QUARANTINE, "discard", lambda visit, name: decisions.discard_quarantined(visit.house.held, name), _GONE, True),
)
ROUTES = (
    route("GET", f"/{CONFLICTS}", "staff", _list(CONFLICTS), of_node=True),
    route("GET", f"/{QUARANTINE}", "staff", _list(QUARANTINE), of_node=True),
    route("GET", f"/{CONFLICTS}/{{unit}}", "staff", _conflict, of_node=True),
    route("GET", f"/{QUARANTINE}/{{unit}}", "staff", _quarantined, of_node=True),
    *(
        route("POST", f"/{queue}/{{unit}}/{what}", "staff", _decide(queue, what, act, said, is_final), of_node=True)
        for queue, what, act, said, is_final in _ACTIONS
    ),
)
