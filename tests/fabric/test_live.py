"""The port on a live network: what is submitted is committed once, whoever asks, however many ask."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orthanc_ledger.errors import ContractError, LedgerAway
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.fabric.events import Bookmark, Event
from orthanc_ledger.ledger.fabric.evidence import Evidence
from orthanc_ledger.ledger.fabric.gateway import Gateway
from orthanc_ledger.ledger.identity import create_organisation, issue
from tests.fabric.live import Ledgers, anchoring, times_anchored

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

BOTH = ("HospitalMSP", "CustodianMSP")


def test_every_organisation_sees_what_one_committed(ledgers: Ledgers) -> None:
    hospital, args = ledgers.open(), anchoring()
    committed = hospital.submit("Anchor", args)
    assert committed.result == {"sequence": committed.position, "time": committed.time}
    assert committed.position >> 20 == pytest.approx(committed.time * 1000, abs=1000)
    assert committed.position & (1 << 20) - 1 == int.from_bytes(committed.tx_id[:3], "big") >> 4
    for organisation in ("hospital", "custodian", "research"):
        found = ledgers.open(organisation).query("GetAnchor", {"manifestCid": args["manifestCid"]})
        assert (found["root"], found["sequence"]) == (args["root"], committed.position)


def test_a_repeat_is_the_first_commit(ledgers: Ledgers) -> None:
    hospital, args = ledgers.open(), anchoring()
    first = hospital.submit("Anchor", args)
    again = hospital.submit("Anchor", args)
    assert (again.position, again.time, again.result) == (first.position, first.time, first.result)
    study = {"study": args["study"], "reason": "113001"}
    withdrawals = [hospital.submit("Withdraw", study, nonce) for nonce in (bytes(16), bytes(16), b"\1" * 16)]
    assert withdrawals[0].position == withdrawals[1].position < withdrawals[2].position
    assert times_anchored(hospital, args) == 1


def test_refusals_come_with_code_and_field(ledgers: Ledgers) -> None:
    args = anchoring()
    hospital, custodian, research = (ledgers.open(each) for each in ("hospital", "custodian", "research"))
    hospital.submit("Anchor", args)
    for ledger, function, changed, code, field in (
        (hospital, "Anchor", {**args, "count": 4}, "CONFLICT", "count"),
        (hospital, "Anchor", {**args, "more": 1}, "INVALID", "more"),
        (hospital, "NoSuchFunction", {}, "INVALID", "function"),
        (custodian, "Anchor", args, "NOT_PERMITTED", "role"),
        (research, "Anchor", args, "NOT_PERMITTED", "role"),
    ):
        with pytest.raises(ContractError) as refused:
            ledger.submit(function, changed)
        assert (refused.value.code, refused.value.field) == (code, field)
    with pytest.raises(ContractError, match="NOT_FOUND manifestCid"):
        research.query("GetAnchor", {"manifestCid": anchoring()["manifestCid"]})


def test_an_expired_certificate_and_a_strangers_are_told_as_such(ledgers: Ledgers, tmp_path: Path) -> None:
    party = ledgers.network.connection("hospital").parent
    expired = issue(party, "expired", "node", lambda: 1_700_000_000, days=1)
    create_organisation(tmp_path / "impostor", "HospitalMSP")
    for identity in (expired, issue(tmp_path / "impostor", "node", "node")):
        ledger = ledgers.open(identity=identity)
        with pytest.raises(ContractError, match=r"NOT_PERMITTED certificate: Endorse: .*(expired|access denied)"):
            ledger.submit("Anchor", anchoring())
        with pytest.raises(LedgerAway, match=r"NOT_PERMITTED certificate: Evaluate: .*(expired|access denied)"):
            ledger.query("GetPolicy", {})


def test_a_clock_that_is_wrong_is_told_as_skew(ledgers: Ledgers) -> None:
    with pytest.raises(ContractError, match=r"SKEW time: Endorse: .*incorrect timestamp"):
        ledgers.open(clock=lambda: 1_700_000_000).submit("Anchor", anchoring())


@pytest.fixture
def orderings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Transaction ids as they are sent for ordering."""
    sent: list[str] = []
    submit = Gateway.submit

    def counted(self: Gateway, transaction_id: str, *rest: Any) -> None:
        sent.append(transaction_id)
        submit(self, transaction_id, *rest)

    monkeypatch.setattr(Gateway, "submit", counted)
    return sent


