"""Issuing receipts for the anchored objects of this node (docs/receipt.md)."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from orthanc_ledger import merkle, tokens
from orthanc_ledger.arrival import encode_head, read_head, section
from orthanc_ledger.clock import Clock
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld
from orthanc_ledger.fingerprint import metadata_leaves, read_pixels
from orthanc_ledger.index import Index
from orthanc_ledger.instance import Instance, open_instance
from orthanc_ledger.keyring import Keyring, StudyKeys
from orthanc_ledger.leaves import METADATA_TREE, PIXEL_TREE, Leaf, LeafHasher, leaf_hashes, show_path
from orthanc_ledger.ledger import Ledger, OpenLedger, all_rows
from orthanc_ledger.ledger.checkpoint import sign_note
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.ledger.key_holders import holder
from orthanc_ledger.ledger.transaction import Genesis, SignedTransaction
from orthanc_ledger.library import Manifests
from orthanc_ledger.manifest import Manifest, Record, encode_record
from orthanc_ledger.receipt import (
    Element,
    Elements,
    EmbeddedEvidence,
    FabricEvidence,
    Leaves,
    Receipt,
    SaltedLeaf,
)
from orthanc_ledger.receipt_evidence import Believed
from orthanc_ledger.repair import Sealed
from orthanc_ledger.verify import open_verified


class Issued(NamedTuple):
    """A receipt; whose word it is, as this node knows their certificates; and whether it is of a record that a
    confirmed supersession put in place of an earlier one.
    """

    receipt: Receipt
    signers: Believed
    supersedes: bool


class Receipts:
    """Issues receipts for the anchored objects of this node.

    ``identity`` signs the checkpoint: of the organisation that anchors. ``temporary`` is where an object may lie in the
    clear while it is read, without a name.
    """

    def __init__(
        self,
        index: Index,
        keyring: Keyring,
        content: Sealed,
        manifests: Manifests,
        ledger: Ledger,
        identity: Identity,
        temporary: Path,
        clock: Clock,
    ) -> None:
        self._index = index
        self._keyring = keyring
        self._content = content
        self._manifests = manifests
        self._ledger = ledger
        self._identity = identity
        self._temporary = temporary
        self._clock = clock

    def issue(self, sop_uid: str, disclose: Sequence[bytes] = ()) -> Issued:
        """The receipt of an object's current record: for its file, or for the elements at these paths only.

        Raises NotHeld when the object, its keys or such an element are not here, or it is not anchored yet;
        IntegrityError when it differs from its anchor; ConfigError on a ledger of a kind without receipts, and where
        the connection file lacks owner's or custodian's certificate; LedgerAway, ContentAway.
        """
        held = self._index.select(instances=[sop_uid])
        study = self._keyring.study(held[0].study_uid) if held else None
        if study is None:
            raise NotHeld(f"{sop_uid}: not held here; `orthanc-ledger studies` lists what is")
        token = tokens.instance_token(study.k_study, sop_uid)
        anchor, manifest, index, supersedes = self._current(study, token, sop_uid)
        record = manifest.records[index]
        batch_key = self._keyring.batch_key(manifest.key_id)
        salt_key = tokens.salt_key(batch_key, token)
        with self._open(record, study, batch_key) as instance:
            content = (
                _elements(instance, record, salt_key, disclose) if disclose else _leaves(instance, record, salt_key)
            )
        hashes = [merkle.leaf_hash(encode_record(other)) for other in manifest.records]
        proof = tuple(merkle.inclusion_proof(hashes, index))
        evidence, signers = self._evidence(anchor)
        return Issued(Receipt(encode_record(record), index, proof, evidence, content), signers, supersedes)

    def _current(self, study: StudyKeys, token: bytes, sop_uid: str) -> tuple[Mapping[str, Any], Manifest, int, bool]:
        """The anchor that counts, its manifest, the record's index in it: the first one's, or what superseded it."""
        standing = self._ledger.query("StandingOf", {"study": study.token})
        replaced = {row["instance"]: row["newManifest"] for row in standing["superseded"]}
        for anchor in all_rows(self._ledger, "AnchorsOfStudy", {"study": study.token}):
            cid = anchor["manifestCid"]
            if replaced.get(token, cid) == cid:
                manifest = self._manifests.read(cid, study.token)
                for index, record in enumerate(manifest.records):
                    if record.instance == token:
                        return anchor, manifest, index, token in replaced
        raise NotHeld(f"{sop_uid}: not anchored yet; `orthanc-ledger status` shows what waits")

    @contextmanager
    def _open(self, record: Record, study: StudyKeys, batch_key: bytes) -> Iterator[Instance]:
        """The object, verified and parsed."""
        with (
            open_verified(record, study, batch_key, self._content) as (arrival, data_set),
            tempfile.TemporaryFile(dir=self._temporary) as unit,
        ):
            # A sealed object is read from front to back, a data set is not.
            unit.write(encode_head(arrival, called_address=""))
            shutil.copyfileobj(data_set, unit)
            unit.seek(0)
            yield open_instance(section(unit, read_head(unit).part10_offset))

    def _evidence(self, anchor: Mapping[str, Any]) -> tuple[EmbeddedEvidence | FabricEvidence, Believed]:
        """What the ledger gives for an anchor, and whose word it is; the one place that knows which kind it is."""
        if isinstance(self._ledger, EmbeddedLedger):
            return _embedded_evidence(self._ledger, anchor["sequence"], self._identity, self._clock())
        from orthanc_ledger.ledger.fabric.ledger import FabricLedger  # here, because few need what it imports

        if isinstance(self._ledger, FabricLedger):
            answer = self._ledger.anchor_evidence(anchor["manifestCid"])
            return FabricEvidence(answer.encode()), _endorsing(self._ledger)
        raise ConfigError("receipts: this node's ledger is of a kind that gives none")


def _leaves(instance: Instance, record: Record, salt_key: bytes) -> Leaves:
    """Every leaf of an object, with its salt."""

    def salted(tree: int, leaves: Iterable[Leaf]) -> tuple[bytes, tuple[SaltedLeaf, ...]]:
        hasher, root, found = LeafHasher(tree, instance.sop_instance_uid, [salt_key]), merkle.Tree(), []
        for leaf in leaves:
            (salt,) = hasher.salts(leaf.path)
            root.add(*leaf_hashes(leaf, [salt]))
            found.append(SaltedLeaf(leaf.path, leaf.kind, salt))
        return root.root(), tuple(found)

    pixels, (pixel_root, pixel_leaves) = read_pixels(instance, lambda leaves: salted(PIXEL_TREE, leaves))
    metadata_root, metadata = salted(METADATA_TREE, metadata_leaves(instance, pixels.form))
    _check_roots(record, pixel_root=pixel_root, metadata_root=metadata_root)
    return Leaves(pixel_leaves, metadata)


def _elements(instance: Instance, record: Record, salt_key: bytes, disclose: Iterable[bytes]) -> Elements:
    """The elements at these paths, and nothing else of an object."""
    wanted, found, hashes = set(disclose), [], []
    hasher = LeafHasher(METADATA_TREE, instance.sop_instance_uid, [salt_key])
    for index, leaf in enumerate(metadata_leaves(instance, "decoded" if record.pixel_form == "decoded" else "encoded")):
        (salt,) = hasher.salts(leaf.path)
        if leaf.path in wanted:
            value = leaf.value if isinstance(leaf.value, bytes) else b"".join(leaf.value)
            leaf = leaf._replace(value=value)
            found.append((index, leaf, value, salt))
        hashes += leaf_hashes(leaf, [salt])
    if missing := wanted - {leaf.path for _, leaf, _, _ in found}:
        names = ", ".join(sorted(map(show_path, missing)))
        raise NotHeld(f"{names}: the object has no such element, or its metadata tree leaves it out")
    tree = merkle.Tree()
    for digest in hashes:
        tree.add(digest)
    _check_roots(record, metadata_root=tree.root())
    return Elements(
        tuple(
            Element(leaf.path, leaf.kind, value, salt, index, tuple(merkle.inclusion_proof(hashes, index)))
            for index, leaf, value, salt in found
        )
    )


def _check_roots(record: Record, **roots: bytes) -> None:
    """Raises IntegrityError when a verified object gives other roots than its record: a fault of ours, as a decoder
    that gives other samples than before.
    """
    for name, root in roots.items():
        if root != getattr(record, name):
            raise IntegrityError(f"{name}: expected {getattr(record, name).hex()}, got {root.hex()}: a decoder changed")


def _embedded_evidence(
    ledger: EmbeddedLedger, position: int, identity: Identity, time: int
) -> tuple[EmbeddedEvidence, Sequence[bytes]]:
    entry = next(ledger.entries(position))
    checkpoint, proof = ledger.inclusion(position)
    _, transaction = SignedTransaction.decode_entry(entry)
    signers = _authorities(ledger, (transaction.certificate, identity.certificate))
    note = sign_note(checkpoint, ledger.log_id, time, identity)
    return EmbeddedEvidence(position, entry, tuple(proof), note), signers


def _endorsing(ledger: OpenLedger) -> Mapping[str, bytes]:
    """MSP ID to CA certificate (DER) of owner and custodian, as a verifier names them."""
    organisations, known = ledger.query("GetPolicy", {})["organisations"], ledger.authorities()
    endorsing = [msp_id for msp_id, role in organisations.items() if role in ("owner", "custodian")]
    if missing := [msp_id for msp_id in endorsing if msp_id not in known]:
        raise ConfigError(
            f"the connection file's organisations: no CA certificate of {missing}, whose peers sign receipts"
        )
    return {msp_id: known[msp_id] for msp_id in endorsing}


def _authorities(ledger: EmbeddedLedger, certificates: Iterable[bytes]) -> tuple[bytes, ...]:
    """The CA certificates that issued these, of all that this ledger's organisations have or had."""
    policies = (row["value"] for row in all_rows(ledger, "HistoryOf", {"key": "policy"}))
    founders = Genesis.decode(next(ledger.entries())).organisations
    known = [*founders.values(), *(ca for policy in policies for ca in policy.get("certificates", {}).values())]
    return tuple(dict.fromkeys(ca for leaf in certificates for ca in known if holder(leaf, {"issuer": ca})))
