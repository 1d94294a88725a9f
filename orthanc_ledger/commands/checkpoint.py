"""checkpoint: the ledger's size and root, signed, to be kept elsewhere; verify-checkpoints: check that anywhere."""

import argparse
import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.terminal import add_json, add_ledger, add_signer, ledger_file, show, signer
from orthanc_ledger.durable import write_new
from orthanc_ledger.errors import ConfigError, IntegrityError
from orthanc_ledger.ledger.checkpoint import Note, Pins, open_note, prove_growth, read_trusted, sign_note
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.merkle import verify_consistency
from orthanc_ledger.words import moment

_VERIFIED, _DAMAGED = "verified", "DAMAGED"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("checkpoint", help="sign the ledger's size and root, to be kept elsewhere")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it into a new FILE (default: print it)")
    parser.add_argument(
        "--from",
        dest="old",
        type=Path,
        metavar="FILE",
        help="an older checkpoint: prove that the ledger has only grown since; exit 1 when it has not",
    )
    add_signer(parser, default="owner")
    add_ledger(parser)
    parser.set_defaults(run=_checkpoint)
    verify = subparsers.add_parser(
        "verify-checkpoints", help="check what checkpoint wrote, without the ledger; exit 1 when it is not so"
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="one checkpoint, or two with their proof (--from)")
    verify.add_argument(
        "--trust",
        type=Path,
        action="append",
        required=True,
        metavar="CA.pem",
        help="CA certificate of the signer's organisation, once for each; with ML-DSA keys behind it (`identity "
        "ml-dsa`), one of them must have signed, too",
    )
    add_json(verify)
    verify.set_defaults(run=_verify)


def _checkpoint(args: argparse.Namespace) -> int:
    identity = signer(args)
    with closing(EmbeddedLedger(ledger_file(args))) as ledger:
        checkpoint = ledger.checkpoint()
        text = sign_note(checkpoint, ledger.log_id, system_clock(), identity)
        if args.old is not None:
            older = _read(args.old)
            try:
                note = open_note(older, ledger.log_id, ledger.authorities())
                proof = prove_growth(ledger, note.checkpoint, checkpoint)
            except IntegrityError as error:
                print(f"{args.old}: this ledger does not continue it: {error}")
                return 1
            proved = {"from": older, "to": text, "proof": [digest.hex() for digest in proof]}
            text = json.dumps(proved, ensure_ascii=False, indent=1) + "\n"
    if args.out is None:
        print(text, end="")
    else:
        _write(args.out, text)
    return 0


def _verify(args: argparse.Namespace) -> int:
    certificates, pins = read_trusted(args.trust)
    trusted = {f"--trust {path}": der for path, der in certificates.items()}, pins
    text = _read(args.file)
    try:
        rows = (
            _proved(text, *trusted) if text.startswith("{") else [_row("checkpoint", open_note(text, None, *trusted))]
        )
    except IntegrityError as error:
        rows = [{"what": str(args.file), "state": _DAMAGED, "detail": str(error)}]
    show(rows, args.json, ("what", "state", "detail"))
    return 1 if rows[0]["state"] == _DAMAGED else 0


def _proved(text: str, authorities: Mapping[str, bytes], pins: Pins) -> list[dict[str, Any]]:
    """A row for each checkpoint and one for the proof. Raises IntegrityError."""
    try:
        proved = json.loads(text)
        older, newer, proof = proved["from"], proved["to"], [bytes.fromhex(digest) for digest in proved["proof"]]
        old = open_note(older, None, authorities, pins)
        new = open_note(newer, old.log_id, authorities, pins)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError("expected {from, to, proof} as `orthanc-ledger checkpoint --from` writes it") from error
    verify_consistency(old.checkpoint.size, old.checkpoint.root, new.checkpoint.size, new.checkpoint.root, proof)
    grown = new.checkpoint.size - old.checkpoint.size
    detail = f"the first {old.checkpoint.size} entries are the same, {grown} were added"
    return [_row("from", old), _row("to", new), {"what": "proof", "state": _VERIFIED, "detail": detail, "added": grown}]


def _row(what: str, note: Note) -> dict[str, Any]:
    size, root, time = note.checkpoint.size, note.checkpoint.root.hex(), moment(note.time)
    keys = ", by ML-DSA, too" if note.ml_dsa else ""
    detail = f"{size} entries, root {root}, signed {time} under {note.msp_id}{keys}"
    trust = note.msp_id.removeprefix("--trust ")
    facts = {"log": note.log_id, "size": size, "root": root, "time": time, "trust": trust, "ml_dsa": note.ml_dsa}
    return {"what": what, "state": _VERIFIED, "detail": detail, **facts}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    try:
        write_new(path, text.encode(), 0o644)
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error.strerror}; name a new file") from error
