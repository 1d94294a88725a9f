"""Acknowledged objects are anchored exactly once, or wait, alarmed; nothing bad stops what is good."""

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from node_make import HOUR_US, begin, drain, ledger_of, make_node, open_node, real_file, store, variant

from orthanc_ledger import batch as batch_module
from orthanc_ledger import intake as intake_module
from orthanc_ledger import tokens
from orthanc_ledger.anchorer import _LOCK, Anchorer, Pace
from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock_us
from orthanc_ledger.config import BatchLimits
from orthanc_ledger.errors import ConfigError, ContentAway, ContractError, IntegrityError, LedgerAway
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.index import Instance
from orthanc_ledger.ledger import Committed, Ledger
from orthanc_ledger.ledger.fsck import check
from orthanc_ledger.sole import sole
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE

SECOND_US = 1_000_000
STUDY_2 = "1.2.826.0.2"


class RecordingLedger:
    """A ledger that can be away, refuse, or lose its answer after the commit; keeps what was called."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.away = False
        self.lose_answers = False
        self.refusals: dict[str, ContractError] = {}

    def submit(self, function: str, args: Mapping[str, Any], nonce: bytes | None = None) -> Committed:
        if self.away:
            raise LedgerAway("away")
        self.calls.append((function, args))
        if function in self.refusals:
            raise self.refusals[function]
        committed = self.ledger.submit(function, args, nonce)
        if self.lose_answers:
            raise LedgerAway("the answer was lost")
        return committed

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        return self.ledger.query(function, args)

    def count(self, function: str) -> int:
        return sum(called == function for called, _ in self.calls)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


@pytest.fixture
def ledger(node: Node) -> RecordingLedger:
    """The node's ledger from now on."""
    recording = RecordingLedger(node.ledger)
    node.__dict__["ledger"] = node.__dict__["anchorer_ledger"] = recording
    return recording


def anchorer_of(node: Node, **limits: float) -> Anchorer:
    config = node.config
    pace = Pace(BatchLimits(**{"idle_s": 1.0, "max_instances": 1000, "max_age_s": 30.0, **limits}), 1.0, 1.0)  # type: ignore[arg-type]
    who = {"organisation": config.organisation, "aeTitle": config.ae_title}
    told = node.outbox, node.forwards
    return Anchorer(node.spool, node.index, *told, node.keyring, node.content, node.ledger, node.erasures, who, pace)


def anchors(node: Node) -> list[int]:
    """Counts of the anchors on the ledger, study by study."""
    found = []
    for _, token, _ in node.index.studies():
        if token is not None:
            found += [row["count"] for row in node.ledger.query("AnchorsOfStudy", {"study": token})]
    return found


def alarm_kinds(node: Node) -> list[str]:
    return [alarm.kind for alarm in node.outbox.alarms()]


def store_many(node: Node, count: int, **attributes: Any) -> None:
    for number in range(count):
        store(node, variant(SOPInstanceUID=f"1.2.826.0.{len(attributes)}.{number}", **attributes))


# Batches


def test_batch_closes_when_the_newest_object_is_idle(node: Node) -> None:
    anchorer = anchorer_of(node, idle_s=5)
    store_many(node, 2)
    anchorer.take_in()
    newest = max(instance.received_us for instance in node.index.select())
    anchorer.prepare_due(newest + 5 * SECOND_US - 1)
    assert node.index.unanchored() == []
    anchorer.prepare_due(newest + 5 * SECOND_US)
    assert [batch.count for batch in node.index.unanchored()] == [2]


def staged(node: Node) -> int:
    """Sealed objects that wait for their batch to close."""
    return sum(path.is_file() for path in (node.config.data_dir / "objects" / "staging").rglob("*"))


def test_objects_are_sealed_as_they_come_and_published_when_the_batch_closes(node: Node) -> None:
    anchorer = anchorer_of(node, idle_s=1000, max_age_s=1000)
    for number in (1, 2):
        store(node, variant(SOPInstanceUID=f"1.2.826.0.{number}"))
        anchorer.take_in()
        anchorer.prepare_due(system_clock_us())
        assert staged(node) == number
    assert node.index.unanchored() == []
    anchorer.prepare_due(system_clock_us() + HOUR_US)
    assert ([batch.count for batch in node.index.unanchored()], staged(node)) == ([2], 0)


