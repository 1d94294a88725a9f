"""dataset, datasets: studies that research may ask for without knowing a UID."""

import argparse
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from orthanc_ledger.datasets import StudyList, encode_descriptor, read_descriptor
from orthanc_ledger.duo import LABELS, label
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.gate import never_given
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.selection import Criteria, DateRange, select
from orthanc_ledger.words import moment

_COLUMNS = ("id", "version", "state", "organisation", "registered", "studies", "instances", "modalities", "purposes")
_ID_BYTES = 16
_SALT_BYTES = 32


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    listing = subparsers.add_parser("datasets", help="list datasets, and what this node knows of them")
    add_ledger(listing)
    add_json(listing)
    listing.set_defaults(run=_list)

    dataset = subparsers.add_parser("dataset", help="register studies as a dataset, describe it, withdraw it")
    actions = dataset.add_subparsers(required=True, metavar="ACTION")
    _register_create(actions)
    described = actions.add_parser("show", help="what research may be told of a dataset; with --out into a file")
    described.add_argument("id", metavar="ID")
    described.add_argument("version", type=int, nargs="?", metavar="VERSION", help="default: the newest")
    described.add_argument("--out", dest="file", type=Path, metavar="FILE", help="write the descriptor, for research")
    described.add_argument("--from", dest="source", type=Path, metavar="FILE", help="read such a file, not this node's")
    add_ledger(described)
    add_json(described)
    described.set_defaults(run=_show)
    withdraw = actions.add_parser("withdraw", help="end what was approved on a version of a dataset, for good")
    withdraw.add_argument("id", metavar="ID")
    withdraw.add_argument("version", type=int, metavar="VERSION")
    add_identity(withdraw, "owner")
    add_json(withdraw)
    withdraw.set_defaults(run=_withdraw)


