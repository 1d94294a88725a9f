"""A request for access, whole: what all must see who sign anything about it."""

from collections.abc import Iterator, Mapping
from typing import Any

from orthanc_ledger.asked import request_facts
from orthanc_ledger.code_labels import ASSURANCES
from orthanc_ledger.errors import ContractError, NotHeld
from orthanc_ledger.provenance import Tone
from orthanc_ledger.web.console.frame import badge, code, date, facts, link, table, time
from orthanc_ledger.web.console.html import Element, foreign, h
from orthanc_ledger.web.console.visit import Visit

Request = Mapping[str, Any]
"""As the query GetRequest has it."""

_TONES = {"open": Tone.ATTENTION, "approved": Tone.GOOD}
_FACTS = {
    "to": "Who gets it",
    "studies": "Studies",
    "classes": "What of them",
    "for": "Purpose",
    "how": "How",
    "keys": "Keys",
}


def state_badge(state: str) -> Element:
    """A request's state."""
    return badge(state, _TONES.get(state, Tone.NEUTRAL))


def find_request(visit: Visit, request_id: str) -> Request:
    """The request as the ledger has it now. Raises NotHeld, LedgerAway."""
    try:
        found: Request = visit.house.ledger.query("GetRequest", {"id": bytes.fromhex(request_id)})
    except ContractError as error:
        raise NotHeld("There is no such request on the ledger.") from error
    return found


def shown_request(visit: Visit, request: Request) -> Iterator[Any]:
    """What one must know of a request before one signs anything about it."""
    told = request_facts(visit.house.ledger, request)
    yield h("h2", "The request")
    yield h("p", "Its digest, which is its name on the ledger:")
    yield h("code", request["id"].hex(), class_="digest")
    yield facts(
        [
            ("State", state_badge(request["state"])),
            *((_FACTS[name], told[name]) for name in _FACTS if name in told),
            ("Asked by", (request["by"]["organisation"], ", ", ASSURANCES[request["by"]["assurance"]])),
            ("Asked at", time(request["time"])),
            ("Approved until", time(request["until"]) if request["until"] else None),
        ]
    )
    yield _studies(visit, request)
    yield _approvals(request)


def _studies(visit: Visit, request: Request) -> Element | None:
    tokens = request.get("studies")
    if not tokens:
        return None
    if visit.house.node is None:
        return table(
            "Studies, by the tokens that the hospital gave", ("Token",), [(code(each.hex()),) for each in tokens]
        )
    index = visit.house.node.index
    uids = {token: index.study_of_token(token) for token in tokens}
    held = {uid: attributes for uid, _, attributes in index.studies([uid for uid in uids.values() if uid])}
    rows = []
    for token, uid in uids.items():
        attributes = held.get(uid or "", {})
        name = foreign(attributes.get("StudyDescription") or uid or "not held here")
        shown = link(name, f"/studies/{uid}") if uid and visit.account.may("staff") else name
        rows.append((shown, date(attributes.get("StudyDate", "")), code(uid or ""), code(token.hex())))
    return table("Studies", ("Study", "Date", "Study Instance UID", "Token"), rows)


def _approvals(request: Request) -> Element | None:
    rows = [
        (role, each["by"]["organisation"], ASSURANCES[each["by"]["assurance"]], time(each["time"]), time(each["until"]))
        for role, each in sorted(request["approvals"].items())
    ]
    if not rows:
        return None
    return table("Who has approved it", ("Role", "Organisation", "Signed with", "At", "Until"), rows)
