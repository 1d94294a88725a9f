"""A channel of four organisations to test the contract on: in memory, or the embedded ledger, signatures and all."""

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger import Committed
from orthanc_ledger.ledger.contract import FUNCTIONS, answer, apply
from orthanc_ledger.ledger.contract.call import Applied, Call, Caller
from orthanc_ledger.ledger.contract.policy import default_policy, policy_digest
from orthanc_ledger.ledger.embedded import EmbeddedLedger, create_ledger
from orthanc_ledger.ledger.identity import Identity, ca_certificate, create_organisation, issue, load_identity
from orthanc_ledger.merkle import inclusion_proof, leaf_hash, root

OWNER, CUSTODIAN, LAB, OTHER_LAB = "HospitalMSP", "CustodianMSP", "LabMSP", "OtherlabMSP"
ROLES = {OWNER: "owner", CUSTODIAN: "custodian", LAB: "research", OTHER_LAB: "research"}
START = 1_800_000_000
DAY = 86_400

STUDY, OTHER_STUDY = b"s" * 16, b"o" * 16
DATASET = b"D" * 16
INSTANCE = b"i" * 32
DIGEST, OTHER_DIGEST = b"d" * 32, b"e" * 32
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
LAB_NODE = {"organisation": LAB, "aeTitle": "LAB1"}
OTHER_NODE = {"organisation": OTHER_LAB, "aeTitle": "LAB1"}


def cid(name: str) -> str:
    """A manifest's CID: CIDv1, dag-cbor, sha2-256."""
    octets = bytes.fromhex("01711220") + hashlib.sha256(name.encode()).digest()
    return "b" + base64.b32encode(octets).decode().lower().rstrip("=")


