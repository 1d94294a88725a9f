"""The product against the second implementation's vectors, and both side by side over every real file there is."""

import io
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from orthanc_ledger import arrival, manifest, merkle, seal, tokens
from orthanc_ledger.content.cid import block_cid, cid_of
from orthanc_ledger.errors import IntegrityError, Unreadable
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance
from tests.second import dataset, make_vectors, sealed
from tests.second.streams import stream

FIELDS = ("fingerprint", "pixel_form", "frames", "pixel_leaves", "pixel_root", "metadata_leaves", "metadata_root")
LONG_SERIES = 60


def cases(name: str) -> list:
    """The cases of one vector file."""
    return json.loads((make_vectors.FOLDER / f"{name}.json").read_text())


def raw(case: dict, *names: str) -> list[bytes]:
    """Fields of a case as bytes."""
    return [bytes.fromhex(case[name]) for name in names]


@pytest.mark.parametrize("case", cases("merkle"), ids=lambda case: str(case["size"]))
def test_merkle_root_and_proofs(case):
    leaves = [stream(f"merkle/{i}", i % 50) for i in range(case["size"])]
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    expected = bytes.fromhex(case["root"])
    assert merkle.root(iter(leaves)) == expected
    for proof in case["proofs"]:
        index, path = proof["index"], [bytes.fromhex(node) for node in proof["path"]]
        assert list(merkle.inclusion_proof(hashes, index)) == path
        merkle.verify_inclusion(hashes[index], index, len(hashes), path, expected)
        for wrong_index, wrong_path in [
            (index + 1, path),
            (index, [*path, bytes(32)]),
            (index, path[:-1] or [bytes(32)]),
        ]:
            with pytest.raises(IntegrityError):
                merkle.verify_inclusion(hashes[index], wrong_index, len(hashes), wrong_path, expected)


@pytest.mark.parametrize("case", cases("keys"), ids=lambda case: repr(case["study_uid"][-1]))
def test_keys_and_tokens(case):
    k_lookup, k_study, batch, fp, digest = raw(case, "k_lookup", "k_study", "batch_key", "fingerprint", "sha256")
    token = tokens.instance_token(k_study, case["sop_uid"])
    salting = tokens.salt_key(batch, token)
    assert tokens.claim_name(k_lookup, case["sop_uid"]) == case["claim_name"]
    made = {
        "study_row": tokens.study_row(k_lookup, case["study_uid"]),
        "erased_mark": tokens.erased_mark(k_lookup, case["study_uid"]),
        "instance_token": token,
        "content_id": tokens.content_id(k_study, fp),
        "seal_key": tokens.seal_key(batch, token),
        "salt_key": salting,
        "keyed_digest": tokens.keyed_digest(salting, digest),
        "seen": tokens.seen(k_study, digest),
    }
    assert {name: value.hex() for name, value in made.items()} == {name: case[name] for name in made}


@pytest.fixture(params=cases("sealed"), ids=lambda case: str(case["plain_size"]))
def sealed_case(request) -> tuple[dict, bytes]:
    """A case with its sealed bytes, remade and held against the case's digest."""
    whole = make_vectors.remake_sealed(request.param)
    assert sha256(whole).hexdigest() == request.param["sealed_sha256"]
    return request.param, whole


def test_sealed_vectors_open(sealed_case):
    case, whole = sealed_case
    plain = stream(case["plain_seed"], case["plain_size"])
    assert open_whole(whole, *raw(case, "key", "study_token", "instance_token")) == plain


def spoiled() -> list:
    """Each change of each sealed vector, named by both."""
    every = [(case, change, *next(iter(change.items()))) for case in cases("sealed") for change in case["refused"]]
    return [
        pytest.param((case, change), id=f"{what}-{how}-of-{case['sealed_size']}") for case, change, what, how in every
    ]


@pytest.mark.parametrize("spoiling", spoiled())
def test_spoiled_objects_are_refused(spoiling):
    case, change = spoiling
    content = make_vectors.spoil(make_vectors.remake_sealed(case), change)
    with pytest.raises(IntegrityError):
        open_whole(content, *raw(case, "key", "study_token", "instance_token"))


@pytest.mark.parametrize("other", ["key", "study_token", "instance_token"])
def test_objects_do_not_open_under_other_secrets_or_at_another_place(sealed_case, other):
    case, whole = sealed_case
    secrets = case | {other: f"{int(case[other], 16) ^ 1:0{len(case[other])}x}"}
    with pytest.raises(IntegrityError):
        open_whole(whole, *raw(secrets, "key", "study_token", "instance_token"))


def open_whole(content: bytes, key: bytes, study: bytes, instance: bytes) -> bytes:
    """The plaintext, read to its end: opening or reading may be what refuses."""
    with seal.open_sealed(io.BytesIO(content), key, study, instance) as reader:
        return b"".join(iter(lambda: reader.read(1 << 16), b""))


def test_the_second_implementation_opens_what_the_product_seals(sealed_case):
    case, _ = sealed_case
    key, study, instance = raw(case, "key", "study_token", "instance_token")
    plain, sink = stream(case["plain_seed"], case["plain_size"]), io.BytesIO()
    sink.close = lambda: None
    seal.seal(io.BytesIO(plain), sink, key, study, instance, len(plain))
    assert len(sink.getvalue()) == case["sealed_size"]
    assert sealed.unseal(sink.getvalue(), key, sealed.associated_data(study, instance)) == plain


