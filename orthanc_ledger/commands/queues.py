"""quarantine and conflicts: what waits for a person's decision."""

import argparse
from typing import Any

from orthanc_ledger.arrival import read_head
from orthanc_ledger.asked import last_record, object_in_words
from orthanc_ledger.assemble import Node
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
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld
from orthanc_ledger.index import Supersession
from orthanc_ledger.ledger.contract.codes import SUPERSEDE_REASONS
from orthanc_ledger.spool import CONFLICTS, QUARANTINE, claim_of
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
    node = open_node(args)
    decided = {row.conflict: row.state for row in node.index.supersessions()}
    rows = []
    for name in node.spool.names(args.queue):
        row: dict[str, Any] = {"id": name, "state": decided.get(name, "to decide")}
        try:
            with node.spool.open(name, args.queue) as unit:
                arrival = read_head(unit).arrival
        except IntegrityError:  # the disk damaged it: it can only be discarded
            row["state"] = "damaged"
        else:
            row["received"] = moment(arrival.received_us // 1_000_000)
            row["calling_ae"] = arrival.calling_ae
            row["sop_instance_uid"] = arrival.sop_instance
        rows.append(row)
    show(rows, args.json, _COLUMNS)
    return 0


def _retry(args: argparse.Namespace) -> int:
    node = open_node(args)
    _must_wait(node, args.id, QUARANTINE)
    _forget_quarantined(node, args.id)
    node.spool.take_back(args.id)
    tell(args, {"id": args.id, "state": "inbox"}, "back in the inbox")
    return 0


def _discard_quarantined(args: argparse.Namespace) -> int:
    node = open_node(args)
    _must_wait(node, args.id, QUARANTINE)
    _forget_quarantined(node, args.id)
    node.spool.remove(args.id, QUARANTINE)
    tell(args, {"id": args.id, "state": "discarded"}, "discarded")
    return 0


def _forget_quarantined(node: Node, name: str) -> None:
    """Drop a unit's index row, what waits to be forwarded, its alarms. The row may be another's by now: its UID came
    again.
    """
    claim = claim_of(name)
    holder = node.index.instance(claim)
    if holder is not None and holder.spool_name == name:
        node.index.forget(claim)
        node.forwards.forget(claim)
    node.outbox.settle(claim, name)


def _discard_conflict(args: argparse.Namespace) -> int:
    node = open_node(args)
    _must_be_undecided(node, args.id)
    node.spool.remove(args.id, CONFLICTS)
    node.outbox.settle(claim_of(args.id), args.id)
    tell(args, {"id": args.id, "state": "discarded"}, "discarded; the first content stays")
    return 0


def _supersede(args: argparse.Namespace) -> int:
    node = open_node(args)
    _must_be_undecided(node, args.id)
    claim = claim_of(args.id)
    holder = node.index.instance(claim)
    if holder is None or holder.state != "anchored" or holder.manifest is None:
        raise ConfigError(f"{args.id}: the first content is not anchored yet; try again when `status` shows no backlog")
    node.index.keep_supersession(Supersession(args.id, claim, args.reason, "decided", holder.manifest))
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


def _must_wait(node: Node, name: str, queue: str) -> None:
    if name not in node.spool.names(queue):
        raise NotHeld(f"{name}: not in {queue}; `orthanc-ledger {queue}` lists what is there")


def _must_be_undecided(node: Node, name: str) -> None:
    _must_wait(node, name, CONFLICTS)
    if any(row.conflict == name and not row.state.startswith("refused") for row in node.index.supersessions()):
        raise ConfigError(f"{name}: is proposed as the current content already; the custodian decides that now")
