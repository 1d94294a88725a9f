"""``orthanc-ledger compare``: what differs between two DICOM files."""

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from orthanc_ledger.compare import compare
from orthanc_ledger.errors import Unreadable
from orthanc_ledger.instance import open_instance

_EXIT_DIFFERENT = 1
_EXIT_UNREADABLE = 2


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "compare",
        help="name each element and frame in which two DICOM files differ",
        description="Name each element path and frame in which B differs from A. What a fingerprint leaves out is no "
        "difference. Items count from 0, frames from 1.",
        epilog="Exit status: 0 equal, 1 different, 2 a file cannot be read.",
    )
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each difference; 0 without any, 1 with some, 2 when a file cannot be read."""
    with contextlib.ExitStack() as files:
        instances = []
        for path in (args.a, args.b):
            try:
                instances.append(open_instance(files.enter_context(path.open("rb"))))
            except (OSError, Unreadable) as error:
                print(f"{path}: cannot be read: {error}", file=sys.stderr)
                return _EXIT_UNREADABLE
        differences = compare(*instances)
    for difference in differences:
        print(json.dumps(asdict(difference)) if args.json else difference)
    return _EXIT_DIFFERENT if differences else 0
