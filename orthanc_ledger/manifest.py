"""Manifests: the records of a batch as dag-cbor blocks (docs/manifest.md, "Manifest").

No I/O: :func:`build` gives the blocks, :func:`read` asks for them by CID and believes nothing it did not recompute.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from orthanc_ledger import merkle
from orthanc_ledger.content import cbor
from orthanc_ledger.content.cbor import CID
from orthanc_ledger.content.cid import block_cid, check_block_cid, check_file_cid, cid_bytes, cid_text
from orthanc_ledger.errors import IntegrityError

RECORDS_A_SHARD = 1000
"""Keeps a block under 1 MiB: IPFS moves no block over 2 MiB."""
MOST_RECORDS = 100_000
"""As many as an anchor may count."""

_VERSION = 1
_MOST_SHOWN = 200  # characters
_ROOT_KEYS = frozenset({"v", "study", "seq", "key_id", "count", "shards"})


@dataclass(frozen=True, slots=True)
class Record:
    """One sealed object of a batch; the fields are the format's.

    ``object`` is a CID as text, sizes are in bytes, digests 32 bytes each; ``fingerprint`` and the roots are salted.
    Raises ``IntegrityError`` when a field is not of its type or size.
    """

    instance: bytes
    content_id: bytes
    object: str
    sealed_size: int
    plain_size: int
    digest: bytes
    fingerprint: bytes
    pixel_root: bytes
    pixel_leaves: int
    metadata_root: bytes
    metadata_leaves: int
    pixel_form: str
    decoder: str | None
    decode_error: str | None
    origin: str

    def __post_init__(self) -> None:
        for name in ("instance", "content_id", "digest", "fingerprint", "pixel_root", "metadata_root"):
            _check_bytes(f"record: {name}", getattr(self, name), 32)
        for name in ("sealed_size", "plain_size", "pixel_leaves", "metadata_leaves"):
            _check_count(f"record: {name}", getattr(self, name))
        for name in ("object", "pixel_form", "origin"):
            _check_type(f"record: {name}", getattr(self, name), str)
        check_file_cid(self.object)
        for name in ("decoder", "decode_error"):
            if getattr(self, name) is not None:
                _check_type(f"record: {name}", getattr(self, name), str)


_RECORD_KEYS = frozenset(field.name for field in fields(Record))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A batch's manifest: ``records`` sorted by instance token, ``record_root`` as ``Anchor`` takes it.

    ``blocks`` are the dag-cbor blocks by CID, shards before the root; empty after :func:`read`.
    """

    cid: str
    study_token: bytes
    seq: int
    key_id: bytes
    records: tuple[Record, ...]
    record_root: bytes
    blocks: Mapping[str, bytes]

    @property
    def count(self) -> int:
        """Number of records."""
        return len(self.records)

    def record(self, instance: bytes) -> Record | None:
        """The record of an instance token, or None."""
        place = bisect_left(self.records, instance, key=attrgetter("instance"))
        found = self.records[place : place + 1]
        return found[0] if found and found[0].instance == instance else None


def encode_record(record: Record) -> bytes:
    """Return a record's dag-cbor encoding: the leaf input under the record root."""
    node: dict[str, Any] = {name: getattr(record, name) for name in _RECORD_KEYS}
    node["object"] = CID(cid_bytes(record.object))
    return cbor.encode(node)


def decode_record(data: bytes) -> Record:
    """A record from its leaf input. Raises ``IntegrityError`` when that is not the encoding of one."""
    return _record(_value("record", data))


def build(study_token: bytes, seq: int, key_id: bytes, records: Iterable[Record]) -> Manifest:
    """Return the manifest of a batch, number ``seq`` of its study, sealed under the batch key named ``key_id``.

    Raises ``IntegrityError`` when two records have the same instance token, or a token or number is malformed.
    """
    _check_bytes("manifest: study", study_token, 16)
    _check_count("manifest: seq", seq)
    _check_bytes("manifest: key_id", key_id, 16)
    ordered = tuple(sorted(records, key=lambda record: record.instance))
    _check_rising(ordered)
    leaves = [encode_record(record) for record in ordered]
    blocks: dict[str, bytes] = {}
    for start in range(0, len(leaves), RECORDS_A_SHARD):
        shard = cbor.encode_list(leaves[start : start + RECORDS_A_SHARD])
        blocks[block_cid(shard)] = shard
    root = cbor.encode(
        {
            "v": _VERSION,
            "study": study_token,
            "seq": seq,
            "key_id": key_id,
            "count": len(ordered),
            "shards": [CID(cid_bytes(cid)) for cid in blocks],
        }
    )
    cid = block_cid(root)
    blocks[cid] = root
    return Manifest(cid, study_token, seq, key_id, ordered, merkle.root(leaves), MappingProxyType(blocks))