def _register_create(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    create = actions.add_parser(
        "create",
        help="register the studies with an anchored object that fits",
        description="Several values of one key are alternatives; several keys must all fit. The studies go in whole.",
    )
    for option, metavar, text in (
        ("--modality", "MR", "modality of the series"),
        ("--body-part", "HEAD", "body part examined, of the series"),
        ("--study-date", "YYYYMMDD-YYYYMMDD", "date of the study, or a range; either end may be left out"),
        ("--sop-class", "UID", "SOP class of the object"),
        ("--description", "PATTERN", "description of the study, with * and ?"),
        ("--study", "UID", "only this study"),
    ):
        create.add_argument(option, action="append", default=[], metavar=metavar, help=f"{text} (may be repeated)")
    create.add_argument(
        "--duo",
        action="append",
        default=[],
        choices=sorted(LABELS),
        metavar="DUO:NNNNNNN",
        help="what the data may be used for, a Data Use Ontology code (may be repeated)",
    )
    create.add_argument("--id", metavar="ID", help="make this the next version of an existing dataset")
    create.add_argument("--dry-run", action="store_true", help="only count")
    add_identity(create, "owner")
    add_json(create)
    create.set_defaults(run=_create)


def _create(args: argparse.Namespace) -> int:
    node = open_node(args)
    ledger = open_records(args) if args.dry_run else open_ledger(args)
    before = None if args.id is None else _find(ledger, args.id)
    criteria = _criteria(args)
    studies, counts = select(node.index, criteria, never_given(ledger.query("GetPolicy", {})))
    if not studies:
        raise NotHeld("no study with an anchored object fits, so there is nothing to register")
    told = asdict(counts) | ({} if before is None else _changes(node, before, studies))
    if args.dry_run or not args.json:
        show([told] if args.json else _lines(told), args.json, ("what", "value"))
    if args.dry_run:
        return 0
    dataset_id: bytes = secrets.token_bytes(_ID_BYTES) if before is None else before["id"]
    version = 1 if before is None else before["version"] + 1
    name = {"id": dataset_id, "version": version, "duo": sorted(set(args.duo))}
    salt = secrets.token_bytes(_SALT_BYTES)
    descriptor = encode_descriptor(**name, salt=salt, counts=asdict(counts), criteria=criteria.told())
    digest = node.datasets.keep(descriptor, studies)  # first, so that what is registered always has its list
    registration = {**name, "root": studies.root, "count": len(studies), "descriptorDigest": digest}
    committed = submit(ledger, "RegisterDataset", registration)
    sentence = f"registered: dataset {dataset_id.hex()}, version {version}"
    tell(args, {**name, **told, "position": committed.position}, sentence)
    return 0


def _criteria(args: argparse.Namespace) -> Criteria:
    return Criteria(
        modalities=tuple(args.modality),
        body_parts=tuple(args.body_part),
        sop_classes=tuple(args.sop_class),
        study_dates=tuple(map(DateRange.parse, args.study_date)),
        descriptions=tuple(args.description),
        studies=tuple(args.study),
    )


def _changes(node: Node, before: Mapping[str, Any], studies: StudyList) -> dict[str, int]:
    """How many studies came and left since the version before; empty when that one's list is not here."""
    try:
        old = set(node.datasets.open(before["descriptorDigest"], before["root"]))
    except NotHeld:
        return {}
    return {"added": len(set(studies) - old), "left": len(old - set(studies))}


def _list(args: argparse.Namespace) -> int:
    node = node_here(args)
    rows = []
    for dataset in all_rows(open_records(args), "Datasets", {}):
        row = {
            "id": dataset["id"],
            "version": dataset["version"],
            "state": dataset["state"],
            "organisation": dataset["by"]["organisation"],
            "registered": moment(dataset["time"]),
            "studies": dataset["count"],
            "duo": dataset["duo"],
            "purposes": [label(code) for code in dataset["duo"]],
        }
        rows.append(row if node is None else row | _known(node, dataset["descriptorDigest"]))
    show(rows, args.json, _COLUMNS)
    return 0


def _known(node: Node, digest: bytes) -> dict[str, Any]:
    """What the descriptor says of the studies, where it is here."""
    try:
        counts = read_descriptor(node.datasets.descriptor(digest), digest)["counts"]
    except NotHeld:
        return {}
    return {"instances": counts["instances"], "modalities": sorted(counts["modalities"])}


def _show(args: argparse.Namespace) -> int:
    digest = _find(open_records(args), args.id, args.version)["descriptorDigest"]
    try:
        descriptor = args.source.read_bytes() if args.source else open_node(args).datasets.descriptor(digest)
        fields = read_descriptor(descriptor, digest)
        if args.file:
            args.file.write_bytes(descriptor)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    if args.json:
        show([fields], True, ())
    else:
        purposes = {"purposes": [label(code) for code in fields["duo"]]}
        show(_lines({**fields["counts"], **fields["criteria"], **purposes}), False, ("what", "value"))
    return 0


def _withdraw(args: argparse.Namespace) -> int:
    dataset_id = hex_bytes(args.id)
    submit(open_ledger(args), "WithdrawDataset", {"id": dataset_id, "version": args.version})
    row = {"id": dataset_id, "version": args.version, "state": "withdrawn"}
    tell(args, row, "withdrawn, for good: nothing leaves on an approval of this version any more")
    return 0


def _find(ledger: Ledger, dataset: str, version: int | None = None) -> dict[str, Any]:
    """A dataset's version on the ledger, the newest by default. Raises NotHeld."""
    dataset_id = hex_bytes(dataset)
    versions = [row for row in all_rows(ledger, "Datasets", {}) if row["id"] == dataset_id]
    found: dict[str, Any] | None = next((row for row in reversed(versions) if version in (None, row["version"])), None)
    if found is None:
        raise NotHeld(f"{dataset}: no such dataset, or version; `orthanc-ledger datasets` lists them")
    return found


def _lines(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Counts and codes as lines of a table; a count of several kinds has a line for each."""
    lines = []
    for name, value in told.items():
        if isinstance(value, Mapping):
            lines += [{"what": f"{name} {kind}", "value": number} for kind, number in sorted(value.items())]
        else:
            lines.append({"what": name, "value": value})
    return lines
