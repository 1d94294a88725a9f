"""request, requests, approve, deny, revoke: who may have which studies, for how long."""

import argparse
import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

from pydicom._uid_dict import UID_dictionary

from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    hex_bytes,
    moment,
    open_ledger,
    open_node,
    show,
    submit,
    tell,
)
from orthanc_ledger.errors import ConfigError, ContractError, NotHeld
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.ledger.contract.codes import DENIAL_REASONS, RELEASE_FORMS, REVOCATION_REASONS
from orthanc_ledger.ledger.contract.requests import DAY_S, STATES

IMAGES = sorted(uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and "Image Storage" in entry[0])
"""SOP classes a request asks for unless it names its own: every image storage class (PS3.4 B.5)."""

_COLUMNS = (
    "id",
    "state",
    "organisation",
    "ae_title",
    "studies",
    "release",
    "duo",
    "days",
    "until",
    "approved_by",
    "needs",
)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    request = subparsers.add_parser("request", help="ask for access to studies (research)")
    request.add_argument(
        "--studies", type=Path, required=True, metavar="FILE", help="tokens, from `studies --tokens FILE`"
    )
    request.add_argument(
        "--node", required=True, metavar="AE", help="AE title of the own confirmed node that will receive"
    )
    request.add_argument(
        "--duo",
        action="append",
        default=[],
        metavar="DUO:NNNNNNN",
        help="purpose, a Data Use Ontology code (may be repeated)",
    )
    request.add_argument("--days", type=int, default=30, help="how long (default: %(default)s)")
    request.add_argument(
        "--release",
        choices=RELEASE_FORMS,
        default="identified",
        help="default: %(default)s, the only form this version offers",
    )
    request.add_argument(
        "--sop-class", action="append", default=[], metavar="UID", help="SOP class wanted (default: all images)"
    )
    request.add_argument("--future", action="store_true", help="also what is anchored after the approval")
    request.add_argument("--description", default="", help="what it is for; only a salted digest goes on the ledger")
    add_identity(request, "research")
    add_json(request)
    request.set_defaults(run=_request)

    requests = subparsers.add_parser("requests", help="list requests")
    requests.add_argument("--state", choices=STATES, help="only these (default: all)")
    add_json(requests)
    requests.set_defaults(run=_requests)

    approve = subparsers.add_parser("approve", help="approve a request (owner and custodian)")
    approve.add_argument("id")
    approve.add_argument("--days", type=int, help="for how long from now (default: as requested)")
    add_identity(approve, "custodian")
    add_json(approve)
    approve.set_defaults(run=_approve)

    for name, reasons, default, run in (
        ("deny", DENIAL_REASONS, "custodian", _end),
        ("revoke", REVOCATION_REASONS, "custodian", _end),
    ):
        end = subparsers.add_parser(name, help=f"{name} a request, for good")
        end.add_argument("id")
        end.add_argument("--reason", choices=reasons, default="other", help="default: %(default)s")
        add_identity(end, default)
        add_json(end)
        end.set_defaults(run=run, function=name.capitalize())


def _request(args: argparse.Namespace) -> int:
    node = open_node(args)
    ledger = open_ledger(args, node)
    organisation, tokens = _read_tokens(args.studies)
    salt = secrets.token_bytes(32)
    committed = submit(
        ledger,
        "RequestAccess",
        {
            "studies": tokens,
            "sopClasses": sorted(set(args.sop_class)) or IMAGES,
            "duo": sorted(set(args.duo)),
            "days": args.days,
            "node": {"organisation": organisation, "aeTitle": args.node},
            "release": args.release,
            "future": args.future,
            "descriptionDigest": hashlib.sha256(salt + args.description.encode()).digest(),
        },
        secrets.token_bytes(16),
    )
    row = {"id": committed.result["id"], "position": committed.position, "description_salt": salt}
    show([row], args.json, ("id", "position"))
    return 0


def _read_tokens(path: Path) -> tuple[str, list[bytes]]:
    try:
        file = json.loads(path.read_text(encoding="utf-8"))
        return str(file["for"]), [bytes.fromhex(token) for token in file["studies"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--studies {path}: expected a file made by `orthanc-ledger studies --tokens`: {error}"
        ) from error


def _requests(args: argparse.Namespace) -> int:
    ledger = open_node(args).ledger_as(None)
    states = [args.state] if args.state else STATES
    found = [_row(request) for state in states for request in ledger.query("RequestsByState", {"state": state})]
    show(found, args.json, _COLUMNS)
    return 0


def _row(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": request["id"],
        "state": request["state"],
        "organisation": request["node"]["organisation"],
        "ae_title": request["node"]["aeTitle"],
        "studies": len(request["studies"]),
        "release": request["release"],
        "duo": request["duo"],
        "days": request["days"],
        "until": moment(request["until"]) if request["until"] else None,
        "approved_by": sorted(request["approvals"]),
        "needs": request["needs"],
    }


def _approve(args: argparse.Namespace) -> int:
    ledger = open_ledger(args, open_node(args))
    request = _find(ledger, args.id)
    days = request["days"] if args.days is None else args.days
    until = int(time.time()) + days * DAY_S
    submit(ledger, "Approve", {"id": request["id"], "until": until, "release": request["release"]})
    row = _row(ledger.query("GetRequest", {"id": request["id"]}))
    needed = [role for role in row["needs"] if role not in row["approved_by"]]
    sentence = f"counted; still needed: {', '.join(needed)}" if needed else f"approved until {row['until']}"
    tell(args, row, sentence)
    return 0


def _find(ledger: Ledger, request_id: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ledger.query("GetRequest", {"id": hex_bytes(request_id)})
    except ContractError as error:
        raise NotHeld(f"{request_id}: no such request; `orthanc-ledger requests` lists them") from error
    return found


def _end(args: argparse.Namespace) -> int:
    ledger = open_ledger(args, open_node(args))
    committed = submit(ledger, args.function, {"id": hex_bytes(args.id), "reason": args.reason})
    state = "denied" if args.function == "Deny" else "revoked"
    tell(args, {"id": args.id, "state": state, "position": committed.position}, f"{state}, for good")
    return 0
