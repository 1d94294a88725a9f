"""Evidence: what two peers signed is believed, and nothing else."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from fabric_protos.msp import identities_pb2

from orthanc_ledger.content import cbor
from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger.fabric import dagjson
from orthanc_ledger.ledger.fabric.evidence import Evidence
from orthanc_ledger.ledger.fabric.proposal import Endorsed, Endorsement, Proposal, Signer, propose
from orthanc_ledger.ledger.identity import Identity, create_organisation, serial_of
from tests.fabric.peers import CUSTODIAN, DAY, OWNER, Peer, Peers, payload_of, response_to, with_ends_moved

ARGS, ANCHOR = {"manifestCid": "bafy"}, {"manifestCid": "bafy", "root": b"r" * 32, "count": 3}


@pytest.fixture
def proposal(identity: Identity, peers: Peers) -> Proposal:
    call = ("GetAnchor", dagjson.encode(ARGS))
    return propose(Signer(identity), "custody", "custody", call, peers.now * 1000, bytes(24))


@pytest.fixture
def evidence(proposal: Proposal, peers: Peers) -> Evidence:
    return Evidence(Endorsed.decode(peers.payload(proposal, dagjson.encode(ANCHOR))))


def signed(proposal: Proposal, *signers: Peer, response: bytes | None = None, higher: bool = False) -> Evidence:
    response = response or response_to(proposal, dagjson.encode(ANCHOR))
    endorsements = [signer.endorse(response, higher) for signer in signers]
    return Evidence(Endorsed.decode(payload_of(proposal, response, endorsements)))


def test_it_says_what_both_peers_signed(evidence: Evidence, proposal: Proposal, peers: Peers) -> None:
    statement = Evidence.decode(evidence.encode()).verify(peers.authorities)
    assert (statement.channel, statement.chaincode, statement.time) == ("custody", "custody", peers.now)
    assert (statement.function, statement.args, statement.answer) == ("GetAnchor", ARGS, ANCHOR)
    assert statement.transaction_id == proposal.transaction_id
    assert statement.endorsers == {
        OWNER: serial_of(peers.owner.certificate),
        CUSTODIAN: serial_of(peers.custodian.certificate),
    }


def test_every_changed_byte_is_refused(evidence: Evidence, peers: Peers) -> None:
    encoded = evidence.encode()
    for at in range(len(encoded)):
        changed = bytearray(encoded)
        changed[at] ^= 1 << at % 8
        with pytest.raises(IntegrityError):
            Evidence.decode(bytes(changed)).verify(peers.authorities)


def test_a_part_s_end_cannot_be_moved_so_that_the_same_signatures_name_another_channel(
    proposal: Proposal, peers: Peers
) -> None:
    asked, moved = with_ends_moved(proposal)
    response = response_to(asked, dagjson.encode(ANCHOR))
    for each in (asked, moved):
        with pytest.raises(IntegrityError, match="none that can be read"):
            signed(each, peers.owner, peers.custodian, response=response).verify(peers.authorities)


@pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1), slice(0, 0)])
def test_a_cut_is_refused(evidence: Evidence, cut: slice) -> None:
    with pytest.raises(IntegrityError):
        Evidence.decode(evidence.encode()[cut])


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"v": True}, {"more": 1}, {"endorsements": [{}]}, {"endorsements": {}}, {"response": "text"}]
)
def test_another_form_is_refused(evidence: Evidence, change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError, match="expected"):
        Evidence.decode(cbor.encode({**cbor.decode(evidence.encode()), **change}))


def test_one_organisation_alone_does_not_pass_for_both(proposal: Proposal, peers: Peers) -> None:
    for one, missing in ((peers.owner, CUSTODIAN), (peers.custodian, OWNER)):
        with pytest.raises(IntegrityError, match=rf"\['{missing}'\] are missing"):
            signed(proposal, one, one).verify(peers.authorities)


def test_whoever_asks_for_nobodys_signature_gets_nothing(evidence: Evidence) -> None:
    with pytest.raises(IntegrityError, match="one organisation at least"):
        evidence.verify({})


def test_the_same_answer_to_another_question_is_refused(evidence: Evidence, identity: Identity, peers: Peers) -> None:
    other = propose(Signer(identity), "custody", "custody", ("GetAnchor", '{"manifestCid":"other"}'), 0, bytes(24))
    with pytest.raises(IntegrityError, match="another proposal"):
        Evidence(replace(evidence.endorsed, proposal=other)).verify(peers.authorities)


def test_a_client_or_an_admin_cannot_sign_for_its_organisation(proposal: Proposal, peers: Peers) -> None:
    for unit in ("client", "admin", "orderer"):
        stand_in = Peer(peers.folder / CUSTODIAN, CUSTODIAN, peers.now, unit)
        with pytest.raises(IntegrityError, match=rf"OU=peer.*got OU=\['{unit}'\]"):
            signed(proposal, peers.owner, stand_in).verify(peers.authorities)


def test_a_peer_of_another_ca_of_that_name_is_refused(proposal: Proposal, peers: Peers) -> None:
    create_organisation(peers.folder / "impostor", CUSTODIAN)
    impostor = Peer(peers.folder / "impostor", CUSTODIAN, peers.now)
    with pytest.raises(IntegrityError, match=f"not issued by the CA of {CUSTODIAN}"):
        signed(proposal, peers.owner, impostor).verify(peers.authorities)


def test_an_owners_peer_that_says_it_is_the_custodians_is_refused(proposal: Proposal, peers: Peers) -> None:
    with pytest.raises(IntegrityError, match=f"not issued by the CA of {CUSTODIAN}"):
        signed(proposal, peers.owner, Peer(peers.folder / OWNER, CUSTODIAN, peers.now)).verify(peers.authorities)


def test_the_signature_of_one_who_was_not_asked_for_says_nothing(proposal: Proposal, peers: Peers) -> None:
    stranger = Peer(peers.folder / OWNER, "StrangerMSP", peers.now, "client")
    statement = signed(proposal, stranger, peers.owner, peers.custodian).verify(peers.authorities)
    assert set(statement.endorsers) == {OWNER, CUSTODIAN}
    alone = {CUSTODIAN: peers.authorities[CUSTODIAN]}
    assert set(signed(proposal, peers.owner, peers.custodian).verify(alone).endorsers) == {CUSTODIAN}


def test_a_good_signature_does_not_make_up_for_a_false_one_in_its_organisations_name(
    proposal: Proposal, peers: Peers
) -> None:
    false = Peer(peers.folder / OWNER, CUSTODIAN, peers.now)
    for signers in ((peers.owner, peers.custodian, false), (false, peers.custodian, peers.owner)):
        with pytest.raises(IntegrityError, match=f"not issued by the CA of {CUSTODIAN}"):
            signed(proposal, *signers).verify(peers.authorities)


@pytest.mark.parametrize(("begin", "days"), [(DAY, 365), (-3 * DAY, 2)])
def test_a_certificate_that_was_not_valid_then_is_refused(
    proposal: Proposal, peers: Peers, begin: int, days: int
) -> None:
    other = Peer(peers.folder / CUSTODIAN, CUSTODIAN, peers.now + begin, days=days)
    with pytest.raises(IntegrityError, match=f"a certificate of {CUSTODIAN} is valid from"):
        signed(proposal, peers.owner, other).verify(peers.authorities)


def test_a_signature_with_the_higher_s_is_refused(proposal: Proposal, peers: Peers) -> None:
    with pytest.raises(IntegrityError, match="higher"):
        signed(proposal, peers.owner, peers.custodian, higher=True).verify(peers.authorities)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda proposal: response_to(proposal, "{}", status=500), "got 500"),
        (lambda proposal: response_to(proposal, "{}", chaincode="other"), "expected an answer of custody"),
        (lambda proposal: response_to(proposal, "{} "), "canonical DAG-JSON"),
        (lambda _: b"\xff", "none that can be read"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    proposal: Proposal, peers: Peers, answer: Callable[[Proposal], bytes], told: str
) -> None:
    with pytest.raises(IntegrityError, match=told):
        signed(proposal, peers.owner, peers.custodian, response=answer(proposal)).verify(peers.authorities)


@pytest.mark.parametrize("call", [("GetAnchor",), ("GetAnchor", "{}", "more"), ("GetAnchor", "1.5"), ()])
def test_a_question_that_is_none_is_refused(identity: Identity, peers: Peers, call: tuple[str, ...]) -> None:
    proposal = propose(Signer(identity), "custody", "custody", call, int(time.time()) * 1000, bytes(24))
    with pytest.raises(IntegrityError, match=r"question|DAG-JSON"):
        signed(proposal, peers.owner, peers.custodian).verify(peers.authorities)


@pytest.mark.parametrize(
    ("endorser", "told"),
    [
        (b"", "are missing"),
        (b"\xff", "an endorser is no MSP identity"),
        (b"\x12\x03pem", "are missing"),
        (identities_pb2.SerializedIdentity(mspid=OWNER, id_bytes=b"pem").SerializeToString(), "no certificate in PEM"),
    ],
)
def test_an_endorser_that_is_none_is_refused(evidence: Evidence, peers: Peers, endorser: bytes, told: str) -> None:
    endorsed = replace(evidence.endorsed, endorsements=(Endorsement(endorser, b""),))
    with pytest.raises(IntegrityError, match=told):
        Evidence(endorsed).verify(peers.authorities)
