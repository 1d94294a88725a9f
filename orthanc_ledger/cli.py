"""The command ``orthanc-ledger``: one parser over the modules of ``commands/``, and what their errors exit with."""

import argparse
import logging
import os
import select
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from orthanc_ledger import __version__
from orthanc_ledger.commands import (
    access,
    account,
    audit,
    channel,
    checkpoint,
    compare,
    console,
    custody,
    datasets,
    erase,
    exchange,
    fingerprint,
    forwards,
    fsck,
    identities,
    init,
    keeper,
    keypair,
    node_key,
    nodes,
    pacs,
    processes,
    pull,
    queues,
    receipt,
    reindex,
    status,
    studies,
    sweep,
    verify,
)
from orthanc_ledger.errors import DataError, ServiceAway

COMMANDS = (
    init,
    processes,
    status,
    studies,
    datasets,
    sweep,
    nodes,
    identities,
    access,
    keypair,
    pull,
    keeper,
    console,
    account,
    custody,
    erase,
    channel,
    exchange,
    audit,
    fsck,
    verify,
    checkpoint,
    fingerprint,
    compare,
    queues,
    forwards,
    reindex,
    pacs,
    node_key,
    receipt,
)
DEFAULT_CONFIG = "orthanc-ledger.yaml"
_CUT_SHORT = 128 + signal.SIGPIPE  # as a shell has it
EXIT_CODES = (
    "Exit codes: 0 done; 1 the answer is no (differs, damaged, alarms stand); 2 wrong input or configuration; "
    "3 a service is away, try again; 4 nothing is wrong, but a rollback of the ledger could not be detected; "
    "130 interrupted."
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="orthanc-ledger", description="A DICOM node that keeps a scan's chain of custody.", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("ORTHANC_LEDGER_CONFIG", DEFAULT_CONFIG)),
        metavar="FILE",
        help=f"the node's configuration (default: $ORTHANC_LEDGER_CONFIG or {DEFAULT_CONFIG} here)",
    )
    parser.add_argument("--verbose", action="store_true", help="log more (may name UIDs and values)")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.register(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        code: int = args.run(args)
        print(end="", flush=True)
    except DataError as error:
        print(f"orthanc-ledger: {error}", file=sys.stderr)
        return 2
    except (ServiceAway, sqlite3.OperationalError) as error:  # its own files': a full disk
        print(f"orthanc-ledger: {error}; try again later", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if not _is_cut_short():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed once more at the end
        return _CUT_SHORT
    return code


def _is_cut_short() -> bool:
    """Whether nobody reads standard output any more, as `head` that has its lines."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
