"""pull, pulled: a research centre fetches sealed objects itself, and says what it has."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.terminal import add_json, add_party, hex_bytes, open_party, show
from orthanc_ledger.config import Party, check_data_dir
from orthanc_ledger.content import open_store
from orthanc_ledger.errors import (
    ConfigError,
    ContentAway,
    ContractError,
    IntegrityError,
    LedgerAway,
    NotHeld,
    Unreadable,
)
from orthanc_ledger.holdings import Holding, Holdings
from orthanc_ledger.key_client import Denied, KeyClient
from orthanc_ledger.ledger import OpenLedger
from orthanc_ledger.ledger.identity import read_certificate
from orthanc_ledger.pull import Pull
from orthanc_ledger.recipient_key import read_private
from orthanc_ledger.sole import sole
from orthanc_ledger.words import counted, moment

_COLUMNS = ("study", "state", "objects", "folder")
_HOLDINGS, _LOCK, _QUARANTINE = "pull.db", "pull.lock", "quarantine"
_NOTHING = (
    "orthanc-ledger: the hospital's node gives no study of this request now: withdrawn, erased, or not held there; "
    "`--study TOKEN` says why"
)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pull = subparsers.add_parser("pull", help="fetch a request's studies from one's own content store (research)")
    pull.add_argument("request", metavar="REQUEST", help="id of an approved request, made with --public-key")
    pull.add_argument("--hospital", required=True, metavar="URL", help="https://HOST:PORT of the hospital's node")
    pull.add_argument("--key", type=Path, required=True, metavar="FILE", help="private.key of `keypair`")
    pull.add_argument("--out", type=Path, required=True, metavar="DIR", help="where each study gets a folder")
    pull.add_argument(
        "--study",
        action="append",
        default=[],
        metavar="TOKEN",
        help="only this one (may be repeated; default: all that the hospital's node holds of the request)",
    )
    pull.add_argument("--again", action="store_true", help="a new release, also of what is here already")
    pull.add_argument(
        "--ca", type=Path, metavar="FILE", help="CA of the hospital's HTTPS certificate (default: its CA on the ledger)"
    )
    add_party(pull)
    add_json(pull)
    pull.set_defaults(run=_pull)

    pulled = subparsers.add_parser("pulled", help="what was pulled; delete what was erased since (research)")
    pulled.add_argument(
        "--forget-erased",
        action="store_true",
        help="delete the files, copies and rows of studies that the ledger calls erased, and say so there",
    )
    add_party(pulled)
    add_json(pulled)
    pulled.set_defaults(run=_pulled)


def _pull(args: argparse.Namespace) -> int:
    request, private = hex_bytes(args.request), read_private(args.key)
    party, ledger = open_party(args)
    with closing(ledger), _holdings(party) as holdings:
        asked = _asked(ledger, request)
        hospital = KeyClient(args.hospital, party.identity, _authorities(args, ledger))
        pulling = _pulling(party, ledger, holdings)
        if asked["node"] != {"organisation": party.organisation, "aeTitle": party.ae_title}:
            raise ConfigError(f"request {args.request}: of another node than this configuration's {party.ae_title}")
        rows, code = [], 0
        try:
            studies = [hex_bytes(token) for token in args.study] or hospital.studies(request)
            if not studies:
                print(_NOTHING, file=sys.stderr)
            for study in studies:
                try:
                    holding = pulling.study(hospital, private, request, study, args.out, args.again)
                except (IntegrityError, Unreadable, Denied) as error:  # this study's alone: the others go on
                    print(f"orthanc-ledger: {study.hex()}: nothing is written: {error}", file=sys.stderr)
                    code = 1
                    continue
                except ContentAway as error:
                    pulling.check()  # raises when it is not this study's
                    print(f"orthanc-ledger: {study.hex()}: {error}; try again later", file=sys.stderr)
                    code = code or 3
                    continue
                rows.append(_row(holding))
                if holding.outcome == "failed":
                    _warn(holding, holdings, party)
                    code = 1
        except Denied as denied:
            print(f"orthanc-ledger: {denied}", file=sys.stderr)
            code = 1
        finally:
            if rows or not code:
                show(rows, args.json, _COLUMNS)
        return code


def _pulled(args: argparse.Namespace) -> int:
    party, ledger = open_party(args)
    with closing(ledger), _holdings(party) as holdings:
        if args.forget_erased:
            erased = _pulling(party, ledger, holdings).forget_erased()
            show([{"study": study, "state": "forgotten"} for study in erased], args.json, ("study", "state"))
        else:
            show(map(_row, holdings.all()), args.json, ("time", "request", *_COLUMNS))
    return 0


def _asked(ledger: OpenLedger, request: bytes) -> Any:
    try:
        return ledger.query("GetRequest", {"id": request})
    except ContractError as error:
        raise NotHeld(f"{request.hex()}: no such request; `orthanc-ledger requests` lists them") from error


def _authorities(args: argparse.Namespace, ledger: OpenLedger) -> list[bytes]:
    """CA certificates (DER) that the hospital's server may be of: of the ledger's owner, unless --ca names another."""
    if args.ca is not None:
        return [read_certificate(args.ca).public_bytes(Encoding.DER)]
    roles = ledger.query("GetPolicy", {})["organisations"]
    return [der for msp_id, der in ledger.authorities().items() if roles.get(msp_id) == "owner"]


def _pulling(party: Party, ledger: OpenLedger, holdings: Holdings) -> Pull:
    return Pull(ledger, open_store(party.content), holdings, party.data_dir / _QUARANTINE, system_clock)


@contextmanager
def _holdings(party: Party) -> Iterator[Holdings]:
    check_data_dir(party)
    busy = LedgerAway("another pull of this data_dir runs: wait for its end")
    with sole(party.data_dir / _LOCK, busy), closing(Holdings(party.data_dir / _HOLDINGS)) as holdings:
        yield holdings


def _row(holding: Holding) -> dict[str, Any]:
    return {
        "study": holding.study,
        "request": holding.request,
        "release": holding.release,
        "time": moment(holding.time),
        "state": {"complete": "held", "failed": "failed", None: "begun"}[holding.outcome],
        "objects": holding.objects,
        "folder": holding.folder if holding.outcome == "complete" else None,
    }


def _warn(holding: Holding, holdings: Holdings, party: Party) -> None:
    number = counted(len(holdings.tampered(holding)), "object")
    print(
        f"orthanc-ledger: {holding.study.hex()}: nothing is written: {number} not as anchored, reported to the ledger; "
        f"the sealed bytes are in {party.data_dir / _QUARANTINE / holding.release.hex()}",
        file=sys.stderr,
    )
