"""What people are told of a study, series or instance is what the node and the ledger have, in every state."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from damage import flip
from erase_make import carry_out, confirm, no_grace
from gate_world import RESEARCH, World, make_world
from node_make import drain, store, variant
from sweep_make import hold, place

from orthanc_ledger.alarm_advice import advice_on
from orthanc_ledger.assemble import Node
from orthanc_ledger.chronicle import Chronicle
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.index import Supersession
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.ledger.contract.codes import ORIGINS
from orthanc_ledger.outage import ANCHORS_WAIT
from orthanc_ledger.outbox import Alarm
from orthanc_ledger.pacs import Derived, Pacs
from orthanc_ledger.provenance import MEANING, TONES, WAYS, Check, Level, Provenance, State, Tone, as_json
from orthanc_ledger.spool import CONFLICTS, INBOX
from orthanc_ledger.sweep import Round
from orthanc_ledger.tokens import instance_token

LATER_S = 3600


class Counting:
    """The ledger, and how often it was asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.asked = 0

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        self.asked += 1
        return self._ledger.query(function, args)

    submit = None


class Away:
    """A ledger that does not answer."""

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        raise LedgerAway("ledger: nobody answers")

    submit = None


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A node with one anchored study of three slices."""
    return make_world(tmp_path)


def chronicle(world: World, ledger: Any = None, later_s: int = 0, pacs: Pacs | None = None) -> Chronicle:
    node = world.node
    state = node.spool, node.index, node.keyring, node.outbox, node.rounds
    return Chronicle(*state, ledger or world.ledger("owner", "node"), lambda: world.clock() + later_s, pacs)


def told(world: World, level: Level = "study", uid: str = "", **more: Any) -> Provenance:
    found = chronicle(world, **more).of(level, uid or world.study_uid)
    json.dumps(as_json(found))
    return found


def series_uid(world: World) -> str:
    return world.node.index.select(studies=[world.study_uid])[0].series_uid


def token(world: World) -> bytes:
    return world.node.keyring.ensure_study(world.study_uid).token


def token_of(world: World, sop_uid: str) -> bytes:
    return instance_token(world.node.keyring.ensure_study(world.study_uid).k_study, sop_uid)


def sweep(node: Node) -> None:
    Node(node.config).sweep(0.0).round(lambda _: True)


def release(world: World) -> None:
    """Have the study retrieved by the research peer, and its outcome told."""
    plan = world.plan()
    for item in plan.items:
        with plan.open(item):
            plan.leave(item)
    plan.close()
    drain(world.node)


def test_an_anchored_study_is_under_custody_with_manifest_position_origin_and_sender(world: World) -> None:
    found = told(world)
    [anchor] = world.ledger("owner").query("AnchorsOfStudy", {"study": token(world)})
    assert (found.state, found.tone) == (State.UNDER_CUSTODY, Tone.GOOD)
    assert (found.counts.held, found.counts.anchored) == (3, 3)
    [told_anchor] = found.anchors
    assert (told_anchor.manifest, told_anchor.position) == (anchor["manifestCid"], anchor["sequence"])
    assert (told_anchor.time, told_anchor.count, told_anchor.stored) == (anchor["time"], 3, False)
    assert found.since == anchor["time"]
    [origin] = found.origins
    assert (origin.origin, origin.sender, origin.count) == ("addressed-ae", "MRI1 at 192.0.2.10", 3)
    assert (found.releases, found.alarms, found.ledger_away, found.object) == ((), (), None, None)


@pytest.mark.parametrize("level", ["series", "instance"])
def test_a_series_and_an_instance_are_told_by_themselves(world: World, level: Level) -> None:
    other = {"SeriesInstanceUID": "1.2.826.0.1.3680043.10.9", "SOPInstanceUID": "1.2.826.0.1.3680043.10.9.1"}
    store(world.node, variant(**other), calling_ae="CT1")
    drain(world.node)
    found = told(world, level, series_uid(world) if level == "series" else world.sop_uids[0])
    assert found.study_uid == world.study_uid
    assert found.counts.held == {"series": 3, "instance": 1}[level]
    assert [anchor.count for anchor in found.anchors] == [3]
    assert {origin.sender for origin in found.origins} == {"MRI1 at 192.0.2.10"}
    [instance] = world.node.index.select(instances=[world.sop_uids[0]])
    assert found.object == (instance.object if level == "instance" else None)
    assert [anchor.count for anchor in told(world).anchors] == [3, 1]


@pytest.mark.parametrize("level", ["study", "instance"])
def test_what_is_not_anchored_yet_waits_since_it_came(world: World, level: Level) -> None:
    """In the inbox alone, and in the index."""
    ds = variant(StudyInstanceUID="1.2.826.0.1.3680043.11", SOPInstanceUID="1.2.826.0.1.3680043.11.1")
    store(world.node, ds)
    uid = {"study": ds.StudyInstanceUID, "instance": ds.SOPInstanceUID}[level]
    arrived = told(world, level, uid)
    world.node.anchorer().take_in()
    entered = told(world, level, uid)
    for found in (arrived, entered):
        assert (found.state, found.tone, found.counts.waiting) == (State.WAITING, Tone.NEUTRAL, 1)
        assert found.since is not None
        assert abs(found.since - world.clock()) < 60
    assert entered.since == arrived.since
    assert told(world, level, uid, later_s=LATER_S).tone is Tone.ATTENTION
    assert told(world, level, "1.2.3").state is State.NOT_HELD


def test_what_keeps_objects_waiting_is_told_with_them_and_not_with_others(world: World) -> None:
    world.node.outbox.alarm(ANCHORS_WAIT, "ledger", "the ledger takes nothing")
    store(world.node, variant(StudyInstanceUID="1.2.826.0.1.3680043.11", SOPInstanceUID="1.2.826.0.1.3680043.11.1"))
    world.node.anchorer().take_in()
    waiting = told(world, uid="1.2.826.0.1.3680043.11")
    assert ([advice.kind for advice in waiting.alarms], waiting.tone) == ([ANCHORS_WAIT], Tone.ATTENTION)
    assert told(world).alarms == ()


def test_other_content_is_a_conflict_until_it_is_the_current_one(world: World) -> None:
    store(world.node, variant(SOPInstanceUID=world.sop_uids[0], PatientComments="other"))
    drain(world.node)
    found = told(world)
    assert (found.state, found.tone, found.counts.conflicts) == (State.CONFLICT, Tone.ATTENTION, 1)
    [advice] = found.alarms
    assert (advice.kind, advice.since) == ("conflict", found.since)
    assert "console" in advice.what_to_do
    assert told(world, "instance", world.sop_uids[0]).state is State.CONFLICT
    assert told(world, "instance", world.sop_uids[1]).state is State.UNDER_CUSTODY
    [name] = world.node.spool.names(CONFLICTS)
    holder = world.node.index.instance(name.partition(".")[0])
    assert holder is not None
    decision = Supersession(name, holder.claim, "metadata-corrected", "decided", str(holder.manifest))
    world.node.index.keep_supersession(decision)
    drain(world.node)
    [proposed] = world.node.index.supersessions("proposed")
    assert told(world).state is State.CONFLICT
    world.ledger("custodian").submit("ConfirmSupersede", {"id": proposed.ledger_id})
    drain(world.node)
    found = told(world)
    assert (found.state, found.counts.superseded, found.alarms) == (State.UNDER_CUSTODY, 1, ())
    assert [anchor.count for anchor in found.anchors] == [3, 1]
    assert "the correction was confirmed" in [event.what for event in chronicle(world).events(world.study_uid)]


def test_what_cannot_be_read_is_quarantined(world: World) -> None:
    broken = variant(SOPInstanceUID="1.2.826.0.1.3680043.10.5", PixelData=b"", Rows=None)
    broken.SamplesPerPixel = 7
    store(world.node, broken)
    node = world.node
    name = next(iter(node.spool.names(INBOX)))
    node.spool.put_aside(name, "quarantine")
    node.anchorer().recover()
    found = told(world, "instance", "1.2.826.0.1.3680043.10.5")
    assert (found.state, found.tone, found.counts.quarantined) == (State.QUARANTINED, Tone.ATTENTION, 1)
    assert [advice.kind for advice in found.alarms] == ["quarantine"]
    assert (told(world).state, told(world).counts.held) == (State.QUARANTINED, 4)


def test_a_withdrawn_study_is_withdrawn_and_a_withdrawn_object_alone(world: World) -> None:
    some = {"study": token(world), "instances": [token_of(world, world.sop_uids[1])], "reason": "113001"}
    committed = world.ledger("owner").submit("Withdraw", some, secrets.token_bytes(16))
    assert (told(world).state, told(world).counts.withdrawn) == (State.UNDER_CUSTODY, 1)
    assert told(world, "instance", world.sop_uids[1]).state is State.WITHDRAWN
    assert told(world, "instance", world.sop_uids[0]).state is State.UNDER_CUSTODY
    for who in ("owner", "custodian"):
        world.ledger(who).submit("Reinstate", {"id": committed.result["id"]})
    assert told(world).counts.withdrawn == 0
    whole = {"study": token(world), "reason": "113037"}
    time = world.ledger("owner").submit("Withdraw", whole, secrets.token_bytes(16)).time
    found = told(world)
    assert (found.state, found.since, found.counts.withdrawn) == (State.WITHDRAWN, time, 3)
    assert (found.tone, TONES[State.WITHDRAWN]) == (Tone.NEUTRAL, Tone.NEUTRAL)
    events = chronicle(world).events(world.study_uid)
    assert [event.detail for event in events if event.what == "withdrawn from research"] == [
        "1 object; rejected for quality reasons",
        "the whole study; rejected for patient safety reasons",
    ]
    assert [event.what for event in events if "reinstate" in event.what] == [
        "reinstatement: one of two parties agreed",
        "reinstated",
    ]


@pytest.mark.parametrize("what", ["object", "manifest"])
def test_only_what_differs_from_its_anchor_is_red(world: World, what: str) -> None:
    [instance] = world.node.index.select(instances=[world.sop_uids[0]])
    flip(place(world.node, getattr(instance, what)))
    sweep(world.node)
    found = told(world)
    damaged = {"object": 1, "manifest": 3}[what]
    assert (found.state, found.tone, found.counts.damaged) == (State.DAMAGED, Tone.DANGER, damaged)
    assert found.alarms[0].tone is Tone.DANGER
    other = told(world, "instance", world.sop_uids[1])
    assert other.state is (State.UNDER_CUSTODY if what == "object" else State.DAMAGED)


def test_a_flag_by_the_custodian_is_told_where_the_node_finds_nothing_wrong(world: World) -> None:
    [instance] = world.node.index.select(instances=[world.sop_uids[0]])
    flag = {"study": token(world), "instance": token_of(world, world.sop_uids[0]), "n": 0, "what": []}
    committed = world.ledger("custodian").submit(
        "FlagTampered", {**flag, "manifestCid": instance.manifest, "observed": None}
    )
    found = told(world, "instance", world.sop_uids[0])
    assert (found.state, found.since, found.alarms) == (State.DAMAGED, committed.time, ())
    assert told(world).counts.damaged == 1


def test_erasure_is_told_from_its_request_to_its_end(world: World) -> None:
    no_grace(world.node)
    time = world.ledger("owner").submit("RequestErase", {"study": token(world)}).time
    found = told(world)
    assert (found.state, found.since) == (State.ERASURE_REQUESTED, time)
    world.ledger("owner").submit("CancelErase", {"study": token(world)})
    assert told(world).state is State.UNDER_CUSTODY
    confirm(world.node, token(world))
    assert told(world).state is State.ERASED
    carry_out(world.node)
    found = told(world)
    assert (found.state, found.counts.held, found.anchors, found.origins) == (State.ERASED, 0, (), ())
    instance = chronicle(world).of("instance", world.sop_uids[0], world.study_uid)
    assert instance.state is State.ERASED
    assert chronicle(world).events(world.study_uid) == []


def test_a_release_is_told_with_recipient_purpose_and_count(world: World) -> None:
    request = world.request()
    world.approve(request, "owner", "custodian")
    assert told(world).releases == ()
    release(world)
    [released] = told(world).releases
    assert (released.organisation, released.ae_title, released.request) == ("ResearchMSP", "RESEARCH1", request.hex())
    assert released.purposes == ("general research use (DUO:0000042)",)
    assert (released.released, released.sent, released.state) == (3, 3, "approved")
    release(world)
    [released] = told(world).releases
    assert (released.released, released.sent) == (6, 6)
    world.ledger("owner").submit("Revoke", {"id": request, "reason": "completed"})
    assert told(world).releases[0].state == "revoked"
    events = {event.what: event for event in chronicle(world).events(world.study_uid)}
    assert events["released to research"].detail == (
        "ResearchMSP, RESEARCH1; 3 objects; general research use (DUO:0000042)"
    )
    assert events["access was revoked"].detail == "ResearchMSP, RESEARCH1; no longer needed"
    assert events["access was revoked"].who == "HospitalMSP (owner, person-key)"
    assert events["released to research"].who == "HospitalMSP (owner, node-asserted)"


def test_a_release_whose_outcome_is_not_told_yet_counts_as_unknown(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    world.plan()
    [released] = told(world).releases
    assert (released.released, released.sent) == (3, None)


def test_a_release_that_was_renewed_is_counted_once(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    plan = world.plan()
    for number, item in enumerate(plan.items):
        world.later_s += 61 * (number == 1)
        with plan.open(item):
            plan.leave(item)
    plan.close()
    drain(world.node)
    [released] = told(world).releases
    assert (released.released, released.sent) == (3, 3)


def test_of_a_part_of_its_batch_nobody_knows_which_it_was(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    [approval] = world.gate.approvals(RESEARCH)
    [offer] = world.gate.offers(RESEARCH, world.study_uid, [approval])
    world.gate.release(offer, world.sop_uids[:1])
    assert [released.is_certain for released in told(world).releases] == [True]
    assert [released.is_certain for released in told(world, "instance", world.sop_uids[2]).releases] == [False]
    world.gate.release(offer, world.sop_uids)
    assert [released.is_certain for released in told(world, "instance", world.sop_uids[2]).releases] == [True]


def test_what_lies_here_is_told_while_the_ledger_is_away(world: World) -> None:
    store(world.node, variant(SOPInstanceUID=world.sop_uids[0], PatientComments="other"))
    drain(world.node)
    found = told(world, ledger=Away())
    assert (found.state, found.counts.held, found.ledger_away) == (State.CONFLICT, 3, "ledger: nobody answers")
    assert [(anchor.position, anchor.time, anchor.stored) for anchor in found.anchors] == [
        (told(world).anchors[0].position, None, None)
    ]
    assert [event.what for event in chronicle(world, Away()).events(world.study_uid)] == ["received"]


@pytest.fixture
def pacs(tmp_path: Path) -> Pacs:
    return Pacs(tmp_path / "pacs.db", lambda: 1_800_000_000)


def test_what_was_there_before_the_plugin_is_told_apart_from_what_nobody_knows(world: World, pacs: Pacs) -> None:
    pacs.keep_earlier(["0f-0f", "1f-1f"], "1.2.3")
    pacs.keep_earlier(["2f-2f"], world.study_uid)
    made = chronicle(world, pacs=pacs)
    found = made.of("study", "1.2.3")
    assert (found.state, found.counts.earlier, found.tone) == (State.BEFORE_INSTALLATION, 2, Tone.NEUTRAL)
    assert made.of("series", "1.2.3.4", "1.2.3", "0f-0f").state is State.BEFORE_INSTALLATION
    assert made.of("instance", "1.2.3.4.5", "1.2.3", "1e-1e").state is State.NOT_HELD
    assert made.of("study", "1.2.4").state is State.NOT_HELD
    found = made.of("study", world.study_uid)
    assert (found.state, found.counts.held, found.counts.earlier) == (State.UNDER_CUSTODY, 3, 1)


def test_what_staff_did_in_orthanc_is_told_and_alarms_nobody(world: World, pacs: Pacs) -> None:
    pacs.note([("0f-0f", world.study_uid, world.sop_uids[0])])
    pacs.deleted(["0f-0f"])
    pacs.keep_gone(pacs.to_look_after(1_900_000_000))
    pacs.keep_derived(Derived("1.2.3", world.study_uid, "anonymized", 1_800_000_001))
    made = chronicle(world, pacs=pacs)
    found = made.of("study", world.study_uid)
    assert (found.state, found.tone) == (State.UNDER_CUSTODY, Tone.GOOD)
    [advice] = found.alarms
    assert (advice.kind, advice.count, advice.since) == ("deleted in Orthanc", 1, 1_800_000_000)
    events = {event.what: event.detail for event in made.events(world.study_uid)}
    assert events["Orthanc made another of it: anonymized"] == "1.2.3"
    assert [event.what for event in made.events("1.2.3")] == ["Orthanc made it: anonymized"]


def test_what_cannot_be_taken_from_orthanc_is_told_with_the_reason(world: World, pacs: Pacs) -> None:
    pacs.keep_untaken("0f-0f", "1.2.3", "reconciled", "no data set")
    made = chronicle(world, pacs=pacs)
    for found in (made.of("study", "1.2.3"), made.of("instance", "1.2.3.4", "1.2.3", "0f-0f")):
        [advice] = found.alarms
        assert (found.state, found.tone) == (State.NOT_HELD, Tone.ATTENTION)
        assert (advice.kind, advice.text) == ("not taken from Orthanc", "1 object cannot be taken: no data set")
    assert made.of("instance", "1.2.3.5", "1.2.3", "1f-1f").alarms == ()
    assert made.of("study", world.study_uid).alarms == ()


def test_the_last_check_is_the_sweep_that_came_to_all_of_it(world: World) -> None:
    assert told(world).checked is None
    sweep(world.node)
    assert told(world).checked is None  # anchored in the second in which it began: perhaps not met
    rounds, begun = world.node.rounds, world.clock() + 100
    rounds.keep(Round(begun, begun + 5, place="z"))
    assert told(world).checked == Check(begun, begun + 5)
    assert "all anchored objects were verified" in [event.what for event in chronicle(world).events(world.study_uid)]
    rounds.keep(Round(begun + 50))  # the next has not come to it
    assert told(world).checked == Check(begun, begun + 5)
    rounds.keep(Round(begun + 50, place=told(world).anchors[0].manifest))
    found = told(world, later_s=200).checked
    assert found is not None
    assert (found.begun, found.ended >= begun + 100) == (begun + 50, True)
    assert told(world, ledger=Away()).checked is None


def test_a_list_tells_the_states_that_the_pages_tell(world: World) -> None:
    conflicting, waiting = world.add_study(1), world.add_study(2)
    [first] = world.node.index.select(studies=[conflicting])
    store(world.node, variant(StudyInstanceUID=conflicting, SOPInstanceUID=first.sop_uid, PatientComments="other"))
    drain(world.node)
    damaged = world.add_study(3)
    [instance] = world.node.index.select(studies=[damaged])
    flip(place(world.node, instance.object))
    sweep(world.node)
    store(world.node, variant(StudyInstanceUID=waiting, SOPInstanceUID="1.2.826.0.1.3680043.11.1"))
    world.node.anchorer().take_in()
    studies = [world.study_uid, conflicting, waiting, damaged, "1.2.3"]
    assert chronicle(world).states(studies) == {
        world.study_uid: State.UNDER_CUSTODY,
        conflicting: State.CONFLICT,
        waiting: State.WAITING,
        damaged: State.DAMAGED,
    }
    assert {uid: told(world, uid=uid).state for uid in studies[:4]} == chronicle(world).states(studies)


def test_a_study_of_thousands_is_told_without_asking_the_ledger_for_each_object(world: World) -> None:
    hold(world.node, 5000, batches=5, study_uid="1.2.826.0.1.3680043.12")
    ledger = Counting(world.ledger("owner", "node"))
    found = told(world, uid="1.2.826.0.1.3680043.12", ledger=ledger)
    assert (found.state, found.counts.anchored, len(found.anchors)) == (State.UNDER_CUSTODY, 5000, 5)
    assert ledger.asked == 3
    assert len(json.dumps(as_json(found))) < 4000


def test_alarms_of_a_kind_are_one_piece_of_advice_the_loudest_first() -> None:
    alarms = [
        Alarm(20, "quarantine", "a", "first"),
        Alarm(30, "quarantine", "b", "second"),
        Alarm(40, "integrity", "c", "x"),
    ]
    told_first, told_second = advice_on(alarms)
    assert (told_first.kind, told_first.tone, told_first.count) == ("integrity", Tone.DANGER, 1)
    assert (told_second.since, told_second.text, told_second.count) == (20, "first", 2)
    [other] = advice_on([Alarm(1, "of another time", "a", "x")])
    assert "whoever runs the node" in other.what_to_do


def test_each_state_has_a_meaning_and_a_tone_and_only_damage_is_danger() -> None:
    assert set(MEANING) == set(TONES) == set(State)
    assert [state for state in State if TONES[state] is Tone.DANGER] == [State.DAMAGED]


def test_each_origin_that_the_contract_knows_is_told_in_words() -> None:
    assert set(WAYS) == set(ORIGINS) - {"research"}  # of no object that is received here