def test_200_anchors_of_200_studies_at_once_meet_nowhere(ledgers: Ledgers, orderings: list[str]) -> None:
    hospital = ledgers.open()
    anchors = [anchoring() for _ in range(200)]
    with ThreadPoolExecutor(200) as pool:
        committed = list(pool.map(lambda args: hospital.submit("Anchor", args), anchors))
    assert len(orderings) == len({each.position for each in committed}) == 200
    assert {times_anchored(hospital, args) for args in anchors} == {1}


def test_anchors_of_one_study_at_once_are_endorsed_anew_until_each_has_its_number(
    ledgers: Ledgers, orderings: list[str]
) -> None:
    hospital, study = ledgers.open(patience_s=60), anchoring()["study"]
    anchors = [anchoring(study) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda args: hospital.submit("Anchor", args), anchors))
    found = hospital.query("AnchorsOfStudy", {"study": study})
    assert [each["number"] for each in found] == list(range(6))
    assert {each["manifestCid"] for each in found} == {args["manifestCid"] for args in anchors}
    assert len(orderings) > 6


def test_evidence_is_signed_by_owner_and_custodian(ledgers: Ledgers) -> None:
    hospital, args = ledgers.open(), anchoring()
    committed = hospital.submit("Anchor", args)
    encoded = hospital.anchor_evidence(args["manifestCid"]).encode()
    statement = Evidence.decode(encoded).verify({msp_id: hospital.authorities()[msp_id] for msp_id in BOTH})
    assert (statement.function, statement.args) == ("GetAnchor", {"manifestCid": args["manifestCid"]})
    assert (statement.answer["root"], statement.answer["sequence"]) == (args["root"], committed.position)
    assert set(statement.endorsers) == set(BOTH)


def test_events_go_on_from_a_bookmark_without_loss_or_repetition(ledgers: Ledgers, tmp_path: Path) -> None:
    hospital, bookmark = ledgers.open(), Bookmark(tmp_path / "place")
    assert bookmark.place() is None
    anchors = [anchoring() for _ in range(9)]
    with ThreadPoolExecutor(9) as pool:
        positions = {each.position for each in pool.map(lambda args: hospital.submit("Anchor", args), anchors)}
    everything = list(all_rows(hospital, "Audit", {}))
    seen: list[Event] = []
    while len(seen) < len(everything):  # each time another reader, which dies after a few events
        events = ledgers.open().events(bookmark.place())
        seen += itertools.islice(events, min(4, len(everything) - len(seen)))
        events.close()  # type: ignore[attr-defined]  # a generator
        bookmark.keep(seen[-1].place)
    assert [each.record for each in sorted(seen, key=lambda each: each.record["sequence"])] == everything
    assert positions <= {each.record["sequence"] for each in seen if each.name == "Anchor"}
    fresh = ledgers.open().events(bookmark.place())
    last = hospital.submit("Anchor", anchoring())
    assert next(fresh).record["sequence"] == last.position
    fresh.close()  # type: ignore[attr-defined]


def test_who_waits_for_events_is_let_go_by_close(ledgers: Ledgers) -> None:
    ledger = ledgers.open()
    first, ended = threading.Event(), threading.Event()

    def read() -> None:
        try:
            for _ in ledger.events():
                first.set()
        except LedgerAway:
            ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(30)
    ledger.close()
    reader.join(30)
    assert ended.is_set()
