"""The gate and what it lets a research recipient have, through every exit: C-FIND, and retrieves at every level."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from damage import flip
from gate_world import FOREIGN, MR, RESEARCH, SIBLING, VIEWER, World, anchor_conflict, exits, make_world, retrieval_of
from node_make import drain, part10, real_file, store, variant
from pydicom import dcmread

from orthanc_ledger import merkle, tokens
from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.courier import ROLLED_BACK
from orthanc_ledger.errors import ContentAway, IntegrityError, LedgerAway
from orthanc_ledger.find import Catalogue
from orthanc_ledger.gate import Refused
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger import Committed, Ledger
from orthanc_ledger.peer import Peer
from orthanc_ledger.reasons import Reason
from orthanc_ledger.retrieve import Item, Plan, Query


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def test_without_a_request_every_exit_is_closed(world: World) -> None:
    assert exits(world) == set()
    assert world.seen() == set()
    assert world.plan().refused is Reason.NO_APPROVAL


def test_held_and_unheld_are_refused_alike(world: World) -> None:
    unheld = world.retrieval.plan(RESEARCH, RESEARCH, "STUDY", Query(studies=("1.2.3",)))
    assert (unheld.refused, unheld.items, unheld.withheld) == (Reason.NO_APPROVAL, (), {})
    held = world.plan()
    assert (held.refused, held.items, held.withheld) == (Reason.NO_APPROVAL, (), {})


@pytest.mark.parametrize("level", ["STUDY", "IMAGE"])
def test_the_ledger_is_asked_the_same_of_held_and_unheld(world: World, level: Any) -> None:
    """Otherwise the time of the answer would tell which it is."""

    class Recording(LedgerAfter):
        def query(self, function: str, args: Mapping[str, Any]) -> Any:
            asked[-1].append((function, {name: type(value) for name, value in args.items()}))
            return super().query(function, args)

    asked: list[list[Any]] = []
    held = Query(studies=(world.study_uid,)), Query(instances=tuple(world.sop_uids))
    for query in (
        held[level == "IMAGE"],
        Query(studies=("1.2.3",)) if level == "STUDY" else Query(instances=("1.2.3",)),
    ):
        asked.append([])
        gate = world.gate_by(Recording(world.ledger("owner", "node"), 9))
        retrieval = retrieval_of(world.node, gate)
        assert retrieval.plan(RESEARCH, RESEARCH, level, query).refused is Reason.NO_APPROVAL
    assert asked[0] == asked[1]
    assert [function for function, _ in asked[0]] == ["ApprovedStudies", "CheckAccess"]


@pytest.mark.parametrize("roles", [(), ("owner",), ("custodian",)])
def test_one_partys_approval_is_not_enough(world: World, roles: tuple[str, ...]) -> None:
    world.approve(world.request(), *roles)
    assert exits(world) == set()
    assert world.seen() == set()


def test_both_approvals_open_every_exit_for_that_node_and_no_other(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    assert exits(world) == set(world.sop_uids)
    assert world.seen() == {world.study_uid}
    for other in (SIBLING, FOREIGN):
        assert exits(world, other) == set()
        assert world.seen(other) == set()


def test_an_approval_of_the_deidentified_form_opens_nothing_identified(world: World) -> None:
    """Its approvals are fewer, and the objects here are identified."""
    policy = world.ledger("owner").query("GetPolicy", {})
    changed = {**policy, "release_forms": ["identified", "deidentified"]}
    proposed = world.ledger("owner").submit("ProposePolicy", {"policy": changed}).result
    world.ledger("custodian").submit("ConfirmPolicy", {"id": proposed["id"]})
    world.approve(world.request(release="deidentified"), "custodian", release="deidentified")
    (approved,) = world.ledger("owner").query("RequestsByState", {"state": "approved"})
    assert approved["release"] == "deidentified"
    assert exits(world) == set()
    assert world.seen() == set()


@pytest.mark.parametrize("recipient", [VIEWER, FOREIGN])
def test_a_research_asker_cannot_send_out_of_its_organisation(world: World, recipient: Peer) -> None:
    world.approve(world.request(), "owner", "custodian")
    assert world.plan(recipient, asker=RESEARCH).refused is Reason.DESTINATION


def test_approval_ends_at_the_exact_second(world: World) -> None:
    request = world.request()
    world.approve(request, "owner", "custodian", days=1)
    until = world.ledger("owner").query("GetRequest", {"id": request})["until"]
    world.later_s = until - system_clock() - 3  # three seconds for the test itself
    assert exits(world) == set(world.sop_uids)
    world.later_s = until - system_clock()
    assert exits(world) == set()
    assert world.seen() == set()
    assert world.plan().refused is Reason.APPROVAL_EXPIRED


def test_what_is_anchored_after_the_approval_is_not_covered_unless_future(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    store(world.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.9"))
    drain(world.node)
    assert exits(world) == set(world.sop_uids)
    world.approve(world.request(future=True), "owner", "custodian", days=29)
    assert exits(world) == {*world.sop_uids, "1.2.826.0.1.3680043.10.1.9"}


def test_a_further_approval_takes_nothing_away(world: World) -> None:
    world.approve(world.request(), "owner", "custodian", days=10)
    world.approve(world.request(sopClasses=["1.2.840.10008.5.1.4.1.1.2"]), "owner", "custodian", days=30)
    assert exits(world) == set(world.sop_uids)


def test_only_the_sop_classes_asked_for_leave(world: World) -> None:
    world.approve(world.request(sopClasses=["1.2.840.10008.5.1.4.1.1.2"]), "owner", "custodian")
    assert exits(world) == set()


def test_what_waits_for_its_anchor_does_not_leave(world: World) -> None:
    world.approve(world.request(future=True), "owner", "custodian")
    store(world.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.9"))
    anchorer = world.node.anchorer()
    anchorer.take_in()
    assert exits(world) == set(world.sop_uids)


@pytest.mark.parametrize("origin", ["rest-user", "stow", "research"])
def test_objects_of_an_excluded_origin_never_leave(world: World, origin: str) -> None:
    world.approve(world.request(future=True), "owner", "custodian")
    store(world.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.9"), origin=origin)
    drain(world.node)
    assert exits(world) == set(world.sop_uids)


def test_revoked_node_gets_nothing(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    node = {"organisation": "ResearchMSP", "aeTitle": "RESEARCH1"}
    world.ledger("custodian").submit("RevokeNode", {"node": node})
    assert exits(world) == set()
    assert world.seen() == set()


def test_a_flagged_instance_is_withheld_and_the_rest_leaves(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    study = world.node.keyring.ensure_study(world.study_uid)
    flagged = world.sop_uids[0]
    row = next(row for row in world.node.index.select(instances=[flagged]))
    flag = {
        "study": study.token,
        "instance": tokens.instance_token(study.k_study, flagged),
        "n": 0,
        "manifestCid": row.manifest,
        "observed": bytes(32),
        "what": [],
    }
    world.ledger("custodian").submit("FlagTampered", flag)
    assert exits(world) == set(world.sop_uids[1:])
    assert world.plan().withheld == {flagged: Reason.WITHHELD_INTEGRITY}


class TestStanding:
    """What owner or custodian took from research, and what both gave back."""

    def withdraw(self, world: World, *sop_uids: str) -> bytes:
        study = world.node.keyring.ensure_study(world.study_uid)
        args: dict[str, Any] = {"study": study.token, "reason": "113001"}
        if sop_uids:
            args["instances"] = [tokens.instance_token(study.k_study, uid) for uid in sop_uids]
        return bytes(world.ledger("owner").submit("Withdraw", args).result["id"])

    def reinstate(self, world: World, withdrawal: bytes, *roles: str) -> None:
        for role in roles:
            world.ledger(role).submit("Reinstate", {"id": withdrawal})

    def test_a_withdrawn_instance_is_withheld_and_the_rest_leaves(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        self.withdraw(world, world.sop_uids[0])
        assert exits(world) == set(world.sop_uids[1:])
        assert world.plan().withheld == {world.sop_uids[0]: Reason.WITHDRAWN}

    def test_a_withdrawn_study_leaves_through_no_exit_but_to_clinical_peers(self, world: World) -> None:
        world.approve(world.request(future=True), "owner", "custodian")
        self.withdraw(world)
        store(world.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.9"))
        drain(world.node)
        everything = {*world.sop_uids, "1.2.826.0.1.3680043.10.1.9"}
        assert exits(world) == set()
        assert world.seen() == set()
        assert world.plan().withheld == dict.fromkeys(everything, Reason.WITHDRAWN)
        assert exits(world, VIEWER) == everything
        assert world.seen(VIEWER) == {world.study_uid}

    @pytest.mark.parametrize("instances", [0, 1])
    def test_what_is_withdrawn_comes_back_when_both_say_so(self, world: World, instances: int) -> None:
        world.approve(world.request(), "owner", "custodian")
        withdrawal = self.withdraw(world, *world.sop_uids[:instances])
        self.reinstate(world, withdrawal, "owner")
        assert exits(world) == (set(world.sop_uids[instances:]) if instances else set())
        self.reinstate(world, withdrawal, "custodian")
        assert exits(world) == set(world.sop_uids)

    def test_what_is_withdrawn_twice_is_reinstated_twice(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        whole, one = self.withdraw(world), self.withdraw(world, world.sop_uids[0])
        self.reinstate(world, whole, "owner", "custodian")
        assert exits(world) == set(world.sop_uids[1:])
        self.reinstate(world, one, "owner", "custodian")
        assert exits(world) == set(world.sop_uids)

    def test_withdrawn_during_a_retrieve_the_running_lease_is_the_last(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        plan = world.plan()
        leave(plan, plan.items[0])
        self.withdraw(world)
        world.later_s = 61
        with pytest.raises(Refused) as refused, plan.open(plan.items[1]):
            pass
        assert refused.value.reason is Reason.WITHDRAWN
        plan.close()

    def test_a_planning_that_is_called_off_asks_for_no_further_study_and_logs_what_was_released(
        self, world: World
    ) -> None:
        class CalledOff(Exception):
            pass

        world.approve(world.request(), "owner", "custodian")
        awaited = iter([True, False])

        def meanwhile() -> None:
            if not next(awaited):
                raise CalledOff

        studies = (world.study_uid, "9.1", "9.2")
        with pytest.raises(CalledOff):
            world.retrieval.plan(RESEARCH, RESEARCH, "STUDY", Query(studies=studies), meanwhile)
        (call,) = world.node.outbox.posted()
        assert (call.function, call.args["sent"]) == ("LogOutcome", 0)

    def test_a_flag_that_both_resolved_withholds_no_more(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        study = world.node.keyring.ensure_study(world.study_uid)
        (row,) = world.node.index.select(instances=[world.sop_uids[0]])
        flagged = {
            "study": study.token,
            "instance": tokens.instance_token(study.k_study, row.sop_uid),
            "n": 0,
            "manifestCid": row.manifest,
        }
        world.ledger("custodian").submit("FlagTampered", {**flagged, "observed": None, "what": []})
        for role, left in (("owner", world.sop_uids[1:]), ("custodian", world.sop_uids)):
            world.ledger(role).submit("Resolve", flagged)
            assert exits(world) == set(left)

    def test_a_study_in_erasure_is_withdrawn(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        study = world.node.keyring.ensure_study(world.study_uid)
        world.ledger("owner").submit("RequestErase", {"study": study.token})
        assert exits(world) == set()
        assert world.seen() == set()
        world.ledger("custodian").submit("CancelErase", {"study": study.token})
        assert exits(world) == set(world.sop_uids)


def test_a_second_anchor_of_an_instance_by_an_insider_is_never_served(world: World) -> None:
    world.approve(world.request(future=True), "owner", "custodian")
    before = {uid: _bytes(world, uid) for uid in world.sop_uids}
    forged = variant(SOPInstanceUID=world.sop_uids[0], PatientID="SOMEBODY ELSE")
    store(world.node, forged)  # into the conflict queue; the insider anchors it all the same
    manifest = anchor_conflict(world)
    assert {uid: _bytes(world, uid) for uid in world.sop_uids} == before
    with world.node.index._db.write() as db:  # and changes the index
        db.execute("UPDATE instances SET manifest = ? WHERE sop_uid = ?", (manifest.cid, world.sop_uids[0]))
    assert {uid: _bytes(world, uid) for uid in world.sop_uids} == before


def test_an_anchor_whose_root_is_not_its_manifests_offers_nothing(world: World) -> None:
    world.approve(world.request(future=True), "owner", "custodian")
    store(world.node, variant(SOPInstanceUID=world.sop_uids[0], PatientID="SOMEBODY ELSE"))
    manifest = anchor_conflict(world, root=bytes(32))
    study = world.node.keyring.ensure_study(world.study_uid)
    args = {
        "study": study.token,
        "instance": tokens.instance_token(study.k_study, world.sop_uids[0]),
        "oldManifest": world.node.index.anchored_batches()[0].manifest,
        "newManifest": manifest.cid,
        "reason": "other",
    }
    proposed = world.ledger("owner").submit("Supersede", args, bytes(16)).result
    world.ledger("custodian").submit("ConfirmSupersede", {"id": proposed["id"]})
    assert exits(world) == set(world.sop_uids[1:])


def _bytes(world: World, sop_uid: str) -> bytes:
    plan = world.plan()
    item = next(item for item in plan.items if item.sop_instance == sop_uid)
    with plan.open(item) as data_set:
        plan.leave(item)
        content = data_set.read()
    plan.close()
    return content


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_with_an_unreadable_manifest_its_objects_are_withheld_and_flagged(world: World, damage: str) -> None:
    world.approve(world.request(), "owner", "custodian")
    _damage_first_manifest(world, damage)
    fresh = replace(world, node=Node(world.node.config))  # nothing cached
    plan = fresh.plan()
    assert (plan.refused, list(plan.items)) == (None, [])
    assert plan.withheld == dict.fromkeys(world.sop_uids, Reason.WITHHELD_INTEGRITY)
    assert fresh.seen() == set()
    assert [call.function for call in fresh.node.outbox.posted()] == ["FlagTampered"] * 3
    assert len(fresh.node.outbox.alarms()) == 3


def test_a_second_anchor_does_not_come_forward_when_the_first_cannot_be_read(world: World) -> None:
    world.approve(world.request(future=True), "owner", "custodian")
    store(world.node, variant(SOPInstanceUID=world.sop_uids[0], PatientID="SOMEBODY ELSE"))
    anchor_conflict(world)
    store(world.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.9"))
    drain(world.node)
    _damage_first_manifest(world, "missing")
    assert exits(replace(world, node=Node(world.node.config))) == set()


def _damage_first_manifest(world: World, damage: str) -> None:
    manifest = world.node.index.anchored_batches()[0].manifest
    path = next((world.folder / "node" / "data" / "objects").rglob(manifest))
    if damage == "missing":
        path.unlink()
    else:
        flip(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [("sop_class", "1.2.840.10008.5.1.4.1.1.2"), ("transfer_syntax", "1.2.840.10008.1.2.4.50"), ("study_uid", "1.2.3")],
)
def test_an_insider_who_changes_the_index_gets_nothing_out(world: World, column: str, value: str) -> None:
    world.approve(world.request(sopClasses=["1.2.840.10008.5.1.4.1.1.2", MR]), "owner", "custodian")
    with world.node.index._db.write() as db:
        db.execute(f"UPDATE instances SET {column} = ?", (value,))
    plan = world.plan()
    for item in plan.items:
        with pytest.raises(IntegrityError, match="index"), plan.open(item):
            pass
    plan.close()


def leave(plan: Plan, item: Item) -> None:
    with plan.open(item):
        plan.leave(item)


class TestLease:
    def test_objects_start_to_leave_until_the_lease_ends_then_a_new_release_is_needed(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        plan = world.plan()
        first, second, _ = plan.items
        leave(plan, first)
        world.later_s = 61
        leave(plan, second)
        plan.close()
        assert _functions(world).count("LogRelease") == 2

    def test_revoked_in_the_middle_the_running_lease_is_the_last(self, world: World) -> None:
        request = world.request()
        world.approve(request, "owner", "custodian")
        plan = world.plan()
        first, second, third = plan.items
        world.ledger("owner").submit("Revoke", {"id": request, "reason": "consent-withdrawn"})
        world.later_s = 55
        leave(plan, first)
        world.later_s = 61
        for item in (second, third):
            with pytest.raises(Refused), plan.open(item):
                pass
        plan.close()

    def test_a_lease_that_ends_while_the_object_is_verified_lets_nothing_start(self, world: World) -> None:
        request = world.request()
        world.approve(request, "owner", "custodian")
        plan = world.plan()
        with plan.open(plan.items[0]):
            world.ledger("owner").submit("Revoke", {"id": request, "reason": "breach"})
            world.later_s = 61
            with pytest.raises(Refused):
                plan.leave(plan.items[0])
        plan.close()
        drain(world.node)
        ((_, outcome),) = world.logged()
        assert outcome["sent"] == 0

    def test_a_clock_set_back_lengthens_no_lease(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        passed_s = 0.0
        gate = world.gate
        gate._monotonic = lambda: passed_s
        (offer,) = gate.offers(RESEARCH, world.study_uid, gate.approvals(RESEARCH))
        release = gate.release(offer, world.sop_uids)
        assert gate.running(release)
        world.later_s, passed_s = -3600, 61.0
        assert not gate.running(release)

    def test_what_began_to_leave_counts_as_sent_whatever_the_recipient_answers(self, world: World) -> None:
        world.approve(world.request(), "owner", "custodian")
        plan = world.plan()
        for item in plan.items:
            leave(plan, item)
        plan.close()
        drain(world.node)
        ((_, outcome),) = world.logged()
        assert (outcome["sent"], outcome["withheld"]) == (3, 0)

    def test_a_lease_never_outlives_the_approval(self, world: World) -> None:
        request = world.request()
        world.approve(request, "owner", "custodian", days=1)
        until = world.ledger("owner").query("GetRequest", {"id": request})["until"]
        world.later_s = until - system_clock() - 10
        plan = world.plan()
        world.later_s = until - system_clock()
        with pytest.raises(Refused) as refused, plan.open(plan.items[0]):
            pass
        assert refused.value.reason is Reason.APPROVAL_EXPIRED


def _functions(world: World) -> list[str]:
    return [row["function"] for row in world.ledger("owner").query("Audit", {})]


def test_the_release_names_exactly_what_may_leave_and_the_outcome_what_left(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    plan = world.plan()
    sent = plan.items[1].sop_instance
    leave(plan, plan.items[1])
    plan.close()
    drain(world.node)
    study = world.node.keyring.ensure_study(world.study_uid)
    by_token = {tokens.instance_token(study.k_study, uid): uid for uid in world.sop_uids}
    order = sorted(by_token)
    ((release, outcome),) = world.logged()
    assert (release["instancesRoot"], release["count"]) == (merkle.root(order), 3)
    bitmap = "".join("1" if by_token[token] == sent else "0" for token in order)
    expected = hashlib.sha256(bytes([int(bitmap.ljust(8, "0"), 2)])).digest()
    assert (outcome["sent"], outcome["withheld"], outcome["bitmapDigest"]) == (1, 2, expected)


def test_what_was_denied_is_counted_for_the_ledger(world: World) -> None:
    for _ in range(3):
        world.plan().close()
    world.node.outbox.post_denials({"organisation": "HospitalMSP", "aeTitle": "ORTHANCLEDGER"})
    (call,) = world.node.outbox.posted()
    assert (call.function, call.args["reason"], call.args["count"]) == ("LogDenials", "no approval", 3)


class LedgerAfter:
    """A ledger that goes away after so many calls: it implements the port, as no real one can be made to fail just
    there.
    """

    def __init__(self, ledger: Ledger, calls: int) -> None:
        self._ledger, self._left = ledger, calls

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise LedgerAway("gone")

    def submit(self, function: str, args: Mapping[str, Any], nonce: bytes | None = None) -> Committed:
        self._count()
        return self._ledger.submit(function, args, nonce)

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        self._count()
        return self._ledger.query(function, args)


def test_a_ledger_that_goes_away_at_any_call_lets_nothing_out(world: World) -> None:
    world.approve(world.request(), "owner", "custodian")
    node = world.node
    needed = 0
    while True:
        gate = world.gate_by(LedgerAfter(world.ledger("owner", "node"), needed))
        retrieval = retrieval_of(node, gate)
        try:
            plan = retrieval.plan(RESEARCH, RESEARCH, "STUDY", Query(studies=(world.study_uid,)))
        except LedgerAway:
            needed += 1
            continue
        assert {item.sop_instance for item in plan.items} == set(world.sop_uids)
        plan.close()
        break
    assert needed >= 4  # approvals, policy, standing, anchors, release: none may be left out


def test_with_the_content_store_away_nothing_is_released_or_told_to_research(world: World) -> None:
    """Whether it has an approval or not, and whatever a process has read before; clinical peers are served."""
    request = world.request()
    staging = world.node.config.data_dir / "objects" / "staging"
    for approve in (lambda: None, lambda: world.approve(request, "owner", "custodian")):
        approve()
        before = exits(world), world.seen()
        gate = world.gate
        offers = gate.offers(RESEARCH, world.study_uid, gate.approvals(RESEARCH))
        drain(world.node)  # outcomes
        logged = len(world.logged())
        staging.rename(staging.with_name("unmounted"))
        for asker in (RESEARCH, VIEWER):
            with pytest.raises(ContentAway):
                world.plan(RESEARCH, asker)
        with pytest.raises(ContentAway):
            world.seen()
        for offer in offers:
            with pytest.raises(ContentAway):
                gate.release(offer, world.sop_uids)
        assert len(world.logged()) == logged
        plan = world.plan(VIEWER)
        for item in plan.items:
            with plan.open(item) as data_set:
                assert data_set.read()
        staging.with_name("unmounted").rename(staging)
        assert (exits(world), world.seen()) == before
    assert before == (set(world.sop_uids), {world.study_uid})


class TestRolledBack:
    """The ledger answers, but the courier found that it was put back: what was revoked may be approved again."""

    @pytest.fixture
    def approved(self, world: World) -> World:
        world.approve(world.request(), "owner", "custodian")
        assert exits(world) == set(world.sop_uids)
        return world

    def test_it_counts_as_away_at_every_exit_until_the_alarm_is_settled(self, approved: World) -> None:
        outbox = approved.node.outbox
        outbox.alarm(ROLLED_BACK, "ledger", "a checkpoint of 9 entries was signed, the log has 8")
        study, image = Query(studies=(approved.study_uid,)), Query(instances=tuple(approved.sop_uids))
        for asker in (RESEARCH, VIEWER):
            for level, query in (("STUDY", study), ("IMAGE", image)):
                with pytest.raises(LedgerAway, match="rolled back"):
                    approved.retrieval.plan(asker, RESEARCH, level, query)  # type: ignore[arg-type]
        with pytest.raises(LedgerAway, match="rolled back"):
            approved.seen()
        assert len(approved.plan(VIEWER).items) == 3
        outbox.settle("ledger", kind=ROLLED_BACK)
        assert exits(approved) == set(approved.sop_uids)
        assert approved.seen() == {approved.study_uid}

    def test_nothing_offered_before_is_released_or_renewed(self, approved: World) -> None:
        plan, gate = approved.plan(), approved.gate
        (offer,) = gate.offers(RESEARCH, approved.study_uid, gate.approvals(RESEARCH))
        approved.node.outbox.alarm(ROLLED_BACK, "ledger", "a checkpoint of 9 entries was signed, the log has 8")
        with pytest.raises(LedgerAway, match="rolled back"):
            gate.release(offer, approved.sop_uids)
        approved.later_s += 61
        with pytest.raises(LedgerAway, match="rolled back"):
            leave(plan, plan.items[0])
        plan.close()


def test_clinical_retrieval_never_asks_the_ledger(world: World) -> None:
    node = world.node
    gate = world.gate_by(LedgerAfter(world.ledger("owner", "node"), 0))
    plan = retrieval_of(node, gate).plan(VIEWER, VIEWER, "STUDY", Query(studies=(world.study_uid,)))
    for item in plan.items:
        with plan.open(item) as data_set:
            assert data_set.read()
    assert len(list(Catalogue(node.index, gate).find(VIEWER, "STUDY", Query(), {}, combined=False))) == 1


def test_an_item_that_was_not_planned_cannot_be_opened(world: World) -> None:
    refused = world.plan()
    item = Item(MR, world.sop_uids[0], "1.2.840.10008.1.2.1", 1)
    with pytest.raises(Refused), refused.open(item):
        pass


def test_real_file_is_the_same_after_its_whole_way(world: World) -> None:
    original = real_file()
    store(world.node, original)
    drain(world.node)
    world.approve(world.request(future=True), "owner", "custodian")
    uid = dcmread(original).SOPInstanceUID
    with original.open("rb") as file:
        offset = open_instance(file).data_set_offset
    assert _bytes(world, uid) == part10(original)[offset:]
