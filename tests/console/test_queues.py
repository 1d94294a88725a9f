"""What waits for a decision is shown with what differs, and decided as by command; nobody decides by accident."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_world import World, make_world
from node_make import begin, drain, real_file, store, variant

from orthanc_ledger import difference
from orthanc_ledger.compare import Difference
from orthanc_ledger.config import Console
from orthanc_ledger.difference import difference as differs
from orthanc_ledger.errors import Unreadable
from orthanc_ledger.spool import CONFLICTS, QUARANTINE
from tests.console.world import Client, Desk, opened


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A node: another name under a known UID in its conflict queue, in its quarantine an object that breaks off."""
    made = make_world(tmp_path)
    store(made.node, variant(SOPInstanceUID=made.sop_uids[0], InstanceNumber="1", PatientName="Other^Name"))
    incoming, data_set = begin(made.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.77"))
    incoming.write(data_set[:-1000])
    incoming.accept()
    drain(made.node)
    return made


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Iterator[Desk]:
    """Its console."""
    with opened(world.node.config, Console(tmp_path / "console.accounts")) as made:
        made.account("staff", "staff")
        yield made


@pytest.fixture
def staff(desk: Desk) -> Client:
    return desk.client("staff")


def only(world: World, queue: str) -> str:
    [name] = world.node.spool.names(queue)
    return name


def test_the_first_page_says_what_waits(staff: Client) -> None:
    assert "Conflicts 1 Quarantine 1 Alarms 2" in staff.get("/").text


def test_a_conflict_names_what_differs(staff: Client, world: World) -> None:
    name = only(world, CONFLICTS)
    assert f'href="/conflicts/{name}"' in staff.get("/conflicts").html
    answer = staff.get(f"/conflicts/{name}")
    assert "changed (0010,0010) PatientName" in answer.text
    assert "Other^Name" not in answer.text, "which value it is, the ledger's console has no need to say"
    assert world.sop_uids[0] in answer.text


def test_the_first_content_is_kept_only_when_one_is_sure(staff: Client, world: World) -> None:
    name = only(world, CONFLICTS)
    staff.get(f"/conflicts/{name}")
    assert "tick the box" in staff.follow(staff.post(f"/conflicts/{name}/discard")).text
    assert only(world, CONFLICTS) == name
    staff.get(f"/conflicts/{name}")
    assert "The first content stays" in staff.follow(staff.post(f"/conflicts/{name}/discard", sure="yes")).text
    assert world.node.spool.names(CONFLICTS) == []
    assert [alarm.kind for alarm in world.node.outbox.alarms()] == ["quarantine"]
    assert staff.get(f"/conflicts/{name}").status == 404
    assert staff.post(f"/conflicts/{name}/discard", sure="yes").status == 404


def test_the_new_content_is_proposed_with_a_reason_of_the_list(staff: Client, world: World) -> None:
    name = only(world, CONFLICTS)
    staff.get(f"/conflicts/{name}")
    assert staff.post(f"/conflicts/{name}/supersede", reason="because").status == 409
    assert world.node.index.supersessions() == []
    assert staff.post(f"/conflicts/{name}/supersede", reason="patient-mismatch").status == 303
    [decided] = world.node.index.supersessions()
    assert (decided.conflict, decided.reason, decided.state) == (name, "patient-mismatch", "decided")
    assert "Decide" not in staff.get(f"/conflicts/{name}").text.replace("Decided", "")
    staff.get(f"/conflicts/{name}")
    assert staff.post(f"/conflicts/{name}/discard", sure="yes").status == 409


def test_what_is_in_quarantine_is_tried_again_or_discarded(staff: Client, world: World) -> None:
    name = only(world, QUARANTINE)
    answer = staff.get(f"/quarantine/{name}")
    assert "Why:" in answer.text
    staff.post(f"/quarantine/{name}/retry")
    assert world.node.spool.names(QUARANTINE) == []
    drain(world.node)
    assert only(world, QUARANTINE) == name
    staff.get(f"/quarantine/{name}")
    staff.post(f"/quarantine/{name}/discard", sure="yes")
    assert world.node.spool.names(QUARANTINE) == []


def test_who_is_not_staff_sees_and_decides_nothing(desk: Desk, world: World) -> None:
    desk.account("other", "approver", "auditor")
    client, name = desk.client("other"), only(world, CONFLICTS)
    client.get("/")
    for path in ("/conflicts", "/quarantine", "/alarms", "/studies", f"/conflicts/{name}"):
        assert client.get(path).status == 404
    assert client.post(f"/conflicts/{name}/discard", sure="yes").status == 404
    assert only(world, CONFLICTS) == name


def test_an_object_that_hangs_a_codec_ends_its_own_process_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = only(world, CONFLICTS)
    monkeypatch.setattr(difference, "_LIMIT_S", 0.001)
    with pytest.raises(Unreadable, match="not compared within"):
        differs(world.node, name)


def test_who_opens_many_conflicts_that_take_long_waits_for_none_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(difference, "_PATIENCE_S", 0.1)
    with difference._ONE, pytest.raises(Unreadable, match="try again"):
        differs(world.node, only(world, CONFLICTS))


def test_what_is_too_large_is_not_brought_into_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "LARGEST", 1000)
    with pytest.raises(Unreadable, match="too large"):
        differs(world.node, only(world, CONFLICTS))


def test_pixels_that_differ_are_named_by_their_frame(world: World) -> None:
    ds = variant(real_file(), SOPInstanceUID=world.sop_uids[1], InstanceNumber="2")
    ds.PixelData = b"\1" + ds.PixelData[1:]
    store(world.node, ds)
    drain(world.node)
    changed = [differs(world.node, name) for name in world.node.spool.names(CONFLICTS)]
    assert [Difference("frame 1", "changed")] in changed
