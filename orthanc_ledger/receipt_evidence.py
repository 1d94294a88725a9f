"""What a receipt's evidence proves: that its Anchor is on the ledger, by the word of those whom the verifier names.

Formats: docs/receipt.md; `ledger/fabric/evidence.py` for what peers sign.

Every function returns or raises ``IntegrityError``, which says what does not fit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError
from orthanc_ledger.ledger import Value
from orthanc_ledger.ledger.admission import SIGNED_AHEAD_S, SIGNED_BEFORE_S
from orthanc_ledger.ledger.checkpoint import Note, Pins, open_note
from orthanc_ledger.ledger.contract import FUNCTIONS
from orthanc_ledger.ledger.contract.arguments import check_arguments
from orthanc_ledger.ledger.identity import parse_certificate
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.ledger.transaction import SignedTransaction
from orthanc_ledger.merkle import leaf_hash, verify_inclusion
from orthanc_ledger.receipt import EmbeddedEvidence, FabricEvidence

_ANCHOR = FUNCTIONS["Anchor"].arguments
_Found = TypeVar("_Found")

Believed = Sequence[bytes] | Mapping[str, bytes]
"""Whose word counts, by CA certificates (DER). Of an embedded ledger: of the one organisation that anchors, before and
after it changed its CA. On Fabric: MSP ID to CA certificate of each organisation of which a peer must have signed.
"""


@dataclass(frozen=True)
class Peers:
    """Those named who said it, on Fabric: MSP ID to serial number of the peer's certificate; and when, UTC seconds."""

    channel: str
    serials: Mapping[str, str]
    time: int


@dataclass(frozen=True)
class Anchored:
    """The Anchor that a receipt's evidence shows. ``authorities``: the CA certificates (DER) that its signers'
    certificates were checked against, each once.
    """

    args: Mapping[str, Value]
    time: int  # the ledger's, UTC seconds: its host's word, or on Fabric the transaction's
    position: int  # the entry, or on Fabric the sequence
    kept_by: Note | Peers
    authorities: tuple[bytes, ...]


def check_evidence(evidence: EmbeddedEvidence | FabricEvidence, believed: Believed, pins: Pins) -> Anchored:
    """Check an evidence. ``pins``: as `checkpoint.open_note`. Raises also ConfigError, as `receipt_check.check`.

    The verifier says which kind it must be, not the receipt: else one organisation's log passed for the word of two.
    """
    if isinstance(evidence, EmbeddedEvidence):
        if isinstance(believed, Mapping):
            raise IntegrityError(
                "evidence: a log that one organisation keeps, where --peers asks for signatures of peers on Fabric: "
                "give --trust CA.pem of its owner only if you believe that organisation alone"
            )
        return _check_embedded(evidence, believed, pins)
    if not isinstance(believed, Mapping):
        raise IntegrityError(
            "evidence: signatures of peers on Fabric, where --trust asks for a log: give --peers MSPID=CA.pem for each "
            "organisation that must have signed, as a certificate alone does not say which"
        )
    return _check_fabric(evidence, believed)


def check_inclusion(what: str, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """`merkle.verify_inclusion`; the error names ``what`` is not included."""
    try:
        verify_inclusion(leaf, index, size, proof, root)
    except IntegrityError as error:
        raise IntegrityError(f"{what}: {error}") from error


def _check_embedded(evidence: EmbeddedEvidence, authorities: Sequence[bytes], pins: Pins) -> Anchored:
    """docs/ledger.md, "The embedded log", as far as one entry shows it."""
    try:
        time, transaction = SignedTransaction.decode_entry(evidence.entry)
        if transaction.function != "Anchor":
            raise IntegrityError(f"entry: expected an Anchor, got {transaction.function!a:.80}")
        check_arguments(_ANCHOR, transaction.args)
    except ContractError as error:
        raise IntegrityError(f"entry: {error}") from error
    if not time - SIGNED_BEFORE_S <= transaction.time <= time + SIGNED_AHEAD_S:
        raise IntegrityError(f"entry: signed at {transaction.time}, too far from the entry's time {time}")

    def signer(ca: Mapping[str, bytes]) -> None:
        Members(ca).verify(transaction.certificate, transaction.signature, transaction.payload, time)

    _, issuer = _under("entry", authorities, signer)
    note, note_issuer = _under(
        "checkpoint", authorities, lambda ca: open_note(evidence.checkpoint, transaction.log, ca, pins)
    )
    size, root = note.checkpoint.size, note.checkpoint.root
    check_inclusion("entry", leaf_hash(evidence.entry), evidence.position, size, evidence.proof, root)
    return Anchored(transaction.args, time, evidence.position, note, tuple(dict.fromkeys((issuer, note_issuer))))


def _under(
    what: str, authorities: Sequence[bytes], verify: Callable[[Mapping[str, bytes]], _Found]
) -> tuple[_Found, bytes]:
    """What ``verify`` gives, and the authority under which it did not raise. One at a time: two may have one name."""
    failure: Exception | None = None
    for authority in authorities:
        try:
            return verify({"--trust": authority}), authority
        except (ContractError, IntegrityError) as error:
            failure = error
    raise IntegrityError(f"{what}: not signed under a --trust certificate: {failure}") from failure


def _check_fabric(evidence: FabricEvidence, peers: Mapping[str, bytes]) -> Anchored:
    """A peer of each of these organisations, by MSP ID and CA certificate, gave the same answer."""
    try:
        from orthanc_ledger.ledger.fabric.evidence import Evidence  # here, because few need what it imports
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a receipt of Fabric's peers: {error.name} is not installed: pip install 'orthanc-ledger[consortium]'"
        ) from error
    _check_parties(peers)
    statement = Evidence.decode(evidence.answer).verify(peers)
    record = statement.answer
    args = {name: record[name] for name in _ANCHOR if name in record} if isinstance(record, dict) else {}
    try:
        check_arguments(_ANCHOR, args)
    except ContractError as error:
        raise IntegrityError(f"answer: {error}") from error
    if (statement.function, statement.args) != ("GetAnchor", {"manifestCid": args["manifestCid"]}):
        raise IntegrityError(f"answer: expected GetAnchor of its manifest, got {statement.function!a:.80}")
    time, sequence = (record.get(name) for name in ("time", "sequence"))
    if type(time) is not int or type(sequence) is not int:
        raise IntegrityError("answer: expected the anchor's time and sequence")
    said = Peers(statement.channel, statement.endorsers, statement.time)
    return Anchored(args, time, sequence, said, tuple(peers.values()))


def _check_parties(peers: Mapping[str, bytes]) -> None:
    """Raises ConfigError when one certificate is no CA's, or two have one key: whoever holds it signs as both."""
    keys = (parse_certificate(der).public_key() for der in peers.values())
    if len({key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys}) < len(peers):
        raise ConfigError(
            "--peers: two organisations with one CA key, whose holder can sign as both: name each one's own"
        )
    Members(peers)
