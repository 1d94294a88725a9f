"""What any member's client may have ordered, unendorsed: it is invalid, and stops nobody (`consortium/mends.py`)."""

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from orthanc_ledger.consortium import files
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import CHAINCODE, CHANNEL, LOOPBACK, Peer
from orthanc_ledger.consortium.trial import identity_of, trial_policy
from orthanc_ledger.errors import ServiceAway
from orthanc_ledger.ledger.fabric.connection import read_connection
from orthanc_ledger.ledger.fabric.gateway import Gateway
from orthanc_ledger.ledger.fabric.proposal import Proposal, Signer, propose, seal
from orthanc_ledger.ledger.identity import load_identity
from tests.consortium.live import anchor, ledger_of

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

WAIT_S = 30.0


def without_action(proposal: Proposal) -> transaction_pb2.ChaincodeActionPayload:
    """Neither a response nor endorsements."""
    return transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=proposal.payload)


def into_no_collection(proposal: Proposal) -> transaction_pb2.ChaincodeActionPayload:
    """A private write to a collection that nobody defined, under a response of the client's own making."""
    write = kv_rwset_pb2.KVWriteHash(key_hash=bytes(32), value_hash=bytes(32))
    collection = rwset_pb2.CollectionHashedReadWriteSet(
        collection_name="nobody-s", hashed_rwset=kv_rwset_pb2.HashedRWSet(hashed_writes=[write]).SerializeToString()
    )
    changes = rwset_pb2.NsReadWriteSet(namespace=CHAINCODE, collection_hashed_rwset=[collection])
    action = proposal_pb2.ChaincodeAction(
        results=rwset_pb2.TxReadWriteSet(ns_rwset=[changes]).SerializeToString(),
        response=proposal_response_pb2.Response(status=200),
    )
    action.chaincode_id.name, action.chaincode_id.version = CHAINCODE, "1.0"
    response = proposal_response_pb2.ProposalResponsePayload(
        proposal_hash=proposal.digest, extension=action.SerializeToString()
    )
    return transaction_pb2.ChaincodeActionPayload(
        chaincode_proposal_payload=proposal.payload,
        action=transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=response.SerializeToString()),
    )


@pytest.mark.parametrize(
    ("poison", "verdict"),
    [
        (without_action, "INVALID_ENDORSER_TRANSACTION"),
        (into_no_collection, "ENDORSEMENT_POLICY_FAILURE"),
    ],
)
def test_a_member_s_poisoned_envelope_is_invalid_and_every_peer_goes_on_restarted_too(
    network: Network,
    wait_until: Callable[..., None],
    poison: Callable[[Proposal], transaction_pb2.ChaincodeActionPayload],
    verdict: str,
) -> None:
    peers = network.topology.peers
    pids = [network.processes.pid(peer.name) for peer in peers]
    assert ordered_by_research(network, poison) == verdict
    with ledger_of(network, "hospital") as hospital:
        hospital.submit("Anchor", anchor(f"after {verdict}"))
        wait_until(lambda: len({height(peer) for peer in peers}) == 1, WAIT_S, "every peer has every block")
        assert [network.processes.pid(peer.name) for peer in peers] == pids
        for peer in peers:
            network.kill(peer.name)
        for peer in peers:
            network.start(peer.name)
        hospital.submit("Anchor", anchor(f"restarted after {verdict}"))
    wait_until(lambda: len({height(peer) for peer in peers}) == 1, WAIT_S, "every peer has every block again")


def test_the_largest_call_of_the_contract_commits_and_no_larger_envelope_is_ordered(network: Network) -> None:
    policy = trial_policy(network.topology)
    research = [f"{number:064}" for number in range(256 - len(network.topology.organisations))]
    organisations = policy["organisations"] | dict.fromkeys(research, "research")
    certificates = {each.ljust(64, "-"): secrets.token_bytes(4096) for each in organisations}
    largest = {**policy, "organisations": organisations, "certificates": certificates}
    with ledger_of(network, "hospital") as hospital, ledger_of(network, "custodian") as custodian:
        proposed = hospital.submit("ProposePolicy", {"policy": largest}).result
        custodian.submit("ConfirmPolicy", proposed)
    with pytest.raises(ServiceAway, match="exceeds maximum allowed"):
        ordered_by_research(network, too_large)


def too_large(_: Proposal) -> transaction_pb2.ChaincodeActionPayload:
    return transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=bytes(6 << 20))


def test_no_server_reads_a_message_that_is_larger_than_any_envelope(network: Network) -> None:
    topology, places = network.topology, files.places(network.directory)
    peers = [(peer, places.peer(topology.organisation(peer.name), peer)) for peer in topology.peers]
    for server, keys in [*peers, *((each, places.orderer(each)) for each in topology.orderers)]:
        credentials = grpc.ssl_channel_credentials(Path(keys, "tls", "ca.crt").read_bytes())
        with grpc.secure_channel(f"{LOOPBACK}:{server.port}", credentials, [("grpc.enable_http_proxy", 0)]) as channel:
            service = "orderer.AtomicBroadcast" if server in topology.orderers else "protos.Deliver"
            answers = channel.stream_stream(f"/{service}/Deliver")(iter([bytes(8 << 20)]), timeout=WAIT_S)
            with pytest.raises(grpc.RpcError) as refused:
                next(answers)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def ordered_by_research(network: Network, act: Callable[[Proposal], transaction_pb2.ChaincodeActionPayload]) -> str:
    """What becomes of an action that a person of the research organisation has ordered through its own peer."""
    signer = Signer(load_identity(identity_of(network, "research", "person")))
    call = ("GetPolicy", "{}")
    proposal = propose(signer, CHANNEL, CHAINCODE, call, int(time.time() * 1000), secrets.token_bytes(24))
    action = transaction_pb2.TransactionAction(
        header=proposal.signature_header, payload=act(proposal).SerializeToString()
    )
    payload = common_pb2.Payload(
        header=common_pb2.Header(channel_header=proposal.channel_header, signature_header=proposal.signature_header),
        data=transaction_pb2.Transaction(actions=[action]).SerializeToString(),
    )
    gateway = Gateway(read_connection(network.connection("research")), signer)
    try:
        gateway.submit(proposal.transaction_id, seal(signer, payload.SerializeToString()), WAIT_S)
        return gateway.commit_status(proposal.transaction_id, WAIT_S)
    finally:
        gateway.close()


def height(peer: Peer) -> str:
    """How many blocks a peer has, by its metrics."""
    with urlopen(f"http://{LOOPBACK}:{peer.operations_port}/metrics", timeout=WAIT_S) as answer:
        found = re.search(rf'^ledger_blockchain_height{{channel="{CHANNEL}"}} (\S+)', answer.read().decode(), re.M)
    assert found is not None
    return found[1]
