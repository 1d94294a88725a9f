"""The port while servers are killed and frozen, answers get lost and clients die: nothing is lost or done twice."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orthanc_ledger.consortium.trial import identity_of
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.fabric.gateway import Gateway
from tests.conftest import ROOT
from tests.fabric.kill_child import anchoring as childs
from tests.fabric.live import Ledgers, anchoring, times_anchored

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

ORDERERS = ("orderer.hospital", "orderer.custodian", "orderer.research")
OWN_PEERS = ("peer0.hospital", "peer1.hospital")


def test_an_answer_lost_after_the_orderer_had_it_is_made_up_for(
    ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (wire, peers), args = ledgers.wired(), anchoring()
    settings = {"peers": peers, "envelopes": str(tmp_path / "envelopes.db")}
    sent: list[str] = []
    submit = Gateway.submit

    def unanswered(self: Gateway, transaction_id: str, envelope: bytes, timeout_s: float) -> None:
        sent.append(transaction_id)
        if len(sent) == 1:
            wire.lose_answers()
        submit(self, transaction_id, envelope, timeout_s)

    monkeypatch.setattr(Gateway, "submit", unanswered)
    with pytest.raises(LedgerAway, match=r"Submit: .*DEADLINE_EXCEEDED"):
        ledgers.open(patience_s=3.0, submit_s=1, **settings).submit("Anchor", args)
    wire.cut()
    committed = ledgers.open(**settings).submit("Anchor", args)
    assert {committed.tx_id.hex()} == set(sent)
    assert times_anchored(ledgers.open(), args) == 1


@pytest.mark.parametrize("step", ["submit", "commit_status"])
def test_a_client_that_dies_on_the_way_is_finished_by_the_next(
    ledgers: Ledgers, start_process: Callable[..., "subprocess.Popen[bytes]"], step: str
) -> None:
    args = childs(anchoring()["manifestCid"], os.urandom(16).hex())
    connection, identity = ledgers.connection("hospital"), identity_of(ledgers.network, "hospital", "node")
    words = [connection, identity, args["manifestCid"], args["study"].hex(), step]
    command = [sys.executable, "-m", "tests.fabric.kill_child", *words]
    child = start_process(command, cwd=ROOT, stdout=subprocess.PIPE)
    transaction_id, _ = child.communicate(timeout=60)
    assert child.returncode == -9
    committed = ledgers.open().submit("Anchor", args)
    assert committed.tx_id.hex() == transaction_id.decode().strip()
    assert times_anchored(ledgers.open(), args) == 1


def test_while_all_orderers_are_away_the_same_bytes_wait(ledgers: Ledgers) -> None:
    args, network = anchoring(), ledgers.network
    for name in ORDERERS:
        network.kill(name)
    try:
        with pytest.raises(LedgerAway, match=r"Submit: .*(no orderers|DEADLINE)"):
            ledgers.open(patience_s=0.0).submit("Anchor", args)
        assert ledgers.open().query("GetPolicy", {})
    finally:
        for name in ORDERERS:
            network.start(name)
    network.wait_for_leader()
    assert len(ledgers.open().submit("Anchor", args).tx_id) == 32
    assert times_anchored(ledgers.open(), args) == 1


def test_the_leader_killed_under_anchors_loses_none(ledgers: Ledgers) -> None:
    ledger, network = ledgers.open(patience_s=60), ledgers.network
    anchors = [anchoring() for _ in range(30)]
    begun = threading.Barrier(3)

    def submit(share: list[dict[str, object]]) -> None:
        begun.wait()
        for args in share:
            ledger.submit("Anchor", args)

    threads = [threading.Thread(target=submit, args=(anchors[start::2],)) for start in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    leader = network.wait_for_leader()
    network.kill(leader)
    for thread in threads:
        thread.join()
    network.start(leader)
    assert {times_anchored(ledger, args) for args in anchors} == {1}


@pytest.mark.parametrize("peer", OWN_PEERS)
def test_an_own_peer_that_is_down_is_passed_over(ledgers: Ledgers, peer: str) -> None:
    ledger, network = ledgers.open(), ledgers.network
    ledger.submit("Anchor", anchoring())
    network.kill(peer)
    try:
        args = anchoring()
        assert ledger.submit("Anchor", args).tx_id
        assert ledger.query("GetAnchor", {"manifestCid": args["manifestCid"]})["root"] == args["root"]
    finally:
        network.start(peer)


def test_who_reads_events_goes_on_at_the_other_own_peer(ledgers: Ledgers) -> None:
    ledger, network = ledgers.open(), ledgers.network
    committed = [ledger.submit("Anchor", anchoring()).position for _ in range(3)]
    reader = ledgers.open()
    events = reader.events()
    seen = [next(events)]
    network.kill(OWN_PEERS[0])
    try:
        with pytest.raises(LedgerAway, match="ChaincodeEvents: "):
            seen.extend(events)  # keeps what came before the end
        events = reader.events(seen[-1].place)
        while seen[-1].record["sequence"] < committed[-1]:
            seen.append(next(events))
        events.close()  # type: ignore[attr-defined]  # a generator
    finally:
        network.start(OWN_PEERS[0])
    sequences = [each.record["sequence"] for each in seen]
    assert sorted(sequences) == [each["sequence"] for each in all_rows(ledger, "Audit", {})]
    assert sequences[-3:] == committed


def test_with_both_own_peers_frozen_the_deadline_ends_it(ledgers: Ledgers) -> None:
    ledger, network, args = ledgers.open(patience_s=0.0), ledgers.network, anchoring()
    ledger.query("GetPolicy", {})
    for peer in OWN_PEERS:
        network.freeze(peer)
    try:
        with pytest.raises(LedgerAway, match=r"Evaluate: .*(DEADLINE|UNAV).*; Evaluate: .*(DEADLINE|UNAV)"):
            ledger.query("GetPolicy", {})
        with pytest.raises(LedgerAway):
            ledger.submit("Anchor", args)
    finally:
        for peer in OWN_PEERS:
            network.resume(peer)
    assert ledgers.open().submit("Anchor", args).tx_id


def test_a_frozen_chaincode_ends_at_the_deadline_in_the_peers_words(ledgers: Ledgers) -> None:
    ledger, network = ledgers.open(patience_s=0.0), ledgers.network
    ledger.query("GetPolicy", {})
    network.freeze("chaincode.hospital")
    try:
        with pytest.raises(LedgerAway, match="Evaluate: "):
            ledger.query("GetPolicy", {})
    finally:
        network.resume("chaincode.hospital")
    assert ledgers.open().submit("Anchor", anchoring()).tx_id


def test_with_the_custodians_peer_down_nothing_commits_and_all_is_told(ledgers: Ledgers) -> None:
    network, args = ledgers.network, anchoring()
    network.kill("peer0.custodian")
    try:
        with pytest.raises(LedgerAway, match=r"Endorse: .*(connection refused|no combination of peers)"):
            ledgers.open(patience_s=0.0).submit("Anchor", args)
        assert ledgers.open().query("GetPolicy", {})
    finally:
        network.start("peer0.custodian")
    assert ledgers.open(patience_s=60).submit("Anchor", args).tx_id
