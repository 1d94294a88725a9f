"""What commands share with the terminal: a node from --config, a signed call as --as, tables or JSON to print."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orthanc_ledger.assemble import Node
from orthanc_ledger.config import load
from orthanc_ledger.errors import ConfigError, ContractError
from orthanc_ledger.ledger import Committed, Ledger, Value

_WHAT_TO_DO = {
    "NOT_FOUND": "`requests` and `nodes` list what is there",
    "NOT_PERMITTED": "another organisation has to sign this, named with --as",
    "WRONG_STATE": "`requests` and `nodes` show the states",
    "EXPIRED": "its time has run out: a new request is needed",
    "CONFLICT": "other values stand there already; `audit` shows them",
    "INVALID": "docs/ledger.md says what is permitted",
    "SKEW": "set this machine's clock",
}


def open_node(args: argparse.Namespace) -> Node:
    """The node that --config names. Raises ConfigError."""
    return Node(load(args.config))


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json, for every command that prints."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def add_identity(parser: argparse.ArgumentParser, default: str) -> None:
    """--as, for every command that signs."""
    parser.add_argument(
        "--as",
        dest="identity",
        default=default,
        metavar="WHO",
        help="who signs: owner, custodian, research (their person, where its keys are here) or an identity's folder "
        f"(default: {default})",
    )


def open_ledger(args: argparse.Namespace, node: Node) -> Ledger:
    """The ledger as the --as identity. Raises ConfigError when its keys are not here."""
    folder = args.config.resolve().parent / "organisations" / args.identity / "identities" / "person"
    if not folder.is_dir():
        folder = Path(args.identity)
    if not folder.is_dir():
        raise ConfigError(
            f"--as {args.identity}: no such identity here; expected owner, custodian, research, or the folder of a "
            "person's identity, as ORGANISATION/identities/person"
        )
    return node.ledger_as(folder)


def submit(ledger: Ledger, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
    """Submit a call that a person asked for. Raises ConfigError, with what to do, when the contract refuses it."""
    try:
        return ledger.submit(function, args, nonce)
    except ContractError as error:
        raise ConfigError(f"the ledger refused {function}: {error}; {_WHAT_TO_DO[error.code]}") from error


def show(rows: Iterable[Mapping[str, Any]], as_json: bool, columns: Sequence[str]) -> None:
    """Print rows as JSON lines (all keys, bytes as hex) or as a table of the named columns."""
    rows = list(rows)
    if as_json:
        for row in rows:
            print(json.dumps(row, default=_plain, ensure_ascii=False))
        return
    table = [list(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def tell(args: argparse.Namespace, row: Mapping[str, Any], sentence: str) -> None:
    """Print what a command did: as one JSON object, or as a sentence."""
    if args.json:
        show([row], True, ())
    else:
        print(sentence)


def moment(seconds: int) -> str:
    """Seconds of UTC as text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def hex_bytes(text: str) -> bytes:
    """An id given as hex. Raises ConfigError."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"{text!r}: expected an id of hexadecimal digits, as the lists print it") from error


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    return "" if value is None else value.hex() if isinstance(value, bytes) else str(value)
