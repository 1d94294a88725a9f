"""A node in this process, without ports: set up by `init`, fed as a receiver feeds it, driven step by step."""

import functools
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from orthanc_ledger.anchorer import Anchorer
from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import Clock, system_clock, system_clock_us
from orthanc_ledger.config import load
from orthanc_ledger.incoming import Incoming, Receipt
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger import OpenLedger, open_ledger
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.manifest import Manifest
from orthanc_ledger.setup_node import CONFIG_NAME, ORGANISATIONS, Plan, create_node
from orthanc_ledger.spool import ArrivalHead

HOUR_US = 3_600_000_000
MOVES: list[Callable[[Path], None]] = []
"""Each moves a new node's folder to another ledger than the embedded one: `tests/fabric/moved.py`."""


@functools.cache
def _template() -> tempfile.TemporaryDirectory[str]:
    """A node as `init` leaves it, made once a process; it goes when the process ends."""
    folder = tempfile.TemporaryDirectory()
    create_node(Plan(Path(folder.name) / "node", Path(folder.name) / "node.key.backup", all_roles=True))
    return folder


def make_node(tmp_path: Path, **overrides: Any) -> Node:
    """A new node with all organisations' keys; ``overrides`` replace keys of its configuration."""
    shutil.copytree(_template().name, tmp_path, dirs_exist_ok=True)
    for move in MOVES:
        move(tmp_path / "node")
    return open_node(tmp_path, **overrides)


def open_node(tmp_path: Path, **overrides: Any) -> Node:
    """The node in a folder, as a process started now sees it."""
    config = load(tmp_path / "node" / CONFIG_NAME)
    return Node(replace(config, **{"spool_reserve_mb": 1, **overrides}))


def ledger_of(node: Node, who: str, kind: str = "person", clock: Clock = system_clock) -> OpenLedger:
    """The node's ledger as `who` (owner, custodian, research) has it: on Fabric by that party's own connection file."""
    scheme, _, location = node.config.ledger.partition(":")
    party = node.config.data_dir.parent / ORGANISATIONS / who
    path = party / Path(location).name if scheme == "fabric" else location
    return open_ledger(f"{scheme}:{path}", load_identity(party / "identities" / kind), clock)


def real_file(name: str = "MR_small.dcm") -> Path:
    """A real file of pydicom's wheel."""
    return Path(str(get_testdata_file(name, download=False)))


def variant(source: Path | None = None, **attributes: Any) -> Dataset:
    """A real object with other attributes, by keyword; give SOPInstanceUID to make it another object."""
    ds = dcmread(source or real_file())
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def part10(source: Path | Dataset) -> bytes:
    """A Part 10 file's bytes."""
    if isinstance(source, Path):
        return source.read_bytes()
    sink = io.BytesIO()
    dcmwrite(sink, source)
    return sink.getvalue()


def begin(node: Node, source: Path | Dataset, calling_ae: str = "MRI1", **head: Any) -> tuple[Incoming, bytes]:
    """Open room for an object as a receiver does, and give its data set; ``head`` overrules what the command says."""
    arrival, data_set = arrives(node, source, calling_ae, **head)
    return node.spool.begin(arrival), data_set


def arrives(node: Node, source: Path | Dataset, calling_ae: str = "MRI1", **head: Any) -> tuple[ArrivalHead, bytes]:
    """What a receiver knows of an object before its first byte, and its data set."""
    content = part10(source)
    parsed = open_instance(io.BytesIO(content))
    said = {
        "calling_ae": calling_ae,
        "called_ae": node.config.ae_title,
        "peer_address": "dicom://192.0.2.10:104",
        "called_address": "dicom://192.0.2.1:11112",
        "association": bytes(16),
        "sop_class": parsed.sop_class_uid,
        "sop_instance": parsed.sop_instance_uid,
        "transfer_syntax": parsed.transfer_syntax_uid,
        "origin": "addressed-ae",
    }
    return ArrivalHead(**{**said, **head}), content[parsed.data_set_offset :]


def store(node: Node, source: Path | Dataset, calling_ae: str = "MRI1", **head: Any) -> Receipt:
    """Have an object accepted by the spool. Raises what it raises."""
    incoming, data_set = begin(node, source, calling_ae, **head)
    for start in range(0, len(data_set), 16_384):
        incoming.write(data_set[start : start + 16_384])
    return incoming.accept()


def anchoring(manifest_cid: str, study: bytes = bytes(16), **differs: Any) -> dict[str, Any]:
    """Arguments of an Anchor that nobody can verify, but for ``differs``."""
    return {"manifestCid": manifest_cid, "study": study, "root": bytes(32), "count": 1, "kind": "original", **differs}


def anchoring_of(manifest: Manifest, **differs: Any) -> dict[str, Any]:
    """Arguments of a manifest's Anchor, but for ``differs``."""
    true = {"study": manifest.study_token, "root": manifest.record_root, "count": manifest.count}
    return anchoring(manifest.cid, **{**true, **differs})


def drain(node: Node, anchorer: Anchorer | None = None) -> None:
    """Anchor all that waits, as an anchorer started now does once every batch is due. Raises LedgerAway."""
    if anchorer is None:
        anchorer = node.anchorer()
        anchorer.recover()
        node.content.recover()
    anchorer.take_in()
    anchorer.prepare_due(system_clock_us() + HOUR_US)
    anchorer.submit()
    anchorer.report()
