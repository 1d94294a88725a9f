"""account: who may work in the console."""

import argparse
from pathlib import Path

from orthanc_ledger.commands.terminal import add_json, add_party, show, tell
from orthanc_ledger.config import load_either
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.identity import is_encrypted
from orthanc_ledger.node_key import read_passphrase
from orthanc_ledger.web.console.accounts import ROLES, Accounts
from orthanc_ledger.web.console.house import console_of

PASSWORD_FILE = "ORTHANC_LEDGER_PASSWORD_FILE"
_COLUMNS = ("name", "roles", "identity")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("account", help="who may work in the console: list, add, password, remove")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="accounts and what they may")
    add = actions.add_parser("add", help=f"a new account; its password is typed, or in the file ${PASSWORD_FILE} names")
    password = actions.add_parser("password", help="another password; whoever is logged in as this account is out")
    remove = actions.add_parser("remove", help="remove an account; whoever is logged in as it is out")
    for action, run in ((listing, _list), (add, _add), (password, _password), (remove, _remove)):
        if action is not listing:
            action.add_argument("name")
        add_party(action)
        add_json(action)
        action.set_defaults(run=run)
    add.add_argument(
        "--role",
        action="append",
        choices=ROLES,
        required=True,
        help="staff: studies, conflicts, quarantine; approver: requests; auditor: records (may be repeated)",
    )
    add.add_argument(
        "--identity",
        type=Path,
        metavar="DIR",
        help="the person's identity, its key under a passphrase (`identity issue --passphrase`): what this person "
        "approves is signed with it (default: with the node's)",
    )


def _accounts(args: argparse.Namespace) -> Accounts:
    return Accounts(console_of(load_either(args.config), args.config).accounts)


def _list(args: argparse.Namespace) -> int:
    rows = [
        {"name": account.name, "roles": sorted(account.roles), "identity": account.identity}
        for account in _accounts(args).all()
    ]
    show(rows, args.json, _COLUMNS)
    return 0


def _add(args: argparse.Namespace) -> int:
    identity = None if args.identity is None else args.identity.resolve()
    if identity is not None and not is_encrypted(identity):
        raise ConfigError(
            f"--identity {args.identity}: its key is not under a passphrase: the console could sign with it while "
            "nobody is there; `identity issue --passphrase` makes one that is (docs/console.md)"
        )
    accounts = _accounts(args)
    accounts.add(args.name, args.role, _typed(args.name), identity)
    roles = sorted(set(args.role))
    tell(args, {"name": args.name, "roles": roles, "identity": identity}, f"{args.name}: {', '.join(roles)}")
    return 0


def _password(args: argparse.Namespace) -> int:
    accounts = _accounts(args)
    accounts.set_password(args.name, _typed(args.name))
    tell(args, {"name": args.name}, f"{args.name}: has another password; its sessions have ended")
    return 0


def _remove(args: argparse.Namespace) -> int:
    _accounts(args).remove(args.name)
    tell(args, {"name": args.name, "state": "removed"}, f"{args.name}: removed; its sessions have ended")
    return 0


def _typed(name: str) -> str:
    """Raises ConfigError."""
    try:
        return read_passphrase(PASSWORD_FILE, new=True, what=f"password of {name}").decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"password of {name}: expected text in UTF-8") from error
