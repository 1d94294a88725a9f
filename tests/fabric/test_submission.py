"""One call's way to its commit, at every point where something may fail: against a Gateway of the tests' own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import grpc
import pytest
from fabric_protos.peer import transaction_pb2

from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError, LedgerAway
from orthanc_ledger.ledger import open_ledger
from orthanc_ledger.ledger.fabric.patience import LEAST_S
from orthanc_ledger.ledger.fabric.proposal import open_envelope
from orthanc_ledger.ledger.fabric.submission import SENT_AGAIN_S
from tests.fabric.gateway_double import AWAY, Fault, refusal
from tests.fabric.live import Wire
from tests.fabric.peers import CUSTODIAN, OWNER, Peers, payload_of
from tests.fabric.world import World

ARGS = {"study": b"s" * 16}
DOWN = Fault(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")


def once(fault: Fault, then: Callable[..., Any]) -> Callable[..., Any]:
    """Fails the first time, also when asked by several threads."""
    first = iter([fault])

    def act(*args: Any) -> Any:
        for each in first:
            raise each
        return then(*args)

    return act


def test_a_call_is_endorsed_ordered_and_committed(world: World) -> None:
    world.doubles[0].endorse = lambda *call: '{"result":{"version":1},"sequence":12345}'
    committed = world.ledger().submit("RequestErase", ARGS, bytes(16))
    (envelope,) = world.chain.ordered
    assert committed.tx_id.hex() == open_envelope(envelope).proposal.transaction_id
    assert (committed.position, committed.time, committed.result) == (12345, world.now, {"version": 1})
    assert world.steps() == ["Endorse", "Submit", "CommitStatus"]
    assert world.kept() == 0


def test_the_chaincode_gets_function_arguments_and_nonce(world: World) -> None:
    got: list[tuple[str, ...]] = []
    world.doubles[0].endorse = lambda *call: (got.append(call), '{"result":null,"sequence":1}')[1]
    world.ledger().submit("RequestErase", ARGS, bytes(range(16)))
    world.ledger().submit("RequestErase", ARGS)
    args = '{"study":{"/":{"bytes":"c3Nzc3Nzc3Nzc3Nzc3Nzcw"}}}'
    assert got[0] == ("RequestErase", args, bytes(range(16)).hex())
    assert got[1][:2] == got[0][:2]
    assert len(bytes.fromhex(got[1][2])) == 16
    assert got[1][2] != got[0][2]


def test_a_refusal_is_told_with_code_field_and_detail_and_nothing_is_ordered(world: World) -> None:
    world.doubles[0].endorse = once(refusal("CONFLICT count: anchored: with 3\nof them"), str)
    with pytest.raises(ContractError) as refused:
        world.ledger().submit("Anchor", ARGS)
    assert (refused.value.code, refused.value.field) == ("CONFLICT", "count")
    assert refused.value.detail == "anchored: with 3\nof them"
    assert world.steps() == ["Endorse"]
    world.doubles[0].evaluate = once(refusal("NOT_FOUND manifestCid"), str)
    with pytest.raises(ContractError) as refused:
        world.ledger().query("GetAnchor", {})
    assert (refused.value.code, refused.value.field, refused.value.detail) == ("NOT_FOUND", "manifestCid", "")


def test_a_repeat_is_not_ordered_and_tells_the_first_commit(world: World) -> None:
    world.doubles[0].endorse = lambda *call: '{"repeats":"anchor/bafy","result":{"sequence":3}}'
    world.doubles[0].evaluate = lambda *call: '[{"sequence":3,"time":1800000000,"value":null}]'
    committed = world.ledger().submit("Anchor", ARGS)
    assert (committed.position, committed.time, committed.result) == (3, 1_800_000_000, {"sequence": 3})
    assert (committed.tx_id, world.chain.ordered) == (b"", [])


def test_a_repeat_of_what_the_own_peer_does_not_have_yet_waits_for_it(world: World) -> None:
    answers = iter(["[]", '[{"sequence":3,"time":1800000000}]'])
    for double in world.doubles:
        double.endorse = lambda *call: '{"repeats":"anchor/bafy","result":null}'
        double.evaluate = lambda *call: next(answers)
    assert world.ledger().submit("Anchor", ARGS).position == 3


@pytest.mark.parametrize("code", ["MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT", "ENDORSEMENT_POLICY_FAILURE", 99])
def test_what_was_ordered_in_vain_is_endorsed_anew(world: World, code: str | int) -> None:
    codes = iter([code, code, "VALID"])
    for double in world.doubles:
        double.submitted = lambda transaction_id: world.chain.commit(transaction_id, next(codes))
    committed = world.ledger().submit("RequestErase", ARGS)
    first, second, third = (open_envelope(each).proposal.transaction_id for each in world.chain.ordered)
    assert len({first, second, third}) == 3
    assert committed.tx_id.hex() == third
    assert world.kept() == 0


def test_what_is_always_in_vain_is_away_with_the_code(world: World) -> None:
    for double in world.doubles:
        double.submitted = lambda transaction_id: world.chain.commit(transaction_id, "ENDORSEMENT_POLICY_FAILURE")
    with pytest.raises(LedgerAway, match="ENDORSEMENT_POLICY_FAILURE"):
        world.ledger(0.2).submit("RequestErase", ARGS)
    assert world.kept() == 0


def test_orderers_away_keep_the_envelope_and_the_next_submit_sends_the_same_bytes(world: World) -> None:
    for double in world.doubles:
        double.submitted = once(AWAY, world.chain.commit)
    with pytest.raises(LedgerAway, match=r"^Submit: o:7050 \(\): gone; 127\.0\.0\.1:\d+ \(HospitalMSP\): UNAV"):
        world.ledger(0.0).submit("RequestErase", ARGS)
    assert world.kept() == 1
    committed = world.ledger().submit("RequestErase", ARGS)
    assert len(set(world.chain.ordered)) == 1 < len(world.chain.ordered)
    assert (committed.position, world.kept()) == (7, 0)


def test_what_an_orderer_has_is_waited_for_although_there_is_no_patience_left(world: World) -> None:
    def later(transaction_id: str) -> None:
        commit = threading.Timer(LEAST_S + 0.2, world.chain.commit, [transaction_id])
        commit.daemon = True
        commit.start()

    for double in world.doubles:
        double.submitted = later
    world.ledger(0.0, commit_s=10).submit("RequestErase", ARGS)
    assert world.steps() == ["Endorse", "Submit", "CommitStatus"]


def test_a_lost_reply_is_made_up_for_by_asking(world: World) -> None:
    def lose(transaction_id: str) -> None:
        world.chain.commit(transaction_id)
        raise DOWN

    for double in world.doubles:
        double.submitted = lose
    with pytest.raises(LedgerAway):
        world.ledger(0.0).submit("RequestErase", ARGS)
    sent = len(world.chain.ordered)
    committed = world.ledger().submit("RequestErase", ARGS)
    assert committed.position == 7
    assert len(world.chain.ordered) == sent


def test_what_an_earlier_call_left_is_no_answer_to_this_one_where_it_was_undone_since(world: World) -> None:
    for double in world.doubles:
        double.submitted = once(AWAY, world.chain.commit)
    with pytest.raises(LedgerAway):
        world.ledger(0.0).submit("RevokeNode", ARGS)
    (left,) = {open_envelope(each).proposal for each in world.chain.ordered}
    world.chain.commit(left.transaction_id)
    for double in world.doubles:  # it is registered and confirmed again, so that this is no repeat
        double.endorse = lambda *call: '{"result":null,"sequence":9}'
    assert world.ledger().submit("RevokeNode", ARGS).position == 9
    assert open_envelope(world.chain.ordered[-1]).proposal.transaction_id != left.transaction_id
    assert open_envelope(world.chain.ordered[-1]).proposal.call == left.call


def test_what_an_orderer_took_and_lost_is_sent_again_within_the_same_call(world: World) -> None:
    lost = threading.Event()

    def take(transaction_id: str) -> None:
        if lost.is_set():
            world.chain.commit(transaction_id)
        lost.set()

    for double in world.doubles:
        double.submitted = take
    assert world.ledger().submit("RequestErase", ARGS).position == 7
    assert len(world.chain.ordered) == 2
    assert len(set(world.chain.ordered)) == 1


def test_a_kept_envelope_that_turns_out_invalid_is_endorsed_anew_at_once(world: World) -> None:
    for double in world.doubles:
        double.submitted = once(AWAY, world.chain.commit)
    with pytest.raises(LedgerAway):
        world.ledger(0.0).submit("RequestErase", ARGS)
    first = open_envelope(world.chain.ordered[0]).proposal.transaction_id
    world.chain.commit(first, "MVCC_READ_CONFLICT")
    for double in world.doubles:
        double.submitted = world.chain.commit
    assert world.ledger(0.0).submit("RequestErase", ARGS).tx_id.hex() != first
    assert world.kept() == 0


def test_another_call_is_not_taken_for_the_kept_one(world: World) -> None:
    for double in world.doubles:
        double.submitted = once(AWAY, world.chain.commit)
    with pytest.raises(LedgerAway):
        world.ledger(0.0).submit("RequestErase", ARGS)
    for function, args, nonce in (
        ("RequestErase", {"study": b"o" * 16}, None),
        ("CancelErase", ARGS, None),
        ("RequestErase", ARGS, bytes(16)),
    ):
        world.ledger().submit(function, args, nonce)
    assert len(set(world.chain.ordered)) == 4
    assert world.kept() == 1


def test_an_envelope_of_long_ago_is_endorsed_anew(world: World) -> None:
    for double in world.doubles:
        double.submitted = once(AWAY, world.chain.commit)
    with pytest.raises(LedgerAway):
        world.ledger(0.0).submit("RequestErase", ARGS)
    world.now += SENT_AGAIN_S + 1
    assert world.ledger().submit("RequestErase", ARGS).time == world.now
    assert len(set(world.chain.ordered)) == 2
    assert world.kept() == 0


def test_an_envelope_of_long_ago_that_was_committed_counts(world: World) -> None:
    for double in world.doubles:
        double.submitted = once(AWAY, world.chain.commit)
    with pytest.raises(LedgerAway):
        world.ledger(0.0).submit("RequestErase", ARGS)
    world.chain.commit(open_envelope(world.chain.ordered[0]).proposal.transaction_id)
    world.now += SENT_AGAIN_S + 1
    assert world.ledger().submit("RequestErase", ARGS).position == 7
    assert len(set(world.chain.ordered)) == 1


def test_the_status_of_a_second_copy_is_not_the_transactions(world: World) -> None:
    duplicate = iter([transaction_pb2.TxValidationCode.Value("DUPLICATE_TXID")])
    for double in world.doubles:
        double.asked = lambda transaction_id: next(duplicate, None)
    assert world.ledger().submit("RequestErase", ARGS).position == 7
    assert world.steps().count("Endorse") == 1


def test_an_envelope_that_no_orderer_takes_is_endorsed_anew(world: World) -> None:
    refused = Fault(
        grpc.StatusCode.ABORTED, "received unsuccessful response from orderer: status=BAD_REQUEST, info=old epoch"
    )
    for double in world.doubles:
        double.submitted = once(refused, world.chain.commit)
    assert world.ledger().submit("RequestErase", ARGS).position == 7
    assert len(set(world.chain.ordered)) == len(world.chain.ordered) > 1


def test_an_identity_that_orderers_refuse_is_the_certificates_fault(world: World) -> None:
    refused = Fault(
        grpc.StatusCode.ABORTED,
        "received unsuccessful response from orderer: status=FORBIDDEN, info=broadcast client identity expired",
    )
    world.doubles[0].submitted = once(refused, world.chain.commit)
    with pytest.raises(ContractError, match=r"NOT_PERMITTED certificate: Submit: .*identity expired"):
        world.ledger().submit("RequestErase", ARGS)
    assert world.kept() == 0


def test_what_only_others_refuse_is_asked_again_and_never_believed(world: World) -> None:
    behind = refusal("NOT_FOUND anchors: no record", CUSTODIAN)
    for double in world.doubles:
        double.endorse = once(behind, lambda *call: '{"result":null,"sequence":7}')
    assert world.ledger().submit("LogRelease", ARGS).position == 7
    for double in world.doubles:
        double.endorse = lambda *call: (_ for _ in ()).throw(behind)
    with pytest.raises(LedgerAway, match="NOT_FOUND anchors"):
        world.ledger(0.5).submit("LogRelease", ARGS)


def test_a_peer_that_is_down_is_passed_over(world: World) -> None:
    world.servers[0].server.stop(None).wait()
    ledger = world.ledger()
    assert ledger.submit("RequestErase", ARGS).position == 7
    assert ledger.query("GetPolicy", {}) is None
    assert world.doubles[1].calls == ["Endorse", "Submit", "CommitStatus", "Evaluate"]


def test_a_peer_that_is_frozen_costs_its_share_of_the_deadline_once(world: World) -> None:
    thaw = threading.Event()
    world.doubles[0].evaluate = lambda *call: str(thaw.wait(10))
    ledger = world.ledger(evaluate_s=1)
    assert ledger.query("GetPolicy", {}) is None
    assert ledger.query("GetPolicy", {}) is None
    assert world.doubles[0].calls == ["Evaluate"]
    thaw.set()


def test_a_peer_that_is_slow_to_connect_to_is_waited_for(world: World, free_port: Callable[[], int]) -> None:
    through = threading.Event()
    wire = Wire(free_port(), world.servers[0].port, through)
    (first, _) = world.settings["peers"]
    ledger = world.ledger(peers=[{**first, "endpoint": f"127.0.0.1:{wire.port}"}])
    with ThreadPoolExecutor(1) as pool, closing(wire):
        try:
            asked = pool.submit(ledger.query, "GetPolicy", {})
            with pytest.raises(TimeoutError):
                asked.result(2)
        finally:
            through.set()
        assert (asked.result(5), wire.taken) == (None, 1)


def test_where_all_peers_are_frozen_the_deadline_ends_it_with_their_names(world: World) -> None:
    thaw = threading.Event()
    for double in world.doubles:
        double.evaluate = lambda *call: str(thaw.wait(10))
    with pytest.raises(LedgerAway, match=rf"{world.servers[0].port}.*DEADLINE.*{world.servers[1].port}.*DEADLINE"):
        world.ledger(0.0).query("GetPolicy", {})
    thaw.set()


def test_no_more_requests_are_in_flight_than_allowed(world: World) -> None:
    most, now, lock = [0], [0], threading.Lock()
    many = threading.Event()

    def count(*call: str) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        many.wait(0.05)
        with lock:
            now[0] -= 1
        return "null"

    world.doubles[0].evaluate = count
    ledger = world.ledger(in_flight=3)
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda _: ledger.query("GetPolicy", {}), range(24))) == [None] * 24
    assert most[0] == 3


def test_a_gateway_that_hands_back_another_transaction_gets_no_signature(world: World, peers: Peers) -> None:
    def other(payload: bytes) -> bytes:
        endorsed = open_envelope(b"\x0a" + _varint(len(payload)) + payload)
        changed = endorsed.proposal.payload.replace(b"RequestErase", b"ConfirmErase")
        return payload_of(
            type(endorsed.proposal)(endorsed.proposal.channel_header, endorsed.proposal.signature_header, changed),
            endorsed.response,
            endorsed.endorsements,
        )

    world.doubles[0].changes = other
    with pytest.raises(IntegrityError, match="another transaction"):
        world.ledger().submit("RequestErase", ARGS)
    assert world.chain.ordered == []


def _varint(number: int) -> bytes:
    octets = b""
    while number > 127:
        octets, number = octets + bytes([number & 127 | 128]), number >> 7
    return octets + bytes([number])


@pytest.mark.parametrize(
    "answer",
    ["null", '{"result":1}', '{"result":1,"sequence":"7"}', '{"repeats":"key","result":1,"sequence":7}', "7.5"],
)
def test_an_answer_that_is_not_the_contracts_is_refused(world: World, answer: str) -> None:
    world.doubles[0].endorse = lambda *call: answer
    with pytest.raises(IntegrityError):
        world.ledger().submit("RequestErase", ARGS)
    assert world.chain.ordered == []


@pytest.mark.parametrize("value", [1.5, 1 << 64, (1,), {"/": 1}, "\ud800"])
def test_arguments_that_cannot_travel_are_refused_by_name(world: World, value: object) -> None:
    with pytest.raises(ContractError, match="INVALID count"):
        world.ledger().submit("Anchor", {"study": b"", "count": value})
    with pytest.raises(ContractError, match="INVALID count"):
        world.ledger().query("Anchors", {"count": value})
    assert world.steps() == []


def test_after_close_it_can_be_asked_again(world: World) -> None:
    ledger = world.ledger()
    ledger.submit("RequestErase", ARGS)
    ledger.close()
    assert ledger.query("GetPolicy", {}) is None


def test_without_an_identity_it_only_names_the_authorities(world: World, peers: Peers) -> None:
    world.ledger()
    ledger = open_ledger(f"fabric:{world.path}")
    assert ledger.authorities() == {OWNER: peers.authorities[OWNER]}
    for ask in (lambda: ledger.query("GetPolicy", {}), lambda: ledger.submit("RequestErase", ARGS)):
        with pytest.raises(ConfigError, match="whoever asks signs, too"):
            ask()
    ledger.close()
