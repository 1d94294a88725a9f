"""ledger, submit: what goes to and comes from the machines of people who sign elsewhere."""

import argparse
from contextlib import closing
from pathlib import Path

from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.terminal import add_json, ledger_file, refusal, tell
from orthanc_ledger.errors import ConfigError, ContractError
from orthanc_ledger.ledger import Committed
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.offline import copy_ledger, read_transaction
from orthanc_ledger.ledger.transaction import SignedTransaction
from orthanc_ledger.words import moment

_OF_THE_FILE = {
    ("INVALID", "log"): "it was signed for another ledger: sign it against a copy of this one",
    (
        "SKEW",
        "time",
    ): "a signed file counts from its signer's clock on for 7 days: have it signed anew, by a right clock",
    ("NOT_PERMITTED", "signature"): "it was changed after it was signed, or damaged on its way: have it sent again",
}
"""What to do when not the call is refused, but the file it came in."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    ledger = subparsers.add_parser("ledger", help="copy it for people who sign elsewhere; confirm a clock that jumped")
    actions = ledger.add_subparsers(required=True, metavar="ACTION")
    copy = actions.add_parser("copy", help="the ledger as it is now, in a new file; also while the node runs")
    copy.add_argument("file", type=Path, metavar="FILE")
    add_json(copy)
    copy.set_defaults(run=_copy)
    clock = actions.add_parser(
        "confirm-clock", help="this machine's clock is right, though over 31 days after the last entry: go on"
    )
    add_json(clock)
    clock.set_defaults(run=_confirm_clock)
    submit = subparsers.add_parser("submit", help="append what was signed elsewhere with --out")
    submit.add_argument("files", type=Path, nargs="+", metavar="FILE")
    add_json(submit)
    submit.set_defaults(run=_submit)


def _copy(args: argparse.Namespace) -> int:
    copy_ledger(ledger_file(args), args.file)
    with closing(EmbeddedLedger(args.file)) as copied:
        checkpoint = copied.checkpoint()
    row = {"file": args.file, "size": checkpoint.size, "root": checkpoint.root}
    tell(args, row, f"{args.file}: {checkpoint.size} entries, root {checkpoint.root.hex()}")
    return 0


def _confirm_clock(args: argparse.Namespace) -> int:
    with closing(EmbeddedLedger(ledger_file(args))) as ledger:
        ledger.confirm_clock()
    now = moment(system_clock())
    tell(args, {"clock": now}, f"confirmed: it is {now}")
    return 0


def _submit(args: argparse.Namespace) -> int:
    file = ledger_file(args)
    transactions = [(path, read_transaction(path)) for path in args.files]  # nothing is appended when one is damaged
    with closing(EmbeddedLedger(file)) as ledger:
        for path, transaction in transactions:
            committed = _append(ledger, path, transaction)
            row = {"file": path, "function": transaction.function, "position": committed.position}
            row |= {"time": moment(committed.time), "result": committed.result}
            sentence = f"{path}: {transaction.function} is entry {committed.position}, of {moment(committed.time)}"
            tell(args, row, sentence)
    return 0


def _append(ledger: EmbeddedLedger, path: Path, transaction: SignedTransaction) -> Committed:
    try:
        return ledger.append(transaction)
    except ContractError as error:
        what_to_do = _OF_THE_FILE.get((error.code, error.field))
        if what_to_do is not None:
            raise ConfigError(f"{path}: not appended: {error}; {what_to_do}") from error
        raise refusal(f"{path} ({transaction.function})", error) from error
