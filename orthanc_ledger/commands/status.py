"""status: is the node well."""

import argparse
import os

from orthanc_ledger.commands.terminal import add_json, moment, open_node, show
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.spool import CONFLICTS, QUARANTINE


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "status", help="counts, backlog, alarms; exit 1 when alarms stand, 3 when the ledger is away"
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    node = open_node(args)
    counts = node.index.counts()
    disk = os.statvfs(node.spool.folder)
    alarms = node.outbox.alarms()
    try:
        node.ledger_as(None).query("GetPolicy", {})
        ledger = "ready"
    except LedgerAway as error:
        ledger = f"away: {error}"
    facts = {
        "anchored": counts.get("anchored", 0),
        "waiting": counts.get("spooled", 0),
        "batches_not_on_ledger": len(node.index.unanchored()),
        "reports_not_on_ledger": len(node.outbox.posted()),
        "quarantine": len(node.spool.names(QUARANTINE)),
        "conflicts": len(node.spool.names(CONFLICTS)),
        "spool_free_mb": disk.f_bavail * disk.f_frsize >> 20,
        "ledger": ledger,
        "alarms": [{"time": moment(alarm.time), "kind": alarm.kind, "text": alarm.text} for alarm in alarms],
    }
    if args.json:
        show([facts], True, ())
    else:
        show(
            [{"fact": name, "value": len(alarms) if name == "alarms" else value} for name, value in facts.items()],
            False,
            ("fact", "value"),
        )
        for alarm in alarms:
            print(f"ALARM {moment(alarm.time)} {alarm.kind}: {alarm.text}")
    if ledger != "ready":
        return 3
    return 1 if alarms else 0
