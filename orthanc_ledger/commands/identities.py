"""identity: an organisation makes its own CA, a person's and a node's identity."""

import argparse
from pathlib import Path

from orthanc_ledger.commands.terminal import add_json, identity_passphrase, tell
from orthanc_ledger.ledger.identity import issue, issue_server
from orthanc_ledger.setup_node import create_checkpoint_key, create_member


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("identity", help="make an organisation's identities")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="a CA with a person's and a node's identity, in a new folder")
    create.add_argument("directory", type=Path)
    create.add_argument("--organisation", required=True, metavar="MSPID", help="the organisation's MSP ID")
    add_json(create)
    create.set_defaults(run=_create)
    more = actions.add_parser(
        "issue", help="one more identity of an organisation made here, or a new one for a revoked"
    )
    more.add_argument("directory", type=Path)
    more.add_argument("name", help="a pseudonym, seen by the whole channel: never a person's name")
    more.add_argument("--kind", choices=("person", "node"), default="person", help="default: %(default)s")
    more.add_argument(
        "--passphrase",
        action="store_true",
        help="its key lies under one, asked for at each signature (docs/console.md)",
    )
    add_json(more)
    more.set_defaults(run=_issue)
    second = actions.add_parser("ml-dsa", help="a second key for an identity, which signs its checkpoints, too")
    second.add_argument("identity", type=Path, help="its folder, or its msp.yaml")
    add_json(second)
    second.set_defaults(run=_ml_dsa)
    server = actions.add_parser(
        "server", help="a certificate for a node's https:, from an organisation made here, for trying out"
    )
    server.add_argument("directory", type=Path)
    server.add_argument("host", help="the DNS name or IP address by which research centres call the node")
    server.add_argument("--out", type=Path, required=True, metavar="DIR", help="where https.pem and https.key go")
    add_json(server)
    server.set_defaults(run=_server)


def _create(args: argparse.Namespace) -> int:
    certificate = create_member(args.directory, args.organisation)
    tell(
        args,
        {"organisation": args.organisation, "certificate": certificate},
        f"{certificate}: hand this CA certificate to the hospital for `init --member` (on Fabric: to who changes the "
        f"channel); everything else in {args.directory} stays secret",
    )
    return 0


def _issue(args: argparse.Namespace) -> int:
    passphrase = identity_passphrase(args.directory / "identities" / args.name, new=True) if args.passphrase else None
    folder = issue(args.directory, args.name, args.kind, passphrase=passphrase)
    tell(args, {"identity": folder}, f"{folder}: a {args.kind}'s identity, for --as; it stays secret")
    return 0


def _ml_dsa(args: argparse.Namespace) -> int:
    trust = create_checkpoint_key(args.identity)
    tell(
        args,
        {"trust": trust},
        f"{trust}: hand this to whoever checks its checkpoints and receipts, for --trust in place of the CA "
        "certificate; processes that run sign with both keys from their next start on",
    )
    return 0


def _server(args: argparse.Namespace) -> int:
    certificate, key = issue_server(args.directory, args.host, args.out)
    row = {"certificate": certificate, "key": key}
    tell(
        args, row, f"https: certificate {certificate}, key {key} (config/orthanc-ledger.yaml tells the keys of https:)"
    )
    return 0