class Host(Protocol):
    """What runs the contract."""

    now: int

    def submit(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> Committed: ...

    def query(self, function: str, args: Mapping[str, Any]) -> Any: ...

    def entries(self) -> int:
        """How many transactions were committed so far."""


class Memory:
    """The contract alone, over a dict."""

    def __init__(self, policy: Mapping[str, Any], now: int = START) -> None:
        self.now, self.host_offset, self.assurance, self.serial = now, 0, "person", "1f"
        self._policy = policy_digest(policy)
        self._writes: dict[str, list[tuple[int, Any]]] = {}
        self._times: list[int] = []
        self.last: Applied | None = None

    def judge(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> Applied:
        """What a call would do now; nothing is written."""
        caller = Caller(organisation, self.assurance, self.serial)
        host_time = self.now + self.host_offset
        call = Call(function, args, nonce, caller, self.now, host_time, len(self._times), self._policy)
        return apply(self, call)

    def submit(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> Committed:
        self.last = applied = self.judge(organisation, function, args, nonce)
        if applied.repeats is not None:
            assert not applied.changes
            first = self._writes[applied.repeats][0][0]
            return Committed(b"", first, self._times[first], applied.result)
        sequence = len(self._times)
        for key, value in applied.changes.items():
            self._writes.setdefault(key, []).append((sequence, value))
        self._times.append(self.now)
        return Committed(b"", sequence, self.now, applied.result)

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        return answer(self, function, args, self.now)

    def entries(self) -> int:
        return len(self._times)

    def get(self, key: str) -> Any:
        return self._writes[key][-1][1] if key in self._writes else None

    def scan(self, prefix: str, after: str = "") -> Iterator[tuple[str, Any]]:
        return ((key, self.get(key)) for key in sorted(self._writes) if key.startswith(prefix) and key > after)

    def history(self, key: str) -> Iterator[tuple[int, Any]]:
        return iter(self._writes.get(key, []))


class Embedded:
    """The embedded ledger, one signing identity an organisation."""

    def __init__(self, path: Path, people: "People", policy: Mapping[str, Any], now: int = START) -> None:
        self.now = now
        create_ledger(path, people.ca_certificates, policy, clock=lambda: self.now)
        self._ledgers = {
            organisation: EmbeddedLedger(path, identity, clock=lambda: self.now)
            for organisation, identity in people.identities.items()
        }

    def submit(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> Committed:
        return self._ledgers[organisation].submit(function, args, nonce)

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        return self._ledgers[LAB].query(function, args)

    def entries(self) -> int:
        return self._ledgers[OWNER].size

    def close(self) -> None:
        for ledger in self._ledgers.values():
            ledger.close()


class People:
    """An identity of each organisation, and their CAs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for organisation in ROLES:
            create_organisation(folder / organisation, organisation, clock=lambda: START)
        self.identities: dict[str, Identity] = {
            organisation: load_identity(issue(folder / organisation, "person-1", "person", clock=lambda: START))
            for organisation in ROLES
        }
        self.ca_certificates = {organisation: ca_certificate(folder / organisation) for organisation in ROLES}


class Channel:
    """A host with its story so far: short ways to the states that tests start from."""

    def __init__(self, host: Any, policy: dict[str, Any]) -> None:
        self.host, self.policy = host, policy
        self._names = itertools.count()
        self._nonces = (number.to_bytes(16, "big") for number in itertools.count(1))

    @property
    def now(self) -> int:
        return int(self.host.now)

    def wait(self, seconds: int) -> None:
        self.host.now += seconds

    def call(self, organisation: str, function: str, /, nonce: bytes | None = None, **args: Any) -> Any:
        """Submit and give the result."""
        nonce = next(self._nonces) if nonce is None else nonce
        return self.host.submit(organisation, function, {k.rstrip("_"): v for k, v in args.items()}, nonce).result

    def ask(self, function: str, /, **args: Any) -> Any:
        return self.host.query(function, {k.rstrip("_"): v for k, v in args.items()})

    def refuses(self, code: str, field: str, organisation: str, function: str, /, **args: Any) -> None:
        """Check that the call is refused with this code and field, and leaves no entry."""
        before = self.host.entries()
        with pytest.raises(ContractError) as refusal:
            self.call(organisation, function, **args)
        assert (refusal.value.code, refusal.value.field) == (code, field)
        assert self.host.entries() == before

    def repeats(self, organisation: str, function: str, /, **args: Any) -> None:
        """Check that the same call again gives the first commit, not the last, and changes nothing."""
        nonce = next(self._nonces)
        first = self.host.submit(organisation, function, args, nonce)
        self.anchor(study=b"in between 16 by")
        before = self.host.entries()
        self.wait(1)
        again_nonce = nonce if FUNCTIONS[function].content_id else next(self._nonces)
        again = self.host.submit(organisation, function, args, again_nonce)
        assert (again.position, again.time, again.result) == (first.position, first.time, first.result)
        assert self.host.entries() == before

    def init(self) -> "Channel":
        self.call(OWNER, "InitPolicy", policy=self.policy)
        return self

    def anchor(self, study: bytes = STUDY, **over: Any) -> str:
        args = {"manifestCid": cid(f"m{next(self._names)}"), "root": DIGEST, "count": 3, "kind": "original", **over}
        self.call(OWNER, "Anchor", study=study, **args)
        return str(args["manifestCid"])

    def register(self, organisation: str = LAB, ae_title: str = "LAB1", digests: tuple[bytes, ...] = ()) -> int:
        """Propose a version of a research node; its number."""
        args = {"aeTitle": ae_title, "role": "research", "certDigests": list(digests)}
        return int(self.call(organisation, "RegisterNode", **args)["version"])

    def node(self, organisation: str = LAB, ae_title: str = "LAB1") -> dict[str, str]:
        """A confirmed research node."""
        version = self.register(organisation, ae_title)
        node = {"organisation": organisation, "aeTitle": ae_title}
        self.call(CUSTODIAN, "ConfirmNode", node=node, version=version)
        return node

    @staticmethod
    def access(**over: Any) -> dict[str, Any]:
        """Arguments of RequestAccess."""
        return {
            "studies": [STUDY],
            "sopClasses": [MR_IMAGE],
            "duo": ["DUO:0000042"],
            "days": 30,
            "node": LAB_NODE,
            "release": "identified",
            "future": False,
            "descriptionDigest": DIGEST,
            **over,
        }

    def request(self, organisation: str = LAB, **over: Any) -> bytes:
        """An open request; its id."""
        return bytes(self.call(organisation, "RequestAccess", **self.access(**over))["id"])

    def approve(self, request: bytes, seconds: int = 10 * DAY, by: tuple[str, ...] = (OWNER, CUSTODIAN)) -> None:
        for organisation in by:
            self.call(organisation, "Approve", id=request, until=self.now + seconds, release="identified")

    def approved(self, **over: Any) -> tuple[bytes, str]:
        """An anchor, a confirmed node, and an approved request for it."""
        manifest = self.anchor()
        self.node()
        request = self.request(**over)
        self.approve(request)
        return request, manifest

    @staticmethod
    def listed(*studies: bytes, **over: Any) -> dict[str, Any]:
        """Arguments of RegisterDataset for these studies."""
        args = {"id": DATASET, "version": 1, "root": root(sorted(studies)), "count": len(studies)}
        return {**args, "descriptorDigest": DIGEST, "duo": ["DUO:0000042"], **over}

    @staticmethod
    def proof(study: bytes, *studies: bytes) -> dict[str, Any]:
        """That a study is one of these."""
        listed = sorted(studies)
        index = listed.index(study)
        return {"index": index, "path": inclusion_proof([leaf_hash(token) for token in listed], index)}

    def request_dataset(self, version: int = 1, **over: Any) -> bytes:
        """An open request on a dataset; its id."""
        named = self.access(dataset=DATASET, version=version, **over)
        return bytes(self.call(LAB, "RequestAccess", **{k: v for k, v in named.items() if k != "studies"})["id"])

    def erase_requested(self, study: bytes = STUDY) -> int:
        """Erasure asked for by the owner; the study's standing version after it."""
        return int(self.call(OWNER, "RequestErase", study=study)["version"])

    def erased(self, study: bytes = STUDY) -> None:
        """What the owner asked for, confirmed after the grace time."""
        self.wait(int(self.policy["erase_grace_s"]))
        self.call(CUSTODIAN, "ConfirmErase", study=study)

    @staticmethod
    def release(request: bytes, *manifests: str, **over: Any) -> dict[str, Any]:
        """Arguments of LogRelease."""
        return {
            "request": request,
            "study": STUDY,
            "anchors": list(manifests),
            "instancesRoot": DIGEST,
            "count": 3,
            "standingVersion": 0,
            "node": LAB_NODE,
            **over,
        }


def policy(**over: Any) -> dict[str, Any]:
    return {**default_policy(ROLES), **over}
