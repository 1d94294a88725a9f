"""node-key: another node key in the place of the one in force; a copy of it."""

import argparse
import contextlib
from pathlib import Path

from orthanc_ledger.assemble import INDEX_LOCK, Node
from orthanc_ledger.commands.terminal import add_json, open_node, tell
from orthanc_ledger.erasure import NODE_KEY, new_node_key
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.node_key import NEW_PASSPHRASE_FILE, Passphrase
from orthanc_ledger.sole import sole

_BACKUP = "where a copy goes, which must not exist: another disk, never beside a backup of data_dir"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("node-key", help="make a new node key, or copy the one in force")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    rotate = actions.add_parser(
        "rotate",
        help="wrap all keys under a new node key and destroy the one before; also while the node runs",
        description="Wrap all keys under a new node key and destroy the one before; also while the node runs. "
        "Interrupted, run it again. Copies of the key before open nothing that is kept from now on.",
    )
    rotate.add_argument("--key-backup", type=Path, metavar="FILE", help=_BACKUP)
    rotate.add_argument(
        "--passphrase",
        action="store_true",
        help=f"keep the new key under a new passphrase, from the file ${NEW_PASSPHRASE_FILE} names, or typed here; the "
        "node must be stopped",
    )
    add_json(rotate)
    rotate.set_defaults(run=_rotate)
    backup = actions.add_parser("backup", help="copy the node key; under a passphrase the copy is, too")
    backup.add_argument("file", type=Path, metavar="FILE", help=_BACKUP)
    add_json(backup)
    backup.set_defaults(run=_backup)


def _rotate(args: argparse.Namespace) -> int:
    node = open_node(args)
    if args.key_backup is not None:
        _check(node, args.key_backup)
    used = ConfigError("--passphrase: the node runs, and would not know it: stop it first")
    with sole(node.config.data_dir / INDEX_LOCK, used) if args.passphrase else contextlib.nullcontext():
        new_node_key(node.outbox, node.keyring, wrapping=Passphrase(NEW_PASSPHRASE_FILE) if args.passphrase else None)
    path = node.config.node_key.path
    if args.key_backup is not None:
        _copy(node, args.key_backup)
        sentence = f"copied to {args.key_backup}"
    else:
        sentence = "copy it with `orthanc-ledger node-key backup FILE`"
    if args.passphrase:
        sentence += f"; from now on: `node_key: passphrase:{path}`, and the new passphrase"
    tell(args, {"node_key": path, "backup": args.key_backup}, f"{path}: a new key; {sentence}")
    return 0


def _backup(args: argparse.Namespace) -> int:
    node = open_node(args)
    _check(node, args.file)
    _copy(node, args.file)
    tell(args, {"node_key": node.config.node_key.path, "backup": args.file}, f"{args.file}: a copy of the node key")
    return 0


def _check(node: Node, backup: Path) -> None:
    if backup.exists() or backup.resolve().is_relative_to(node.config.data_dir.resolve()):
        raise ConfigError(f"{backup}: expected a new file outside {node.config.data_dir}, whose backup it would open")


def _copy(node: Node, backup: Path) -> None:
    with node.keyring.settled():  # a copy of a key that does not open it would be none
        node.config.node_key.back_up(backup)
        node.outbox.settle(NODE_KEY, kind=NODE_KEY)