@pytest.mark.parametrize("left", [0, 1])
def test_an_object_taken_away_while_its_batch_is_open_is_not_anchored(node: Node, left: int) -> None:
    anchorer = anchorer_of(node, idle_s=1000, max_age_s=1000)
    store_many(node, 1 + left)
    anchorer.take_in()
    anchorer.prepare_due(system_clock_us())
    gone = node.index.select()[0]
    node.spool.remove(gone.spool_name)
    node.index.forget(gone.claim)
    for _ in range(2):  # the open batch is given up, then made anew
        anchorer.prepare_due(system_clock_us() + HOUR_US)
    assert [batch.count for batch in node.index.unanchored()] == [1] * left
    assert staged(node) == 0


def test_batch_closes_by_number_and_by_age_though_objects_still_come(node: Node) -> None:
    anchorer = anchorer_of(node, idle_s=1000, max_instances=2, max_age_s=60)
    store_many(node, 5)
    anchorer.take_in()
    now = system_clock_us()
    for _ in range(3):
        anchorer.prepare_due(now)
    assert [batch.count for batch in node.index.unanchored()] == [2, 2]
    anchorer.prepare_due(now + 61 * SECOND_US)
    assert [(batch.seq, batch.count) for batch in node.index.unanchored()] == [(0, 2), (1, 2), (2, 1)]


def test_clock_set_back_does_not_hold_a_batch(node: Node) -> None:
    anchorer = anchorer_of(node)
    store_many(node, 1)
    anchorer.take_in()
    anchorer.prepare_due(system_clock_us() - HOUR_US)
    assert len(node.index.unanchored()) == 1


def test_each_study_has_a_batch_of_its_own(node: Node) -> None:
    store_many(node, 2)
    store_many(node, 3, StudyInstanceUID=STUDY_2)
    drain(node)
    assert sorted(anchors(node)) == [2, 3]
    assert node.index.counts() == {"anchored": 5}
    assert node.spool.names() == []


def test_the_embedded_ledger_of_what_it_anchored_is_whole(node: Node) -> None:
    store_many(node, 2)
    store_many(node, 3, StudyInstanceUID=STUDY_2)
    drain(node)
    assert check(node.config.data_dir / "ledger.db").findings == ()


