"""Manifests built, read back, and every lie a block could tell."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import dag_cbor
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from orthanc_ledger import manifest, merkle
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.errors import IntegrityError, NotHeld
from orthanc_ledger.manifest import Record

STUDY = bytes(range(16))
KEY_ID = bytes(range(16, 32))
OBJECT = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
TREE_OBJECT = "bafybeicsjyxn2qncxrywszrnylflribsb3vrevglyooyae6mgaekfqao6q"


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def record(number: int) -> Record:
    return Record(
        instance=digest(f"instance {number}"),
        content_id=digest(f"content {number}"),
        object=TREE_OBJECT if number % 2 else OBJECT,
        sealed_size=131_128,
        plain_size=131_072,
        digest=digest("digest"),
        fingerprint=digest("fingerprint"),
        pixel_root=digest("pixels"),
        pixel_leaves=1,
        metadata_root=digest("metadata"),
        metadata_leaves=300,
        pixel_form="decoded",
        decoder=None if number % 2 else "gdcm",
        decode_error=None,
        origin="tls-modality",
    )


def store(blocks: Mapping[str, bytes]) -> Callable[[str], bytes]:
    def get_block(cid: str) -> bytes:
        if cid not in blocks:
            raise NotHeld(cid)
        return blocks[cid]

    return get_block


def test_record_encoding_is_canonical_dag_cbor() -> None:
    # Written by hand from RFC 8949: a map of 15, keys by length then bytes, the object as tag 42 over 0x00 and the CID.
    expected = bytes.fromhex(
        "af"
        + "66" + b"digest".hex() + "5820" + digest("digest").hex()
        + "66" + b"object".hex() + "d82a582500015512 20".replace(" ", "") + hashlib.sha256(b"").hexdigest()
        + "66" + b"origin".hex() + "6c" + b"tls-modality".hex()
        + "67" + b"decoder".hex() + "64" + b"gdcm".hex()
        + "68" + b"instance".hex() + "5820" + digest("instance 0").hex()
        + "6a" + b"content_id".hex() + "5820" + digest("content 0").hex()
        + "6a" + b"pixel_form".hex() + "67" + b"decoded".hex()
        + "6a" + b"pixel_root".hex() + "5820" + digest("pixels").hex()
        + "6a" + b"plain_size".hex() + "1a00020000"
        + "6b" + b"fingerprint".hex() + "5820" + digest("fingerprint").hex()
        + "6b" + b"sealed_size".hex() + "1a00020038"
        + "6c" + b"decode_error".hex() + "f6"
        + "6c" + b"pixel_leaves".hex() + "01"
        + "6d" + b"metadata_root".hex() + "5820" + digest("metadata").hex()
        + "6f" + b"metadata_leaves".hex() + "19012c"
    )  # fmt: skip
    assert manifest.encode_record(record(0)) == expected


def test_what_is_built_is_read_back() -> None:
    built = manifest.build(STUDY, 3, KEY_ID, [record(number) for number in range(7)])
    read = manifest.read(built.cid, store(built.blocks), STUDY)
    assert read == replace(built, blocks={})
    assert read.seq == 3
    assert read.key_id == KEY_ID
    assert read.count == 7


def test_records_are_sorted_whatever_their_order_was() -> None:
    records = [record(number) for number in range(7)]
    built = manifest.build(STUDY, 0, KEY_ID, reversed(records))
    assert built.records == tuple(sorted(records, key=lambda each: each.instance))
    assert built.cid == manifest.build(STUDY, 0, KEY_ID, records).cid


def test_record_root_is_the_tree_over_the_encodings() -> None:
    built = manifest.build(STUDY, 0, KEY_ID, [record(0), record(1)])
    first, second = sorted((record(0), record(1)), key=lambda each: each.instance)
    left, right = (merkle.leaf_hash(manifest.encode_record(each)) for each in (first, second))
    assert built.record_root == merkle.node_hash(left, right)


@pytest.mark.parametrize(("count", "shards"), [(0, []), (1, [1]), (1000, [1000]), (1001, [1000, 1])])
def test_shards_are_full_but_the_last(count: int, shards: list[int]) -> None:
    built = manifest.build(STUDY, 0, KEY_ID, [record(number) for number in range(count)])
    *blocks, root = built.blocks.values()
    assert [len(dag_cbor.decode(block)) for block in blocks] == shards  # type: ignore[arg-type]
    assert all(len(block) < 1 << 20 for block in blocks)
    node = dag_cbor.decode(root)
    assert node == {
        "v": 1,
        "study": STUDY,
        "seq": 0,
        "key_id": KEY_ID,
        "count": count,
        "shards": [CID.decode(block_cid(block)) for block in blocks],
    }
    assert manifest.read(built.cid, store(built.blocks), STUDY).count == count


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_record_is_found_by_its_instance_token_and_no_other(count: int) -> None:
    built = manifest.build(STUDY, 0, KEY_ID, [record(number) for number in range(count)])
    for each in built.records:
        assert built.record(each.instance) is each
    for other in (bytes(32), b"\xff" * 32, digest("another instance")):
        assert built.record(other) is None


def test_two_records_of_one_instance_are_refused() -> None:
    with pytest.raises(IntegrityError, match="rising strictly"):
        manifest.build(STUDY, 0, KEY_ID, [record(1), replace(record(2), instance=record(1).instance)])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance", bytes(31)),
        ("content_id", "text"),
        ("pixel_root", None),
        ("pixel_leaves", True),
        ("plain_size", -1),
        ("sealed_size", 1 << 63),
        ("origin", None),
        ("decoder", b"gdcm"),
        ("object", "../../../etc/passwd"),
        ("object", OBJECT.upper()),
        ("object", OBJECT[:-1] + "v"),
        ("object", "bafyreihdb57fdysx5h35urvxz64ros7zvywshber7id6t6c6fek37jgyfe"),
    ],
)
def test_malformed_record_is_refused(field: str, value: object) -> None:
    with pytest.raises(IntegrityError, match=field if field != "object" else "CIDv1"):
        replace(record(0), **{field: value})


@pytest.mark.parametrize(
    ("study", "seq", "key_id", "named"),
    [(bytes(15), 0, KEY_ID, "study"), (STUDY, -1, KEY_ID, "seq"), (STUDY, 0, bytes(17), "key_id")],
)
def test_malformed_manifest_is_not_built(study: bytes, seq: int, key_id: bytes, named: str) -> None:
    with pytest.raises(IntegrityError, match=named):
        manifest.build(study, seq, key_id, [])


class Forged:
    """Blocks of a forger, who can give every block its right CID but the one that was anchored."""

    def __init__(self, count: int = 4) -> None:
        self.built = manifest.build(STUDY, 0, KEY_ID, [record(number) for number in range(count)])
        *shards, root = (dag_cbor.decode(block) for block in self.built.blocks.values())
        self.shards: list[Any] = shards
        self.root: Any = root
        self.blocks: dict[str, bytes] = {}

    def put(self, block: bytes) -> str:
        cid = block_cid(block)
        self.blocks[cid] = block
        return cid

    def read(self) -> manifest.Manifest:
        self.root["shards"] = [CID.decode(self.put(dag_cbor.encode(shard))) for shard in self.shards]
        return self.read_root()

    def read_root(self) -> manifest.Manifest:
        return manifest.read(self.put(dag_cbor.encode(self.root)), store(self.blocks), STUDY)


def test_forger_without_a_lie_is_read() -> None:
    forged = Forged()
    assert forged.read().cid == forged.built.cid


def test_other_block_under_the_cid_is_refused() -> None:
    built = manifest.build(STUDY, 0, KEY_ID, [record(0)])
    other = manifest.build(STUDY, 1, KEY_ID, [record(0)])
    with pytest.raises(IntegrityError, match=f"expected {built.cid}, got {other.cid}"):
        manifest.read(built.cid, lambda cid: store(other.blocks)(other.cid if cid == built.cid else cid), STUDY)


def test_flipped_byte_in_a_shard_is_refused() -> None:
    built = manifest.build(STUDY, 0, KEY_ID, [record(0)])

    def get_block(cid: str) -> bytes:
        block = bytearray(built.blocks[cid])
        if cid != built.cid:
            block[-1] ^= 1
        return bytes(block)

    with pytest.raises(IntegrityError, match="block: expected"):
        manifest.read(built.cid, get_block, STUDY)


def test_manifest_of_another_study_is_refused() -> None:
    built = manifest.build(STUDY, 0, KEY_ID, [record(0)])
    with pytest.raises(IntegrityError, match=f"study: expected {'ff' * 16}, got {STUDY.hex()}"):
        manifest.read(built.cid, store(built.blocks), b"\xff" * 16)


def test_missing_block_stays_not_held() -> None:
    with pytest.raises(NotHeld):
        manifest.read(block_cid(b""), store({}), STUDY)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("v", 2, "manifest: v: expected 1, got 2"),
        ("study", STUDY[:8], "manifest: study"),
        ("seq", -1, "manifest: seq"),
        ("seq", 1.0, "neither float"),
        ("key_id", "text", "manifest: key_id"),
        ("count", 3, "expected 3 records, got 4"),
        ("count", 5, "expected 5 records, got 4"),
        ("count", None, "manifest: count"),
        ("count", 100_001, "expected a number from 0 to 100000"),
        ("shards", {}, "manifest: shards"),
        ("shards", [], "count: expected 4, got 0"),
        ("shards", [b"\x01q\x12 " + bytes(32)], "shard 0: expected CID, got bytes"),
        ("extra", 1, "expected the keys"),
    ],
)
def test_lie_in_the_root_is_refused(key: str, value: object, named: str) -> None:
    forged = Forged()
    forged.read()
    forged.root[key] = value
    with pytest.raises(IntegrityError, match=named):
        forged.read_root()


@pytest.mark.parametrize("key", ["v", "\x1b[2J" + "k" * 100_000])
def test_what_a_forger_writes_does_not_get_into_a_log_as_it_is(key: str) -> None:
    forged = Forged()
    forged.read()
    forged.root[key] = "\x1b[2J\r" + "v" * 100_000
    with pytest.raises(IntegrityError) as refused:
        forged.read_root()
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()


def test_missing_key_in_the_root_is_refused() -> None:
    forged = Forged()
    del forged.root["key_id"]
    with pytest.raises(IntegrityError, match="expected the keys"):
        forged.read()


def test_records_out_of_order_are_refused() -> None:
    forged = Forged()
    forged.shards[0].reverse()
    with pytest.raises(IntegrityError, match="rising strictly"):
        forged.read()


def test_repeated_record_is_refused() -> None:
    forged = Forged()
    forged.shards[0][1] = forged.shards[0][0]
    with pytest.raises(IntegrityError, match="rising strictly"):
        forged.read()


def test_order_is_checked_across_shards() -> None:
    forged = Forged(1001)
    forged.shards[0][-1], forged.shards[1][0] = forged.shards[1][0], forged.shards[0][-1]
    with pytest.raises(IntegrityError, match="rising strictly"):
        forged.read()


@pytest.mark.parametrize("sizes", [[500, 501], [1001], [1000, 1, 0], [1000, 0, 1]])
def test_shards_of_other_sizes_are_refused(sizes: list[int]) -> None:
    forged = Forged(1001)
    records = [each for shard in forged.shards for each in shard]
    forged.shards = [[records.pop(0) for _ in range(size)] for size in sizes]
    with pytest.raises(IntegrityError, match=r"shard \d: expected \d+ records"):
        forged.read()


def test_surplus_shard_is_refused() -> None:
    forged = Forged()
    forged.shards.append([])
    with pytest.raises(IntegrityError, match="shard 1: expected 0 records, got 0"):
        forged.read()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("note", "x", "expected the keys"),
        ("digest", bytes(31), "digest: expected 32 bytes, got 31"),
        ("pixel_leaves", True, "pixel_leaves: expected int, got bool"),
        ("decoder", 1, "decoder"),
        ("object", OBJECT, "object: expected CID, got str"),
        ("object", CID.decode("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"), "expected the CIDv1 of a file"),
    ],
)
def test_lie_in_a_record_is_refused(key: str, value: object, named: str) -> None:
    forged = Forged()
    forged.shards[0][2][key] = value
    with pytest.raises(IntegrityError, match=named):
        forged.read()


@pytest.mark.parametrize(
    "block",
    [
        "a16173",  # cut off
        "80f6",  # something behind the value
        "a2616201616101",  # keys out of order
        "a2616101616102",  # a key twice
        "a1617a1801",  # a number longer than needed
        "9fff",  # indefinite length
        "81" * 5000,  # nesting
        "5bffffffffffffffff",  # a length beyond memory
        "d82a4100",  # no CID in the link
        "d82a582500019912 20".replace(" ", "") + "00" * 32,  # a CID of an unknown codec
        "80",  # no map
        "a0",
    ],
)
def test_block_that_is_not_canonical_is_refused(block: str) -> None:
    forged = Forged()
    with pytest.raises(IntegrityError):
        manifest.read(forged.put(bytes.fromhex(block)), store(forged.blocks), STUDY)


FUZZED = Forged(2)
FUZZED.read()


@given(shard=st.booleans(), position=st.integers(0), value=st.integers(0, 255))
def test_no_changed_block_raises_anything_but_integrity_error(shard: bool, position: int, value: int) -> None:
    forged = Forged(0)
    original = FUZZED.built.blocks
    block = bytearray(list(original.values())[0 if shard else 1])
    block[position % len(block)] ^= value
    forged.blocks = dict(original)
    cid = forged.put(bytes(block))
    if shard:
        cid = forged.put(dag_cbor.encode({**FUZZED.root, "shards": [CID.decode(cid)]}))
    try:
        read = manifest.read(cid, store(forged.blocks), STUDY)
    except (IntegrityError, NotHeld):
        pass  # refused, or a changed link leads to a block that the store lacks
    else:
        rebuilt = manifest.build(STUDY, read.seq, read.key_id, read.records)
        assert rebuilt.cid == cid
