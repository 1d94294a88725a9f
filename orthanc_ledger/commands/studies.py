"""studies: what this node holds; tokens of chosen studies for a research organisation."""

import argparse
import json
from pathlib import Path
from typing import Any

from orthanc_ledger.commands.terminal import add_json, open_node, show, tell
from orthanc_ledger.errors import ConfigError, NotHeld

_COLUMNS = (
    "study_instance_uid",
    "patient_id",
    "study_date",
    "description",
    "instances",
    "anchored",
    "waiting",
    "quarantined",
)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("studies", help="list studies; export tokens of chosen studies")
    parser.add_argument("--study", action="append", default=[], metavar="UID", help="only this study (may be repeated)")
    parser.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="write the chosen studies' tokens to FILE, for `request --studies FILE`",
    )
    parser.add_argument(
        "--for",
        dest="organisation",
        metavar="MSPID",
        help="the research organisation the tokens are for (with --tokens)",
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    index = open_node(args).index
    studies = index.studies(args.study or None)
    missing = set(args.study) - {uid for uid, _, _ in studies}
    if missing:
        raise NotHeld(f"not held here: {', '.join(sorted(missing))}; without --study all that are held are listed")
    if args.tokens is not None:
        return _export(args, [(uid, token) for uid, token, _ in studies])
    rows = []
    for uid, token, attributes in studies:
        states = [instance.state for instance in index.select(studies=[uid])]
        rows.append(
            {
                "study_instance_uid": uid,
                "token": token,
                "patient_id": attributes["PatientID"],
                "study_date": attributes["StudyDate"],
                "description": attributes["StudyDescription"],
                "instances": len(states),
                "anchored": states.count("anchored"),
                "waiting": states.count("spooled"),
                "quarantined": states.count("quarantined"),
            }
        )
    show(rows, args.json, _COLUMNS)
    return 0


def _export(args: argparse.Namespace, studies: list[tuple[str, bytes | None]]) -> int:
    if not args.organisation or not args.study:
        raise ConfigError(
            "--tokens needs --for MSPID and at least one --study UID: "
            "tokens are given for chosen studies to one organisation"
        )
    unanchored = [uid for uid, token in studies if token is None]
    if unanchored:
        raise NotHeld(f"not anchored yet, so without a token: {', '.join(unanchored)}; try again in a few seconds")
    file: dict[str, Any] = {"for": args.organisation, "studies": [token.hex() for _, token in studies if token]}
    try:
        args.tokens.write_text(json.dumps(file) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--tokens {args.tokens}: cannot be written: {error.strerror}") from error
    tell(
        args,
        {"file": args.tokens, **file},
        f"{args.tokens}: {len(studies)} study tokens for {args.organisation}; "
        "they name no patient, but link requests on one study",
    )
    return 0
