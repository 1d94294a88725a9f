"""policy, pending, cancel, revoke-certificate: how the members of a ledger agree on its rules."""

import argparse
import copy
import secrets
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.serialization import Encoding

from orthanc_ledger.asked import instances_in_words, last_record, policy_changes, study_in_words
from orthanc_ledger.commands.terminal import (
    add_identity,
    add_json,
    add_ledger,
    hex_bytes,
    node_here,
    open_ledger,
    open_records,
    organisation_of,
    show,
    signer,
    submit,
    tell,
)
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.identity import read_certificate, serial_of
from orthanc_ledger.words import moment


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    policy = subparsers.add_parser("policy", help="show the ledger's policy, propose another, confirm a proposal")
    add_ledger(policy)
    add_json(policy)
    policy.set_defaults(run=_show)
    actions = policy.add_subparsers(metavar="ACTION")
    propose = actions.add_parser("propose", help="propose changes (owner or custodian); the other confirms them")
    propose.add_argument(
        "--add", action="append", default=[], metavar="MSPID:CA.pem", help="a research organisation joins"
    )
    propose.add_argument("--remove", action="append", default=[], metavar="MSPID", help="a research organisation goes")
    propose.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another value, in YAML, as require_stored=true",
    )
    confirm = actions.add_parser("confirm", help="put a proposal into force (the other organisation)")
    confirm.add_argument("id")
    cancel = subparsers.add_parser("cancel", help="take back a proposed policy or supersession (owner or custodian)")
    cancel.add_argument("id")
    revoke = subparsers.add_parser("revoke-certificate", help="end a certificate of the signing organisation")
    revoke.add_argument("certificate", metavar="CERT.pem|SERIAL", help="the certificate, or its serial number in hex")
    for action, who, run in (
        (propose, "owner", _propose),
        (confirm, "custodian", _confirm),
        (cancel, "owner", _cancel),
        (revoke, "owner", _revoke_certificate),
    ):
        add_identity(action, who)
        add_json(action)
        action.set_defaults(run=run)
    pending = subparsers.add_parser("pending", help="what waits for the other party: policies, supersessions, erasures")
    add_ledger(pending)
    add_json(pending)
    pending.set_defaults(run=_pending)


def _show(args: argparse.Namespace) -> int:
    policy = open_records(args).query("GetPolicy", {})
    if args.json:
        show([policy], True, ())
    else:
        certificates = {"certificates": sorted(policy["certificates"])} if "certificates" in policy else {}
        print(yaml.safe_dump({**policy, **certificates}, sort_keys=False), end="")
    return 0


def _propose(args: argparse.Namespace) -> int:
    ledger = open_ledger(args)
    in_force = ledger.query("GetPolicy", {})
    policy = copy.deepcopy(in_force)
    for text in args.set:
        field, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: expected FIELD=VALUE, as max_days=90")
        policy[field] = yaml.safe_load(value)
    certificates = {**policy.pop("certificates", {}), **dict(_joining(text) for text in args.add)}
    policy["organisations"] |= dict.fromkeys((text.partition(":")[0] for text in args.add), "research")
    for msp_id in args.remove:
        if policy["organisations"].pop(msp_id, None) is None:
            raise ConfigError(f"--remove {msp_id}: not in the policy; `orthanc-ledger policy` shows it")
        certificates.pop(msp_id, None)
    if certificates:
        policy["certificates"] = certificates
    changes = policy_changes(in_force, policy)
    if not changes:
        raise ConfigError("the policy in force is like this already: name a change with --set, --add or --remove")
    committed = submit(ledger, "ProposePolicy", {"policy": policy}, secrets.token_bytes(16))
    proposal = committed.result["id"].hex()
    if not args.json:
        print("\n".join(changes))
    tell(args, committed.result, f"proposed; the other organisation runs `orthanc-ledger policy confirm {proposal}`")
    return 0


def _joining(text: str) -> tuple[str, bytes]:
    msp_id, colon, path = text.partition(":")
    if not colon:
        raise ConfigError(f"--add {text!r}: expected MSPID:CA.pem")
    return msp_id, read_certificate(Path(path)).public_bytes(Encoding.DER)


def _confirm(args: argparse.Namespace) -> int:
    ledger, proposal = open_ledger(args), hex_bytes(args.id)
    record = last_record(ledger, f"policyProposal/{proposal.hex()}")
    if record is None:
        raise NotHeld(f"{args.id}: no such proposal; `orthanc-ledger pending` lists them")
    changes = policy_changes(ledger.query("GetPolicy", {}), record["policy"])
    if changes and not args.json:
        print("\n".join(changes))
    committed = submit(ledger, "ConfirmPolicy", {"id": proposal})
    tell(args, {"id": args.id, "changes": changes, **committed.result}, "in force")
    return 0


def _cancel(args: argparse.Namespace) -> int:
    submit(open_ledger(args), "Cancel", {"id": hex_bytes(args.id)})
    tell(args, {"id": args.id, "state": "cancelled"}, "cancelled, for good; it may be proposed anew")
    return 0


def _revoke_certificate(args: argparse.Namespace) -> int:
    path, ours = Path(args.certificate), organisation_of(args, signer(args).certificate)
    serial = args.certificate.lower().lstrip("0")
    if path.is_file():
        certificate = read_certificate(path)
        theirs = organisation_of(args, certificate.public_bytes(Encoding.DER))
        if theirs != ours:
            raise ConfigError(f"{path}: a certificate of {theirs or 'nobody on this ledger'}; {ours} ends its own only")
        serial = serial_of(certificate)
    submit(open_ledger(args), "RevokeCertificate", {"serial": serial})
    sentence = f"certificate {serial} of {ours} signs nothing any more; what it signed stays valid"
    tell(args, {"organisation": ours, "serial": serial}, sentence)
    return 0


def _pending(args: argparse.Namespace) -> int:
    ledger, node = open_records(args), node_here(args)
    rows: list[dict[str, Any]] = []
    for row in all_rows(ledger, "Pending", {}):
        kind, record = row["kind"], row["record"]
        by, subject = record.get("by", record)["organisation"], row["study" if kind == "erasure" else "id"]
        if kind == "policy":
            what = policy_changes(ledger.query("GetPolicy", {}), record["policy"])
        elif kind == "supersession":
            what = [record["reason"], *instances_in_words(node, record["study"], [record["instance"]])]
        else:
            what = [study_in_words(node, subject)]
        since = moment(record["time"])
        rows.append({"kind": kind, "id": subject, "by": by, "since": since, "what": "; ".join(what), "record": record})
    show(rows, args.json, ("kind", "id", "by", "since", "what"))
    return 0
