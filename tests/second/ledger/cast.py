"""Who and what the stories are about: organisations, studies, manifests, and each function's usual arguments."""

from hashlib import sha256
from typing import Any

from tests.second import cid, merkle
from tests.second.ledger.cbor import encode
from tests.second.streams import stream

Args = dict[str, Any]

OWNER, CUSTODIAN, LAB, OTHER_LAB = "OwnerMSP", "CustodianMSP", "LabMSP", "OtherLabMSP"
MEMBERS = (OWNER, CUSTODIAN, LAB, OTHER_LAB)
STRANGER = "StrangerMSP"
COLUMNS = dict(zip(("owner", "custodian", "research", "other research"), MEMBERS, strict=True))

T0 = 1_800_000_000
DAY = 86_400
UNTIL = T0 + 10 * DAY
GRACE = 604_800

POLICY: Args = {
    "organisations": {OWNER: "owner", CUSTODIAN: "custodian", LAB: "research", OTHER_LAB: "research"},
    "approvals": ["custodian"],
    "identified_needs": ["owner", "custodian"],
    "release_forms": ["identified"],
    "max_days": 365,
    "lease_s": 60,
    "require_stored": False,
    "erase_grace_s": GRACE,
    "max_clock_skew_s": 0,
    "excluded_origins": ["rest-user", "stow"],
}


def token(name: str) -> bytes:
    """A study's or dataset's, 16 bytes."""
    return stream(f"contract/{name}", 16)


def digest(name: str) -> bytes:
    """32 bytes for anything else."""
    return stream(f"contract/{name}", 32)


def manifest(name: str) -> str:
    """The CID of a manifest nobody needs to see."""
    return cid.of_block(name.encode())


def id_of(function: str, args: Args, by: str, nonce: int = 0) -> bytes:
    """The id of a call whose nonce is 16 times one byte."""
    return sha256(encode([function, args, by, bytes([nonce]) * 16])).digest()


STUDY, STUDY2, STUDY3 = token("study"), token("study 2"), token("study 3")
INSTANCE, INSTANCE2 = digest("instance"), digest("instance 2")
M1, M2, M3, NEW = (manifest(name) for name in ("first", "second", "third", "new"))
ELSEWHERE, NOWHERE = manifest("of study 2"), manifest("never anchored")
UNKNOWN = digest("unknown")

DATASET, DATASET2 = token("dataset"), token("dataset 2")
TOKENS = sorted([STUDY, STUDY2, *(token(f"member {number}") for number in range(3))])
LEAVES = [merkle.leaf_hash(study) for study in TOKENS]


def proof(study: bytes) -> Args:
    """That a study is in DATASET."""
    index = TOKENS.index(study)
    return {"index": index, "path": merkle.path(index, LEAVES)}


def node(organisation: str, title: str = "") -> Args:
    """An organisation's node; its usual one."""
    usual = {OWNER: "ARCHIVE", CUSTODIAN: "STORE", LAB: "LABBOX", OTHER_LAB: "OTHERBOX", STRANGER: "STRANGE"}
    return {"organisation": organisation, "aeTitle": title or usual[organisation]}


def anchor(cid: str = M1, study: bytes = STUDY, **more: Any) -> Args:
    """Of an original."""
    usual = {"manifestCid": cid, "study": study, "root": digest(f"root {cid}"), "count": 3, "kind": "original"}
    return usual | more


def supersede(old: str = M1, new: str = M2, **more: Any) -> Args:
    """Of INSTANCE."""
    named = {"study": STUDY, "instance": INSTANCE, "oldManifest": old, "newManifest": new}
    return named | {"reason": "wrong-laterality"} | more


def withdraw(**more: Any) -> Args:
    """Of INSTANCE."""
    return {"study": STUDY, "instances": [INSTANCE], "reason": "113037"} | more


def flag(n: int = 0, cid: str = M1, **more: Any) -> Args:
    """Of INSTANCE."""
    found = {"observed": digest("observed"), "what": ["(0010,0010)", 0]}
    return {"study": STUDY, "instance": INSTANCE, "n": n, "manifestCid": cid} | found | more


def resolve(n: int = 0, cid: str = M1) -> Args:
    """Of INSTANCE."""
    return {"study": STUDY, "instance": INSTANCE, "n": n, "manifestCid": cid}


def register_node(by: str, **more: Any) -> Args:
    """Its usual node."""
    role = "research" if by in (LAB, OTHER_LAB) else "clinical"
    return {"aeTitle": node(by)["aeTitle"], "role": role, "certDigests": [digest(f"certificate {by}")]} | more


def register_dataset(version: int = 1, **more: Any) -> Args:
    """DATASET."""
    content = {"root": merkle.tree_hash(LEAVES), "count": len(LEAVES), "descriptorDigest": digest("descriptor")}
    return {"id": DATASET, "version": version} | content | {"duo": ["DUO:0000042"]} | more


ON_DATASET = {"dataset": DATASET, "version": 1}


def request(by: str = LAB, on: Args | None = None, **more: Any) -> Args:
    """On STUDY, or on a dataset."""
    asked = on or {"studies": [STUDY]}
    terms = {"sopClasses": ["1.2.840.10008.5.1.4.1.1.4"], "duo": ["DUO:0000006"], "days": 30, "release": "identified"}
    return asked | terms | {"node": node(by), "future": False, "descriptionDigest": digest("description")} | more


REQUEST = id_of("RequestAccess", request(), LAB)
DATASET_REQUEST = id_of("RequestAccess", request(on=ON_DATASET), LAB)


def approve(number: bytes = REQUEST, until: int = UNTIL, **more: Any) -> Args:
    """As it was asked."""
    return {"id": number, "until": until, "release": "identified"} | more


def release(number: bytes = REQUEST, **more: Any) -> Args:
    """Of M1 in STUDY to Lab's node."""
    given = {"anchors": [M1], "instancesRoot": digest("instances"), "count": 3, "standingVersion": 0}
    return {"request": number, "study": STUDY, "node": node(LAB)} | given | more


RELEASE = id_of("LogRelease", release(), OWNER)


def outcome(number: bytes = RELEASE, **more: Any) -> Args:
    """All was sent."""
    return {"release": number, "sent": 3, "withheld": 0, "bitmapDigest": digest("bitmap")} | more


def denials(by: str, seq: int = 1, **more: Any) -> Args:
    """Seen by its own node."""
    return {"reportingNode": node(by), "reason": "no approval", "seq": seq, "count": 2} | more


def training_run(number: bytes = RELEASE, **more: Any) -> Args:
    """On one release."""
    return {"codeDigest": digest("code"), "releases": [number]} | more


RUN = id_of("RegisterTrainingRun", training_run(), LAB)


def model(run: bytes = RUN) -> Args:
    """Of a run."""
    return {"digest": digest("model"), "run": run, "metricsDigest": digest("metrics")}
