"""A peer's Gateway service that does what a test tells it: endorse, take envelopes, commit, or fail as Fabric does."""

import ipaddress
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, transaction_pb2
from google.rpc import status_pb2

from orthanc_ledger.ledger.fabric.proposal import Proposal, open_envelope
from tests.fabric.peers import Peers


@dataclass(frozen=True)
class Fault(Exception):
    """A gRPC status as the Gateway gives it: details are (address, MSP ID, message)."""

    code: grpc.StatusCode
    text: str
    details: Sequence[tuple[str, str, str]] = ()


def refusal(text: str, msp_id: str = "HospitalMSP") -> Fault:
    """What the chaincode's refusal makes of an Endorse."""
    detail = ("peer:7051", msp_id, f"chaincode response 500, {text}")
    return Fault(grpc.StatusCode.ABORTED, "failed to endorse transaction, see attached details", [detail])


AWAY = Fault(
    grpc.StatusCode.UNAVAILABLE, "no orderers could successfully process transaction", [("o:7050", "", "gone")]
)

Answer = Callable[..., str]
FIRST = '[{"sequence":7,"time":1800000000,"value":null}]'
"""What a key's history begins with."""


class Chain:
    """What peers share: which transactions were ordered, and what became of them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.ordered: list[bytes] = []  # envelopes, as often as they were sent
        self.status: dict[str, int] = {}
        self.calls: dict[str, tuple[str, ...]] = {}  # by transaction id

    def commit(self, transaction_id: str, code: str | int = "VALID") -> None:
        with self.changed:
            number = code if isinstance(code, int) else transaction_pb2.TxValidationCode.Value(code)
            self.status.setdefault(transaction_id, number)
            self.changed.notify_all()

    def has(self, call: tuple[str, ...]) -> bool:
        """Whether such a call was committed."""
        valid = transaction_pb2.TxValidationCode.Value("VALID")
        return any(
            self.calls[name] == call for name, code in self.status.items() if code == valid and name in self.calls
        )


class GatewayDouble(gateway_pb2_grpc.GatewayServicer):  # type: ignore[misc]  # generated without types
    """One peer. A test replaces `endorse`, `evaluate`, `submitted`, `asked`; each may raise `Fault`."""

    def __init__(self, peers: Peers, chain: Chain) -> None:
        self.peers, self.chain = peers, chain
        self.calls: list[str] = []  # steps that were asked of this peer
        self.endorse: Answer = self._contract
        self.evaluate: Answer = lambda *call: FIRST if call[0] == "HistoryOf" else "null"
        self.submitted: Callable[[str], object] = chain.commit
        self.asked: Callable[[str], object] = lambda transaction_id: None
        self.changes: Callable[[bytes], bytes] = lambda payload: payload
        self.events: list[tuple[int, str, bytes]] = []  # block, transaction id, payload
        self.streams_ended = threading.Semaphore(0)

    def Endorse(self, request: Any, context: Any) -> Any:
        proposal = _read(request.proposed_transaction)
        answer = self._do("Endorse", context, lambda: self.endorse(*proposal.call))
        payload = self.changes(self.peers.payload(proposal, answer))
        return gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=payload))

    def Evaluate(self, request: Any, context: Any) -> Any:
        assert list(request.target_organizations) == ["HospitalMSP"]
        call = _read(request.proposed_transaction).call
        answer = self._do("Evaluate", context, lambda: self.evaluate(*call))
        return gateway_pb2.EvaluateResponse(result={"status": 200, "payload": answer.encode()})

    def Submit(self, request: Any, context: Any) -> Any:
        envelope = request.prepared_transaction.SerializeToString()
        assert open_envelope(envelope).proposal.transaction_id == request.transaction_id
        self.chain.ordered.append(envelope)
        self.chain.calls[request.transaction_id] = open_envelope(envelope).proposal.call
        self._do("Submit", context, lambda: self.submitted(request.transaction_id))
        return gateway_pb2.SubmitResponse()

    def CommitStatus(self, request: Any, context: Any) -> Any:
        name = gateway_pb2.CommitStatusRequest.FromString(request.request).transaction_id
        told = self._do("CommitStatus", context, lambda: self.asked(name))
        with self.chain.changed:
            context.add_callback(self._wake)
            self.chain.changed.wait_for(lambda: name in self.chain.status or not context.is_active())
            code = self.chain.status.get(name, 0) if told is None else told
        return gateway_pb2.CommitStatusResponse(result=code, block_number=1)

    def ChaincodeEvents(self, request: Any, context: Any) -> Iterator[Any]:
        asked = gateway_pb2.ChaincodeEventsRequest.FromString(request.request)
        self.calls.append(
            f"ChaincodeEvents {asked.start_position.specified.number} {asked.after_transaction_id}".strip()
        )
        context.add_callback(self.streams_ended.release)
        for block, transaction_id, payload in self.events:
            event = chaincode_event_pb2.ChaincodeEvent(tx_id=transaction_id, event_name="Anchor", payload=payload)
            yield gateway_pb2.ChaincodeEventsResponse(block_number=block, events=[event])
        with self.chain.changed:
            context.add_callback(self._wake)
            self.chain.changed.wait_for(lambda: not context.is_active())

    def _contract(self, *call: str) -> str:
        return '{"repeats":"key","result":null}' if self.chain.has(call) else '{"result":null,"sequence":7}'

    def _wake(self) -> None:
        with self.chain.changed:
            self.chain.changed.notify_all()

    def _do(self, step: str, context: Any, act: Callable[[], Any]) -> Any:
        self.calls.append(step)
        try:
            return act()
        except Fault as fault:
            status = status_pb2.Status(code=fault.code.value[0], message=fault.text)
            for address, msp_id, message in fault.details:
                status.details.add().Pack(gateway_pb2.ErrorDetail(address=address, msp_id=msp_id, message=message))
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(fault.code, fault.text)


class Serving:
    """A Gateway double behind TLS on a port of its own."""

    def __init__(self, double: GatewayDouble, certificate: tuple[bytes, bytes]) -> None:
        self.server = grpc.server(ThreadPoolExecutor(16))
        gateway_pb2_grpc.add_GatewayServicer_to_server(double, self.server)
        self.port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([certificate]))
        self.server.start()


def tls() -> tuple[bytes, bytes]:
    """Key and certificate of a server on 127.0.0.1; its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)


def _read(signed: Any) -> Proposal:
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    return Proposal(header.channel_header, header.signature_header, proposal.payload)
