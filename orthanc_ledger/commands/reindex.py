"""reindex: make the index anew from ledger, content store and keyring."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from orthanc_ledger.assemble import INDEX, INDEX_LOCK
from orthanc_ledger.commands.terminal import add_json, open_node, show
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.index import Index
from orthanc_ledger.reindex import Loss, Rebuilt, put_in_place
from orthanc_ledger.sole import sole

_COLUMNS = ("anchors", "elsewhere", "erased", "objects", "lost", "in_place")
_LOSS_COLUMNS = ("cid", "objects", "detail")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "reindex",
        help="make the index anew from ledger, content store and keyring; the node must be stopped; exit 1 when "
        "something is lost",
        description="Make the index anew from ledger, content store and keyring, with the node stopped. The old one is "
        "replaced when all is restored. Elsewhere: anchors of other nodes. Exit 1 when something is lost: it is named, "
        "and the old index stays.",
    )
    parser.add_argument("--accept-loss", action="store_true", help="replace the index though something is lost")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    node, losses = open_node(args), list[Loss]()
    data_dir = node.config.data_dir
    who = "Orthanc, and with it the node" if node.config.orthanc else "the node"
    used = ConfigError(f"the index is in use: stop {who}, and wait for the end of other commands")
    with sole(data_dir / INDEX_LOCK, used), _fresh(data_dir) as path:
        index = Index(path)
        rebuilt = node.reindex(index, losses.append).run(_progress)
        index.close()
        in_place = not losses or args.accept_loss
        if in_place:
            put_in_place(path, data_dir / INDEX)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    row = {**asdict(rebuilt), "in_place": in_place}
    show([{**row, "losses": [asdict(loss) for loss in losses]}], args.json, _COLUMNS)
    if losses and not args.json:
        show([asdict(loss) for loss in losses], False, _LOSS_COLUMNS)
        print("restore content store and keyring from their backup and try again, or: reindex --accept-loss")
    return 1 if losses else 0


@contextlib.contextmanager
def _fresh(data_dir: Path) -> Iterator[Path]:
    """Where the new index is made; nothing of it is left behind, nor of one that was interrupted."""
    path = data_dir / f"{INDEX}.new"
    try:
        _remove(path)
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def _progress(rebuilt: Rebuilt) -> None:
    if sys.stderr.isatty():
        print(f"\r{rebuilt.anchors} anchors, {rebuilt.objects} objects", end="", file=sys.stderr)
