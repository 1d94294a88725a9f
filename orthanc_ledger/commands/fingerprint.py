"""``orthanc-ledger fingerprint``: the fingerprint of DICOM files, a line each."""

import argparse
import json
import sys
from pathlib import Path

from orthanc_ledger.errors import ConfigError, Unreadable
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance

_EXIT_UNREADABLE = 2
_KEY_BYTES = 32


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "fingerprint",
        help="print the fingerprint of DICOM files",
        description="Print fingerprint fp/v1 of each file, a line each. Unsalted unless --key-file is given.",
        epilog="Exit status: 0 all read, 2 at least one file cannot be read.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="salt key: 32 bytes, or 64 hexadecimal digits")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each file that can be read, an error for each other one; 0, or 2 after an error.

    Raises ``ConfigError`` when the key file cannot be read or holds no key.
    """
    salt_key = _read_key(args.key_file) if args.key_file else None
    status = 0
    for path in args.files:
        try:
            line = _describe(path, salt_key)
        except (OSError, Unreadable) as error:
            print(f"{path}: cannot be read: {error}", file=sys.stderr)
            status = _EXIT_UNREADABLE
            continue
        print(json.dumps(line) if args.json else " ".join(f"{name}={_show(value)}" for name, value in line.items()))
    return status


def _describe(path: Path, salt_key: bytes | None) -> dict[str, str | int | None]:
    with path.open("rb") as file:
        instance = open_instance(file)
        (result,) = fingerprints(instance, [salt_key])
    return {
        "file": str(path),
        "sop_instance_uid": instance.sop_instance_uid or None,
        "fingerprint": result.fingerprint.hex(),
        "pixel_root": result.pixel_root.hex() if result.pixel_form != "none" else None,
        "metadata_root": result.metadata_root.hex(),
        "pixel_form": result.pixel_form,
        "frames": result.frames,
    }


def _show(value: str | int | None) -> str:
    return "null" if value is None else str(value)


def _read_key(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--key-file {path}: cannot be read: {error}") from error
    if len(content) == _KEY_BYTES:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError as error:
        raise ConfigError(f"--key-file {path}: 32 bytes or 64 hexadecimal digits expected") from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"--key-file {path}: 32 bytes or 64 hexadecimal digits expected, got {len(content)} bytes")
    return key
