"""erase: a study whose keys and copies are to be destroyed everywhere; who asked, who agreed, who has done so."""

import argparse
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from orthanc_ledger.asked import last_record, study_in_words, study_token
from orthanc_ledger.assemble import Node
from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    add_ledger,
    node_here,
    open_ledger,
    open_records,
    show,
    submit,
    tell,
)
from orthanc_ledger.erasure import lacking
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.words import moment

_COLUMNS = ("study", "study_instance_uid", "state", "since", "asked_by", "confirm_from", "missing", "waits_for")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "erase", help="have a study destroyed everywhere: list, request, confirm, cancel, done"
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="erasures, and who has not carried them out yet")
    add_ledger(listing)
    add_json(listing)
    listing.set_defaults(run=_list)
    for name, default, run, text in (
        ("request", "owner", _request, "ask for it (owner or custodian): releases stop at once, until it is cancelled"),
        ("confirm", "custodian", _confirm, "agree, once the grace time is over: the study is destroyed, for good"),
        ("cancel", "owner", _cancel, "take the request back, while it is not confirmed (owner or custodian)"),
        (
            "done",
            "custodian",
            _done,
            "say that one's own organisation holds nothing of it any more; nodes say so themselves",
        ),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument(
            "study", metavar="STUDY", help="its Study Instance UID on the hospital's node, or its token"
        )
        if name == "confirm":
            action.add_argument("--yes", action="store_true", help="do not ask again")
        add_identity(action, default)
        add_json(action)
        action.set_defaults(run=run)


def _list(args: argparse.Namespace) -> int:
    ledger, node = open_records(args), node_here(args)
    show(list(_erasures(ledger, node)), args.json, _COLUMNS)
    return 0


def _erasures(ledger: Ledger, node: Node | None) -> Iterator[dict[str, Any]]:
    grace_s = ledger.query("GetPolicy", {})["erase_grace_s"]
    here = {} if node is None else {each.token: each.study_uid for each in node.erasures.all()}
    events = all_rows(ledger, "Audit", {})
    for study in dict.fromkeys(event["args"]["study"] for event in events if event["function"] == "RequestErase"):
        record = last_record(ledger, f"erasure/{study.hex()}")
        state, confirmed = record["state"], last_record(ledger, f"erasureConfirmation/{study.hex()}")
        if state == "none":
            continue
        uid = here.get(study) or (None if node is None else node.index.study_of_token(study))
        yield {
            "study": study,
            "study_instance_uid": uid,
            "state": state,
            "since": moment((confirmed or record)["time"]),
            "asked_by": record["organisation"],
            "confirm_from": moment(record["time"] + grace_s) if state == "requested" else None,
            "missing": lacking(ledger, study) if confirmed else None,
            "waits_for": _waits_for(node, uid) if confirmed else None,
        }


def _waits_for(node: Node | None, study_uid: str | None) -> str | None:
    """What a person has to do for the node to be able to say that a study is erased."""
    if node is None or study_uid is None or not node.config.orthanc or not node.pacs.held(study_uid):
        return None
    return "Orthanc: delete the study there"


def _request(args: argparse.Namespace) -> int:
    ledger, study = open_ledger(args), _study(args)
    submit(ledger, "RequestErase", {"study": study})
    grace = timedelta(seconds=ledger.query("GetPolicy", {})["erase_grace_s"])
    gone = str(grace).removesuffix(", 0:00:00")
    sentence = f"asked for; the other party may confirm it with `erase confirm` once {gone} have gone"
    return _tell(args, study, "requested", f"{sentence}; nothing of it is released meanwhile")


def _confirm(args: argparse.Namespace) -> int:
    ledger, study = open_ledger(args), _study(args)
    if not args.yes:
        _ask(args, study)
    submit(ledger, "ConfirmErase", {"study": study})
    return _tell(args, study, "erased", "erased, for good; `erase list` says who has still to carry it out")


def _cancel(args: argparse.Namespace) -> int:
    ledger, study = open_ledger(args), _study(args)
    submit(ledger, "CancelErase", {"study": study})
    return _tell(args, study, "none", "the request is taken back: approvals count again")


def _done(args: argparse.Namespace) -> int:
    ledger, study = open_ledger(args), _study(args)
    submit(ledger, "ErasureDone", {"study": study})
    return _tell(args, study, "erased", "said on the ledger")


def _tell(args: argparse.Namespace, study: bytes, state: str, sentence: str) -> int:
    tell(args, {"study": study, "state": state}, sentence)
    return 0


def _ask(args: argparse.Namespace, study: bytes) -> None:
    """Have the token typed: nothing brings the study back. Raises ConfigError."""
    if args.json:
        raise ConfigError("erase confirm --json needs --yes: nothing brings the study back")
    print(f"study    {study_in_words(node_here(args), study)}")
    print("All organisations destroy their copies and keys of it. Nothing brings it back.")
    try:
        typed = input(f"Type the first 8 digits of its token, {study.hex()[:8]}, to go on: ")
    except EOFError:
        typed = ""
    if typed.strip() != study.hex()[:8]:
        raise ConfigError("not confirmed: nothing was changed")


def _study(args: argparse.Namespace) -> bytes:
    """The study's token, given or known here by its UID. Raises ConfigError, NotHeld."""

    def node() -> Node:
        here = node_here(args)
        if here is None:
            raise ConfigError(f"{args.study!r}: expected a token of 32 digits; only the hospital's node knows UIDs")
        return here

    return study_token(node, args.study)
