"""audit: what the ledger recorded, for people, spreadsheets and audit repositories."""

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orthanc_ledger.audit_export import CSV_COLUMNS, audit_event, csv_row
from orthanc_ledger.commands.terminal import add_json, add_ledger, moment, open_node, open_records, show
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.ledger import Ledger


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("audit", help="the ledger's records, in the order of their commits")
    parser.add_argument("--study", metavar="UID", help="only of this study")
    parser.add_argument("--organisation", metavar="MSPID", help="only by this organisation")
    parser.add_argument(
        "--from", dest="start", metavar="TIME", help="from this time on, UTC, as 2026-01-31 or 2026-01-31T12:00"
    )
    parser.add_argument("--until", metavar="TIME", help="before this time")
    parser.add_argument(
        "--format",
        choices=("table", "csv", "fhir"),
        default="table",
        help="fhir: AuditEvent resources (R4, IHE BALP), one a line (default: %(default)s)",
    )
    add_ledger(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    question: dict[str, Any] = {}
    if args.study:
        keys = open_node(args).keyring.study(args.study)
        if keys is None:
            raise NotHeld(f"--study {args.study}: not held here; `orthanc-ledger studies` lists what is")
        question["study"] = keys.token
    if args.organisation:
        question["organisation"] = args.organisation
    for name, text in (("from", args.start), ("until", args.until)):
        if text:
            question[name] = _seconds(text)
    ledger = open_records(args)
    events = ledger.query("Audit", question)
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


def _owner(ledger: Ledger) -> str:
    organisations: Mapping[str, str] = ledger.query("GetPolicy", {})["organisations"]
    return next(msp_id for msp_id, role in organisations.items() if role == "owner")


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    by = event["by"]
    who = f"{by['organisation']} ({by['role']}, {by['assurance']})"
    return {**event, "time": moment(event["time"]), "by": who, "details": _details(event["args"])}


def _details(args: Mapping[str, Any]) -> str:
    """The arguments that say something to a person: numbers, codes, nodes; no ids and tokens."""
    words = []
    for name, value in args.items():
        if name in ("node", "peer"):
            words.append(f"{name}={value['organisation']}/{value['aeTitle']}")
        elif name == "until":
            words.append(f"until={moment(value)}")
        elif isinstance(value, (str, int)):
            words.append(f"{name}={value}")
    return " ".join(words)


def _seconds(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except ValueError as error:
        raise ConfigError(f"{text!r}: expected a time as 2026-01-31 or 2026-01-31T12:00 (UTC)") from error
