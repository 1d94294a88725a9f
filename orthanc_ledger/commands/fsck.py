"""fsck: is the ledger's file what its signed transactions make it, and does it continue what was kept elsewhere?"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orthanc_ledger.commands.terminal import add_json, show
from orthanc_ledger.config import Config, load
from orthanc_ledger.errors import ConfigError, IntegrityError, LedgerAway
from orthanc_ledger.ledger.checkpoint import NOTHING_PINNED, Note, Pins, open_note, own_pins, read_trusted
from orthanc_ledger.ledger.fsck import Finding, Kind, Report, authorities, check
from orthanc_ledger.ledger.identity import ca_certificate, load_identity
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.sinks import kept
from orthanc_ledger.words import moment

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
    parser.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="CA.pem",
        help="an organisation's trust file (`identity ml-dsa`): one of the ML-DSA keys in it must have signed its "
        "checkpoints, too",
    )


def embedded_path(url: str) -> Path:
    """The file of an embedded ledger. Raises ConfigError."""
    scheme, _, path = url.partition(":")
    if scheme != "embedded":
        raise ConfigError(f"only an embedded ledger has a file to check; this node's is {scheme}: its peers check it")
    return Path(path)


def pins_of(args: argparse.Namespace, config: Config | None = None) -> Pins:
    """The ML-DSA keys that --trust names, or else that the node signs with. Raises ConfigError."""
    if args.trust or config is None:
        return read_trusted(args.trust)[1]
    return own_pins(load_identity(config.identity), ca_certificate(config.identity))


def examine(path: Path, sinks: Iterable[str], given: Sequence[str], pins: Pins) -> Examined:
    """Check a ledger's file against the checkpoints at path sinks, and those given as file or SIZE:ROOT.

    ``pins``: as `checkpoint.open_note`; but a note of before there was an ML-DSA key is held against the file, too,
    where a larger one by such a key covers what it says.

    Raises ConfigError, LedgerAway, SinkAway.
    """
    notes, checkpoints = [note for sink in sinks for note in kept(sink)], []
    for text in given:
        if match := _SIZE_AND_ROOT.fullmatch(text):
            checkpoints.append(Checkpoint(int(match[1]), bytes.fromhex(match[2])))
        else:
            notes.append(_read(text))
    opened, forged = _open(path, notes, pins)
    checkpoints += [note.checkpoint for note in opened]
    report = check(path, checkpoints, _progress)
    findings = (*(_signed(found, opened) for found in report.findings), *forged)
    return Examined(replace(report, findings=findings), tuple(checkpoints))


def _run(args: argparse.Namespace) -> int:
    if args.ledger is not None:
        path: Path = args.ledger
        examined = examine(path, (), args.checkpoint, pins_of(args))
    else:
        config = load(args.config)
        path = embedded_path(config.ledger)
        examined = examine(path, config.checkpoint_sinks, args.checkpoint, pins_of(args, config))
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


def _open(path: Path, notes: Sequence[str], pins: Pins) -> tuple[list[Note], list[Finding]]:
    """Signed notes, opened; a finding for each that a member of this ledger did not sign.

    Raises ConfigError when the CA of a pinned key is none of this ledger's.
    """
    if not notes:
        return [], []
    try:
        log_id, trusted = authorities(path)
    except (IntegrityError, LedgerAway):
        return [], []  # `check` says what is wrong with the file
    if not pins.keys() <= {ca for ca_certificates in trusted for ca in ca_certificates.values()}:
        raise ConfigError(f"{path}: no organisation on it has the CA certificate beside the ML-DSA keys: see --trust")
    opened, refused = [], []
    for text in notes:
        found = _first(text, log_id, trusted, pins)
        opened.append(found) if isinstance(found, Note) else refused.append((text, found))
    covered, forged = max((note.checkpoint.size for note in opened if note.ml_dsa), default=0), []
    for text, reason in refused:
        unpinned = _first(text, log_id, trusted, NOTHING_PINNED)
        if isinstance(unpinned, Note) and unpinned.checkpoint.size < covered:
            opened.append(unpinned)
        else:
            forged.append(Finding(None, Kind.NOTE, reason))
    return opened, forged


def _first(text: str, log_id: bytes, trusted: Iterable[Mapping[str, bytes]], pins: Pins) -> Note | str:
    """The note under the first CA certificates under which it opens, or why it does not under the first."""
    reasons = []
    for ca_certificates in trusted:
        try:
            return open_note(text, log_id, ca_certificates, pins)
        except IntegrityError as error:
            reasons.append(str(error))
    return reasons[0]


def _progress(read: int, size: int) -> None:
    if sys.stderr.isatty():
        print(f"\rread {read} of {size} entries", end="\n" if read == size else "", file=sys.stderr, flush=True)
