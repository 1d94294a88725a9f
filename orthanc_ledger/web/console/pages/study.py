"""One study: all that is known of it, and its objects."""

from collections.abc import Mapping
from typing import Any

from orthanc_ledger.errors import NotHeld
from orthanc_ledger.listing import Row
from orthanc_ledger.provenance import MEANING, Anchored, Event, Provenance, Released
from orthanc_ledger.web.console.frame import badge, code, date, facts, link, page, table, time
from orthanc_ledger.web.console.html import Element, foreign, h
from orthanc_ledger.web.console.http import Response
from orthanc_ledger.web.console.search import PAGE
from orthanc_ledger.web.console.visit import Visit, route

_MOST_EVENTS = 200
_SHOWN = (
    ("Patient ID", "PatientID"),
    ("Sex", "PatientSex"),
    ("Accession number", "AccessionNumber"),
    ("Referring physician", "ReferringPhysicianName"),
)
_OBJECT = ("SOP Instance UID", "State", "Received", "Sealed object (CID)")


def _study(visit: Visit, names: Mapping[str, str]) -> Response:
    uid, node = names["uid"], visit.house.held
    known = node.chronicle.of("study", uid)
    attributes = next((attributes for _, _, attributes in node.index.studies([uid])), {})
    title = attributes.get("StudyDescription") or "Study"
    return page(
        visit,
        title,
        _state(known),
        facts(
            [
                ("Patient", foreign(attributes["PatientName"]) if attributes.get("PatientName") else None),
                ("Birth date", _date(attributes.get("PatientBirthDate"))),
                *((label, _text(attributes.get(keyword))) for label, keyword in _SHOWN),
                ("Study date", _date(attributes.get("StudyDate"))),
                ("Study Instance UID", code(uid)),
                ("Objects", _counts(known)),
                ("Last check", _last_check(known)),
                ("Not known now", known.ledger_away and foreign(f"what the ledger says: {known.ledger_away}")),
            ]
        ),
        _alarms(known),
        _releases(visit, known.releases),
        _anchors(known.anchors),
        _series(visit, uid),
        _timeline(node.chronicle.events(uid)),
    )


def _state(known: Provenance) -> Element:
    since = (" since ", time(known.since)) if known.since is not None else None
    return h("p", badge(known.state, known.tone), since, ". ", MEANING[known.state], class_="state")


def _counts(known: Provenance) -> str:
    counts = known.counts
    named = (
        ("anchored", counts.anchored),
        ("waiting", counts.waiting),
        ("in quarantine", counts.quarantined),
        ("with other content under the same UID", counts.conflicts),
        ("withheld", counts.damaged),
        ("withdrawn", counts.withdrawn),
        ("superseded", counts.superseded),
        ("in Orthanc from before the installation", counts.earlier),
    )
    return "; ".join([f"{counts.held} held", *(f"{number} {name}" for name, number in named if number)])


def _last_check(known: Provenance) -> Any:
    if known.checked is None:
        return "not all of it has been verified since it was anchored" if known.anchors else None
    return ("all of it was verified between ", time(known.checked.begun), " and ", time(known.checked.ended))


def _alarms(known: Provenance) -> Any:
    if not known.alarms:
        return None
    rows = [
        (badge(each.kind, each.tone), time(each.since), str(each.count), foreign(each.text), each.what_to_do)
        for each in known.alarms
    ]
    return h("h2", "Alarms"), table("What a person has to look at", ("Kind", "Since", "How many", "What", "Do"), rows)


def _releases(visit: Visit, releases: tuple[Released, ...]) -> Any:
    if not releases:
        return None
    rows = [
        (
            f"{each.organisation}, {each.ae_title}",
            ", ".join(each.purposes) or "no purpose named",
            _request(visit, each.request),
            each.state,
            (time(each.first), None if each.first == each.last else (" to ", time(each.last))),
            f"{each.released} released, {'not all told' if each.sent is None else each.sent} sent",
        )
        for each in releases
    ]
    columns = ("To", "Why", "Request", "State", "When", "Objects")
    return h("h2", "Releases to research"), table("Who was given something of it", columns, rows)