def read(cid: str, get_block: Callable[[str], bytes], study_token: bytes) -> Manifest:
    """Read the manifest with this CID, which must be of the study with this token.

    ``get_block`` gives a block by its CID, which is one of a block; what it raises comes through. Raises
    ``IntegrityError`` when anything recomputed differs: a block's CID, its canonical form, its keys and their types,
    the study token, the sizes of the shards, the strictly rising order of the records over all shards, their count.
    """
    root = _decoded(cid, get_block)
    _check_keys("manifest", root, _ROOT_KEYS)
    _check_equal("manifest: v", _VERSION, root["v"])
    _check_bytes("manifest: study", root["study"], 16)
    _check_equal("manifest: study", study_token, root["study"])
    _check_count("manifest: seq", root["seq"])
    _check_bytes("manifest: key_id", root["key_id"], 16)
    _check_count("manifest: count", root["count"], MOST_RECORDS)
    _check_type("manifest: shards", root["shards"], list)
    records: list[Record] = []
    for number, link in enumerate(root["shards"]):
        _check_type(f"manifest: shard {number}", link, CID)
        shard = _decoded(cid_text(link), get_block)
        _check_type(f"shard {number}", shard, list)
        expected = min(RECORDS_A_SHARD, root["count"] - len(records))
        if not 0 < len(shard) == expected:
            raise IntegrityError(f"shard {number}: expected {max(expected, 0)} records, got {len(shard)}")
        records.extend(_record(node) for node in shard)
    _check_equal("manifest: count", root["count"], len(records))
    _check_rising(records)
    record_root = merkle.root(encode_record(record) for record in records)
    return Manifest(cid, study_token, root["seq"], root["key_id"], tuple(records), record_root, MappingProxyType({}))


def check_anchored(manifest: Manifest, anchor: Mapping[str, Any]) -> None:
    """Raises ``IntegrityError`` when root or count are not the anchor's, a row of the queries GetAnchor and Anchors."""
    expected, got = (anchor["root"], anchor["count"]), (manifest.record_root, manifest.count)
    if got != expected:
        raise IntegrityError(
            f"manifest {manifest.cid}: expected root {expected[0].hex()} over {expected[1]} records as anchored, "
            f"got {got[0].hex()} over {got[1]}"
        )


def _record(node: Any) -> Record:
    _check_keys("record", node, _RECORD_KEYS)
    _check_type("record: object", node["object"], CID)
    return Record(**{**node, "object": cid_text(node["object"])})


def _decoded(cid: str, get_block: Callable[[str], bytes]) -> Any:
    """The value in a block, once its CID is recomputed."""
    check_block_cid(cid)  # before anybody keeps it: what is none no store can be told to forget
    block = get_block(cid)
    _check_equal("block", cid, block_cid(block))
    return _value(f"block {cid}", block)


def _value(what: str, data: bytes) -> Any:
    try:
        return cbor.decode(data)
    except IntegrityError as error:
        raise IntegrityError(f"{what}: {error}") from error


def _check_rising(records: Sequence[Record]) -> None:
    for before, after in itertools.pairwise(records):
        if before.instance >= after.instance:
            raise IntegrityError(
                "records: expected instance tokens rising strictly, "
                f"got {after.instance.hex()} after {before.instance.hex()}"
            )


def _check_keys(what: str, node: Any, keys: frozenset[str]) -> None:
    _check_type(what, node, dict)
    if node.keys() != keys:
        raise IntegrityError(f"{what}: expected the keys {sorted(keys)}, got {_shown(sorted(node))}")


def _check_bytes(what: str, value: Any, size: int) -> None:
    _check_type(what, value, bytes)
    if len(value) != size:
        raise IntegrityError(f"{what}: expected {size} bytes, got {len(value)}")


def _check_count(what: str, value: Any, most: int = (1 << 63) - 1) -> None:
    _check_type(what, value, int)
    if not 0 <= value <= most:
        raise IntegrityError(f"{what}: expected a number from 0 to {most}, got {value}")


def _check_type(what: str, value: Any, expected: type) -> None:
    if type(value) is not expected:  # not isinstance: True is no count
        raise IntegrityError(f"{what}: expected {expected.__name__}, got {type(value).__name__}")


def _check_equal(what: str, expected: object, got: object) -> None:
    if expected != got:
        raise IntegrityError(f"{what}: expected {_shown(expected)}, got {_shown(got)}")


def _shown(value: object) -> str:
    """A value as logs and alarms may have it, whoever made it: short, and no text as it is."""
    plain = value if isinstance(value, str) and value.isascii() and value.isalnum() else repr(value)
    return (value.hex() if isinstance(value, bytes) else plain)[:_MOST_SHOWN]
