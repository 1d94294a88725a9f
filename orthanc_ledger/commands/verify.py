"""verify: an embedded ledger's log from its first entry, and every anchored object against its anchor."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from orthanc_ledger.assemble import Node
from orthanc_ledger.commands.fsck import ROLLBACK_NOT_DETECTABLE, add_checkpoint, embedded_path, examine, pins_of
from orthanc_ledger.commands.terminal import add_json, open_node, show
from orthanc_ledger.errors import IntegrityError, NotHeld

_VERIFIED, _DAMAGED = "verified", "DAMAGED"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check the ledger's log and every object against its anchor; exit 1 when anything differs, 4 when there "
        "was no checkpoint to find a rollback by",
    )
    parser.add_argument("--study", metavar="UID", help="only this study's objects")
    parser.add_argument("--log-only", action="store_true", help="only the ledger")
    add_checkpoint(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    node = open_node(args)
    if args.study is not None and not node.index.studies([args.study]):
        raise NotHeld(f"--study {args.study}: not held here; `orthanc-ledger studies` lists what is")
    embedded = node.config.ledger.startswith("embedded:")  # else its peers check each block
    rows = [_log(node, args)] if embedded or args.log_only or args.checkpoint else []
    if not args.log_only:
        rows += _objects(node, args.study)
    show(rows, args.json, ("what", "state", "detail"))
    if not all(row["state"] == _VERIFIED for row in rows):
        return 1
    return 0 if not embedded or rows[0]["checkpoints"] else ROLLBACK_NOT_DETECTABLE


def _log(node: Node, args: argparse.Namespace) -> dict[str, Any]:
    path, pins = embedded_path(node.config.ledger), pins_of(args, node.config)
    examined = examine(path, node.config.checkpoint_sinks, args.checkpoint, pins)
    report, checkpoints = examined.report, len(examined.compared)
    if report.findings:
        first = report.findings[0]
        where = "" if first.position is None else f"entry {first.position}: "
        more = f"; `fsck` shows all {len(report.findings)}" if len(report.findings) > 1 else ""
        return {"what": "ledger", "state": _DAMAGED, "detail": f"{where}{first.kind}: {first.detail}{more}"}
    root = report.root.hex()
    compared = f"compared with {checkpoints} checkpoints" if checkpoints else "rollback not detectable"
    row = {"what": "ledger", "state": _VERIFIED, "detail": f"{report.size} entries, root {root}, {compared}"}
    return {**row, "size": report.size, "root": root, "checkpoints": checkpoints}


def _objects(node: Node, study_uid: str | None) -> Iterator[dict[str, Any]]:
    """A row for each damaged manifest and object, and the sum of all."""
    batches = [batch for batch in node.index.anchored_batches() if study_uid in (None, batch.study_uid)]
    uids = {instance.object: instance.sop_uid for instance in node.index.select()}
    ledger, verified, total = node.ledger_as(), 0, sum(batch.count for batch in batches)
    for batch in batches:
        anchor = ledger.query("GetAnchor", {"manifestCid": batch.manifest})
        try:
            objects = node.library.check_manifest(batch.study_uid, anchor)
        except (IntegrityError, NotHeld) as error:
            yield {"what": "manifest", "state": _DAMAGED, "detail": str(error), "cid": batch.manifest}
            continue
        for checked in objects:
            record, fault = checked.record, checked.fault
            verified += fault is None
            if fault is not None:
                uid = uids.get(record.object)  # None when another content superseded it
                row = {"what": "object", "state": _DAMAGED, "detail": f"{uid or 'superseded'}: {fault}"}
                yield {**row, "cid": record.object, "sop_instance_uid": uid}
            if sys.stderr.isatty():
                print(f"\rverified {verified} of {total} objects", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    state = _VERIFIED if verified == total else _DAMAGED
    yield {"what": "objects", "state": state, "detail": f"{verified} of {total}", "verified": verified, "total": total}
