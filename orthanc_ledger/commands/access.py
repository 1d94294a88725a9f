"""request, requests, approve, deny, revoke: who may have which studies, for how long."""

import argparse
import json
import secrets
import time
from pathlib import Path
from typing import Any

from orthanc_ledger.asked import COLUMNS, IMAGES, description_digest, request_in_words, row_of
from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    add_ledger,
    hex_bytes,
    node_here,
    open_ledger,
    open_records,
    show,
    signer,
    submit,
    tell,
)
from orthanc_ledger.errors import ConfigError, ContractError, NotHeld
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.ledger.admission import SIGNED_AHEAD_S
from orthanc_ledger.ledger.contract.codes import DENIAL_REASONS, RELEASE_FORMS, REVOCATION_REASONS
from orthanc_ledger.ledger.contract.requests import DAY_S, STATES
from orthanc_ledger.recipient_key import read_public
from orthanc_ledger.words import moment


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    request = subparsers.add_parser("request", help="ask for access to studies (research)")
    asked = request.add_mutually_exclusive_group(required=True)
    asked.add_argument("--studies", type=Path, metavar="FILE", help="tokens, from `studies --tokens FILE`")
    asked.add_argument(
        "--dataset", metavar="ID[:VERSION]", help="as `datasets` lists it (default: its newest version not withdrawn)"
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
    request.add_argument(
        "--public-key",
        type=Path,
        metavar="FILE",
        help="from `keypair`, to `pull` from IPFS: keys are sealed to this one, for as long as the request stands",
    )
    request.add_argument("--description", default="", help="what it is for; only a salted digest goes on the ledger")
    add_identity(request, "research")
    add_json(request)
    request.set_defaults(run=_request)

    requests = subparsers.add_parser("requests", help="list requests")
    requests.add_argument("--state", choices=STATES, help="only these (default: all)")
    add_ledger(requests)
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
    ledger = open_ledger(args)
    organisation, studies = _dataset(args, ledger) if args.dataset else _read_tokens(args.studies)
    salt = secrets.token_bytes(32)
    asked = {
        **studies,
        "sopClasses": sorted(set(args.sop_class)) or IMAGES,
        "duo": sorted(set(args.duo)),
        "days": args.days,
        "node": {"organisation": organisation, "aeTitle": args.node},
        "release": args.release,
        "future": args.future,
        **({"publicKeyDigest": read_public(args.public_key).digest} if args.public_key else {}),
        "descriptionDigest": description_digest(salt, args.description),
    }
    committed = submit(ledger, "RequestAccess", asked, secrets.token_bytes(16))
    request_id = committed.result["id"]
    if not args.json:
        print(request_in_words(ledger, asked, node_here(args)))
        print(f"id       {request_id.hex()}\nsalt     {salt.hex()} (of the description)")
    row = {"id": request_id, "position": committed.position, "description_salt": salt}
    tell(args, row, "asked; owner and custodian look at it with `orthanc-ledger requests`, and approve or deny it")
    return 0


def _dataset(args: argparse.Namespace, ledger: Ledger) -> tuple[str, dict[str, Any]]:
    """The signing organisation, and the dataset version that --dataset names."""
    text, _, number = args.dataset.partition(":")
    versions = [row for row in all_rows(ledger, "Datasets", {}) if row["id"] == hex_bytes(text)]
    named = [row for row in versions if (str(row["version"]) == number if number else row["state"] == "registered")]
    if not named:
        raise NotHeld(f"--dataset {args.dataset}: no such dataset stands; `orthanc-ledger datasets` lists them")
    newest = named[-1]
    return signer(args).msp_id, {"dataset": newest["id"], "version": newest["version"]}


def _read_tokens(path: Path) -> tuple[str, dict[str, Any]]:
    """The organisation that the tokens are for, and the studies."""
    try:
        file = json.loads(path.read_text(encoding="utf-8"))
        return str(file["for"]), {"studies": [bytes.fromhex(token) for token in file["studies"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--studies {path}: expected a file made by `orthanc-ledger studies --tokens`: {error}"
        ) from error


def _requests(args: argparse.Namespace) -> int:
    ledger, node = open_records(args), node_here(args)
    found = all_rows(ledger, "RequestsByState", {"state": args.state} if args.state else {})
    by_state = sorted(found, key=lambda request: STATES.index(request["state"]))
    show([row_of(request, node) for request in by_state], args.json, COLUMNS)
    return 0


def _approve(args: argparse.Namespace) -> int:
    ledger, node = open_ledger(args), node_here(args)
    request = _find(ledger, args.id)
    days = request["days"] if args.days is None else args.days
    # A clock here may be ahead of the ledger's, which refuses more than the days asked for.
    until = int(time.time()) + days * DAY_S - (SIGNED_AHEAD_S if "signed_file" in args else 0)
    if not args.json:
        print(f"{request_in_words(ledger, request, node)}\nuntil    {moment(until)}")
    submit(ledger, "Approve", {"id": request["id"], "until": until, "release": request["release"]})
    row = row_of(ledger.query("GetRequest", {"id": request["id"]}), node)
    missing = row["missing"]
    sentence = f"counted; still needed: {', '.join(missing)}" if missing else f"approved until {row['until']}"
    tell(args, {**row, "signed_until": moment(until)}, sentence)
    return 0


def _find(ledger: Ledger, request_id: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ledger.query("GetRequest", {"id": hex_bytes(request_id)})
    except ContractError as error:
        raise NotHeld(f"{request_id}: no such request; `orthanc-ledger requests` lists them") from error
    return found


def _end(args: argparse.Namespace) -> int:
    committed = submit(open_ledger(args), args.function, {"id": hex_bytes(args.id), "reason": args.reason})
    state = "denied" if args.function == "Deny" else "revoked"
    tell(args, {"id": args.id, "state": state, "position": committed.position}, f"{state}, for good")
    return 0
