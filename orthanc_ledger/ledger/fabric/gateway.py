"""The Gateway service of one's own peers (fabric-protos gateway.proto): every request has a deadline."""

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import proposal_pb2, transaction_pb2

from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger.fabric.connection import Connection, OwnPeer
from orthanc_ledger.ledger.fabric.faults import OwnPeerAway, fault_of
from orthanc_ledger.ledger.fabric.proposal import Proposal, Signer

_MOST_BYTES = 100 << 20  # of a message, as Fabric's own default
_BACKOFF_MS = 1000  # gRPC's own would leave a peer that is back alone for two minutes
_CONNECT_MS = 5000  # for one try, with TLS, of a busy peer or a far one
_KEEPALIVE_MS = 120_000  # peers refuse to be asked more often than once a minute

_OPTIONS = (
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", _MOST_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", _BACKOFF_MS),
    ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),  # its name means the pause, in gRPC's core it is this
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.enable_http_proxy", 0),  # or `http_proxy` would be asked, for 127.0.0.1, too
)


class Gateway:
    """Requests to a channel through whichever own peer answers. For several threads.

    Each peer gets an equal share of a request's deadline; one that could not do it is asked last the next time.
    Connections are made at the first request: a process that forks must not have made any.

    Every request raises ContractError when the chaincode refuses, or the peers do not take the identity (NOT_PERMITTED
    `certificate`) or the time (SKEW `time`); LedgerAway, with the peers' words, when nobody could do it in time.
    """

    def __init__(self, connection: Connection, signer: Signer) -> None:
        self._connection, self._signer = connection, signer
        self._places = threading.BoundedSemaphore(connection.in_flight)
        self._lock = threading.Lock()
        self._connected: dict[OwnPeer, tuple[grpc.Channel, Any]] = {}  # with the stub of its Gateway
        self._first = 0

    def endorse(self, proposal: Proposal, timeout_s: float) -> bytes:
        """Have a proposal endorsed; the endorsed transaction's payload, to be signed (common.Payload)."""
        request = gateway_pb2.EndorseRequest(
            transaction_id=proposal.transaction_id,
            channel_id=self._connection.channel,
            proposed_transaction=self._signed(proposal),
        )
        payload: bytes = self._call("Endorse", request, timeout_s).prepared_transaction.payload
        return payload

    def submit(self, transaction_id: str, envelope: bytes, timeout_s: float) -> None:
        """Send an envelope for ordering; when it comes back, an orderer has it. Raises also NeverOrdered."""
        request = gateway_pb2.SubmitRequest(
            transaction_id=transaction_id,
            channel_id=self._connection.channel,
            prepared_transaction=common_pb2.Envelope.FromString(envelope),
        )
        self._call("Submit", request, timeout_s)

    def commit_status(self, transaction_id: str, timeout_s: float) -> str:
        """Wait for a transaction's commit; the name of its peer.TxValidationCode, `VALID` when it counts."""
        request = gateway_pb2.CommitStatusRequest(
            transaction_id=transaction_id, channel_id=self._connection.channel, identity=self._signer.creator
        ).SerializeToString()
        signed = gateway_pb2.SignedCommitStatusRequest(request=request, signature=self._signer.sign(request))
        code: int = self._call("CommitStatus", signed, timeout_s).result
        known = transaction_pb2.TxValidationCode.DESCRIPTOR.values_by_number
        return str(known[code].name if code in known else code)

    def evaluate(self, proposal: Proposal, timeout_s: float) -> bytes:
        """What a chaincode function answers on an own peer: another organisation's word is not asked for."""
        request = gateway_pb2.EvaluateRequest(
            transaction_id=proposal.transaction_id,
            channel_id=self._connection.channel,
            proposed_transaction=self._signed(proposal),
            target_organizations=[self._signer.msp_id],
        )
        answer: bytes = self._call("Evaluate", request, timeout_s).result.payload
        return answer

    def chaincode_events(self, block: int, after: str) -> Generator[Any, None, None]:
        """The chaincode's events from a block on, behind a transaction of it ("": from its first), as they come.

        Gives gateway.ChaincodeEventsResponse, a block each. Ends by raising LedgerAway.
        """
        request = gateway_pb2.ChaincodeEventsRequest(
            channel_id=self._connection.channel,
            chaincode_id=self._connection.chaincode,
            identity=self._signer.creator,
            start_position=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=block)),
            after_transaction_id=after,
        ).SerializeToString()
        signed = gateway_pb2.SignedChaincodeEventsRequest(request=request, signature=self._signer.sign(request))
        peer, *others = self._in_order()
        stream = self._stub(peer).ChaincodeEvents(signed)
        try:
            yield from stream
        except grpc.RpcError as error:
            self._prefer(others[0] if others else peer)
            raise fault_of("ChaincodeEvents", self._signer.msp_id, peer.endpoint, error) from error
        finally:
            stream.cancel()

    def close(self) -> None:
        """End the connections, and what still waits for them; a later request makes new ones."""
        with self._lock:
            connected, self._connected = self._connected, {}
        for channel, _ in connected.values():
            channel.close()

    def _signed(self, proposal: Proposal) -> Any:
        encoded = proposal.encode()
        return proposal_pb2.SignedProposal(proposal_bytes=encoded, signature=self._signer.sign(encoded))

    def _call(self, step: str, request: Any, timeout_s: float) -> Any:
        end = time.monotonic() + timeout_s
        with self._place(step, timeout_s):
            peers, away = self._in_order(), []
            for turn, peer in enumerate(peers):
                share_s = (end - time.monotonic()) / (len(peers) - turn)
                try:
                    answer = getattr(self._stub(peer), step)(request, timeout=max(share_s, 0.0))
                except grpc.RpcError as error:
                    fault = fault_of(step, self._signer.msp_id, peer.endpoint, error)
                    if isinstance(fault, LedgerAway):
                        self._prefer(peers[(turn + 1) % len(peers)])
                    if not isinstance(fault, OwnPeerAway):  # others' words: an own peer more would hear the same
                        raise fault from error
                    away.append(fault)
                else:
                    return answer
        raise LedgerAway("; ".join(map(str, away))) from away[-1]

    @contextmanager
    def _place(self, step: str, timeout_s: float) -> Iterator[None]:
        if not self._places.acquire(timeout=timeout_s):
            raise LedgerAway(f"{step}: {self._connection.in_flight} requests were in flight all the time (`in_flight`)")
        try:
            yield
        finally:
            self._places.release()

    def _in_order(self) -> list[OwnPeer]:
        peers = list(self._connection.peers)
        return peers[self._first :] + peers[: self._first]

    def _prefer(self, peer: OwnPeer) -> None:
        self._first = self._connection.peers.index(peer)

    def _stub(self, peer: OwnPeer) -> Any:
        with self._lock:
            if peer not in self._connected:
                name = [("grpc.ssl_target_name_override", peer.server_name)] if peer.server_name else []
                credentials = grpc.ssl_channel_credentials(peer.tls_ca)
                channel = grpc.secure_channel(peer.endpoint, credentials, options=[*_OPTIONS, *name])
                self._connected[peer] = channel, gateway_pb2_grpc.GatewayStub(channel)
            return self._connected[peer][1]
