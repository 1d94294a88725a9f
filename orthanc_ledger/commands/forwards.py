"""forwards: what clinical destinations still have to get."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.terminal import add_json, open_node, show, tell
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.forwarding import late_kind, refused_kind
from orthanc_ledger.forwards import Forward
from orthanc_ledger.words import counted, moment

_COLUMNS = ("destination", "claim", "sop_instance_uid", "queued", "tried", "trouble")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    forwards = subparsers.add_parser("forwards", help="objects that wait to be forwarded: list, try again, discard")
    add_json(forwards)
    forwards.set_defaults(run=_list)
    actions = forwards.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", help="all that waits, oldest first")
    listing.set_defaults(run=_list)
    retry = actions.add_parser("retry", help="try all that waits within a minute, also what a destination refused")
    retry.set_defaults(run=_retry)
    discard = actions.add_parser("discard", help="give up an object for a destination, which will not get it")
    discard.add_argument("destination", help="its AE title")
    discard.add_argument("claim", nargs="?", help="the object, as `forwards` lists it")
    discard.add_argument("--all", action="store_true", help="everything for an AE title taken from `forward`")
    discard.set_defaults(run=_discard)
    for action in (listing, retry, discard):
        add_json(action)


def _list(args: argparse.Namespace) -> int:
    node = open_node(args)
    show([_row(node, forward) for forward in node.forwards.rows()], args.json, _COLUMNS)
    return 0


def _row(node: Node, forward: Forward) -> dict[str, Any]:
    instance = node.index.instance(forward.claim)
    return {
        **asdict(forward),
        "queued": moment(forward.queued),
        "due": moment(forward.due) if forward.due else None,
        "tried": None if forward.tried is None else moment(forward.tried),
        "sop_instance_uid": instance.sop_uid if instance else None,
    }


def _retry(args: argparse.Namespace) -> int:
    """What a destination that is away lacks was not put off: the forwarder's own pause is a minute at most."""
    node = open_node(args)
    retried, waiting = node.forwards.retry(), backlog(node)
    lines = [f"what waits is tried within a minute of a running node; {counted(retried, 'object')} had been put off"]
    tell(args, {"retried": retried, "forwards": waiting}, "\n".join([*lines, *map(in_words, waiting)]))
    return 0


def _discard(args: argparse.Namespace) -> int:
    """Alarms are settled also when nothing waits: a command that was killed had discarded it."""
    if (args.claim is None) is not args.all:
        raise ConfigError("forwards discard: expected a claim or --all, and not both")
    node, destination = open_node(args), args.destination
    if args.all and destination in node.config.forward:
        raise ConfigError(
            f"forwards discard {destination} --all: it stands under `forward` and would lack these objects alone; take "
            "it out of `forward` and start the node again first, or name single objects"
        )
    discarded = node.forwards.discard(destination, args.claim)
    for alarm in node.outbox.alarms():
        if alarm.kind == refused_kind(destination) and args.claim in (None, alarm.claim):
            node.outbox.settle(alarm.claim, kind=alarm.kind)
    if all(waiting.destination != destination for waiting in node.forwards.waiting()):
        node.outbox.settle(destination, kind=late_kind(destination))
    if not discarded:
        raise NotHeld(f"{destination}: no such object waits; `orthanc-ledger forwards` lists what does")
    row = {"destination": destination, "discarded": len(discarded)}
    tell(args, row, f"{counted(len(discarded), 'object')} discarded: {destination} does not get them from here")
    return 0


def backlog(node: Node) -> list[dict[str, Any]]:
    """What waits for each destination of `forward`, and for those that no longer stand there."""
    waiting = {each.destination: each for each in node.forwards.waiting()}
    now, found = system_clock(), []
    for destination in dict.fromkeys([*node.config.forward, *waiting]):
        each = waiting.get(destination)
        found.append(
            {
                "destination": destination,
                "configured": destination in node.config.forward,
                "waiting": each.count if each else 0,
                "oldest_s": now - each.oldest if each else None,
                "trouble": each.trouble if each else None,
            }
        )
    return found


def in_words(each: Mapping[str, Any]) -> str:
    """A destination of `backlog`, in a line."""
    destination, waiting = each["destination"], counted(each["waiting"], "object")
    text = f"{destination}: {waiting} to send"
    if each["waiting"]:
        text += f", the oldest for {each['oldest_s']} s"
    if each["trouble"]:
        text += f"; {each['trouble']}"
    if not each["configured"]:
        text += f"; not tried: no longer under `forward` (`orthanc-ledger forwards discard {destination} --all`)"
    return text
