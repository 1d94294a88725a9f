"""Proposals and envelopes: ids, signatures, and that nothing else is read from them than was signed."""

import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, transaction_pb2

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger.fabric.proposal import (
    P256_ORDER,
    Endorsed,
    Proposal,
    Signer,
    open_envelope,
    propose,
    seal,
)
from orthanc_ledger.ledger.identity import Identity
from tests.fabric.peers import OWNER, Peers

NONCE = bytes(range(24))
TIME_MS = 1_800_000_000_123


@pytest.fixture
def signer(identity: Identity) -> Signer:
    return Signer(identity)


@pytest.fixture
def proposal(signer: Signer) -> Proposal:
    return propose(signer, "custody", "contract", ("Anchor", "{}", "00"), TIME_MS, NONCE)


def test_a_proposal_says_who_calls_what_where_and_when(signer: Signer, proposal: Proposal, identity: Identity) -> None:
    header = common_pb2.ChannelHeader.FromString(proposal.channel_header)
    assert (header.type, header.channel_id) == (common_pb2.ENDORSER_TRANSACTION, "custody")
    assert (header.timestamp.seconds, header.timestamp.nanos) == (1_800_000_000, 123_000_000)
    extension = proposal_pb2.ChaincodeHeaderExtension.FromString(header.extension)
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
    spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    assert extension.chaincode_id.name == spec.chaincode_id.name == "contract"
    assert list(spec.input.args) == [b"Anchor", b"{}", b"00"]
    creator = identities_pb2.SerializedIdentity.FromString(signer.creator)
    certificate = x509.load_pem_x509_certificate(creator.id_bytes)
    assert (creator.mspid, certificate) == (OWNER, x509.load_der_x509_certificate(identity.certificate))


def test_the_transaction_id_is_the_hash_of_nonce_and_caller(signer: Signer, proposal: Proposal) -> None:
    expected = hashlib.sha256(NONCE + signer.creator).hexdigest()
    assert proposal.transaction_id == expected
    assert common_pb2.ChannelHeader.FromString(proposal.channel_header).tx_id == expected
    assert proposal.time == 1_800_000_000


def test_every_signature_has_the_lower_s(signer: Signer, identity: Identity) -> None:
    key = x509.load_der_x509_certificate(identity.certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for number in range(32):
        signature = signer.sign(bytes([number]))
        assert decode_dss_signature(signature)[1] <= P256_ORDER // 2
        key.verify(signature, bytes([number]), ec.ECDSA(hashes.SHA256()))


def test_an_envelope_holds_the_payload_and_its_signature(signer: Signer, proposal: Proposal, peers: Peers) -> None:
    payload = peers.payload(proposal, '{"result":null,"sequence":7}')
    envelope = common_pb2.Envelope.FromString(seal(signer, payload))
    assert envelope.payload == payload
    assert decode_dss_signature(envelope.signature)[1] <= P256_ORDER // 2
    opened = open_envelope(seal(signer, payload))
    assert opened.proposal == proposal
    assert opened.answer == b'{"result":null,"sequence":7}'
    assert [each.endorser for each in opened.endorsements] == [peers.owner.identity, peers.custodian.identity]


def test_an_answer_to_another_proposal_is_refused(signer: Signer, proposal: Proposal, peers: Peers) -> None:
    endorsed = Endorsed.decode(peers.payload(proposal, "null"))
    other = propose(signer, "custody", "contract", ("Anchor", "{}", "01"), TIME_MS, NONCE)
    with pytest.raises(IntegrityError, match="to another proposal"):
        _ = replace(endorsed, proposal=other).answer


@pytest.mark.parametrize("calls", [0, 2])
def test_a_transaction_has_one_call(proposal: Proposal, peers: Peers, calls: int) -> None:
    whole = common_pb2.Payload.FromString(peers.payload(proposal, "null"))
    (action,) = transaction_pb2.Transaction.FromString(whole.data).actions
    whole.data = transaction_pb2.Transaction(actions=[action] * calls).SerializeToString()
    with pytest.raises(IntegrityError, match="one call"):
        Endorsed.decode(whole.SerializeToString())


@pytest.mark.parametrize("junk", [b"\xff", b"\x0a\xff", b"no protobuf"])
def test_junk_is_refused(proposal: Proposal, junk: bytes) -> None:
    with pytest.raises(IntegrityError, match="expected"):
        open_envelope(junk)
    with pytest.raises(IntegrityError, match="expected"):
        Endorsed.decode(junk)
    with pytest.raises(IntegrityError, match="none that can be read"):
        _ = Endorsed(proposal, junk, ()).answer
