"""keypair: the keys of a research centre that fetches sealed objects itself."""

import argparse
from pathlib import Path

from orthanc_ledger.commands.terminal import add_json, tell
from orthanc_ledger.recipient_key import PRIVATE_FILE, PUBLIC_FILE, PrivateKey


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("keypair", help="make the keys that `pull` needs (research)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder of this machine's own")
    add_json(parser)
    parser.set_defaults(run=_keypair)


def _keypair(args: argparse.Namespace) -> int:
    private = PrivateKey.generate()
    private.write(args.out)
    public_file, private_file = args.out / PUBLIC_FILE, args.out / PRIVATE_FILE
    tell(
        args,
        {"public_key": public_file, "private_key": private_file, "public_key_digest": private.public.digest},
        f"{public_file}: for `request --public-key`\n"
        f"{private_file}: for `pull --key`; it stays here, and secret: who has it opens what is released to it",
    )
    return 0