def test_what_comes_while_a_batch_is_prepared_is_in_the_index_before_it_is_done(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchorer = anchorer_of(node)
    store_many(node, 2)
    anchorer.take_in()
    seal, known = batch_module.seal, []

    def seal_while_another_comes(*args: Any) -> None:
        known.append(node.index.counts()["spooled"])
        store(node, variant(SOPInstanceUID="1.2.826.0.77"))
        seal(*args)

    monkeypatch.setattr(batch_module, "seal", seal_while_another_comes)
    anchorer.prepare_due(system_clock_us() + HOUR_US)
    assert known == [2, 3]


def test_unit_is_durable_before_the_index_has_it_and_goes_after_the_index_has_its_anchor(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index answers repeats with Success, and clinical peers are served from the unit until it says anchored."""
    seen: list[tuple[str, dict[str, int]]] = []
    sync, remove = node.spool.sync, node.spool.remove
    monkeypatch.setattr(node.spool, "sync", lambda: (seen.append(("sync", node.index.counts())), sync()))
    monkeypatch.setattr(node.spool, "remove", lambda name: (seen.append(("remove", node.index.counts())), remove(name)))
    store_many(node, 1)
    drain(node)
    assert seen == [("sync", {}), ("remove", {"anchored": 1})]


# Services away


def test_ledger_away_the_backlog_drains_later_and_nothing_twice(node: Node, ledger: RecordingLedger) -> None:
    anchorer = anchorer_of(node)
    ledger.away = True
    for round_ in range(3):
        store(node, variant(SOPInstanceUID=f"1.2.826.0.{round_}"))
        with pytest.raises(LedgerAway):
            drain(node, anchorer)
    assert node.index.counts() == {"spooled": 3}
    ledger.away = False
    drain(node, anchorer)
    drain(node, anchorer)
    assert ledger.count("Anchor") == 3
    assert anchors(node) == [1, 1, 1]
    assert node.spool.names() == []


def test_anchor_committed_but_its_answer_lost_is_anchored_once(node: Node, ledger: RecordingLedger) -> None:
    store_many(node, 2)
    ledger.lose_answers = True
    with pytest.raises(LedgerAway):
        drain(node)
    assert node.index.counts() == {"spooled": 2}
    ledger.lose_answers = False
    drain(node)
    assert (ledger.count("Anchor"), anchors(node)) == (2, [2])
    assert node.index.counts() == {"anchored": 2}


@pytest.mark.parametrize("code_field", [("SKEW", "time"), ("NOT_PERMITTED", "certificate")])
def test_refusal_of_clock_or_certificate_loses_no_call(
    node: Node, ledger: RecordingLedger, code_field: tuple[str, str]
) -> None:
    node.outbox.deny("ResearchMSP", "RESEARCH1", "no approval")
    node.outbox.post_denials({"organisation": node.config.organisation, "aeTitle": node.config.ae_title})
    ledger.refusals["LogDenials"] = ContractError(*code_field)
    with pytest.raises(LedgerAway, match="refused for now"):
        drain(node)
    ledger.refusals.clear()
    drain(node)
    assert node.outbox.posted() == []
    assert ledger.calls[-1][1]["unregistered"] is True  # as the peer is none the ledger knows


def test_refused_anchor_is_alarmed_once_stops_no_other_and_is_tried_rarely(node: Node, ledger: RecordingLedger) -> None:
    anchorer = anchorer_of(node)
    store_many(node, 1)
    ledger.refusals["Anchor"] = ContractError("WRONG_STATE", "study", "erased")
    drain(node, anchorer)
    drain(node, anchorer)
    assert (ledger.count("Anchor"), alarm_kinds(node)) == (1, ["anchor refused"])
    ledger.refusals.clear()
    store_many(node, 1, StudyInstanceUID=STUDY_2)
    drain(node, anchorer)
    assert node.index.counts() == {"anchored": 1, "spooled": 1}
    drain(node)  # started again
    assert node.index.counts() == {"anchored": 2}


def test_content_store_away_the_study_waits_and_wastes_no_keys(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    store_many(node, 1)
    keys: list[str] = []
    new_batch = node.keyring.new_batch
    monkeypatch.setattr(node.keyring, "new_batch", lambda uid: (keys.append(uid), new_batch(uid))[1])

    def away() -> None:
        raise ContentAway("away")

    with monkeypatch.context() as patch:
        patch.setattr(node.content, "begin", away)
        drain(node)
    assert (node.index.counts(), keys) == ({"spooled": 1}, [])
    drain(node)
    assert (node.index.counts(), len(keys)) == ({"anchored": 1}, 1)


# Bad objects and studies


def test_object_that_breaks_off_is_quarantined_with_an_alarm(node: Node) -> None:
    content = real_file().read_bytes()
    store(node, variant(SOPInstanceUID="1.2.826.0.5"))
    _store_bytes(node, content[:-1000])
    drain(node)
    assert node.index.counts() == {"anchored": 1, "quarantined": 1}
    assert alarm_kinds(node) == ["quarantine"]
    assert [len(node.spool.names(queue)) for queue in (INBOX, QUARANTINE)] == [0, 1]


def test_fault_of_ours_while_reading_one_object_stops_no_other(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = intake_module.describe

    def fail_on_first(unit: Any, name: str) -> Any:
        found = describe(unit, name)
        if found[0].sop_uid.endswith(".0"):
            raise RuntimeError("a fault")
        return found

    store_many(node, 2)
    with monkeypatch.context() as patch:
        patch.setattr(intake_module, "describe", fail_on_first)
        drain(node)
    assert node.index.counts() == {"anchored": 1, "quarantined": 1}


def test_fault_of_ours_while_fingerprinting_one_object_stops_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints, calls = batch_module.fingerprints, iter(range(9))

    def fail_first(*args: Any) -> Any:
        if next(calls) == 0:
            raise RecursionError
        return fingerprints(*args)

    store_many(node, 2)
    monkeypatch.setattr(batch_module, "fingerprints", fail_first)
    drain(node)
    assert node.index.counts() == {"anchored": 1, "quarantined": 1}
    assert alarm_kinds(node) == ["quarantine"]


def test_object_damaged_in_the_spool_is_quarantined_not_anchored(node: Node) -> None:
    store_many(node, 2)
    damaged = node.spool.folder / INBOX / node.spool.names()[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    drain(node)
    assert node.index.counts() == {"anchored": 1, "quarantined": 1}
    assert "damaged in the spool" in node.outbox.alarms()[0].text


def test_file_in_the_inbox_that_is_no_unit_goes_to_quarantine(node: Node) -> None:
    (node.spool.folder / INBOX / ("0" * 64)).write_bytes(b"x" * 50)
    store_many(node, 1)
    drain(node)
    drain(node)
    assert node.index.counts() == {"anchored": 1}
    assert node.spool.names(QUARANTINE) == [f"{'0' * 64}.damaged"]
    assert set(alarm_kinds(node)) == {"quarantine"}


def test_object_gone_from_the_spool_is_alarmed_and_can_be_sent_again(node: Node) -> None:
    anchorer = anchorer_of(node)
    store_many(node, 2)
    anchorer.take_in()
    (node.spool.folder / INBOX / node.spool.names()[0]).unlink()
    drain(node, anchorer)
    assert (node.index.counts(), alarm_kinds(node)) == ({"anchored": 1}, ["lost"])
    store_many(node, 2)
    drain(node, anchorer)
    assert node.index.counts() == {"anchored": 2}


def test_batch_that_does_not_verify_is_alarmed_and_stops_no_other_study(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_small_batch(record: Any, study: Any, key: bytes, content: Any) -> None:
        if study.token == bad.token:
            raise IntegrityError("read back other bytes")

    store_many(node, 1)
    store_many(node, 1, StudyInstanceUID=STUDY_2)
    bad = node.keyring.ensure_study(STUDY_2)
    with monkeypatch.context() as patch:
        patch.setattr(batch_module, "verify", fail_on_small_batch)
        anchorer = anchorer_of(node)
        drain(node, anchorer)
        drain(node, anchorer)
    assert (node.index.counts(), alarm_kinds(node)) == ({"anchored": 1, "spooled": 1}, ["batch failed"])
    drain(node)
    assert node.index.counts() == {"anchored": 2}


# Flags


def flagged(ledger: RecordingLedger) -> list[int]:
    """Numbers of the flags that were submitted, again or for the first time."""
    return [args["n"] for function, args in ledger.calls if function == "FlagTampered"]


def resolve_flag(node: Node, n: int) -> None:
    [instance] = node.index.select()
    study = node.keyring.ensure_study(instance.study_uid)
    token = tokens.instance_token(study.k_study, instance.sop_uid)
    for who in ("owner", "custodian"):
        args = {"study": study.token, "instance": token, "n": n, "manifestCid": instance.manifest}
        ledger_of(node, who).submit("Resolve", args)


@pytest.fixture
def damaged(node: Node, ledger: RecordingLedger) -> Instance:
    """An anchored object that was damaged."""
    store(node, real_file())
    drain(node)
    [instance] = node.index.select()
    [path] = (node.config.data_dir / "objects").rglob(str(instance.object))
    path.write_bytes(b"damaged")
    return instance


def test_a_flag_is_numbered_by_the_ledger_and_none_is_raised_while_one_stands(
    node: Node, ledger: RecordingLedger, damaged: Instance
) -> None:
    for n in range(3):
        for _ in range(2):
            node.library.report(damaged)
            drain(node)
        assert (flagged(ledger), node.outbox.posted()) == (list(range(n + 1)), [])
        resolve_flag(node, n)
    assert alarm_kinds(node) == ["integrity"]


@pytest.mark.parametrize("resolved", [False, True])
def test_a_flag_whose_answer_was_lost_is_raised_once_also_when_it_was_resolved_meanwhile(
    node: Node, ledger: RecordingLedger, damaged: Instance, resolved: bool
) -> None:
    node.library.report(damaged)
    ledger.lose_answers = True
    with pytest.raises(LedgerAway):
        drain(node)
    ledger.lose_answers = False
    if resolved:
        resolve_flag(node, 0)
    drain(node)
    assert (flagged(ledger), node.outbox.posted(), alarm_kinds(node)) == ([0, 0], [], ["integrity"])
    standing = node.ledger.query("StandingOf", {"study": node.keyring.ensure_study(damaged.study_uid).token})
    assert (len(standing["flagged"]), len(standing["resolved"])) == ((0, 1) if resolved else (1, 0))


def test_a_flag_that_another_party_raised_at_the_same_time_stands_for_ours(
    node: Node, ledger: RecordingLedger, damaged: Instance
) -> None:
    node.library.report(damaged)
    [call] = node.outbox.posted()
    node.outbox.amend(call, {**call.args, "n": 0})  # numbered, then killed
    ledger_of(node, "custodian").submit("FlagTampered", {**call.args, "n": 0, "observed": bytes(32)})
    drain(node)
    assert (node.outbox.posted(), alarm_kinds(node)) == ([], ["integrity"])


def test_a_flag_that_the_ledger_refuses_is_alarmed(node: Node, ledger: RecordingLedger, damaged: Instance) -> None:
    ledger.refusals["FlagTampered"] = ContractError("CONFLICT", "manifestCid")
    node.library.report(damaged)
    drain(node)
    assert (node.outbox.posted(), alarm_kinds(node)) == ([], ["integrity", "report refused"])


# The same UID again, in every state


@pytest.mark.parametrize("state", ["inbox", "taken in", "prepared", "anchored", "quarantined"])
@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_same_uid_again_in_every_state(node: Node, state: str, same: bool) -> None:
    anchorer = anchorer_of(node)
    cut = real_file().read_bytes()[:-1000]
    first = (lambda: _store_bytes(node, cut)) if state == "quarantined" else (lambda: store(node, real_file()))
    first()
    if state != "inbox":
        anchorer.take_in()
    if state in ("prepared", "anchored"):
        anchorer.prepare_due(system_clock_us() + HOUR_US)
    if state == "anchored":
        anchorer.submit()
    again = first() if same else store(node, variant(PatientName="Other"))
    assert again is (Receipt.SAME_AGAIN if same else Receipt.CONFLICT)
    drain(node, anchorer)
    assert sum(node.index.counts().values()) == 1
    assert anchors(node) == ([] if state == "quarantined" else [1])
    assert len(node.spool.names(CONFLICTS)) == (0 if same else 1)
    assert Counter(alarm_kinds(node))["conflict"] == (0 if same else 1)


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_unit_linked_after_its_uid_was_anchored_by_another_receiver(node: Node, same: bool) -> None:
    """A receiver that looked before the other's unit was there, and linked after it was anchored and gone."""
    store(node, real_file())
    anchorer = anchorer_of(node)
    drain(node, anchorer)
    node.spool._claims = _NothingClaimed()
    assert store(node, real_file() if same else variant(PatientName="Other")) is Receipt.STORED
    drain(node, anchorer)
    assert (node.index.counts(), anchors(node), node.spool.names()) == ({"anchored": 1}, [1], [])
    assert len(node.spool.names(CONFLICTS)) == (0 if same else 1)


def test_conflict_is_reported_once_however_often_the_anchorer_starts(node: Node, ledger: RecordingLedger) -> None:
    store(node, real_file())
    store(node, variant(PatientName="Other"))
    for _ in range(3):
        drain(node)
    assert (ledger.count("ReportConflict"), alarm_kinds(node)) == (1, ["conflict"])


def test_conflict_whose_first_content_was_discarded_becomes_the_first(node: Node) -> None:
    _store_bytes(node, real_file().read_bytes()[:-1000])
    anchorer = anchorer_of(node)
    drain(node, anchorer)
    assert store(node, real_file()) is Receipt.CONFLICT
    drain(node, anchorer)
    [quarantined] = node.spool.names(QUARANTINE)
    node.index.forget(quarantined.partition(".")[0])
    node.spool.remove(quarantined, QUARANTINE)
    store(node, variant(SOPInstanceUID="1.2.826.0.9"))
    drain(node)
    drain(node)
    assert node.index.counts() == {"anchored": 2}
    assert node.spool.names(CONFLICTS) == []


# Starting and stopping


@pytest.mark.parametrize("killed_after", ["move", "row forgotten", "row spooled"])
def test_quarantine_left_half_way_is_mended_at_start_with_an_alarm(node: Node, killed_after: str) -> None:
    anchorer = anchorer_of(node)
    store(node, real_file())
    if killed_after != "move":
        anchorer.take_in()
    [claim] = node.spool.names()
    aside = node.spool.put_aside(claim, QUARANTINE)
    if killed_after == "row forgotten":
        node.index.forget(claim)
    drain(node)
    instance = node.index.instance(claim)
    assert instance is not None
    assert (instance.state, instance.spool_name) == ("quarantined", aside)
    assert alarm_kinds(node) == ["quarantine"]


def test_unit_taken_back_by_a_command_that_was_killed_is_not_there_twice(node: Node) -> None:
    store(node, real_file())
    [claim] = node.spool.names()
    aside = node.spool.put_aside(claim, QUARANTINE)
    anchorer_of(node).recover()
    node.index.forget(claim)
    content = (node.spool.folder / QUARANTINE / aside).read_bytes()
    node.spool.take_back(aside)
    drain(node)
    (node.spool.folder / QUARANTINE / aside).write_bytes(content)
    drain(node)
    assert (node.index.counts(), node.spool.names(QUARANTINE)) == ({"anchored": 1}, [])


def test_second_anchorer_is_refused_and_a_later_one_is_not(node: Node, tmp_path: Path) -> None:
    stop, first = threading.Event(), anchorer_of(node)
    thread = threading.Thread(target=first.run, args=(stop, system_clock_us))
    thread.start()
    try:
        store(node, real_file())
        wait_until(node.index.counts, 20, "the first one works")
        second = open_node(tmp_path).anchorer()
        with pytest.raises(ConfigError, match="another anchorer"):
            _run_until_refused(second)
    finally:
        stop.set()
        thread.join(30)
    stop.set()
    open_node(tmp_path).anchorer().run(stop, system_clock_us)


def test_anchorer_waits_for_one_that_still_ends_and_not_longer_than_it_was_told(node: Node) -> None:
    stop, lock = threading.Event(), node.spool.folder.parent / _LOCK
    thread = threading.Thread(target=anchorer_of(node, idle_s=0.0).run, args=(stop, system_clock_us, 30.0))
    with sole(lock, AssertionError("held by this test")):
        with pytest.raises(ConfigError, match="another anchorer"):
            anchorer_of(node).run(stop, system_clock_us, 0.2)
        thread.start()
        store(node, real_file())
    try:
        wait_until(lambda: node.index.counts() == {"anchored": 1}, 20, "it works")
    finally:
        stop.set()
        thread.join(30)


def test_running_anchorer_drains_by_itself_when_the_ledger_comes_back(node: Node, ledger: RecordingLedger) -> None:
    stop = threading.Event()
    ledger.away = True
    anchorer = anchorer_of(node, idle_s=0.0)
    thread = threading.Thread(target=anchorer.run, args=(stop, system_clock_us))
    thread.start()
    try:
        store_many(node, 2)
        wait_until(lambda: node.index.unanchored(), 20, "a batch is prepared")
        ledger.away = False
        wait_until(lambda: node.index.counts() == {"anchored": 2}, 20, "the backlog drained")
    finally:
        stop.set()
        thread.join(30)


def test_known_units_are_not_read_again_while_they_wait(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog costs a tick no look at its units."""
    anchorer = anchorer_of(node)
    store_many(node, 3)
    anchorer.take_in()
    looked: list[str] = []
    instance, open_unit = node.index.instance, node.spool.open
    monkeypatch.setattr(node.index, "instance", lambda claim: (looked.append(claim), instance(claim))[1])
    monkeypatch.setattr(node.spool, "open", lambda *a: (looked.append(a[0]), open_unit(*a))[1])
    store(node, variant(SOPInstanceUID="1.2.826.0.88"))
    anchorer.take_in()
    assert len(looked) == 2
    anchorer.take_in()
    assert len(looked) == 2


class _NothingClaimed:
    def claimed(self, claim: str) -> bytes | None:
        return None


def _store_bytes(node: Node, part10: bytes) -> Receipt:
    """Have a broken file's data set accepted, under the UIDs of the file it was made from."""
    incoming, data_set = begin(node, real_file())
    incoming.write(data_set[: len(data_set) - (real_file().stat().st_size - len(part10))])
    return incoming.accept()


def _run_until_refused(anchorer: Anchorer) -> None:
    stop = threading.Event()
    stop.set()
    anchorer.run(stop, system_clock_us)
