"""Organisations with a peer each, which endorse what they are told to: what a Gateway hands back, without Fabric."""

import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

from orthanc_ledger.ledger.fabric.proposal import P256_ORDER, Endorsement, Proposal
from orthanc_ledger.ledger.identity import create_organisation, read_certificate

OWNER, CUSTODIAN = "HospitalMSP", "CustodianMSP"
DAY = 86_400


class Peer:
    """A peer of an organisation, with a certificate of its CA."""

    def __init__(self, organisation: Path, msp_id: str, now: int, unit: str = "peer", days: int = 365) -> None:
        ca = read_certificate(organisation / "cacerts" / "ca.pem")
        ca_key = load_pem_private_key((organisation / "keystore" / "key.pem").read_bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        self._key = ec.generate_private_key(ec.SECP256R1())
        begin = datetime.fromtimestamp(now, UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name(
                    [
                        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                        x509.NameAttribute(NameOID.COMMON_NAME, "peer0"),
                    ]
                )
            )
            .issuer_name(ca.subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=days))
            .sign(ca_key, hashes.SHA256())
        )
        pem = self.certificate.public_bytes(Encoding.PEM)
        self.identity: bytes = identities_pb2.SerializedIdentity(mspid=msp_id, id_bytes=pem).SerializeToString()

    def endorse(self, response: bytes, higher: bool = False) -> Endorsement:
        """Sign a proposal response; with the higher s, as no peer does."""
        r, s = decode_dss_signature(self._key.sign(response + self.identity, ec.ECDSA(hashes.SHA256())))
        low = min(s, P256_ORDER - s)
        return Endorsement(self.identity, encode_dss_signature(r, P256_ORDER - low if higher else low))


class Peers:
    """A peer of the owner and one of the custodian."""

    def __init__(self, folder: Path, now: int) -> None:
        self.folder, self.now = folder, now
        for msp_id in (OWNER, CUSTODIAN):
            create_organisation(folder / msp_id, msp_id, lambda: now)
        self.owner, self.custodian = (Peer(folder / msp_id, msp_id, now) for msp_id in (OWNER, CUSTODIAN))
        self.authorities = {
            msp_id: read_certificate(folder / msp_id / "cacerts" / "ca.pem").public_bytes(Encoding.DER)
            for msp_id in (OWNER, CUSTODIAN)
        }

    def payload(self, proposal: Proposal, answer: str) -> bytes:
        """The endorsed transaction of a proposal (common.Payload)."""
        response = response_to(proposal, answer)
        return payload_of(proposal, response, [peer.endorse(response) for peer in (self.owner, self.custodian)])


def response_to(proposal: Proposal, answer: str, status: int = 200, chaincode: str = "custody") -> bytes:
    """A proposal response (peer.ProposalResponsePayload)."""
    action = proposal_pb2.ChaincodeAction(
        response=proposal_response_pb2.Response(status=status, payload=answer.encode()),
        chaincode_id=chaincode_pb2.ChaincodeID(name=chaincode, version="1"),
    )
    digest = hashlib.sha256(proposal.channel_header + proposal.signature_header + proposal.payload).digest()
    encoded: bytes = proposal_response_pb2.ProposalResponsePayload(
        proposal_hash=digest, extension=action.SerializeToString()
    ).SerializeToString()
    return encoded


def with_ends_moved(proposal: Proposal) -> tuple[Proposal, Proposal]:
    """A proposal as an attacker has it signed, and one of the same digest that names another channel and time: the
    digest is over the parts without their lengths, and peers ignore fields that they do not know.
    """
    other = common_pb2.ChannelHeader(channel_id="another", tx_id=hashlib.sha256(b"").hexdigest())
    other.timestamp.seconds = proposal.time + DAY
    asked = replace(proposal, signature_header=proposal.signature_header + other.SerializeToString())
    moved = replace(asked, channel_header=asked.channel_header + asked.signature_header, signature_header=b"")
    assert moved.digest == asked.digest
    return asked, moved


def payload_of(proposal: Proposal, response: bytes, endorsements: Sequence[Endorsement]) -> bytes:
    """An endorsed transaction as the Gateway assembles it."""
    action = transaction_pb2.ChaincodeActionPayload(
        chaincode_proposal_payload=proposal.payload,
        action=transaction_pb2.ChaincodeEndorsedAction(
            proposal_response_payload=response,
            endorsements=[
                proposal_response_pb2.Endorsement(endorser=each.endorser, signature=each.signature)
                for each in endorsements
            ],
        ),
    )
    call = transaction_pb2.TransactionAction(header=proposal.signature_header, payload=action.SerializeToString())
    header = common_pb2.Header(channel_header=proposal.channel_header, signature_header=proposal.signature_header)
    data = transaction_pb2.Transaction(actions=[call]).SerializeToString()
    encoded: bytes = common_pb2.Payload(header=header, data=data).SerializeToString()
    return encoded


def pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)
