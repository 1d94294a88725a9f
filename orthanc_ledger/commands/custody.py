"""standing, withdraw, reinstate, resolve: what research does not get for now, and how it gets it back."""

import argparse
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from orthanc_ledger import tokens
from orthanc_ledger.asked import held_of, last_record, object_in_words
from orthanc_ledger.assemble import Node
from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    add_ledger,
    hex_bytes,
    node_here,
    open_ledger,
    open_node,
    open_records,
    show,
    submit,
    tell,
)
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.ledger.contract.codes import WITHDRAWAL_REASONS
from orthanc_ledger.words import counted

_COLUMNS = ("kind", "id", "study_instance_uid", "sop_instance_uid", "instances", "agreed")
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
    node = node_here(args)
    rows = list(_taken(open_records(args)))
    if node is not None:
        for row in rows:
            row["study_instance_uid"] = node.index.study_of_token(row["study"])
            held = held_of(node, row["study"]).get(row.get("instance", b""))
            row["sop_instance_uid"] = held and held.sop_uid
    show(rows, args.json, _COLUMNS)
    return 0


def _taken(ledger: Ledger) -> Iterator[dict[str, Any]]:
    events = all_rows(ledger, "Audit", {})
    for study in sorted({event["args"]["study"] for event in events if event["function"] in _CHANGES_STANDING}):
        standing = ledger.query("StandingOf", {"study": study})
        for flag in standing["flagged"]:
            instance, n, manifest = flag["instance"], flag["n"], flag["manifestCid"]
            flag_id = f"{study.hex()}/{instance.hex()}/{n}"
            row = {"kind": "flagged", "id": flag_id, "study": study, "instance": instance, "instances": 1}
            word = f"resolution/{_place(study, instance, n)}/{_current(standing, instance, manifest)}"
            yield {**row, "manifest": manifest, "agreed": _who_said(ledger, word)}
        for row in standing["withdrawn"]:
            count = "all" if row["instances"] is None else len(row["instances"])
            agreed = _who_said(ledger, f"reinstatement/{row['id'].hex()}")
            yield {"kind": "withdrawn", "id": row["id"], "study": study, "instances": count, "agreed": agreed}
        if standing["erased"] != "none":
            yield {"kind": f"erasure {standing['erased']}", "id": study, "study": study, "instances": "all"}


def _who_said(ledger: Ledger, word: str) -> list[str]:
    return [role for role in ("owner", "custodian") if last_record(ledger, f"{word}/{role}") is not None]


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
    if node.config.orthanc and "signed_file" not in args:
        node.pacs.decided(args.study)
    what = counted(len(asked["instances"]), "object") if args.instance else "the whole study"
    withdrawn = f"{what} withdrawn from research; clinical peers still get it"
    tell(args, committed.result, f"{withdrawn}; to give it back: `reinstate {committed.result['id'].hex()}`")
    return 0


def _reinstate(args: argparse.Namespace) -> int:
    ledger, withdrawal = open_ledger(args), hex_bytes(args.id)
    key = f"withdrawal/{withdrawal.hex()}"
    record = last_record(ledger, key)
    if record is None:
        raise NotHeld(f"{args.id}: no such withdrawal; `orthanc-ledger standing` lists them")
    if not args.json:
        print(object_in_words(node_here(args), record))
    submit(ledger, "Reinstate", {"id": withdrawal})
    _tell_state(args, last_record(ledger, key)["state"], "reinstated", "research gets it again")
    return 0


def _resolve(args: argparse.Namespace) -> int:
    ledger, node = open_ledger(args), node_here(args)
    study, instance, n = _flag(args.id)
    place = _place(study, instance, n)
    flag, agreed = last_record(ledger, f"flag/{place}"), last_record(ledger, f"resolved/{place}")
    if flag is None:
        raise NotHeld(f"{args.id}: no such flag; `orthanc-ledger standing` lists them")
    standing = ledger.query("StandingOf", {"study": study})
    manifest = agreed["manifestCid"] if agreed else _current(standing, instance, flag["manifestCid"])
    if not args.json:
        print(object_in_words(node, {**flag, "manifestCid": manifest}))
    if node is not None and not agreed:
        _must_be_healthy(node, study, instance)
    submit(ledger, "Resolve", {"study": study, "instance": instance, "n": n, "manifestCid": manifest})
    state = "resolved" if last_record(ledger, f"resolved/{place}") else "flagged"
    _tell_state(args, state, "resolved", "research gets it again, and its alarm goes with the next sweep")
    return 0


def _current(standing: Mapping[str, Any], instance: bytes, flagged: str) -> str:
    """The manifest research gets from now on: that of a confirmed supersession, else the flagged one."""
    superseded = (row["newManifest"] for row in standing["superseded"] if row["instance"] == instance)
    return next(superseded, flagged)


def _must_be_healthy(node: Node, study: bytes, instance: bytes) -> None:
    held = held_of(node, study).get(instance)
    if held is None:
        return
    try:
        with node.library.open(held):
            pass
    except IntegrityError as error:
        raise IntegrityError(f"not resolved: {error}; restore the object from a backup first") from error


def _place(study: bytes, instance: bytes, n: int) -> str:
    """In keys of the ledger's state (docs/contract.md)."""
    return f"{study.hex()}/{instance.hex()}/{n:06d}"


def _flag(text: str) -> tuple[bytes, bytes, int]:
    study, _, rest = text.partition("/")
    instance, _, n = rest.partition("/")
    if not n.isdecimal():
        raise ConfigError(f"{text!r}: expected STUDY/INSTANCE/N as `orthanc-ledger standing` prints it")
    return hex_bytes(study), hex_bytes(instance), int(n)


def _tell_state(args: argparse.Namespace, state: str, done: str, effect: str) -> None:
    sentence = f"{done}: {effect}" if state == done else "counted; the other organisation has to agree"
    tell(args, {"id": args.id, "state": state}, sentence)
