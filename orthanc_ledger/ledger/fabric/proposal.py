"""A call as Fabric has it: proposal, transaction id, endorsed transaction, signed envelope.

The messages are those of fabric-protos (common.Envelope, peer.Proposal, peer.Transaction). What stands here are their
bytes as signed: nothing signed is ever encoded again.
"""

import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger.identity import Identity

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of its group: SEC 2, 2.4.2


class Signer:
    """An identity as it signs on Fabric."""

    def __init__(self, identity: Identity) -> None:
        self.msp_id = identity.msp_id
        pem = ssl.DER_cert_to_PEM_cert(identity.certificate).encode()
        self.creator: bytes = identities_pb2.SerializedIdentity(mspid=self.msp_id, id_bytes=pem).SerializeToString()
        self._identity = identity

    def sign(self, message: bytes) -> bytes:
        """An ECDSA-SHA256 signature, DER, with the lower of the two possible s: Fabric's MSP refuses the other."""
        r, s = decode_dss_signature(self._identity.sign(message))
        return encode_dss_signature(r, min(s, P256_ORDER - s))


@dataclass(frozen=True)
class Proposal:
    """A call of a chaincode's function, ready to be signed."""

    channel_header: bytes  # common.ChannelHeader: channel, transaction id, time, chaincode
    signature_header: bytes  # common.SignatureHeader: who calls, and a nonce
    payload: bytes  # peer.ChaincodeProposalPayload: function and arguments

    @property
    def digest(self) -> bytes:
        """SHA-256 by which a proposal response names its proposal."""
        return hashlib.sha256(self.channel_header + self.signature_header + self.payload).digest()

    @cached_property
    def transaction_id(self) -> str:
        """64 hex digits: SHA-256 of nonce and caller."""
        header = common_pb2.SignatureHeader.FromString(self.signature_header)
        return hashlib.sha256(header.nonce + header.creator).hexdigest()

    @cached_property
    def time(self) -> int:
        """The contract's time: UTC seconds."""
        seconds: int = common_pb2.ChannelHeader.FromString(self.channel_header).timestamp.seconds
        return seconds

    @cached_property
    def call(self) -> tuple[str, ...]:
        """The function and its arguments."""
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(self.payload)
        spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
        return tuple(each.decode() for each in spec.input.args)

    def encode(self) -> bytes:
        """A peer.Proposal: what the caller signs."""
        header = common_pb2.Header(channel_header=self.channel_header, signature_header=self.signature_header)
        message = proposal_pb2.Proposal(header=header.SerializeToString(), payload=self.payload)
        encoded: bytes = message.SerializeToString()
        return encoded


@dataclass(frozen=True)
class Endorsement:
    """A peer's signature over a proposal response and its own identity."""

    endorser: bytes  # msp.SerializedIdentity
    signature: bytes  # DER


@dataclass(frozen=True)
class Endorsed:
    """A proposal with the response that its endorsers signed, as the Gateway hands it back (common.Payload)."""

    proposal: Proposal
    response: bytes  # peer.ProposalResponsePayload
    endorsements: tuple[Endorsement, ...]

    @property
    def answer(self) -> bytes:
        """What the chaincode function returned. Raises IntegrityError when the response cannot be read."""
        answer: bytes = self.action.response.payload
        return answer

    @cached_property
    def action(self) -> proposal_pb2.ChaincodeAction:
        """What the chaincode did, by the response's own word. Raises IntegrityError as `answer`."""
        try:
            response = proposal_response_pb2.ProposalResponsePayload.FromString(self.response)
            action = proposal_pb2.ChaincodeAction.FromString(response.extension)
        except DecodeError as error:
            raise IntegrityError("the proposal response is none that can be read") from error
        if response.proposal_hash != self.proposal.digest:
            raise IntegrityError("the proposal response is one to another proposal")
        return action

    @classmethod
    def decode(cls, payload: bytes) -> "Endorsed":
        """Raises IntegrityError when the bytes are no transaction with one call."""
        try:
            whole = common_pb2.Payload.FromString(payload)
            (call,) = transaction_pb2.Transaction.FromString(whole.data).actions
            action = transaction_pb2.ChaincodeActionPayload.FromString(call.payload)
        except (DecodeError, ValueError) as error:
            raise IntegrityError("expected an endorsed transaction with one call, got something else") from error
        return cls(
            Proposal(whole.header.channel_header, whole.header.signature_header, action.chaincode_proposal_payload),
            action.action.proposal_response_payload,
            tuple(Endorsement(each.endorser, each.signature) for each in action.action.endorsements),
        )


def propose(signer: Signer, channel: str, chaincode: str, call: Sequence[str], time_ms: int, nonce: bytes) -> Proposal:
    """A proposal of `call` (the function and its arguments) at a time in milliseconds since 1970.

    `nonce`: 24 random bytes; together with who calls, they are the transaction's id.
    """
    name = chaincode_pb2.ChaincodeID(name=chaincode)
    channel_header = common_pb2.ChannelHeader(
        type=common_pb2.ENDORSER_TRANSACTION,
        channel_id=channel,
        tx_id=hashlib.sha256(nonce + signer.creator).hexdigest(),
        extension=proposal_pb2.ChaincodeHeaderExtension(chaincode_id=name).SerializeToString(),
    )
    channel_header.timestamp.seconds, milliseconds = divmod(time_ms, 1000)
    channel_header.timestamp.nanos = milliseconds * 1_000_000
    arguments = chaincode_pb2.ChaincodeInput(args=[text.encode() for text in call])
    spec = chaincode_pb2.ChaincodeSpec(type=chaincode_pb2.ChaincodeSpec.GOLANG, chaincode_id=name, input=arguments)
    invocation = chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=spec).SerializeToString()
    return Proposal(
        channel_header.SerializeToString(),
        common_pb2.SignatureHeader(creator=signer.creator, nonce=nonce).SerializeToString(),
        proposal_pb2.ChaincodeProposalPayload(input=invocation).SerializeToString(),
    )


def seal(signer: Signer, payload: bytes) -> bytes:
    """The signed envelope (common.Envelope) of an endorsed transaction's payload: what is ordered."""
    envelope: bytes = common_pb2.Envelope(payload=payload, signature=signer.sign(payload)).SerializeToString()
    return envelope


def open_envelope(envelope: bytes) -> Endorsed:
    """What an envelope has sealed. Raises IntegrityError."""
    try:
        payload = common_pb2.Envelope.FromString(envelope).payload
    except DecodeError as error:
        raise IntegrityError("expected a signed envelope, got something else") from error
    return Endorsed.decode(payload)
