"""What any member may have ordered, unendorsed by others: it is invalid, and stops nobody (`consortium/mends.py`)."""

import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from orthanc_ledger.consortium import files
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import CHAINCODE, CHANNEL, LOOPBACK, Peer, Settings, trial
from orthanc_ledger.consortium.trial import identity_of, trial_policy
from orthanc_ledger.errors import ServiceAway
from orthanc_ledger.ledger.fabric.connection import read_connection
from orthanc_ledger.ledger.fabric.gateway import Gateway
from orthanc_ledger.ledger.fabric.proposal import Proposal, Signer, propose, seal
from orthanc_ledger.ledger.identity import Identity, load_identity
from tests.consortium.live import WITHOUT_KEEPER, anchor, ledger_of, running

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

WAIT_S = 30.0
HASH = bytes(32)
OWN = "_implicit_org_ResearchMSP"

Endorse = Callable[[bytes], proposal_response_pb2.Endorsement]
Poison = Callable[[Proposal, Endorse], transaction_pb2.Transaction]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Network]:
    """What is ordered one after the other is in one block."""
    settings = Settings(batch_timeout_ms=500)
    with running(tmp_path_factory.mktemp("network"), trial().with_ports(free_port), settings) as started:
        yield started


def without_actions(_: Proposal, __: Endorse) -> transaction_pb2.Transaction:
    return transaction_pb2.Transaction()


def without_response(proposal: Proposal, _: Endorse) -> transaction_pb2.Transaction:
    return calling(proposal, transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=proposal.payload))


def unreadable(proposal: Proposal, _: Endorse) -> transaction_pb2.Transaction:
    action = transaction_pb2.TransactionAction(header=proposal.signature_header, payload=b"\xff")
    return transaction_pb2.Transaction(actions=[action])


def a_write(proposal: Proposal, _: Endorse) -> transaction_pb2.Transaction:
    write = kv_rwset_pb2.KVWrite(key="policy", value=b"x")
    return with_results(proposal, kv_rwset_pb2.KVRWSet(writes=[write]))


def a_parameter_under_another_hash(proposal: Proposal, _: Endorse) -> transaction_pb2.Transaction:
    """A key's validation parameter, by a response to another proposal: refused before endorsements are looked at."""
    entry = kv_rwset_pb2.KVMetadataEntry(name="VALIDATION_PARAMETER", value=b"x")
    write = kv_rwset_pb2.KVMetadataWrite(key="policy", entries=[entry])
    return with_results(proposal, kv_rwset_pb2.KVRWSet(metadata_writes=[write]), digest=HASH)


def into_no_collection(proposal: Proposal, _: Endorse) -> transaction_pb2.Transaction:
    write = kv_rwset_pb2.KVWriteHash(key_hash=HASH, value_hash=HASH)
    return with_results(proposal, private=("nobody-s", kv_rwset_pb2.HashedRWSet(hashed_writes=[write])))


def into_its_own(proposal: Proposal, _: Endorse) -> transaction_pb2.Transaction:
    write = kv_rwset_pb2.KVWriteHash(key_hash=HASH, value_hash=HASH)
    return with_results(proposal, private=(OWN, kv_rwset_pb2.HashedRWSet(hashed_writes=[write])))


def an_unreadable_parameter_in_its_own(proposal: Proposal, endorse: Endorse) -> transaction_pb2.Transaction:
    """Endorsed by the organisation's own peer, which is enough for what is private to it."""
    entry = kv_rwset_pb2.KVMetadataEntry(name="VALIDATION_PARAMETER", value=b"x")
    write = kv_rwset_pb2.KVMetadataWriteHash(key_hash=HASH, entries=[entry])
    first = kv_rwset_pb2.KVWriteHash(key_hash=HASH, value_hash=HASH)
    hashed = kv_rwset_pb2.HashedRWSet(hashed_writes=[first], metadata_writes=[write])
    return with_results(proposal, private=(OWN, hashed), endorse=endorse)


def with_results(
    proposal: Proposal,
    public: kv_rwset_pb2.KVRWSet | None = None,
    private: tuple[str, kv_rwset_pb2.HashedRWSet] | None = None,
    digest: bytes | None = None,
    endorse: Endorse | None = None,
) -> transaction_pb2.Transaction:
    """A transaction with a response of the client's own making."""
    changes = rwset_pb2.NsReadWriteSet(namespace=CHAINCODE, rwset=public.SerializeToString() if public else b"")
    if private:
        changes.collection_hashed_rwset.add(collection_name=private[0], hashed_rwset=private[1].SerializeToString())
    action = proposal_pb2.ChaincodeAction(
        results=rwset_pb2.TxReadWriteSet(ns_rwset=[changes]).SerializeToString(),
        response=proposal_response_pb2.Response(status=200),
    )
    action.chaincode_id.name, action.chaincode_id.version = CHAINCODE, "1.0"
    response = proposal_response_pb2.ProposalResponsePayload(
        proposal_hash=digest or proposal.digest, extension=action.SerializeToString()
    ).SerializeToString()
    endorsed = transaction_pb2.ChaincodeEndorsedAction(
        proposal_response_payload=response, endorsements=[endorse(response)] if endorse else []
    )
    return calling(
        proposal,
        transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=proposal.payload, action=endorsed),
    )