def _request(visit: Visit, request: str) -> Element:
    short = h("code", request[:8])
    return link(short, f"/requests/{request}") if visit.account.may("approver") else short


def _anchors(anchors: tuple[Anchored, ...]) -> Any:
    if not anchors:
        return None
    stored = {None: "not known now", True: "yes", False: "not yet"}
    rows = [
        (
            code(str(each.position)),
            "not known now" if each.time is None else time(each.time),
            str(each.count),
            stored[each.stored],
            code(each.manifest),
        )
        for each in anchors
    ]
    columns = ("Ledger position", "Time", "Objects", "Held by the custodian", "Manifest (CID)")
    return h("h2", "On the ledger"), table("What anchors it", columns, rows)


def _series(visit: Visit, uid: str) -> Any:
    listing = visit.house.held.index.listing
    series = listing.series([uid]).get(uid, [])
    if not series:
        return None
    counts: dict[str, int] = {}
    for part in listing.parts([uid]).get(uid, []):
        counts[part.series_uid] = counts.get(part.series_uid, 0) + part.count
    rows = [
        (
            foreign(each["SeriesNumber"] or "–"),
            foreign(each["Modality"]),
            link(
                foreign(each["SeriesDescription"] or each["SeriesInstanceUID"]),
                f"/studies/{uid}/series/{each['SeriesInstanceUID']}",
            ),
            str(counts.get(each["SeriesInstanceUID"], 0)),
        )
        for each in sorted(series, key=_number)
    ]
    return h("h2", "Series"), table("Series that are held", ("Number", "Modality", "Series", "Objects"), rows)


def _timeline(events: list[Event]) -> Any:
    if not events:
        return None
    latest = events[-_MOST_EVENTS:]
    cut = h("p", f"The latest {_MOST_EVENTS} of {len(events)} events.") if len(events) > len(latest) else None
    items = [
        h(
            "li",
            time(each.time),
            h("strong", each.what),
            f" by {each.who}" if each.who else None,
            (", ledger position ", code(str(each.position))) if each.position is not None else None,
            h("div", foreign(each.detail)) if each.detail else None,
            class_=each.tone,
        )
        for each in latest
    ]
    return h("h2", "Timeline"), cut, h("ol", items, class_="timeline")


def _objects(visit: Visit, names: Mapping[str, str]) -> Response:
    study, series, node = names["uid"], names["series"], visit.house.held
    held = [each for each in node.index.select(series=[series]) if each.study_uid == study]
    if not held:
        raise NotHeld("This node has nothing of this series.")
    start = visit.request.start
    known = node.chronicle.of("series", series)
    rows = [
        (code(each.sop_uid), each.state, time(each.received_us // 1_000_000), code(each.object) if each.object else "–")
        for each in held[start : start + PAGE]
    ]
    here = f"/studies/{study}/series/{series}"
    return page(
        visit,
        "Series",
        h("p", link("Back to the study", f"/studies/{study}")),
        _state(known),
        facts([("Series Instance UID", code(series)), ("Objects", _counts(known))]),
        table(f"Objects {start + 1} to {start + len(rows)} of {len(held)}", _OBJECT, rows) if rows else None,
        h("p", link("Go on", here, **{"from": str(start + PAGE)})) if start + PAGE < len(held) else None,
    )


def _number(series: Row) -> tuple[bool, int, str]:
    text = series["SeriesNumber"].strip()
    return (not text.isdecimal(), int(text) if text.isdecimal() and len(text) < 13 else 0, text)


def _date(text: str | None) -> Element | None:
    return date(text) if text else None


def _text(text: str | None) -> Element | None:
    return foreign(text) if text else None


ROUTES = (
    route("GET", "/studies/{uid}", "staff", _study, of_node=True),
    route("GET", "/studies/{uid}/series/{series}", "staff", _objects, of_node=True),
)
