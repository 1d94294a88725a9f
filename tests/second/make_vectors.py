"""Makes `tests/vectors/formats/*.json` with the second implementation alone.

python -m tests.second.make_vectors            writes all files
"""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pydicom.data

from tests.second import arrival, cid, crafted, fingerprint, keys, manifest, merkle, sealed, writer
from tests.second.dataset import Refused
from tests.second.streams import stream

FOLDER = Path(__file__).parents[1] / "vectors" / "formats"
BUNDLED = Path(pydicom.data.__file__).parent / "test_files"
SOP_CLASS = "1.2.840.10008.5.1.4.1.1.4"
STUDY_UID, SOP_UID = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.12"
FIRST = sealed.SEGMENT - sealed.HEADER - sealed.TAG

Json = dict[str, Any]


def merkle_cases() -> list[Json]:
    """Roots of growing trees and inclusion proofs; leaf i is stream("merkle/i", i mod 50)."""
    cases = []
    for size in (*range(10), 1000):
        leaves = [stream(f"merkle/{i}", i % 50) for i in range(size)]
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        indexes = range(size) if size < 10 else (0, 511, 512, 999)
        proofs = [{"index": i, "path": [node.hex() for node in merkle.path(i, hashes)]} for i in indexes]
        cases.append({"size": size, "root": merkle.root(leaves).hex(), "proofs": proofs})
    return cases


def key_cases() -> list[Json]:
    """Every derived key and token, from given secrets, for UIDs bare and with trailing NUL or space."""
    cases = []
    for number, padding in enumerate(("", "\0", " ")):
        k_lookup, k_study, batch, fp, digest = (stream(f"keys/{number}/{i}", 32) for i in range(5))
        study, sop = STUDY_UID + padding, SOP_UID + padding
        token = keys.instance_token(k_study, sop)
        salting = keys.salt_key(batch, token)
        made = {
            "k_lookup": k_lookup,
            "k_study": k_study,
            "batch_key": batch,
            "fingerprint": fp,
            "sha256": digest,
            "study_row": keys.study_row(k_lookup, study),
            "erased_mark": keys.erased_mark(k_lookup, study),
            "instance_token": token,
            "content_id": keys.content_id(k_study, fp),
            "seal_key": keys.seal_key(batch, token),
            "salt_key": salting,
            "keyed_digest": keys.keyed_digest(salting, digest),
            "seen": keys.seen(k_study, digest),
        }
        text = {"study_uid": study, "sop_uid": sop, "claim_name": keys.claim_name(k_lookup, sop)}
        cases.append(text | {name: value.hex() for name, value in made.items()})
    return cases


def sealed_cases() -> list[Json]:
    """Objects sealed with a given salt and nonce prefix, and ways of spoiling each that must be refused."""
    cases = []
    for size in (0, 1, 100, FIRST - 1, FIRST, FIRST + 1, FIRST + sealed.SEGMENT - sealed.TAG):
        case = {
            "key": stream("sealed/key", 32).hex(),
            "study_token": stream("sealed/study", 16).hex(),
            "instance_token": stream("sealed/instance", 32).hex(),
            "salt": stream(f"sealed/salt/{size}", 32).hex(),
            "nonce_prefix": stream(f"sealed/nonce/{size}", 7).hex(),
            "plain_seed": f"sealed/{size}",
            "plain_size": size,
        }
        whole = remake_sealed(case)
        case |= {"sealed_size": len(whole), "sealed_sha256": sha256(whole).hexdigest()}
        if size <= 100:
            case["sealed"] = whole.hex()
        case["refused"] = [{"cut_to": n} for n in sorted({0, 39, 40, len(whole) - 16, len(whole) - 1})]
        if len(whole) > sealed.SEGMENT:
            case["refused"] += [{"cut_to": sealed.SEGMENT}, {"cut_to": sealed.SEGMENT + sealed.TAG}]
        case["refused"] += [{"flip": at} for at in sorted({0, 1, 33, 40, len(whole) - 1})] + [{"append": "00"}]
        case["refused"] = [spoil for spoil in case["refused"] if spoil.get("cut_to") != len(whole)]
        cases.append(case)
    return cases


def remake_sealed(case: Json) -> bytes:
    """A sealed case's bytes, from its fields."""
    aad = sealed.associated_data(bytes.fromhex(case["study_token"]), bytes.fromhex(case["instance_token"]))
    key, salt, prefix = (bytes.fromhex(case[name]) for name in ("key", "salt", "nonce_prefix"))
    return sealed.seal(stream(case["plain_seed"], case["plain_size"]), key, aad, salt, prefix)


def spoil(whole: bytes, change: Json) -> bytes:
    """A sealed object after one of the vectors' changes."""
    if "cut_to" in change:
        return whole[: change["cut_to"]]
    if "append" in change:
        return whole + bytes.fromhex(change["append"])
    at = change["flip"]
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def record(seed: str, number: int) -> dict[str, manifest.Value]:
    """Record `number` of a seeded manifest: 32-byte fields in their order from one stream, the rest from the number."""
    raw = stream(f"{seed}/{number}", 256)
    part = [raw[at : at + 32] for at in range(0, 256, 32)]
    form = ("none", "decoded", "encoded")[number % 3]
    return {
        "instance": part[0],
        "content_id": part[1],
        "object": manifest.Link(cid.of_bytes(part[2])),
        "sealed_size": 1000 + number,
        "plain_size": 900 + number * 65_537,
        "digest": part[3],
        "fingerprint": part[4],
        "pixel_root": part[5],
        "pixel_leaves": number % 3 * 300,
        "metadata_root": part[6],
        "metadata_leaves": number,
        "pixel_form": form,
        "decoder": "gdcm 3.2.6" if form == "decoded" else None,
        "decode_error": "too-short" if number % 6 == 2 else None,
        "origin": "tls-modality" if number % 2 else "addressed-ae",
    }


