"""What the peers' signatures under an answer prove, without a network and without their word for it.

Fabric's peers sign the response to a query as they do any other (peer.ProposalResponse): over the hash of the proposal,
the answer, and their own identity. Two organisations' peers that give the same answer to GetAnchor show that both have
the anchor in their state; neither can take it back.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2
from google.protobuf.message import DecodeError

from orthanc_ledger.content import cbor
from orthanc_ledger.errors import IntegrityError, Unreadable
from orthanc_ledger.ledger import Value
from orthanc_ledger.ledger.fabric import dagjson
from orthanc_ledger.ledger.fabric.proposal import P256_ORDER, Endorsed, Endorsement, Proposal
from orthanc_ledger.ledger.identity import ECDSA_SHA256, parse_certificate, serial_of

_SUCCESS = 200


@dataclass(frozen=True)
class Statement:
    """What peers signed."""

    channel: str
    chaincode: str
    transaction_id: str  # 64 hex digits; never ordered
    time: int  # of the question, UTC seconds: the asker's word, which peers compared with their clocks
    function: str
    args: Value
    answer: Value
    endorsers: Mapping[str, str]  # of those asked for: MSP ID to serial number of the peer's certificate, hex


@dataclass(frozen=True)
class Evidence:
    """An answer with its peers' signatures."""

    endorsed: Endorsed

    def encode(self) -> bytes:
        """dag-cbor {v, channelHeader, signatureHeader, payload, response, endorsements: [{endorser, signature}]}."""
        proposal = self.endorsed.proposal
        return cbor.encode(
            {
                "v": 1,
                "channelHeader": proposal.channel_header,
                "signatureHeader": proposal.signature_header,
                "payload": proposal.payload,
                "response": self.endorsed.response,
                "endorsements": [
                    {"endorser": each.endorser, "signature": each.signature} for each in self.endorsed.endorsements
                ],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Evidence":
        """Raises IntegrityError unless the bytes are an evidence's one encoding."""
        match cbor.decode(data):
            case {
                "v": 1,
                "channelHeader": bytes(channel_header),
                "signatureHeader": bytes(signature_header),
                "payload": bytes(payload),
                "response": bytes(response),
                "endorsements": list(endorsements),
            }:
                proposal = Proposal(channel_header, signature_header, payload)
                found = cls(Endorsed(proposal, response, tuple(_endorsement(each) for each in endorsements)))
                if found.encode() == data:
                    return found
        raise IntegrityError("expected evidence of version 1, got something else")

    def verify(self, peers: Mapping[str, bytes]) -> Statement:
        """What was signed, once a peer of each of the organisations `peers` did: MSP ID to CA certificate (DER), as the
        verifier believes them.

        Every signature in their names must be good: by a certificate that this CA issued to a peer (OU=peer) and that
        was valid at the statement's time. Whether it was revoked is not looked up. Others' signatures do not count.

        Raises IntegrityError, saying what is wrong.
        """
        statement = self._statement()
        endorsers = {}
        for endorsement in self.endorsed.endorsements:
            identity = _identity(endorsement.endorser)
            if identity.mspid in peers:
                certificate = _peer(identity, peers[identity.mspid], statement["time"])
                _check_signature(certificate, endorsement, self.endorsed.response)
                endorsers[identity.mspid] = serial_of(certificate)
        missing = sorted(peers.keys() - endorsers.keys())
        if missing or not peers:
            named = ", ".join(sorted(peers)) or "one organisation at least"
            raise IntegrityError(f"expected the signatures of peers of {named}: {missing} are missing")
        return Statement(**statement, endorsers=endorsers)

    def _statement(self) -> dict[str, Any]:
        """The parts of the statement that the signed hash covers."""
        proposal, action = self.endorsed.proposal, self.endorsed.action
        try:
            channel_header = _exact(common_pb2.ChannelHeader, proposal.channel_header)
            signature_header = _exact(common_pb2.SignatureHeader, proposal.signature_header)
            payload = _exact(proposal_pb2.ChaincodeProposalPayload, proposal.payload)
            spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
            function, args = spec.input.args
            question = dagjson.decode(args)
            named = function.decode()
        except (DecodeError, ValueError) as error:
            raise IntegrityError(
                "the question is none that can be read: expected a function and its arguments"
            ) from error
        nonce_and_creator = signature_header.nonce + signature_header.creator
        if channel_header.tx_id != hashlib.sha256(nonce_and_creator).hexdigest():
            raise IntegrityError("the transaction id is not that of nonce and caller")
        if action.response.status != _SUCCESS or action.chaincode_id.name != spec.chaincode_id.name:
            raise IntegrityError(f"expected an answer of {spec.chaincode_id.name}, got {action.response.status}")
        return {
            "channel": channel_header.channel_id,
            "chaincode": action.chaincode_id.name,
            "transaction_id": channel_header.tx_id,
            "time": channel_header.timestamp.seconds,
            "function": named,
            "args": question,
            "answer": dagjson.decode(action.response.payload),
        }


def _exact(kind: Any, encoded: bytes) -> Any:
    """A message that has nothing beside its own fields, each once and in order. Raises DecodeError, ValueError.

    The signed hash is over the three parts without their lengths: only so can nobody move a part's end afterwards.
    """
    message = kind.FromString(encoded)
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != encoded:
        raise ValueError(f"{kind.DESCRIPTOR.name} has another encoding than its own")
    return message


def _endorsement(value: Any) -> Endorsement:
    match value:
        case {"endorser": bytes(endorser), "signature": bytes(signature)}:
            return Endorsement(endorser, signature)
    raise IntegrityError("expected an endorsement {endorser, signature}, got something else")


def _identity(endorser: bytes) -> identities_pb2.SerializedIdentity:
    try:
        return identities_pb2.SerializedIdentity.FromString(endorser)
    except DecodeError as error:
        raise IntegrityError("an endorser is no MSP identity") from error


def _peer(identity: identities_pb2.SerializedIdentity, ca_certificate: bytes, time: int) -> x509.Certificate:
    """The certificate in an identity, which the CA (DER) made a peer's; both valid at a time."""
    msp_id, authority = identity.mspid, parse_certificate(ca_certificate)
    try:
        certificate = parse_certificate(identity.id_bytes, x509.load_pem_x509_certificate)
    except Unreadable as error:
        raise IntegrityError(f"a signer of {msp_id} has no certificate in PEM") from error
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise IntegrityError(f"a signer's certificate was not issued by the CA of {msp_id}") from error
    units = [unit.value for unit in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    if "peer" not in units:
        raise IntegrityError(f"expected a certificate of a peer of {msp_id} (OU=peer), got OU={units}")
    for each in (certificate, authority):
        first, last = int(each.not_valid_before_utc.timestamp()), int(each.not_valid_after_utc.timestamp())
        if not first <= time <= last:
            raise IntegrityError(f"a certificate of {msp_id} is valid from {first} to {last}, the answer is of {time}")
    return certificate


def _check_signature(certificate: x509.Certificate, endorsement: Endorsement, response: bytes) -> None:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IntegrityError(f"expected an EC key of a peer, got {type(key).__name__}")
    try:
        key.verify(endorsement.signature, response + endorsement.endorser, ECDSA_SHA256)
        lower = decode_dss_signature(endorsement.signature)[1] <= P256_ORDER // 2
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError("a peer's signature is not over this answer") from error
    if not lower:
        raise IntegrityError("a peer's signature has the higher of the two possible s, which no peer makes")
