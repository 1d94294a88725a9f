"""What the attacker looks at: a node with some studies and all that is said of them on the ledger; and the same with
salts, keys or sealing off, where he must recognise them.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import node_make
from gate_world import World
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless

from orthanc_ledger import batch, leaves, tokens, verify
from orthanc_ledger.errors import CustodyError
from tests.conftest import ROOT

SAMPLES = ROOT / "orthanc_ledger" / "samples"
BUNDLED = ("MR_small_RLE.dcm", "SC_jpeg_no_color_transform.dcm", "rtdose.dcm", "reportsi.dcm")
TWICE = "1.2.826.0.1.3680043.10.9"  # a second study of the same images


def stored() -> list[Dataset]:
    """The hospital's scans: a study of slices, and the same once more under other UIDs."""
    slices = [dcmread(path) for path in sorted((SAMPLES / "ge-discovery-mr750").rglob("*.dcm"))[:3]]
    return [*slices, *(again(ds, TWICE) for ds in slices)]


def again(ds: Dataset, root: str) -> Dataset:
    """The same image, named otherwise: another patient, other UIDs."""
    uids = {"StudyInstanceUID": f"{root}.1", "SeriesInstanceUID": f"{root}.2", "FrameOfReferenceUID": f"{root}.3"}
    named = {"SOPInstanceUID": f"{root}.4.{ds.InstanceNumber}", "PatientName": "AGAIN^ONCE", "PatientID": "once-more-1"}
    return node_make.variant(Path(ds.filename), **uids, **named)


def changed(ds: Dataset) -> Dataset:
    """Another content under the same UID."""
    copy = deepcopy(ds)
    copy.PixelData = ds.PixelData[::-1]
    return copy


def archived() -> dict[str, bytes]:
    """The archive's files, in the clear: some that the hospital stored, some of them otherwise, and others."""
    slices = [dcmread(path) for path in sorted((SAMPLES / "ge-discovery-mr750").rglob("*.dcm"))]
    compressed = dcmread(Path(slices[1].filename))
    compressed.compress(RLELossless, generate_instance_uid=False)
    files = {
        "stored": slices[0],
        "stored, compressed here": compressed,
        "stored, renamed here": again(slices[2], "1.2.826.0.1.3680043.10.8"),
        "stored, as a conflict": changed(slices[0]),
        "not stored": slices[-1],
    }
    bundled = {f"stored, {name}": node_make.real_file(name).read_bytes() for name in BUNDLED}
    return {name: node_make.part10(ds) for name, ds in files.items()} | bundled


def others() -> list[Dataset]:
    """Scans that no archive here has: two studies of four."""
    slices = [dcmread(node_make.real_file(name)) for name in ("MR_small.dcm", "CT_small.dcm")]
    return [
        node_make.variant(Path(ds.filename), StudyInstanceUID=study, SOPInstanceUID=f"{study}.{n}")
        for study in ("1.2.826.0.1.3680043.10.5", "1.2.826.0.1.3680043.10.6")
        for n, ds in enumerate(slices)
    ]


def make(folder: Path, scans: Sequence[Dataset], bundled: Sequence[str] = (), **overrides: Any) -> World:
    """A node that has stored, anchored, released, and what else leaves digests and tokens on the ledger.

    ``bundled``: files of pydicom, stored as well.
    """
    node = node_make.make_node(folder, **overrides)
    for scan in (*scans, *map(node_make.real_file, bundled)):
        node_make.store(node, scan)
    node_make.drain(node)
    firsts = {str(ds.StudyInstanceUID): ds for ds in reversed(scans)}
    study, second = list(reversed(firsts))[:2]
    world = World(node, folder, study, [str(ds.SOPInstanceUID) for ds in scans if study == ds.StudyInstanceUID])
    for original in (firsts[study], firsts[second]):  # conflicts
        node_make.store(node, changed(original))
    node_make.drain(node)
    world.approve(world.request(), "owner", "custodian")
    _retrieve(world)
    world.approve(world.request(**world.register(study, second)), "owner", "custodian")
    world.ledger("custodian").submit("RequestErase", {"study": node.keyring.ensure_study(second).token})
    return world


def damage(world: World) -> None:
    """Have one object flagged as tampered."""
    (first, *_) = world.node.index.select(studies=[world.study_uid])
    (path,) = (world.node.config.data_dir / "objects").rglob(str(first.object))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    try:
        with world.node.library.open(first):
            raise AssertionError("it opens")
    except CustodyError:
        node_make.drain(world.node)


def published(world: World) -> list[Path]:
    """Ledger and local content store."""
    data = world.node.config.data_dir
    return [*sorted(data.glob("ledger.db*")), data / "objects"]


def _retrieve(world: World) -> None:
    plan = world.plan()
    for item in plan.items:
        with plan.open(item):
            plan.leave(item)
    plan.close()
    node_make.drain(world.node)


def _copied(source: BinaryIO, sink: BinaryIO, *_: object) -> None:
    shutil.copyfileobj(source, sink)


def _unsalted(self: leaves.LeafHasher, tree: int, uid: str, salt_keys: Sequence[bytes | None]) -> None:
    _SALTED(self, tree, uid, [None] * len(salt_keys))


_SALTED = leaves.LeafHasher.__init__

# What takes one protection out of the product: (where, name, what stands there then).
SWITCHES: dict[str, Sequence[tuple[Any, str, Any]]] = {
    "keys": [(tokens, "_hmac", lambda key, message: hashlib.sha256(message).digest())],
    "salts": [(leaves.LeafHasher, "__init__", _unsalted)],
    "seals": [(batch, "seal", _copied), (verify, "open_sealed", lambda source, *_: source)],
}


@contextmanager
def without(protection: str) -> Iterator[None]:
    """The product with one protection off: keys play no part in tokens; or leaves have no salt; or objects stay in the
    clear.
    """
    with ExitStack() as patches:
        for place, name, instead in SWITCHES[protection]:
            patches.enter_context(mock.patch.object(place, name, instead))
        yield
