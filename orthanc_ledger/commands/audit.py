"""audit: what the ledger recorded."""

import argparse
from datetime import UTC, datetime
from typing import Any

from orthanc_ledger.commands.terminal import add_json, moment, open_node, show
from orthanc_ledger.errors import ConfigError, NotHeld


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("audit", help="the ledger's records, in the order of their commits")
    parser.add_argument("--study", metavar="UID", help="only of this study")
    parser.add_argument("--organisation", metavar="MSPID", help="only by this organisation")
    parser.add_argument(
        "--from", dest="start", metavar="TIME", help="from this time on, UTC, as 2026-01-31 or 2026-01-31T12:00"
    )
    parser.add_argument("--until", metavar="TIME", help="before this time")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    node = open_node(args)
    question: dict[str, Any] = {}
    if args.study:
        keys = node.keyring.study(args.study)
        if keys is None:
            raise NotHeld(f"--study {args.study}: not held here; `orthanc-ledger studies` lists what is")
        question["study"] = keys.token
    if args.organisation:
        question["organisation"] = args.organisation
    for name, text in (("from", args.start), ("until", args.until)):
        if text:
            question[name] = _seconds(text)
    rows = [
        {**event, "time": moment(event["time"]), "by": _by(event["by"]), "details": _details(event["args"])}
        for event in node.ledger_as(None).query("Audit", question)
    ]
    show(rows, args.json, ("sequence", "time", "function", "by", "details"))
    return 0


def _by(caller: dict[str, Any]) -> str:
    return f"{caller['organisation']} ({caller['role']}, {caller['assurance']})"


def _details(args: dict[str, Any]) -> str:
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
