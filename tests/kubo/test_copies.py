"""A node with copies near by and on Kubo: who is served from which, and what becomes of a bad one."""

import os
import time
from pathlib import Path

import dag_cbor
import pytest

from orthanc_ledger.content.cid import cid_text
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.peer import Peer
from orthanc_ledger.repair import UNDECIDED
from orthanc_ledger.sweep import Round
from tests.damage import flip as flip_file
from tests.erase_make import carry_out, confirm, no_grace
from tests.gate_world import RESEARCH, VIEWER, World
from tests.kubo.live import Kubos, Node
from tests.kubo.test_store import holds, lose, pinned
from tests.kubo.world import DAMAGES, again, arrive, events, is_sound, make_hospital, near_file
from tests.node_make import drain

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

DAY_S = 86_400


@pytest.fixture
def world(tmp_path: Path, hospital: Node) -> World:
    """On one Kubo node, and approved for research."""
    made = make_hospital(tmp_path, hospital)
    made.approve(made.request(), "owner", "custodian")
    return made


@pytest.fixture
def two(tmp_path: Path, kubos: Kubos) -> World:
    """On two."""
    return make_hospital(tmp_path, kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital"))


def restarted(world: World) -> World:
    """As processes started now see it."""
    return World(again(world), world.folder, world.study_uid, world.sop_uids)


def first(world: World) -> Instance:
    return world.node.index.select()[0]


def blocks(world: World) -> dict[str, str]:
    """CIDs of one object, and of the root and the shard of its manifest."""
    instance = first(world)
    root = str(instance.manifest)
    [shard] = dag_cbor.decode(near_file(world, root).read_bytes())["shards"]  # type: ignore[index, call-overload]
    return {"object": str(instance.object), "manifest": root, "shard": cid_text(bytes(shard))}


def got(world: World, peer: Peer) -> set[str]:
    """What a peer's retrieve of the study brings."""
    plan = world.plan(peer)
    sent = set()
    for item in plan.items:
        with plan.open(item) as data_set:
            plan.leave(item)
            assert len(data_set.read()) == item.size
            sent.add(item.sop_instance)
    plan.close()
    return sent


def swept(world: World) -> Round:
    return again(world).sweep(0.0).round(lambda _: True)


def alarms(world: World) -> list[str]:
    return [alarm.kind for alarm in world.node.outbox.alarms()]


def repaired(world: World) -> list[tuple[object, object]]:
    """Instance and node of each repair on the ledger, once all is told."""
    drain(world.node)
    assert events(world, "FlagTampered") == []
    return [(row["args"]["instance"], row["args"]["node"]) for row in events(world, "ReportRepair")]  # type: ignore[index]


# Research is served from Kubo


@pytest.mark.parametrize("which", ["object", "manifest", "shard"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_block_is_healed_and_reported_before_research_gets_it(
    world: World, hospital: Node, which: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cid = blocks(world)[which]
    DAMAGES[damage](hospital, cid)
    caplog.set_level("INFO")
    world = restarted(world)
    assert got(world, RESEARCH) == set(world.sop_uids)
    assert is_sound(hospital, cid)
    assert first(world).manifest in pinned(hospital)
    [(_, node)] = repaired(world)
    assert node == {"organisation": "HospitalMSP", "aeTitle": world.node.config.ae_title}
    assert f"repaired {cid}: kubo0.hospital" in caplog.text
    assert got(restarted(world), RESEARCH) == set(world.sop_uids)
    assert len(repaired(world)) == 1
    assert alarms(world) == []


def test_with_no_healthy_copy_it_is_withheld_and_flagged_once_and_its_neighbours_leave(
    world: World, hospital: Node
) -> None:
    bad = first(world)
    lose(hospital, str(bad.object))
    flip_file(near_file(world, bad.object))
    for peer in (RESEARCH, VIEWER, RESEARCH):
        plan = world.plan(peer)
        for item in plan.items:
            if item.sop_instance == bad.sop_uid:
                with pytest.raises(IntegrityError), plan.open(item):
                    pass
            else:
                with plan.open(item) as data_set:
                    assert data_set.read()
        plan.close()
    drain(world.node)
    assert alarms(world) == ["integrity"]
    assert len(events(world, "FlagTampered")) == 1
    assert events(world, "ReportRepair") == []
    assert got(world, RESEARCH) == set(world.sop_uids) - {bad.sop_uid}


def test_what_nobody_can_say_now_is_withheld_without_a_flag_and_ends_no_sweep(
    world: World, kubos: Kubos, hospital: Node
) -> None:
    bad = first(world)
    lose(hospital, str(bad.object))
    near_file(world, bad.object).unlink()
    kubos.kill("kubo0.research")  # who may have a copy
    try:
        for peer in (RESEARCH, VIEWER):
            plan = world.plan(peer)
            item = next(item for item in plan.items if item.sop_instance == bad.sop_uid)
            with pytest.raises(ContentAway), plan.open(item):
                pass
            plan.close()
        for _ in range(2):
            round_ = swept(world)
            assert (round_.finished is None, round_.objects, round_.damaged) == (False, 3, 1)
            assert alarms(world) == [UNDECIDED]
    finally:
        kubos.start("kubo0.research")
        kubos.wait_connected()
    assert swept(world).damaged == 1
    assert alarms(world) == ["integrity"]
    drain(world.node)
    assert len(events(world, "FlagTampered")) == 1


# Clinical peers are served from the copies near by


@pytest.mark.parametrize("which", ["object", "manifest", "shard"])
def test_a_flipped_near_copy_is_healed_and_reported_before_a_clinical_peer_gets_it(world: World, which: str) -> None:
    file = near_file(world, blocks(world)[which])
    before = file.read_bytes()
    flip_file(file)
    world = restarted(world)
    assert got(world, VIEWER) == set(world.sop_uids)
    assert file.read_bytes() == before
    assert len(repaired(world)) == 1
    assert alarms(world) == []


def test_a_lost_near_copy_is_served_from_kubo_and_put_back_by_the_sweep(world: World) -> None:
    file = near_file(world, first(world).object)
    file.unlink()
    assert got(world, VIEWER) == set(world.sop_uids)
    assert swept(world).is_sound
    assert file.exists()
    assert len(repaired(world)) == 1
    assert alarms(world) == []


def test_near_copies_that_were_dropped_in_time_are_no_damage_and_clinical_peers_do_not_notice(
    tmp_path: Path, kubos: Kubos
) -> None:
    world = make_hospital(tmp_path, kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital"), keep_days=1)
    near = [near_file(world, instance.object) for instance in world.node.index.select()]
    for file in near[:2]:
        os.utime(file, (time.time() - 2 * DAY_S,) * 2)
    for _ in range(2):
        assert swept(world).is_sound
        assert [file.exists() for file in near] == [False, False, True]
        assert got(restarted(world), VIEWER) == set(world.sop_uids)
    assert (repaired(world), alarms(world)) == ([], [])


# The sweep


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_sweep_heals_every_copy_and_pins_what_was_unpinned(two: World, kubos: Kubos, damage: str) -> None:
    nodes = [kubos.node("kubo0.hospital"), kubos.node("kubo1.hospital")]
    cid = blocks(two)
    near, (second, third) = near_file(two, first(two).object), two.node.index.select()[1:]
    DAMAGES[damage](nodes[0], cid["shard"])
    DAMAGES[damage](nodes[0], str(second.object))
    DAMAGES[damage](nodes[1], str(third.object))
    flip_file(near)
    if damage == "corrupt":  # else its loss would not be missed
        nodes[1].call("pin/rm", cid["manifest"])
    assert swept(two).is_sound
    for node in nodes:
        assert all(is_sound(node, each) for each in (cid["shard"], second.object, third.object))
        assert cid["manifest"] in pinned(node)
    assert len(repaired(two)) == 4
    swept(two)
    assert len(repaired(two)) == 4
    assert alarms(two) == []


@pytest.mark.parametrize("is_over", [False, True])
def test_a_sweep_that_an_erasure_overtakes_brings_nothing_back(tmp_path: Path, kubos: Kubos, is_over: bool) -> None:
    world = make_hospital(tmp_path, kubos.node("kubo0.hospital"))
    [anchor] = all_rows(world.node.ledger, "Anchors", {})
    kubos.node("kubo0.custodian").call("pin/add", anchor["manifestCid"])
    no_grace(world.node)
    objects = [str(instance.object) for instance in world.node.index.select()]
    files = [near_file(world, cid) for cid in objects]
    checked = again(world).library.check_manifest(world.study_uid, anchor, every_copy=True)
    assert next(checked).fault is None
    confirm(world.node, anchor["study"])
    if is_over:  # all have said so
        world.ledger("custodian", "node").submit("ErasureDone", {"study": anchor["study"]})
    carry_out(world.node)
    world.node.eraser().step()
    assert [type(each.fault) for each in checked] == [NotHeld, NotHeld]
    if not is_over:
        with pytest.raises(NotHeld):  # whoever waited for its end
            again(world).repairs.mend(objects[0], anchor["manifestCid"], anchor["study"])
    assert [file for file in files if file.exists()] == []
    assert [cid for cid in objects if holds(kubos.node("kubo0.hospital"), cid)] == []
    assert repaired(world) == []


def test_with_one_of_two_nodes_away_research_is_served_from_the_other_and_nothing_new_is_sealed(
    two: World, kubos: Kubos
) -> None:
    two.approve(two.request(future=True), "owner", "custodian")
    kubos.kill("kubo0.hospital")
    try:
        assert got(restarted(two), RESEARCH) == set(two.sop_uids)
        late = arrive(two.node, two.study_uid)
        drain(two.node)
        assert two.node.index.counts() == {"anchored": 3, "spooled": 1}
        assert got(restarted(two), VIEWER) == {*two.sop_uids, late}
    finally:
        kubos.start("kubo0.hospital")
        kubos.wait_connected()
    drain(two.node)
    assert got(restarted(two), RESEARCH) == {*two.sop_uids, late}


def test_reindex_heals_what_it_meets(world: World) -> None:
    flip_file(near_file(world, first(world).object))
    lost: list[object] = []
    rebuilt = again(world).reindex(Index(world.folder / "fresh.db"), lost.append).run()
    assert (rebuilt.objects, lost) == (3, [])
    assert len(repaired(world)) == 1
