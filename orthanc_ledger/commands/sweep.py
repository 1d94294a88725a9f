"""sweep: one round over all anchors, now; sweeper: a round every so many hours."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from orthanc_ledger.commands.terminal import add_json, open_node, show
from orthanc_ledger.serve import SUPERVISED, quiet_libraries, stop_event
from orthanc_ledger.sweep import Damage, Round
from orthanc_ledger.words import moment

_HOUR_S = 3600
_COLUMNS = ("anchors", "elsewhere", "not_held", "objects", "damaged", "bytes", "seconds", "objects_s", "mb_s")
_DAMAGE_COLUMNS = ("sop_instance_uid", "cid", "detail")
_ELSEWHERE = "elsewhere: manifests of other nodes' studies; those nodes sweep them"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sweep = subparsers.add_parser(
        "sweep",
        help="fetch and verify everything anchored, now; goes on where it was interrupted; exit 1 when damaged",
        description="Fetch and verify everything anchored, now; go on where it was interrupted; name what is damaged. "
        "Counted apart are manifests whose studies the index does not know: not_held, when this node anchored them "
        f"(an alarm); {_ELSEWHERE}. Exit 1 when anything is damaged or not held.",
    )
    sweep.add_argument("--study", metavar="UID", help="only this study, from its first anchor")
    sweep.add_argument("--full-speed", action="store_true", help="without the bound of sweep_mb_s")
    add_json(sweep)
    sweep.set_defaults(run=_sweep)
    sweeper = subparsers.add_parser("sweeper", help="sweep every sweep_every_h hours (serve starts it)")
    sweeper.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    sweeper.set_defaults(run=_sweeper)


def _sweep(args: argparse.Namespace) -> int:
    node, found = open_node(args), list[Damage]()
    sweep = node.sweep(0.0 if args.full_speed else node.config.sweep_mb_s, tell=found.append)
    round_ = sweep.round(_progress) if args.study is None else sweep.study(args.study, _progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    row = _row(round_, found)
    show([row], args.json, _COLUMNS)
    if not args.json:
        _explain(round_, row["found"])
    return 0 if round_.is_sound else 1


def _sweeper(args: argparse.Namespace) -> int:
    quiet_libraries()
    node = open_node(args)
    stop = stop_event(args.supervised)
    config = node.config
    node.sweep(config.sweep_mb_s, stop.wait).run(stop, config.sweep_every_h * _HOUR_S, config.ledger_retry_s)
    return 0


def _progress(round_: Round) -> bool:
    if sys.stderr.isatty():
        print(f"\r{round_.anchors} manifests, {round_.objects} objects", end="", file=sys.stderr)
    return True


def _row(round_: Round, found: Sequence[Damage]) -> dict[str, Any]:
    rates = {"objects_s": round(round_.objects_s, 1), "mb_s": round(round_.mb_s, 2)}
    row = {**asdict(round_), "seconds": round(round_.seconds, 3), **rates, "started": moment(round_.started)}
    return {**row, "finished": moment(round_.finished or round_.started), "found": [asdict(damage) for damage in found]}


def _explain(round_: Round, found: Sequence[dict[str, Any]]) -> None:
    if round_.elsewhere:
        print(_ELSEWHERE)
    if found:
        show(found, False, _DAMAGE_COLUMNS)
    if not round_.is_sound:
        print("`orthanc-ledger status` shows all alarms, also of what was found before an interruption")
