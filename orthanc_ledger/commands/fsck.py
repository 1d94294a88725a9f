"""fsck: is the ledger's file what its signed transactions make it, and does it continue what was kept elsewhere?"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orthanc_ledger.commands.terminal import add_json, moment, show
from orthanc_ledger.config import load
from orthanc_ledger.errors import ConfigError, IntegrityError, LedgerAway
from orthanc_ledger.ledger.checkpoint import Note, open_note
from orthanc_ledger.ledger.fsck import Finding, Kind, Report, authorities, check
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.sinks import kept

ROLLBACK_NOT_DETECTABLE = 4
_SIZE_AND_ROOT = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@dataclass(frozen=True)
class Examined:
    """A ledger's file, checked alone and against checkpoints."""

    report: Report
    compared: tuple[Checkpoint, ...]


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "fsck",
        help="check the ledger's file whole: log, tree, signatures, state, kept checkpoints; exit 1 when anything is "
        "found, 4 when there was no checkpoint to find a rollback by",
    )
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="this file; no node and no configuration is needed")
    add_checkpoint(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, for the commands that check the ledger."""
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FILE|SIZE:ROOT",
        help="besides those at path sinks: a signed checkpoint's file, or entries and root as printed once and kept "
        "elsewhere; finds a ledger rolled back or rewritten since",
    )


def embedded_path(url: str) -> Path:
    """The file of an embedded ledger. Raises ConfigError."""
    scheme, _, path = url.partition(":")
    if scheme != "embedded":
        raise ConfigError(f"only an embedded ledger has a file to check; this node's is {scheme}: its peers check it")
    return Path(path)


def examine(path: Path, sinks: Iterable[str], given: Sequence[str]) -> Examined:
    """Check a ledger's file against the checkpoints at path sinks, and those given as file or SIZE:ROOT.

    Raises ConfigError, LedgerAway, SinkAway.
    """
    notes, checkpoints = [note for sink in sinks for note in kept(sink)], []
    for text in given:
        if match := _SIZE_AND_ROOT.fullmatch(text):
            checkpoints.append(Checkpoint(int(match[1]), bytes.fromhex(match[2])))
        else:
            notes.append(_read(text))
    opened, forged = _open(path, notes)
    checkpoints += [note.checkpoint for note in opened]
    report = check(path, checkpoints, _progress)
    findings = (*(_signed(found, opened) for found in report.findings), *forged)
    return Examined(replace(report, findings=findings), tuple(checkpoints))


def _run(args: argparse.Namespace) -> int:
    if args.ledger is not None:
        path: Path = args.ledger
        examined = examine(path, (), args.checkpoint)
    else:
        config = load(args.config)
        path = embedded_path(config.ledger)
        examined = examine(path, config.checkpoint_sinks, args.checkpoint)
    report, root = examined.report, examined.report.root.hex()
    sizes = [checkpoint.size for checkpoint in examined.compared]
    if report.findings or args.json:
        rows = [{"position": found.position, "kind": found.kind, "detail": found.detail} for found in report.findings]
        show(rows, args.json, ("position", "kind", "detail"))
    result = {
        "state": "damaged" if report.findings else "clean",
        "size": report.size,
        "root": root,
        "time": _time(report),
        "state_rows": report.state_rows,
        "findings": len(report.findings),
        "checkpoints": len(sizes),
        "newest_checkpoint": max(sizes, default=None),
    }
    if args.json:
        show([result], True, ())
    else:
        read = f"{report.size} entries until {result['time']}, root {root}" if report.size else "nothing was read"
        print(f"{path}: {result['state']}: {read}")
        print(_compared(sizes))
    return 1 if report.findings else 0 if sizes else ROLLBACK_NOT_DETECTABLE


def _compared(sizes: Sequence[int]) -> str:
    if sizes:
        return f"compared with {len(sizes)} checkpoints, the newest of {max(sizes)} entries"
    return (
        "rollback not detectable: no checkpoint to compare with; name a place for them in checkpoint_sinks, or give "
        "one that is kept elsewhere with --checkpoint"
    )


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--checkpoint {name!r}: expected a signed checkpoint's file, or SIZE:ROOT as `fsck` prints them: {error}"
        ) from error


def _signed(finding: Finding, notes: Sequence[Note]) -> Finding:
    """A finding with the signers of its checkpoint: any member of a ledger can sign a false one."""
    signers = {f"{note.msp_id} (certificate {note.serial})" for note in notes if note.checkpoint == finding.checkpoint}
    if not signers:
        return finding
    return replace(finding, detail=f"{finding.detail}, signed by {', '.join(sorted(signers))}")


def _time(report: Report) -> str | None:
    """Of the last entry read, as text; None when none was."""
    try:
        return moment(report.time) if report.size else None
    except (ValueError, OverflowError, OSError):  # in no calendar
        return f"second {report.time}"


def _open(path: Path, notes: Sequence[str]) -> tuple[list[Note], list[Finding]]:
    """Signed notes, opened; a finding for each that a member of this ledger did not sign."""
    if not notes:
        return [], []
    try:
        log_id, trusted = authorities(path)
    except (IntegrityError, LedgerAway):
        return [], []  # `check` says what is wrong with the file
    opened, forged = [], []
    for text in notes:
        reasons = []
        for ca_certificates in trusted:
            try:
                opened.append(open_note(text, log_id, ca_certificates))
                break
            except IntegrityError as error:
                reasons.append(str(error))
        else:
            forged.append(Finding(None, Kind.NOTE, reasons[0]))
    return opened, forged


def _progress(read: int, size: int) -> None:
    if sys.stderr.isatty():
        print(f"\rread {read} of {size} entries", end="\n" if read == size else "", file=sys.stderr, flush=True)