def calling(proposal: Proposal, payload: transaction_pb2.ChaincodeActionPayload) -> transaction_pb2.Transaction:
    action = transaction_pb2.TransactionAction(header=proposal.signature_header, payload=payload.SerializeToString())
    return transaction_pb2.Transaction(actions=[action])


FORM, POLICY = "INVALID_ENDORSER_TRANSACTION", "ENDORSEMENT_POLICY_FAILURE"


@pytest.mark.parametrize(
    ("blocks", "verdicts"),
    [
        ([[without_response]], [FORM]),
        ([[into_no_collection]], [POLICY]),
        ([[without_actions, a_write]], [FORM, POLICY]),
        ([[without_response, a_write]], [FORM, POLICY]),
        ([[unreadable, a_write]], [FORM, POLICY]),
        ([[a_parameter_under_another_hash, a_write]], [FORM, POLICY]),
        ([[an_unreadable_parameter_in_its_own], [into_its_own]], ["VALID", POLICY]),
    ],
    ids=[
        "no response",
        "no collection",
        "no actions first",
        "no response first",
        "unreadable first",
        "form",
        "parameter",
    ],
)
def test_what_research_orders_alone_stops_no_peer_at_once_or_restarted(
    network: Network, wait_until: Callable[..., None], blocks: list[list[Poison]], verdicts: list[str]
) -> None:
    peers = network.topology.peers
    pids = [network.processes.pid(peer.name) for peer in peers]
    assert [verdict for block in blocks for verdict in ordered_by_research(network, block)] == verdicts
    with ledger_of(network, "hospital") as hospital:
        hospital.submit("Anchor", anchor(secrets.token_hex()))
        wait_until(lambda: len({height(peer) for peer in peers}) == 1, WAIT_S, "every peer has every block")
        assert [network.processes.pid(peer.name) for peer in peers] == pids
        for peer in peers:
            network.kill(peer.name)
        for peer in peers:
            network.start(peer.name)
        hospital.submit("Anchor", anchor(secrets.token_hex()))
    wait_until(lambda: len({height(peer) for peer in peers}) == 1, WAIT_S, "every peer has every block again")


def test_the_largest_call_of_the_contract_commits_and_no_larger_envelope_is_ordered(network: Network) -> None:
    policy = trial_policy(network.topology, WITHOUT_KEEPER)
    research = [f"{number:064}" for number in range(256 - len(network.topology.organisations))]
    organisations = policy["organisations"] | dict.fromkeys(research, "research")
    certificates = {each.ljust(64, "-"): secrets.token_bytes(4096) for each in organisations}
    largest = {**policy, "organisations": organisations, "certificates": certificates}
    with ledger_of(network, "hospital") as hospital, ledger_of(network, "custodian") as custodian:
        proposed = hospital.submit("ProposePolicy", {"policy": largest}).result
        custodian.submit("ConfirmPolicy", proposed)
    with pytest.raises(ServiceAway, match="exceeds maximum allowed"):
        ordered_by_research(network, [too_large])


def too_large(proposal: Proposal, _: Endorse) -> transaction_pb2.Transaction:
    return calling(proposal, transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=bytes(6 << 20)))


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


def ordered_by_research(network: Network, block: list[Poison]) -> list[str]:
    """What becomes of transactions that a person of the research organisation has ordered, through its own peer."""
    signer = Signer(load_identity(identity_of(network, "research", "person")))
    gateway = Gateway(read_connection(network.connection("research")), signer)
    proposals = [new_proposal(signer) for _ in block]
    try:
        for proposal, poison in zip(proposals, block, strict=True):
            payload = common_pb2.Payload(
                header=common_pb2.Header(
                    channel_header=proposal.channel_header, signature_header=proposal.signature_header
                ),
                data=poison(proposal, endorser(network)).SerializeToString(),
            )
            gateway.submit(proposal.transaction_id, seal(signer, payload.SerializeToString()), WAIT_S)
        return [gateway.commit_status(proposal.transaction_id, WAIT_S) for proposal in proposals]
    finally:
        gateway.close()


def new_proposal(signer: Signer) -> Proposal:
    now_ms = int(time.time() * 1000)
    return propose(signer, CHANNEL, CHAINCODE, ("GetPolicy", "{}"), now_ms, secrets.token_bytes(24))


def endorser(network: Network) -> Endorse:
    """The research organisation's peer, made to endorse whatever there is."""
    organisation = network.topology.organisation("research")
    msp = Path(files.places(network.directory).peer(organisation, organisation.peers[0])) / "msp"
    (certificate,), (key_file,) = ((msp / name).iterdir() for name in ("signcerts", "keystore"))
    key = load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signer = Signer(Identity(organisation.msp_id, ssl.PEM_cert_to_DER_cert(certificate.read_text()), key))

    def endorse(response: bytes) -> proposal_response_pb2.Endorsement:
        signature = signer.sign(response + signer.creator)
        return proposal_response_pb2.Endorsement(endorser=signer.creator, signature=signature)

    return endorse


def height(peer: Peer) -> str:
    """How many blocks a peer has, by its metrics."""
    with urlopen(f"http://{LOOPBACK}:{peer.operations_port}/metrics", timeout=WAIT_S) as answer:
        found = re.search(rf'^ledger_blockchain_height{{channel="{CHANNEL}"}} (\S+)', answer.read().decode(), re.M)
    assert found is not None
    return found[1]
