"""audit: what the ledger recorded, for people, spreadsheets and audit repositories."""

import argparse
import csv
import json
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orthanc_ledger.audit_export import CSV_COLUMNS, audit_event, csv_row
from orthanc_ledger.commands.terminal import add_json, add_ledger, open_node, open_records, show
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.words import moment

_IDS = ("id", "request", "release", "dataset")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("audit", help="the ledger's records, in the order of their commits")
    parser.add_argument("--study", metavar="UID|TOKEN", help="only of this study; its token needs no node")
    parser.add_argument("--organisation", metavar="MSPID", help="only by this organisation")
    parser.add_argument(
        "--from", dest="start", metavar="TIME", help="from this time on, UTC, as 2026-01-31 or 2026-01-31T12:00"
    )
    parser.add_argument("--until", metavar="TIME", help="before this time")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=("table", "csv", "fhir"),
        default="table",
        help="fhir: AuditEvent resources (R4, IHE BALP), one a line (default: %(default)s)",
    )
    add_json(form)
    add_ledger(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    question: dict[str, Any] = {}
    if args.study:
        question["study"] = _token(args)
    if args.organisation:
        question["organisation"] = args.organisation
    for name, text in (("from", args.start), ("until", args.until)):
        if text:
            question[name] = _seconds(text)
    ledger = open_records(args)
    events = list(all_rows(ledger, "Audit", question))
    if args.format == "csv":
        table = csv.DictWriter(sys.stdout, CSV_COLUMNS)
        table.writeheader()
        table.writerows(csv_row(event) for event in events)
    elif args.format == "fhir":
        owner = _owner(ledger)
        for event in events:
            print(json.dumps(audit_event(event, owner)))
    else:
        show([_row(event) for event in events], args.json, ("sequence", "time", "function", "by", "details"))
    return 0


def _token(args: argparse.Namespace) -> bytes:
    if re.fullmatch("[0-9A-Fa-f]{32}", args.study):  # no UID: that has points (PS3.5 9.1)
        return bytes.fromhex(args.study)
    keys = open_node(args).keyring.study(args.study)
    if keys is None:
        raise NotHeld(f"--study {args.study}: not held here; `orthanc-ledger studies` lists what is")
    return keys.token


def _owner(ledger: Ledger) -> str:
    organisations: Mapping[str, str] = ledger.query("GetPolicy", {})["organisations"]
    return next(msp_id for msp_id, role in organisations.items() if role == "owner")


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    by = event["by"]
    who = f"{by['organisation']} ({by['role']}, {by['assurance']})"
    return {**event, "time": moment(event["time"]), "by": who, "details": _details(event)}


def _details(event: Mapping[str, Any]) -> str:
    """What says something to a person: numbers, codes, nodes, of ids the beginning; no tokens."""
    words = []
    made = {name: value for name, value in (event["result"] or {}).items() if name in _IDS}
    for name, value in {**event["args"], **made}.items():
        if name in ("node", "peer"):
            words.append(f"{name}={value['organisation']}/{value['aeTitle']}")
        elif name == "until":
            words.append(f"until={moment(value)}")
        elif name in _IDS and isinstance(value, bytes):
            words.append(f"{name}={value.hex()[:8]}")
        elif isinstance(value, (str, int)):
            words.append(f"{name}={value}")
    return " ".join(words)


def _seconds(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except ValueError as error:
        raise ConfigError(f"{text!r}: expected a time as 2026-01-31 or 2026-01-31T12:00 (UTC)") from error
