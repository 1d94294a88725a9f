"""nodes: AE titles on the ledger: registered by their own organisation, confirmed by the custodian."""

import argparse

from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    add_ledger,
    open_ledger,
    open_records,
    show,
    submit,
    tell,
)
from orthanc_ledger.errors import NotHeld
from orthanc_ledger.ledger import all_rows

_COLUMNS = ("organisation", "ae_title", "role", "version", "state")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("nodes", help="list, register, confirm, revoke AE titles on the ledger")
    add_ledger(parser)
    add_json(parser)
    parser.set_defaults(run=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    add = actions.add_parser("register", help="propose an AE title of the signing organisation")
    add.add_argument("ae_title")
    add.add_argument(
        "--role", choices=("modality", "clinical", "research"), default="research", help="default: %(default)s"
    )
    add_identity(add, "research")
    add_json(add)
    add.set_defaults(run=_register)
    confirm = actions.add_parser("confirm", help="confirm a proposed AE title (custodian)")
    revoke = actions.add_parser("revoke", help="end an AE title and its approvals")
    for action, run, who in ((confirm, _confirm, "custodian"), (revoke, _revoke, "custodian")):
        action.add_argument("organisation", metavar="MSPID")
        action.add_argument("ae_title")
        add_identity(action, who)
        add_json(action)
        action.set_defaults(run=run)


def _list(args: argparse.Namespace) -> int:
    rows = []
    for found in all_rows(open_records(args), "Nodes", {}):
        version = found["confirmed"] or found["proposed"] or {}
        rows.append(
            {
                "organisation": found["node"]["organisation"],
                "ae_title": found["node"]["aeTitle"],
                "role": version.get("role"),
                "version": version.get("version"),
                "state": found["state"],
            }
        )
    show(rows, args.json, _COLUMNS)
    return 0


def _register(args: argparse.Namespace) -> int:
    asked = {"aeTitle": args.ae_title, "role": args.role, "certDigests": []}
    result = submit(open_ledger(args), "RegisterNode", asked).result
    row = {"organisation": result["node"]["organisation"], "ae_title": args.ae_title, "version": result["version"]}
    confirm = f"`orthanc-ledger nodes confirm {row['organisation']} {args.ae_title}`"
    tell(args, row, f"proposed, version {row['version']}; the custodian confirms it with {confirm}")
    return 0


def _confirm(args: argparse.Namespace) -> int:
    ledger = open_ledger(args)
    node = {"organisation": args.organisation, "aeTitle": args.ae_title}
    version = next((found["proposed"] for found in all_rows(ledger, "Nodes", {}) if found["node"] == node), None)
    if version is None:
        raise NotHeld(
            f"{args.organisation} {args.ae_title}: nothing is proposed; `orthanc-ledger nodes` lists the nodes"
        )
    submit(ledger, "ConfirmNode", {"node": node, "version": version["version"]})
    row = {"organisation": args.organisation, "ae_title": args.ae_title, **version}
    tell(args, row, f"confirmed, version {version['version']}: {version['role']}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    node = {"organisation": args.organisation, "aeTitle": args.ae_title}
    committed = submit(open_ledger(args), "RevokeNode", {"node": node})
    row = {"organisation": args.organisation, "ae_title": args.ae_title, "position": committed.position}
    tell(args, row, "revoked; its requests and approvals have ended for good")
    return 0