@pytest.mark.parametrize("case", cases("manifests"), ids=lambda case: str(case["count"]))
def test_manifests(case):
    study, key_id = raw(case, "study", "key_id")
    fields = [make_vectors.record(case["seed"], number) for number in range(case["count"])]
    records = [manifest.Record(**(field | {"object": field["object"].cid})) for field in fields]
    made = manifest.build(study, case["seq"], key_id, reversed(records))
    assert (made.cid, made.record_root.hex(), made.count) == (case["cid"], case["record_root"], case["count"])
    assert {name: len(block) for name, block in made.blocks.items()} == {
        name: len(block) // 2 if isinstance(block, str) else block for name, block in case["blocks"].items()
    }
    read = manifest.read(case["cid"], made.blocks.__getitem__, study)
    assert (read.record_root, read.seq, read.key_id) == (made.record_root, case["seq"], key_id)
    assert list(read.records) == sorted(records, key=lambda record: record.instance)
    with pytest.raises(IntegrityError):
        manifest.read(case["cid"], made.blocks.__getitem__, bytes(16))


def test_blocks_of_small_manifests_are_read_from_the_vectors():
    for case in (case for case in cases("manifests") if case["count"] <= 2):
        blocks = {name: bytes.fromhex(block) for name, block in case["blocks"].items()}
        assert [block_cid(block) for block in blocks.values()] == list(blocks)
        assert manifest.read(case["cid"], blocks.__getitem__, bytes.fromhex(case["study"])).count == case["count"]


@pytest.mark.parametrize("case", cases("cids"), ids=lambda case: f"{case['size']}-{case['chunk']}-{case['links']}")
def test_cids(case):
    content = io.BytesIO(stream(case["seed"], case["size"]))
    assert cid_of(content, case["chunk"], case["links"]) == case["cid"]


@pytest.mark.parametrize("case", cases("arrival"))
def test_spool_unit_is_read(case):
    unit = bytes.fromhex(case["unit"])
    read = arrival.read_head(io.BytesIO(unit))
    assert {name: shown(value) for name, value in vars_of(read.arrival).items()} == {
        name: value for name, value in case["record"].items() if name != "v"
    }
    assert unit[read.data_set_offset :].hex() == case["data_set"]
    assert unit[read.part10_offset + 128 :][:4] == b"DICM"


@pytest.mark.parametrize("case", cases("arrival"))
def test_spool_unit_is_written_byte_for_byte(case):
    unit = bytes.fromhex(case["unit"])
    head = arrival.encode_head(arrival.read_head(io.BytesIO(unit)).arrival, "dicom://127.0.0.1:11112")
    names = implementation(unit), implementation(head + bytes.fromhex(case["data_set"]))
    assert make_vectors.arrival_unit(*names[0]).hex() == case["unit"]
    assert make_vectors.arrival_unit(*names[1]) == head + bytes.fromhex(case["data_set"])


def implementation(unit: bytes) -> tuple[bytes, bytes]:
    """Implementation Class UID and Version Name of a unit's file meta: the only two a writer is free to choose."""
    file = unit[4 + int.from_bytes(unit[:4], "big") :]
    meta = {element.tag[1]: element.value for element in dataset.file_meta(file)}
    return meta[0x0012], meta[0x0013]


def shown(value: object) -> object:
    """Bytes as the vectors show them."""
    return value.hex() if isinstance(value, bytes) else value


def vars_of(value: object) -> dict:
    """The fields of a frozen value."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def of_product(data: bytes) -> dict:
    """The product's answer in the form of the vectors: fields unsalted and salted, null where it refuses."""
    salt_key = stream("fingerprint/salt", 32)
    try:
        unsalted, salted = fingerprints(open_instance(io.BytesIO(data)), (None, salt_key))
    except Unreadable:
        return {"unsalted": None, "salt_key": salt_key.hex(), "salted": None}
    forms = [{name: shown(getattr(form, name)) for name in FIELDS} for form in (unsalted, salted)]
    return {"unsalted": forms[0], "salt_key": salt_key.hex(), "salted": forms[1]}


def differences(data: bytes, expected: dict) -> list[str]:
    """Where the product says something else."""
    got, lines = of_product(data), []
    for form in ("unsalted", "salted"):
        if expected[form] is None or got[form] is None:
            refused = expected[form] != got[form]
            lines += [f"{form}: expected {expected[form]}, got {got[form]}"] if refused else []
        else:
            lines += [
                f"{form} {name}: expected {expected[form][name]}, got {got[form][name]}"
                for name in FIELDS
                if expected[form][name] != got[form][name]
            ]
    return lines


@pytest.mark.parametrize("case", cases("crafted"), ids=lambda case: case["name"])
def test_crafted_files(case):
    assert differences(bytes.fromhex(case["file"]), case) == []


@pytest.mark.parametrize("case", cases("fingerprints"), ids=lambda case: case["file"])
def test_bundled_files(case):
    data = (make_vectors.BUNDLED / case["file"]).read_bytes()
    assert sha256(data).hexdigest() == case["sha256"]
    assert differences(data, case) == []


def sampled(folder: Path) -> Iterator[Path]:
    """Every DICOM file below a folder; of a long series the first, the middle and the last."""
    for below in sorted({path.parent for path in folder.rglob("*") if path.is_file()}):
        files = [path for path in sorted(below.iterdir()) if path.is_file() and is_part10(path)]
        yield from files if len(files) <= LONG_SERIES else (files[0], files[len(files) // 2], files[-1])


def is_part10(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def test_both_say_the_same_of_every_real_file(dicom_dir):
    files = list(sampled(dicom_dir))
    wrong = {
        path.relative_to(dicom_dir).as_posix(): lines
        for path, data in ((path, path.read_bytes()) for path in files)
        if (lines := differences(data, make_vectors.both_forms(data)))
    }
    assert wrong == {}
    assert len(files) > 100
