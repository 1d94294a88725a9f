"""audit: what the ledger recorded, for people, spreadsheets and audit repositories."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from orthanc_ledger.asked import audit_question
from orthanc_ledger.audit_export import csv_lines, details, fhir_lines, owner_of
from orthanc_ledger.commands.terminal import add_json, add_ledger, open_node, open_records, show
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.words import moment


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
    question = audit_question(lambda: open_node(args), args.study, args.organisation, args.start, args.until)
    ledger = open_records(args)
    events = list(all_rows(ledger, "Audit", question))
    if args.format == "csv":
        sys.stdout.writelines(csv_lines(events))
    elif args.format == "fhir":
        sys.stdout.writelines(fhir_lines(events, owner_of(ledger)))
    else:
        show([_row(event) for event in events], args.json, ("sequence", "time", "function", "by", "details"))
    return 0


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    by = event["by"]
    who = f"{by['organisation']} ({by['role']}, {by['assurance']})"
    return {**event, "time": moment(event["time"]), "by": who, "details": details(event)}