def manifest_cases() -> list[Json]:
    """Manifests of seeded records; every block for the small ones."""
    cases = []
    for number, count in enumerate((0, 1, 2, 1000, 1001)):
        seed = f"manifest/{count}"
        study, key_id = stream(f"{seed}/study", 16), stream(f"{seed}/key", 16)
        made = manifest.build(study, number * 100, key_id, [record(seed, i) for i in range(count)])
        case = {"seed": seed, "count": count, "study": study.hex(), "seq": number * 100, "key_id": key_id.hex()}
        case |= {"cid": made.cid, "record_root": made.record_root.hex()}
        case |= {"blocks": {name: block.hex() if count < 3 else len(block) for name, block in made.blocks.items()}}
        cases.append(case)
    return cases


def cid_cases() -> list[Json]:
    """CIDs of streams around chunk borders, and of deep trees with small chunks and few links."""
    sizes = (0, 1, 262143, 262144, 262145, 1048575, 1048576, 1048577, 10_000_000)
    shapes = [(size, 1 << 20, 1024) for size in sizes]
    shapes += [(size, 4, 3) for size in (3, 4, 5, 12, 13, 36, 37, 199, 200)] + [(4000, 1, 2), (70_000, 256, 5)]
    return [
        {"seed": f"cid/{size}", "size": size, "chunk": chunk, "links": links, "cid": cid_of(size, chunk, links)}
        for size, chunk, links in shapes
    ]


def cid_of(size: int, chunk: int, links: int) -> str:
    """The CID of a case's content."""
    return cid.of_bytes(stream(f"cid/{size}", size), chunk, links)


def arrival_cases() -> list[Json]:
    """One spool unit."""
    shown = {name: value.hex() if isinstance(value, bytes) else value for name, value in arrival_record().items()}
    unit = arrival_unit(b"1.2.826.0.1.3680043.8.498.9", b"SECOND")
    return [{"record": shown, "data_set": _arrived().hex(), "unit": unit.hex()}]


def arrival_record() -> dict[str, manifest.Value]:
    """The record of the unit."""
    return {
        "v": 1,
        "received_us": 1_795_255_200_123_456,
        "calling_ae": "MR1",
        "called_ae": "LEDGER",
        "peer": "dicom://127.0.0.1:50001",
        "association": stream("arrival/association", 16),
        "tls": None,
        "origin": "addressed-ae",
        "sop_class": SOP_CLASS,
        "sop_instance": SOP_UID,
        "transfer_syntax": writer.EXPLICIT,
        "sha256": sha256(_arrived()).digest(),
    }


def arrival_unit(implementation: bytes, version: bytes) -> bytes:
    """The unit as a writer with this Implementation Class UID and Version Name makes it."""
    meta = [
        (0x0001, "OB", b"\0\1"),
        (0x0002, "UI", SOP_CLASS.encode()),
        (0x0003, "UI", SOP_UID.encode()),
        (0x0010, "UI", writer.EXPLICIT.encode()),
        (0x0012, "UI", implementation),
        (0x0013, "SH", version),
        (0x0016, "AE", b"MR1"),
        (0x0017, "AE", b"MR1"),
        (0x0018, "AE", b"LEDGER"),
        (0x0027, "UR", b"dicom://127.0.0.1:50001"),
        (0x0028, "UR", b"dicom://127.0.0.1:11112"),
    ]
    return arrival.unit(arrival_record(), arrival.part10(meta, _arrived()))


def _arrived() -> bytes:
    """A data set of three UIDs."""
    uids = {(0x0008, 0x0016): SOP_CLASS, (0x0008, 0x0018): SOP_UID, (0x0020, 0x000D): STUDY_UID}
    return b"".join(writer.element(*tag, "UI", writer.uid(value)) for tag, value in uids.items())


def fingerprint_cases() -> list[Json]:
    """pydicom's bundled files: every field, unsalted and salted, or null where fp/v1 refuses the file."""
    files = sorted(path for path in BUNDLED.rglob("*") if path.is_file() and "TINY_ALPHA" not in path.parts)
    return [
        {"file": path.relative_to(BUNDLED).as_posix(), "sha256": sha256(data).hexdigest()} | both_forms(data)
        for path, data in ((path, path.read_bytes()) for path in files)
        if path.suffix in ("", ".dcm") and data[128:132] == b"DICM"
    ]


def crafted_cases() -> list[Json]:
    """Small files made for one rule each."""
    return [{"name": name, "file": data.hex()} | both_forms(data) for name, data in crafted.files()]


def both_forms(data: bytes) -> Json:
    """Fields of the unsalted and of a salted fingerprint; null where there is none."""
    salt_key = stream("fingerprint/salt", 32)
    made: Json = {"unsalted": None, "salt_key": salt_key.hex(), "salted": None}
    with suppress(Refused):
        made["unsalted"] = fields(data, None)
        made["salted"] = fields(data, salt_key)
    return made


def fields(data: bytes, salt_key: bytes | None) -> Json:
    """A fingerprint's fields for JSON."""
    made = vars(fingerprint.of_file(data, salt_key))
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in made.items()}


FILES: dict[str, Callable[[], list[Json]]] = {
    "merkle": merkle_cases,
    "keys": key_cases,
    "sealed": sealed_cases,
    "manifests": manifest_cases,
    "cids": cid_cases,
    "arrival": arrival_cases,
    "fingerprints": fingerprint_cases,
    "crafted": crafted_cases,
}


def text(name: str) -> str:
    """A vector file's whole text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return json.dumps(FILES[name](), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    logging.disable()
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text(name))
