"""reconcile, backfill, pacs: what Orthanc holds and the node does not, what staff deleted and changed there."""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from orthanc_ledger import decisions
from orthanc_ledger.assemble import Node
from orthanc_ledger.backfill import Progress
from orthanc_ledger.clock import system_clock_us
from orthanc_ledger.commands.terminal import add_json, open_node, show, tell
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.fetcher import Fetched
from orthanc_ledger.serve import SUPERVISED, quiet_libraries, stop_event
from orthanc_ledger.spool import CONFLICTS
from orthanc_ledger.words import counted, moment

_COLUMNS = ("study_instance_uid", "what", "objects", "of", "since", "detail")
_MADE_COLUMNS = ("study_instance_uid", "how", "source", "since")
_UNTAKEN_COLUMNS = ("study_instance_uid", "orthanc_id", "since", "reason")
_BACKFILL_COLUMNS = ("total", "taken", "held", "gone", "left", "seconds", "objects_s")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    reconciler = subparsers.add_parser("reconciler", help="keep up with Orthanc (serve starts it)")
    reconciler.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    reconciler.set_defaults(run=_reconciler)
    reconcile = subparsers.add_parser("reconcile", help="compare all that Orthanc holds now, and take what only it has")
    add_json(reconcile)
    reconcile.set_defaults(run=_reconcile)
    backfill = subparsers.add_parser(
        "backfill", help="take in what Orthanc held before the plugin; goes on where it was interrupted"
    )
    backfill.add_argument("--study", metavar="UID", help="only this study")
    backfill.add_argument("--full-speed", action="store_true", help="without leaving Orthanc alone in between")
    add_json(backfill)
    backfill.set_defaults(run=_backfill)
    pacs = subparsers.add_parser("pacs", help="what staff deleted or changed in Orthanc, to be decided: list, keep")
    add_json(pacs)
    pacs.set_defaults(run=_list)
    actions = pacs.add_subparsers(metavar="ACTION")
    for name, run, text in (
        ("list", _list, "what is to be decided (the same as without ACTION)"),
        ("made", _made, "studies that Orthanc made of others: modified, anonymized"),
        ("untaken", _untaken, "objects that cannot be taken from Orthanc, and why"),
    ):
        action = actions.add_parser(name, help=text)
        add_json(action)
        action.set_defaults(run=run)
    keep = actions.add_parser("keep", help="nothing is to be done about what Orthanc lacks of a study: it stays here")
    keep.add_argument("study", metavar="UID")
    add_json(keep)
    keep.set_defaults(run=_keep)


def _node(args: argparse.Namespace) -> Node:
    node = open_node(args)
    if not node.config.orthanc:
        raise ConfigError(f"{args.config}: orthanc: false: this node is no plugin of an Orthanc")
    return node


def _reconciler(args: argparse.Namespace) -> int:
    quiet_libraries()
    node = _node(args)
    node.reconciler().run(stop_event(args.supervised), node.config.ledger_retry_s, system_clock_us)
    return 0


def _reconcile(args: argparse.Namespace) -> int:
    quiet_libraries()
    node = _node(args)
    found = node.reconciler().step(time.sleep, whole=True)
    row = {
        "taken": found[Fetched.TAKEN],
        "held": found[Fetched.HELD],
        "untaken": len(node.pacs.untaken()),
        "earlier": node.pacs.earlier(),
        "to_decide": len(node.pacs.gone()),
    }
    show([row], args.json, tuple(row))
    return 0


def _backfill(args: argparse.Namespace) -> int:
    quiet_libraries()
    node = _node(args)
    progress = node.backfill(rests=not args.full_speed).run(args.study, _progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    rates = {"seconds": round(progress.seconds, 1), "objects_s": round(progress.objects_s, 1)}
    show([{**asdict(progress), **rates}], args.json, _BACKFILL_COLUMNS)
    if progress.left and not args.json:
        print("left: they cannot be taken as they are; `orthanc-ledger pacs untaken` says why")
    return 1 if progress.left else 0


def _progress(progress: Progress) -> bool:
    if sys.stderr.isatty():
        end = "" if progress.remaining_s is None else f", {timedelta(seconds=round(progress.remaining_s))} to go"
        waits = f", waits: {progress.waits}" if progress.waits else ""
        rate = f"{progress.done} of {progress.total} objects, {progress.objects_s:.1f} a second{end}{waits}"
        print(f"\r\033[K{rate}", end="", file=sys.stderr, flush=True)
    return True


def _list(args: argparse.Namespace) -> int:
    show(_to_decide(_node(args)), args.json, _COLUMNS)
    return 0


def _to_decide(node: Node) -> Iterator[dict[str, Any]]:
    """Erased studies that Orthanc still has; studies of which it lacks something; objects of which it has other content
    than the node serves.
    """
    for erasure in node.erasures.all():
        if erasure.study_uid is not None and (count := node.pacs.held(erasure.study_uid)):
            yield {
                "study_instance_uid": erasure.study_uid,
                "what": "to be erased",
                "objects": count,
                "of": count,
                "since": moment(erasure.time),
                "detail": "delete the study in Orthanc",
            }
    made = {each.source_uid: each for each in node.pacs.derived()}
    for gone in node.pacs.gone():
        into = made.get(gone.study_uid)
        yield {
            "study_instance_uid": gone.study_uid,
            "what": "deleted",
            "objects": gone.count,
            "of": gone.count + gone.left,
            "since": moment(gone.since),
            "detail": f"`withdraw` or `pacs keep`{f'; {into.how} as {into.study_uid}' if into else ''}",
        }
    for unit in decisions.waiting(node, CONFLICTS):
        since = None if unit.arrival is None else node.pacs.replaced(unit.arrival.sop_instance)
        if since is not None and unit.arrival is not None:
            yield {
                "study_instance_uid": next(
                    (held.study_uid for held in node.index.select(instances=[unit.arrival.sop_instance])), None
                ),
                "sop_instance_uid": unit.arrival.sop_instance,
                "what": "replaced",
                "objects": 1,
                "since": moment(since),
                "conflict": unit.name,
                "detail": f"`conflicts supersede` or `discard` {unit.name}: {unit.state}",
            }


def _made(args: argparse.Namespace) -> int:
    rows = [
        {
            "study_instance_uid": each.study_uid,
            "how": each.how,
            "source": each.source_uid or None,
            "since": moment(each.since),
        }
        for each in _node(args).pacs.derived()
    ]
    show(rows, args.json, _MADE_COLUMNS)
    return 0


def _untaken(args: argparse.Namespace) -> int:
    rows = [
        {
            "study_instance_uid": each.study_uid,
            "orthanc_id": each.id,
            "since": moment(each.since),
            "reason": each.reason,
        }
        for each in _node(args).pacs.untaken()
    ]
    show(rows, args.json, _UNTAKEN_COLUMNS)
    return 0


def _keep(args: argparse.Namespace) -> int:
    count = _node(args).pacs.decided(args.study)
    if not count:
        raise NotHeld(f"{args.study}: Orthanc lacks nothing of it; `orthanc-ledger pacs` lists what is to be decided")
    row = {"study_instance_uid": args.study, "objects": count}
    tell(args, row, f"{counted(count, 'object')} stay under custody, though Orthanc has them no more")
    return 0
