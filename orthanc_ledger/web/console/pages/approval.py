"""Approve, deny, revoke: what is signed is shown whole, and exactly that is signed, once, by who gives the password
again.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import dag_cbor

from orthanc_ledger.clock import system_clock
from orthanc_ledger.code_labels import ASSURANCES, code_label
from orthanc_ledger.errors import ContractError, LedgerAway
from orthanc_ledger.ledger.contract.codes import DENIAL_REASONS, REVOCATION_REASONS
from orthanc_ledger.ledger.contract.requests import APPROVERS, DAY_S
from orthanc_ledger.web.console.frame import button, choice, facts, field, form, page, time
from orthanc_ledger.web.console.html import Element, h
from orthanc_ledger.web.console.http import Response, redirect
from orthanc_ledger.web.console.pages.request import Request, find_request, shown_request
from orthanc_ledger.web.console.sessions import OFFER_S, Offer
from orthanc_ledger.web.console.signing import Signer, WrongPassphrase, sign, signer_of
from orthanc_ledger.web.console.visit import Visit, route

LOGGER = logging.getLogger(__name__)

_REASONS = {"Deny": DENIAL_REASONS, "Revoke": REVOCATION_REASONS}
_FUNCTIONS = {"approve": "Approve", "deny": "Deny", "revoke": "Revoke"}
_DONE = {"Approve": "approved", "Deny": "denied, for good", "Revoke": "revoked, for good"}
_MOST_DIGITS = 6
_CHANGED = "The request has changed since it was shown: look at it again before you sign."
_GONE = "What was shown to be signed counts no more: look at the request again."
_BUSY = "Something else is being signed: look at the request again."
_TOO_OFTEN = "Too many wrong passwords: wait a quarter of an hour."


def possible(role: str, organisation: str, request: Request) -> list[str]:
    """What an organisation may do about a request now (docs/contract.md). An open one is denied by who approves, and
    revoked by who asked.
    """
    state, approved = request["state"], request["approvals"]
    own = role == "research" and request["by"]["organisation"] == organisation
    rules = {
        "Approve": state == "open" and role in request["needs"] and role not in approved,
        "Deny": state == "open" and role in APPROVERS,
        "Revoke": (state == "approved" and role in APPROVERS) or (state in ("open", "approved") and own),
    }
    return [function for function, may in rules.items() if may]


def actions(visit: Visit, request: Request) -> Iterator[Element]:
    """What the house may do about a request now: each leads to a page that shows what is signed."""
    functions = possible(visit.house.role(), visit.house.organisation, request)
    if not functions:
        return
    here = f"/requests/{request['id'].hex()}"
    yield h("h2", "Decide")
    if "Approve" in functions:
        most = request["days"]
        days = field("Days", "days", str(most), "number", min=1, max=most, inputmode="numeric", required=True)
        yield _leads_to(f"{here}/approve", days, "Approve…")
    for name, function in (("deny", "Deny"), ("revoke", "Revoke")):
        if function in functions:
            reasons = [(reason, code_label(function, reason)) for reason in _REASONS[function]]
            why = choice(f"Why {name}", f"{name}_reason", reasons, "other")
            yield _leads_to(f"{here}/{name}", why, f"{function}…", "danger")


def _leads_to(path: str, what: Element, text: str, kind: str = "") -> Element:
    return h("form", what, button(text, kind), class_="card actions", method="get", action=path)


def _look(visit: Visit, names: Mapping[str, str]) -> Response:
    """Show what is signed, and keep it to be signed so."""
    request, function = find_request(visit, names["id"]), _FUNCTIONS[names["action"]]
    if function not in possible(visit.house.role(), visit.house.organisation, request):
        return _refused(visit, names["id"], f"{function} is not possible: the request is {request['state']}.")
    args: dict[str, Any] = {"id": request["id"]}
    if function == "Approve":
        days = visit.request.query.get("days", "")
        if not days.isdecimal() or len(days) > _MOST_DIGITS or not 1 <= int(days) <= request["days"]:
            return _refused(visit, names["id"], f"Days: expected 1 to {request['days']}.")
        args |= {"until": system_clock() + int(days) * DAY_S, "release": request["release"]}
    else:
        reason = visit.request.query.get(f"{names['action']}_reason", "")
        if reason not in _REASONS[function]:
            return _refused(visit, names["id"], "Why: expected one of the list.")
        args["reason"] = reason
    offer = Offer(function, args, _seen(request), visit.session.used + OFFER_S)
    return _to_sign(visit, request, offer, visit.session.offer(offer))


def _sign(visit: Visit, names: Mapping[str, str]) -> Response:
    """One at a time: several at once would be more guesses than one may make, or sign twice."""
    if not visit.session.signing.acquire(blocking=False):
        return _refused(visit, names["id"], _BUSY)
    try:
        return _sign_offered(visit, names)
    finally:
        visit.session.signing.release()


def _sign_offered(visit: Visit, names: Mapping[str, str]) -> Response:
    given, session = visit.request.form, visit.session
    name = given.get("offer", "")
    offer = session.offers.get(name)
    if offer is None or session.used > offer.until or offer.args["id"].hex() != names["id"]:
        return _refused(visit, names["id"], _GONE)
    request = find_request(visit, names["id"])
    if _seen(request) != offer.seen:
        session.offers.pop(name, None)
        return _refused(visit, names["id"], _CHANGED)
    if not visit.wrong.allows(visit.account.name):
        return _refused(visit, names["id"], _TOO_OFTEN, 429)
    if not visit.account.fits(given.get("password", "")):
        visit.wrong.failed(visit.account.name)
        return _to_sign(visit, request, offer, name, "The password is wrong.")
    return _signed(visit, request, offer, name, given.get("passphrase", ""))


def _signed(visit: Visit, request: Request, offer: Offer, name: str, passphrase: str) -> Response:
    here = request["id"].hex()
    try:
        signer, committed = sign(visit.house, visit.account, passphrase, offer)
    except WrongPassphrase:
        visit.wrong.failed(visit.account.name)
        return _to_sign(visit, request, offer, name, "The passphrase does not open your key.")
    except ContractError as error:
        return _refused(visit, here, f"The ledger refused it: {error}.")
    except LedgerAway as error:
        problem = f"No answer from the ledger, it may count all the same: look at the request. {error}."
        return _refused(visit, here, problem, 503)
    visit.session.offers.pop(name, None)
    LOGGER.info("%s called %s of %s, %s", visit.account.name, offer.function, here, signer.assurance)
    where = f"on the ledger at {committed.position}, signed with {signer.assurance}"
    visit.session.said = f"The request is {_DONE[offer.function]} by {signer.organisation}: {where}."
    return redirect(f"/requests/{here}")


def _to_sign(visit: Visit, request: Request, offer: Offer, name: str, problem: str | None = None) -> Response:
    signer = signer_of(visit.house, visit.account)
    own_key = visit.account.identity is not None
    here = f"/requests/{request['id'].hex()}"
    return page(
        visit,
        f"{offer.function} a request",
        shown_request(visit, request),
        h("h2", "What you sign"),
        facts(_told(offer, signer)),
        form(
            visit,
            f"{here}/sign",
            h("input", type="hidden", name="offer", value=name),
            field("Your password again", "password", "", "password", autocomplete="current-password", required=True),
            field("Passphrase of your key", "passphrase", "", "password", autocomplete="off", required=True)
            if own_key
            else None,
            button(f"Sign and {offer.function.lower()}", "danger" if offer.function != "Approve" else ""),
            class_="card",
        ),
        h("p", h("a", "Do not sign", href=here)),
        status=403 if problem else 200,
        problem=problem,
    )


def _told(offer: Offer, signer: Signer) -> Iterator[tuple[str, Any]]:
    yield "Function", offer.function
    yield "Request", h("code", offer.args["id"].hex())
    if "until" in offer.args:
        yield "Until", time(offer.args["until"])
        yield "Release", offer.args["release"]
    if "reason" in offer.args:
        yield "Why", code_label(offer.function, offer.args["reason"])
    yield "Signed for", f"{signer.organisation}, {signer.role}"
    with_what = "your own key" if signer.assurance == ASSURANCES["person"] else "the node's key, which says it was you"
    yield "The record will say", f"{signer.assurance}: signed with {with_what}"
    yield "Certificate", h("code", f"serial {signer.serial}")


def _refused(visit: Visit, request_id: str, problem: str, status: int = 409) -> Response:
    back = h("p", h("a", "Back to the request", href=f"/requests/{request_id}"))
    return page(visit, "Not signed", back, problem=problem, status=status)


def _seen(request: Request) -> bytes:
    """What stands for a request as it was shown."""
    return hashlib.sha256(dag_cbor.encode(dict(request))).digest()


ROUTES = (
    route("GET", "/requests/{id}/{action}", "approver", _look),
    route("POST", "/requests/{id}/sign", "approver", _sign),
)
