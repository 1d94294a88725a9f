"""status: is the node well."""

import argparse
import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.forwards import backlog, in_words
from orthanc_ledger.commands.terminal import add_json, keys_of_others, open_node, show
from orthanc_ledger.courier import ALARM_SINK, CHECKPOINT_SINK, ROLLED_BACK
from orthanc_ledger.deliveries import Route
from orthanc_ledger.errors import ContentAway, IntegrityError, LedgerAway, SpoolFull
from orthanc_ledger.ledger.checkpoint import prove_growth
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.spool import CONFLICTS, QUARANTINE
from orthanc_ledger.words import moment

_READY = "ready"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "status",
        help="counts, backlog, checkpoints, alarms; exit 1 when alarms stand, 3 when ledger or content store is away, "
        "4 when all is well but a rollback could not be detected",
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    node = open_node(args)
    facts = _facts(args, node)
    if args.json:
        show([facts], True, ())
    else:
        _print(facts)
    if {facts["ledger"], facts["content"]} != {_READY}:
        return 3
    if facts["alarms"]:
        return 1
    return 0 if _is_kept(facts) else 4


def _is_kept(facts: Mapping[str, Any]) -> bool:
    """Whether others keep the ledger, or a checkpoint of it: a rollback would be found."""
    return facts["ledger_entries"] is None or any(sink["covered"] for sink in facts["checkpoints"])


def _facts(args: argparse.Namespace, node: Node) -> dict[str, Any]:
    counts = node.index.counts()
    disk = os.statvfs(node.spool.folder)
    alarms = [{"time": moment(alarm.time), "kind": alarm.kind, "text": alarm.text} for alarm in node.outbox.alarms()]
    entries, ledger, now = None, _READY, moment(system_clock())
    try:
        node.spool.check_room()
    except SpoolFull as error:
        alarms.append({"time": now, "kind": "spool full", "text": f"C-STORE is refused: {error}"})
    try:
        alarms += [{"time": now, "kind": "keys", "text": text} for text in keys_of_others(args, node.config)]
        with closing(node.ledger_as()) as log:
            if isinstance(log, EmbeddedLedger):
                entries = log.size
                if signed := node.deliveries.signed():  # the courier may not run
                    prove_growth(log, signed.checkpoint, log.checkpoint())
            else:
                log.query("GetPolicy", {})
    except IntegrityError as error:
        alarms.append({"time": now, "kind": ROLLED_BACK, "text": f"now: {error}"})
    except LedgerAway as error:
        ledger = f"away: {error}"
    checkpoints = _sinks(node, CHECKPOINT_SINK, node.config.checkpoint_sinks)
    round_ = node.rounds.finished()
    return {
        "anchored": counts.get("anchored", 0),
        "waiting": counts.get("spooled", 0),
        "batches_not_on_ledger": len(node.index.unanchored()),
        "reports_not_on_ledger": len(node.outbox.posted()),
        "quarantine": len(node.spool.names(QUARANTINE)),
        "conflicts": len(node.spool.names(CONFLICTS)),
        "spool_free_mb": disk.f_bavail * disk.f_frsize >> 20,
        "ledger": ledger,
        "content": _content(node),
        "ledger_entries": entries,
        "final_entries": min((sink["covered"] for sink in checkpoints), default=None),
        "last_sweep": None if round_ is None else moment(round_.finished or round_.started),
        **_orthanc(node),
        "forwards": backlog(node),
        "checkpoints": checkpoints,
        "alarm_sinks": _sinks(node, ALARM_SINK, node.config.alarm_sinks),
        "alarms": alarms,
    }


def _orthanc(node: Node) -> dict[str, Any]:
    """What Orthanc has that is not under custody, and lacks that is."""
    if not node.config.orthanc:
        return {}
    compared = node.pacs.place().compared
    return {
        "orthanc_earlier": node.pacs.earlier(),
        "orthanc_untaken": len(node.pacs.untaken()),
        "orthanc_to_decide": len(node.pacs.gone()),
        "orthanc_compared": moment(compared) if compared else None,
    }


def _content(node: Node) -> str:
    """Raises ConfigError when the content store must not be used."""
    try:
        node.content.check()
    except ContentAway as error:
        return f"away: {error}"
    return _READY


def _sinks(node: Node, kind: str, urls: Iterable[str]) -> list[dict[str, Any]]:
    """How far each sink has come; `covered`: entries that its newest checkpoint covers (alarm sinks: last notice)."""
    places = {place.route: place for place in node.deliveries.places()}
    now, found = system_clock(), []
    for url in urls:
        place = places.get(Route(kind, url))  # None: the courier has not run yet
        waiting_since = place.waiting_since if place else None
        found.append(
            {
                "sink": url,
                "covered": place.position if place else 0,
                "age_s": now - place.time if place and place.time else None,
                "waiting_s": None if waiting_since is None else now - waiting_since,
                "error": place.error if place else None,
            }
        )
    return found


def _print(facts: Mapping[str, Any]) -> None:
    counts = {name: len(value) for name, value in facts.items() if isinstance(value, list)}
    counts["forwards"] = sum(each["waiting"] for each in facts["forwards"])
    rows = [{"fact": name, "value": counts.get(name, value)} for name, value in facts.items() if value is not None]
    show(rows, False, ("fact", "value"))
    for each in facts["forwards"]:
        print(f"FORWARDS {in_words(each)}")
    for sink in facts["checkpoints"]:
        covered, age_s = sink["covered"], sink["age_s"]
        how_old = f"checkpoint of {covered} entries, {age_s} s old" if covered else "no checkpoint yet"
        print(f"CHECKPOINTS {sink['sink']}: {how_old}{_trouble(sink)}")
    for sink in facts["alarm_sinks"]:
        print(f"ALARMS TO {sink['sink']}{_trouble(sink)}")
    if not _is_kept(facts):
        print("rollback not detectable: no checkpoint is kept; set checkpoint_sinks, out of this machine's reach")
    for alarm in facts["alarms"]:
        print(f"ALARM {alarm['time']} {alarm['kind']}: {alarm['text']}")


def _trouble(sink: Mapping[str, Any]) -> str:
    waits = "" if sink["waiting_s"] is None else f"; something waits since {sink['waiting_s']} s"
    return waits + (f"; {sink['error']}" if sink["error"] else "")
