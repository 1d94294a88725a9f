"""What a receipt's evidence proves: that its Anchor is on the ledger, by the word of those who keep it.

Formats: docs/receipt.md; `ledger/fabric/evidence.py` for what peers sign.

Every function returns or raises ``IntegrityError``, which says what does not fit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError
from orthanc_ledger.ledger import Value
from orthanc_ledger.ledger.admission import SIGNED_AHEAD_S, SIGNED_BEFORE_S
from orthanc_ledger.ledger.checkpoint import Note, open_note
from orthanc_ledger.ledger.contract import FUNCTIONS
from orthanc_ledger.ledger.contract.arguments import check_arguments
from orthanc_ledger.ledger.key_holders import holder
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.ledger.transaction import SignedTransaction
from orthanc_ledger.merkle import leaf_hash, verify_inclusion
from orthanc_ledger.receipt import EmbeddedEvidence, FabricEvidence

_ANCHOR = FUNCTIONS["Anchor"].arguments
_LEAST_ORGANISATIONS = 2  # owner and custodian
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Peers:
    """Those who said it, on Fabric: MSP ID to the serial number of the peer's certificate; and when, UTC seconds."""

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


def check_evidence(evidence: EmbeddedEvidence | FabricEvidence, authorities: Sequence[bytes]) -> Anchored:
    """Check an evidence. ``authorities``: as for ``receipt_check.check``, which says what it raises."""
    if isinstance(evidence, EmbeddedEvidence):
        return _check_embedded(evidence, authorities)
    return _check_fabric(evidence, authorities)


def check_inclusion(what: str, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """`merkle.verify_inclusion`; the error names ``what`` is not included."""
    try:
        verify_inclusion(leaf, index, size, proof, root)
    except IntegrityError as error:
        raise IntegrityError(f"{what}: {error}") from error


def _check_embedded(evidence: EmbeddedEvidence, authorities: Sequence[bytes]) -> Anchored:
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
        "checkpoint", authorities, lambda ca: open_note(evidence.checkpoint, transaction.log, ca)
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


def _check_fabric(evidence: FabricEvidence, authorities: Sequence[bytes]) -> Anchored:
    """docs/fabric.md, "Receipts": peers of two organisations at least, owner and custodian, gave the same answer."""
    try:
        from orthanc_ledger.ledger.fabric.evidence import Evidence  # here, because few need what it imports
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a receipt of Fabric's peers: {error.name} is not installed: pip install 'orthanc-ledger[consortium]'"
        ) from error
    answer = Evidence.decode(evidence.answer)
    named = {str(number): authority for number, authority in enumerate(authorities)}
    issuers: dict[str, bytes] = {}
    for msp_id, certificate in answer.signers():
        name = holder(certificate, named)
        if name is None:
            raise IntegrityError(f"answer: a peer of {msp_id} signed it, whose CA is no --trust certificate")
        issuers[msp_id] = named[name]
    if len(set(issuers.values())) < _LEAST_ORGANISATIONS:
        raise IntegrityError(
            f"answer: signed under {len(set(issuers.values()))} --trust certificates, expected owner's and custodian's"
        )
    statement = answer.verify(issuers, issuers)
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
    return Anchored(args, time, sequence, said, tuple(dict.fromkeys(issuers.values())))
