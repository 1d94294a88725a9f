"""verify: the ledger's log from its first entry, and every anchored object against its anchor."""

import argparse
import sys
from pathlib import Path

from orthanc_ledger.assemble import Node
from orthanc_ledger.commands.terminal import add_json, open_node, show
from orthanc_ledger.errors import IntegrityError, NotHeld
from orthanc_ledger.ledger.replay import replay


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "verify", help="check the ledger's log and every object against its anchor; exit 1 when anything differs"
    )
    parser.add_argument("--study", metavar="UID", help="only this study's objects")
    parser.add_argument("--log-only", action="store_true", help="only the ledger")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    node = open_node(args)
    report = replay(Path(node.config.ledger.partition(":")[2]))
    rows = [{"what": "ledger", "state": "verified", "detail": f"{report.size} entries, root {report.root.hex()}"}]
    if not args.log_only:
        rows += _objects(node, args.study)
    show(rows, args.json, ("what", "state", "detail"))
    return 0 if all(row["state"] == "verified" for row in rows) else 1


def _objects(node: Node, study_uid: str | None) -> list[dict[str, str]]:
    batches = [batch for batch in node.index.anchored_batches() if study_uid in (None, batch.study_uid)]
    rows, verified, total = [], 0, sum(batch.count for batch in batches)
    for batch in batches:
        anchor = node.ledger_as(None).query("GetAnchor", {"manifestCid": batch.manifest})
        try:
            manifest = node.manifests.read(batch.manifest, anchor["study"])
            if (manifest.record_root, manifest.count) != (anchor["root"], anchor["count"]):
                raise IntegrityError("root or count differ from the anchor")
        except (IntegrityError, NotHeld) as error:
            rows.append({"what": f"manifest {batch.manifest}", "state": "DAMAGED", "detail": str(error)})
            continue
        for record in manifest.records:
            try:
                node.library.check(batch.study_uid, record, manifest.key_id)
                verified += 1
            except (IntegrityError, NotHeld) as error:
                rows.append({"what": f"object {record.object}", "state": "DAMAGED", "detail": str(error)})
            if sys.stderr.isatty():
                print(f"\rverified {verified} of {total} objects", end="", file=sys.stderr)
    return [
        *rows,
        {
            "what": "objects",
            "state": "verified" if verified == total else "DAMAGED",
            "detail": f"{verified} of {total}",
        },
    ]
