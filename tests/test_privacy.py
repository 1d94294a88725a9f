"""Ledger and content store hold no identifier of a patient and no unsalted digest of a scan or text."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_make import drain, make_node, store
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement

from orthanc_ledger.assemble import Node
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance


@pytest.fixture(scope="module")
def slices(samples_dir: Path) -> list[Path]:
    return sorted((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))[:3]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, slices: list[Path]) -> Node:
    """A node whose study was stored, anchored, conflicted, and damaged so that it was flagged."""
    made = make_node(tmp_path_factory.mktemp("private"))
    for path in slices:
        store(made, path)
    drain(made)
    changed = dcmread(slices[0])
    changed.PixelData = bytes(len(changed.PixelData))
    store(made, changed)
    (first, *_) = made.index.select()
    damaged = next((made.config.data_dir / "objects").rglob(str(first.object)))
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(Exception, match="withheld"), made.library.open(first):
        pass
    drain(made)
    return made


def public_bytes(node: Node) -> bytes:
    """All that a member of the channel or of the private IPFS can see."""
    data = node.config.data_dir
    ledger = [path for path in data.iterdir() if path.name.startswith("ledger.db")]
    return b"".join(path.read_bytes() for path in [*ledger, *filter(Path.is_file, (data / "objects").rglob("*"))])


def clear_values(ds: Dataset) -> Iterator[bytes]:
    """Every text and UID of a data set that is long enough not to occur by chance."""

    def collect(_: Dataset, element: DataElement) -> None:
        if element.VR in ("UI", "PN", "LO", "SH", "LT", "DT", "TM", "ST", "UT") and element.value:
            found.append(str(element.value).encode("latin-1", "replace"))

    found: list[bytes] = []
    ds.walk(collect)
    # a SOP class says what kind of image it is, and requests name it
    return (value for value in found if len(value) >= 8 and not value.startswith(b"1.2.840.10008."))


def test_no_text_uid_or_pixel_run_of_the_study_is_visible(node: Node, slices: list[Path]) -> None:
    seen = public_bytes(node)
    assert b"FlagTampered" in seen
    assert b"ReportConflict" in seen
    for path in slices:
        ds = dcmread(path)
        for value in clear_values(ds):
            assert value not in seen
        middle = len(ds.PixelData) // 2
        assert ds.PixelData[middle : middle + 32] not in seen


def test_no_unsalted_digest_of_the_study_is_visible(node: Node, slices: list[Path]) -> None:
    seen = public_bytes(node)
    for path in slices:
        raw = path.read_bytes()
        ds = dcmread(path)
        with path.open("rb") as file:
            instance = open_instance(file)
            (plain,) = fingerprints(instance, (None,))
        digests = {hashlib.sha256(raw).digest(), hashlib.sha256(raw[instance.data_set_offset :]).digest()}
        digests |= {hashlib.sha256(ds.PixelData).digest(), plain.fingerprint, plain.pixel_root, plain.metadata_root}
        digests |= {hashlib.sha256(str(ds.SOPInstanceUID).encode()).digest()}
        for digest in digests:
            assert digest not in seen
            assert digest.hex().encode() not in seen


def test_the_search_finds_what_is_in_the_clear(node: Node, slices: list[Path]) -> None:
    """The check above can fail: the index, which never leaves the node, holds what it looks for."""
    index = (node.config.data_dir / "index.db").read_bytes() + (node.config.data_dir / "index.db-wal").read_bytes()
    assert any(value in index for value in clear_values(dcmread(slices[0])))
