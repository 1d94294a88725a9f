"""init: set up a new node."""

import argparse
from collections.abc import Callable
from pathlib import Path

from orthanc_ledger.commands.terminal import add_json, tell
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.node_key import PASSPHRASE_FILE
from orthanc_ledger.setup_node import CONFIG_NAME, DEFAULT_MSP_IDS, ROLES, Plan, create_node


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("init", help="set up a new node: keys, identities, ledger, configuration")
    parser.add_argument("directory", type=Path, help="a new or empty folder for the node")
    parser.add_argument(
        "--key-backup",
        type=Path,
        metavar="FILE",
        help="where a copy of the node key goes (required; another disk: without the key all is lost)",
    )
    parser.add_argument(
        "--passphrase",
        action="store_true",
        help=f"keep the node key under a passphrase, from the file ${PASSPHRASE_FILE} names, or typed here",
    )
    parser.add_argument(
        "--all-roles",
        action="store_true",
        help="make the keys of all organisations here: for trying out, not for a hospital",
    )
    parser.add_argument(
        "--member",
        action="append",
        default=[],
        metavar="ROLE=MSPID:CA.pem",
        help="an organisation that keeps its keys itself (custodian, research)",
    )
    parser.add_argument(
        "--organisation", metavar="MSPID", help=f"the hospital's MSP ID (default: {DEFAULT_MSP_IDS['owner']})"
    )
    parser.add_argument(
        "--ledger",
        type=_file_of("fabric"),
        metavar="fabric:CONNECTION.yaml",
        help="a channel of Hyperledger Fabric, instead of an embedded ledger made here; with --identity, without the "
        "three options before",
    )
    parser.add_argument(
        "--identity", type=Path, metavar="FOLDER", help="with --ledger: the node's identity, from its organisation's CA"
    )
    parser.add_argument(
        "--content",
        type=_file_of("kubo"),
        metavar="kubo:FILE.yaml",
        help="sealed objects are kept on Kubo nodes, too, which that file lists (default: in the node's folder alone)",
    )
    parser.add_argument(
        "--orthanc",
        action="store_true",
        help="for Orthanc's plugin (docs/orthanc.md): Orthanc's port is the clinical one",
    )
    parser.add_argument("--ae-title", default=Plan.ae_title, help="this node's AE title (default: %(default)s)")
    parser.add_argument("--host", default=Plan.host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--clinical-port", type=int, default=Plan.clinical_port, help="default: %(default)s")
    parser.add_argument("--research-port", type=int, default=Plan.research_port, help="default: %(default)s")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.key_backup is None:
        raise ConfigError(
            "init needs --key-backup FILE on another disk: whoever loses the node key loses every object sealed with it"
        )
    plan = Plan(
        directory=args.directory,
        key_backup=args.key_backup,
        ae_title=args.ae_title,
        host=args.host,
        clinical_port=args.clinical_port,
        research_port=args.research_port,
        msp_ids={"owner": args.organisation} if args.organisation else None,
        members=dict(_member(text) for text in args.member),
        all_roles=args.all_roles,
        ledger=args.ledger,
        identity=args.identity,
        content=args.content,
        passphrase=args.passphrase,
        orthanc=args.orthanc,
    )
    config = create_node(plan)
    path = args.directory / CONFIG_NAME
    serve = f"`orthanc-ledger --config {path} serve`"
    then = "name that file in Orthanc's configuration (docs/orthanc.md)" if args.orthanc else serve
    tell(
        args,
        {
            "config": path,
            "organisation": config.organisation,
            "ae_title": config.ae_title,
            "key_backup": args.key_backup,
        },
        f"{path}: node {config.ae_title} of {config.organisation}; its key is backed up to {args.key_backup}\n"
        f"next: name your peers in that file, then {then}",
    )
    return 0


def _file_of(expected: str) -> Callable[[str], Path]:
    def file(text: str) -> Path:
        scheme, _, path = text.partition(":")
        if scheme != expected or not path:
            raise argparse.ArgumentTypeError(f"expected {expected}: and the connection file, got {text!r}")
        return Path(path)

    return file


def _member(text: str) -> tuple[str, tuple[str, Path]]:
    role, equals, rest = text.partition("=")
    msp_id, colon, path = rest.partition(":")
    if not equals or not colon or role not in ROLES[1:]:
        raise ConfigError(f"--member {text!r}: expected ROLE=MSPID:CA.pem with ROLE custodian or research")
    return role, (msp_id, Path(path))
