"""standing, withdraw, reinstate, resolve: what research does not get for now, and how it gets it back."""

import argparse
import secrets
from collections.abc import Iterator
from typing import Any

from orthanc_ledger import tokens
from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    add_ledger,
    hex_bytes,
    open_ledger,
    open_node,
    open_records,
    show,
    submit,
    tell,
)
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.ledger.contract.codes import WITHDRAWAL_REASONS

_COLUMNS = ("kind", "id", "study_instance_uid", "instances")
_CHANGES_STANDING = frozenset({"FlagTampered", "Withdraw", "RequestErase"})


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    standing = subparsers.add_parser("standing", help="what is withheld from research: flags, withdrawals, erasures")
    add_ledger(standing)
    add_json(standing)
    standing.set_defaults(run=_standing)

    withdraw = subparsers.add_parser("withdraw", help="take a study or some of its objects from research (owner)")
    withdraw.add_argument("--study", required=True, metavar="UID")
    withdraw.add_argument(
        "--instance", action="append", default=[], metavar="UID", help="only this object (may be repeated)"
    )
    withdraw.add_argument(
        "--reason",
        required=True,
        choices=WITHDRAWAL_REASONS,
        help="PS3.16 CID 7011: 113001 quality, 113037 patient safety, 113038 wrong worklist entry, 113039 retention",
    )
    add_identity(withdraw, "owner")
    add_json(withdraw)
    withdraw.set_defaults(run=_withdraw)

    reinstate = subparsers.add_parser("reinstate", help="give back what was withdrawn (owner and custodian each)")
    reinstate.add_argument("id")
    resolve = subparsers.add_parser("resolve", help="lift a tamper flag (owner and custodian each)")
    resolve.add_argument("id", help="STUDY/INSTANCE/N as `standing` prints it")
    for parser, run in ((reinstate, _reinstate), (resolve, _resolve)):
        add_identity(parser, "custodian")
        add_json(parser)
        parser.set_defaults(run=run)


def _standing(args: argparse.Namespace) -> int:
    index = None if "ledger" in args else open_node(args).index
    rows = list(_taken(open_records(args)))
    for row in rows:
        row["study_instance_uid"] = index and index.study_of_token(row["study"])
    show(rows, args.json, _COLUMNS)
    return 0


def _taken(ledger: Ledger) -> Iterator[dict[str, Any]]:
    events = ledger.query("Audit", {})
    for study in sorted({event["args"]["study"] for event in events if event["function"] in _CHANGES_STANDING}):
        standing = ledger.query("StandingOf", {"study": study})
        for flag in standing["flagged"]:
            flag_id = f"{study.hex()}/{flag['instance'].hex()}/{flag['n']}"
            yield {"kind": "flagged", "id": flag_id, "study": study, "instances": 1, "manifest": flag["manifestCid"]}
        for row in standing["withdrawn"]:
            count = "all" if row["instances"] is None else len(row["instances"])
            yield {"kind": "withdrawn", "id": row["id"], "study": study, "instances": count}
        if standing["erased"] != "none":
            yield {"kind": f"erasure {standing['erased']}", "id": study, "study": study, "instances": "all"}


def _withdraw(args: argparse.Namespace) -> int:
    node = open_node(args)
    study = node.keyring.study(args.study)
    if study is None:
        raise NotHeld(f"--study {args.study}: not held here; `orthanc-ledger studies` lists what is")
    asked: dict[str, Any] = {"study": study.token, "reason": args.reason}
    if args.instance:
        held = {instance.sop_uid for instance in node.index.select(studies=[args.study])}
        if missing := set(args.instance) - held:
            raise NotHeld(f"--instance: not in that study here: {', '.join(sorted(missing))}")
        asked["instances"] = sorted(tokens.instance_token(study.k_study, uid) for uid in set(args.instance))
    committed = submit(open_ledger(args), "Withdraw", asked, secrets.token_bytes(16))
    what = f"{len(asked['instances'])} objects" if args.instance else "the whole study"
    tell(args, committed.result, f"{what} withdrawn from research; clinical peers still get it")
    return 0


def _reinstate(args: argparse.Namespace) -> int:
    committed = submit(open_ledger(args), "Reinstate", {"id": hex_bytes(args.id)})
    _tell_state(args, committed.result["state"], "reinstated")
    return 0


def _resolve(args: argparse.Namespace) -> int:
    ledger = open_ledger(args)
    study, instance, n = _flag(args.id)
    standing = ledger.query("StandingOf", {"study": study})
    manifests = [row["manifestCid"] for row in standing["flagged"] if (row["instance"], row["n"]) == (instance, n)]
    if not manifests:
        raise NotHeld(f"{args.id}: no such flag stands; `orthanc-ledger standing` lists them")
    # What research gets from now on is the current record: that of a confirmed supersession, else the flagged one.
    superseded = [row["newManifest"] for row in standing["superseded"] if row["instance"] == instance]
    asked = {"study": study, "instance": instance, "n": n, "manifestCid": (superseded or manifests)[0]}
    committed = submit(ledger, "Resolve", asked)
    _tell_state(args, committed.result["state"], "resolved")
    return 0


def _flag(text: str) -> tuple[bytes, bytes, int]:
    study, _, rest = text.partition("/")
    instance, _, n = rest.partition("/")
    if not n.isdecimal():
        raise ConfigError(f"{text!r}: expected STUDY/INSTANCE/N as `orthanc-ledger standing` prints it")
    return hex_bytes(study), hex_bytes(instance), int(n)


def _tell_state(args: argparse.Namespace, state: str, done: str) -> None:
    sentence = f"{done}: research gets it again" if state == done else "counted; the other organisation has to agree"
    tell(args, {"id": args.id, "state": state}, sentence)
