"""quarantine and conflicts: what waits for a person's decision."""

import argparse
from typing import Any

from orthanc_ledger import decisions
from orthanc_ledger.asked import last_record, object_in_words
from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    hex_bytes,
    node_here,
    open_ledger,
    open_node,
    show,
    submit,
    tell,
)
from orthanc_ledger.errors import NotHeld
from orthanc_ledger.ledger.contract.codes import SUPERSEDE_REASONS
from orthanc_ledger.spool import CONFLICTS, QUARANTINE
from orthanc_ledger.words import moment

_COLUMNS = ("id", "received", "calling_ae", "sop_instance_uid", "state")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    quarantine = subparsers.add_parser("quarantine", help="objects that could not be read: list, try again, discard")
    add_json(quarantine)
    quarantine.set_defaults(run=_list, queue=QUARANTINE)
    actions = quarantine.add_subparsers(metavar="ACTION")
    for name, run, text in (
        ("retry", _retry, "put it back into the inbox (after an update that can read it)"),
        ("discard", _discard_quarantined, "delete it for good: nothing of it was anchored"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("id")
        add_json(action)
        action.set_defaults(run=run)

    conflicts = subparsers.add_parser(
        "conflicts", help="other content that came under a known UID: list, discard, supersede, confirm"
    )
    add_json(conflicts)
    conflicts.set_defaults(run=_list, queue=CONFLICTS)
    actions = conflicts.add_subparsers(metavar="ACTION")
    discard = actions.add_parser("discard", help="delete it for good: the first content stays")
    discard.add_argument("id")
    add_json(discard)
    discard.set_defaults(run=_discard_conflict)
    supersede = actions.add_parser("supersede", help="propose it as the current content; the custodian confirms")
    supersede.add_argument("id")
    supersede.add_argument("--reason", choices=SUPERSEDE_REASONS, required=True)
    add_json(supersede)
    supersede.set_defaults(run=_supersede)
    confirm = actions.add_parser("confirm", help="confirm a proposed supersession (custodian)")
    confirm.add_argument("id", help="as `conflicts` lists it here, or with --ledger as `pending` does")
    add_identity(confirm, "custodian")
    add_json(confirm)
    confirm.set_defaults(run=_confirm)


def _list(args: argparse.Namespace) -> int:
    rows = []
    for each in decisions.waiting(open_node(args), args.queue):
        row: dict[str, Any] = {"id": each.name, "state": each.state}
        if each.arrival is not None:
            row["received"] = moment(each.arrival.received_us // 1_000_000)
            row["calling_ae"] = each.arrival.calling_ae
            row["sop_instance_uid"] = each.arrival.sop_instance
        rows.append(row)
    show(rows, args.json, _COLUMNS)
    return 0


def _retry(args: argparse.Namespace) -> int:
    decisions.retry(open_node(args), args.id)
    tell(args, {"id": args.id, "state": "inbox"}, "back in the inbox")
    return 0


def _discard_quarantined(args: argparse.Namespace) -> int:
    decisions.discard_quarantined(open_node(args), args.id)
    tell(args, {"id": args.id, "state": "discarded"}, "discarded")
    return 0


def _discard_conflict(args: argparse.Namespace) -> int:
    decisions.discard_conflict(open_node(args), args.id)
    tell(args, {"id": args.id, "state": "discarded"}, "discarded; the first content stays")
    return 0


def _supersede(args: argparse.Namespace) -> int:
    decisions.supersede(open_node(args), args.id, args.reason)
    confirm = "the anchorer proposes it on the ledger, then the custodian runs `orthanc-ledger conflicts confirm`"
    tell(args, {"id": args.id, "state": "decided"}, f"decided; {confirm}")
    return 0


def _confirm(args: argparse.Namespace) -> int:
    ledger, proposal = open_ledger(args), _proposal(args)
    record = last_record(ledger, f"supersede/{proposal.hex()}")
    if record is None:
        raise NotHeld(f"{args.id}: no such proposal; `orthanc-ledger pending` lists them")
    if not args.json:
        print(object_in_words(node_here(args), record))
    submit(ledger, "ConfirmSupersede", {"id": proposal})
    row = {"id": args.id, "state": "confirmed"}
    tell(args, row, "confirmed; the new content is served as soon as the anchorer has seen it")
    return 0


def _proposal(args: argparse.Namespace) -> bytes:
    """The supersession's id on the ledger. On a copy of it there is no conflict queue: the id is given as it is."""
    if "ledger" in args:
        return hex_bytes(args.id)
    proposed = next((row for row in open_node(args).index.supersessions("proposed") if row.conflict == args.id), None)
    if proposed is None or proposed.ledger_id is None:
        raise NotHeld(f"{args.id}: nothing is proposed under this id; `orthanc-ledger conflicts` shows the states")
    return proposed.ledger_id
