"""The index made anew from ledger, content store and keyring is the one that was lost."""

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, Done, runner
from conftest import wait_until
from damage import flip
from live_node import make_live_node
from node_make import anchoring, anchoring_of, drain, make_node, open_node, real_file, store, variant
from sweep_make import place

from orthanc_ledger import reindex
from orthanc_ledger.assemble import INDEX, INDEX_LOCK, Node
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.index import Supersession
from orthanc_ledger.ledger.identity import issue
from orthanc_ledger.setup_node import CONFIG_NAME, ORGANISATIONS
from orthanc_ledger.sole import sole
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE

STUDY, OTHER = "1.2.826.0.1.3680043.10.7", "1.2.826.0.1.3680043.10.8"
Rows = dict[str, list[dict[str, Any]]]


def slice_of(study_uid: str, number: int, series: int = 1, **attributes: Any) -> Any:
    uids = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": f"{study_uid}.{series}"}
    return variant(**uids, SOPInstanceUID=f"{study_uid}.{series}.{number}", InstanceNumber=str(number), **attributes)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Two studies in three batches; a correction confirmed, one that waits for the custodian, one object unread."""
    node = make_node(tmp_path)
    for number in (3, 1, 2):
        store(node, slice_of(STUDY, number, StudyDescription=f"as number {number} has it"))
    store(node, slice_of(OTHER, 1, PatientName="Yamada^Tarou=山田^太郎", SpecificCharacterSet=r"\ISO 2022 IR 87"))
    drain(node)
    store(node, slice_of(STUDY, 1, series=2))
    drain(node)
    for number, decision in ((1, "confirmed"), (2, "proposed")):
        correct(node, slice_of(STUDY, number, PatientName="Corrected"))
        assert node.index.supersessions(decision)
    return node


@pytest.fixture
def command(node: Node, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command once this process has let go of the index."""
    run = runner(capsys, "--config", node.config.data_dir.parent / CONFIG_NAME)

    def alone(*words: object) -> Done:
        let_go(node)
        return run(*words)

    return alone


def correct(node: Node, correction: Any) -> None:
    """Supersede the content of a UID; confirmed for the first one."""
    store(node, correction)
    drain(node)
    [conflict] = [name for name in node.spool.names(CONFLICTS) if not waits(node, name)]
    holder = node.index.instance(conflict.partition(".")[0])
    assert holder is not None
    decision = Supersession(conflict, holder.claim, "metadata-corrected", "decided", str(holder.manifest))
    node.index.keep_supersession(decision)
    for _ in range(2):
        drain(node)
    if not node.index.supersessions("confirmed"):
        confirm(node)


def waits(node: Node, conflict: str) -> bool:
    return any(row.conflict == conflict for row in node.index.supersessions())


def confirm(node: Node) -> None:
    [proposed] = node.index.supersessions("proposed")
    custodian = node.config.data_dir.parent / ORGANISATIONS / "custodian" / "identities" / "person"
    node.ledger_as(custodian).submit("ConfirmSupersede", {"id": proposed.ledger_id})
    drain(node)


def rows(node: Node) -> Rows:
    """All of an index but what nobody needs again: ended decisions, and the nonce of those the ledger has."""
    with contextlib.closing(sqlite3.connect(node.config.data_dir / INDEX)) as db:
        db.row_factory = sqlite3.Row
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = {table: [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY 1")] for table in tables}
    waiting = [row for row in found["supersessions"] if row["state"] == "proposed"]
    found["supersessions"] = [{name: row[name] for name in row if name != "nonce"} for row in waiting]
    return found


def let_go(node: Node) -> None:
    """As when the process ends."""
    node.index.close()
    node.index_held.close()


def lose_index(node: Node) -> None:
    let_go(node)
    for file in node.config.data_dir.glob(f"{INDEX}*"):
        file.write_bytes(b"damaged" * 1000)


def again(node: Node) -> Node:
    return open_node(node.config.data_dir.parent.parent)


@pytest.mark.parametrize("in_memory", [reindex.IN_MEMORY, 1])
def test_it_is_equal_to_the_one_that_was_lost(
    node: Node, command: Command, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex, "IN_MEMORY", in_memory)  # 1: as an object too large for memory is read
    before = rows(node)
    assert [len(before[table]) for table in ("studies", "series", "instances", "batches")] == [2, 3, 5, 5]
    assert len(before["supersessions"]) == 1
    lose_index(node)
    done = command("reindex", "--json")
    assert (done.code, done.row["objects"], done.row["lost"], done.row["in_place"]) == (0, 7, 0, True)
    assert rows(again(node)) == before
    assert sorted(file.name for file in node.config.data_dir.glob(f"{INDEX}*")) == [INDEX]


def test_what_waits_in_spool_and_quarantine_comes_back_with_the_next_anchorer(node: Node, command: Command) -> None:
    store(node, real_file())
    store(node, slice_of(OTHER, 2))
    anchorer = node.anchorer()
    anchorer.take_in()
    [quarantined] = [row for row in node.index.select() if row.study_uid == OTHER and row.state == "spooled"]
    node.index.set_state(quarantined.claim, "quarantined", node.spool.put_aside(quarantined.spool_name, QUARANTINE))
    expected = {row.sop_uid: row.state for row in node.index.select()}
    assert set(expected.values()) == {"anchored", "spooled", "quarantined"}
    lose_index(node)
    assert command("reindex").code == 0
    rebuilt = again(node)
    anchorer = rebuilt.anchorer()
    anchorer.recover()
    anchorer.take_in()
    assert {row.sop_uid: row.state for row in rebuilt.index.select()} == expected


def test_a_correction_that_waited_is_served_when_the_custodian_confirms(node: Node, command: Command) -> None:
    lose_index(node)
    assert command("reindex").code == 0
    rebuilt = again(node)
    confirm(rebuilt)
    [corrected] = rebuilt.index.select(instances=[f"{STUDY}.1.2"])
    with rebuilt.library.open(corrected) as data_set:
        assert b"Corrected" in data_set.read()


def test_a_unit_that_was_anchored_and_not_yet_unlinked_is_dropped(node: Node, command: Command) -> None:
    [unit] = node.index.select(instances=[f"{STUDY}.2.1"])
    store(node, slice_of(OTHER, 9))
    drain_but_unlinking(node)
    lose_index(node)
    assert command("reindex").code == 0
    rebuilt = again(node)
    drain(rebuilt)
    assert rebuilt.spool.names(INBOX) == []
    assert [batch.count for batch in rebuilt.index.anchored_batches() if batch.study_uid == OTHER] == [1, 1]
    assert rebuilt.index.instance(unit.claim) == unit


def drain_but_unlinking(node: Node) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(node.spool), "remove", lambda *_: None)
        drain(node)


@pytest.fixture(params=["damaged object", "missing object", "damaged manifest", "missing manifest"])
def lost(request: pytest.FixtureRequest, node: Node) -> str:
    """CID of what is lost: one object, or the manifest with the one object of a study."""
    what, kind = request.param.split()
    [instance] = node.index.select(studies=[OTHER])
    cid = str(instance.object if kind == "object" else instance.manifest)
    if what == "damaged":
        flip(place(node, cid))
    else:
        place(node, cid).unlink()
    return cid


def test_with_something_lost_the_old_index_stays_until_the_loss_is_accepted(
    node: Node, command: Command, lost: str
) -> None:
    before = rows(node)
    done = command("reindex", "--json")
    assert (done.code, done.row["lost"], done.row["in_place"]) == (1, 1, False)
    assert [loss["cid"] for loss in done.row["losses"]] == [lost]
    assert rows(node) == before
    done = command("reindex", "--accept-loss")
    assert done.code == 1
    assert lost in done.out
    kept = [row["claim"] for row in before["instances"] if row["study_uid"] != OTHER]
    assert [row["claim"] for row in rows(again(node))["instances"]] == kept


def test_what_others_anchored_is_not_called_lost(node: Node, command: Command) -> None:
    other = issue(node.config.data_dir.parent / ORGANISATIONS / "owner", "node-2", "node")
    node.ledger_as(other).submit("Anchor", anchoring(block_cid(b"theirs")))
    before = rows(node)
    done = command("reindex", "--json")
    assert (done.code, done.row["elsewhere"]) == (0, 1)
    assert rows(again(node)) == before


def test_an_object_anchored_for_another_study_by_an_insider_is_not_entered(node: Node, command: Command) -> None:
    store(node, slice_of("1.2.826.0.1.3680043.10.9", 1))
    anchorer = node.anchorer()
    anchorer.take_in()
    [instance] = [row for row in node.index.select() if row.state == "spooled"]
    with contextlib.closing(anchorer._preparer.open(STUDY, INBOX)) as batch:
        assert list(batch.add([instance])) == []
        prepared = batch.finish(seq=99)
    assert prepared is not None
    node.ledger.submit("Anchor", anchoring_of(prepared.manifest))
    done = command("reindex", "--json")
    assert (done.code, [loss["cid"] for loss in done.row["losses"]]) == (1, [prepared.objects[instance.claim]])


def test_an_index_in_use_is_left_alone(node: Node, command: Command) -> None:
    before = rows(node)
    user = again(node)
    assert user.index.counts()
    done = command("reindex")
    let_go(user)
    assert (done.code, "in use" in done.err) == (2, True)
    assert rows(node) == before


def test_nobody_opens_the_index_while_it_is_made_anew(node: Node, command: Command) -> None:
    let_go(node)
    with sole(node.config.data_dir / INDEX_LOCK, AssertionError("held by this test")):
        assert command("studies").code == 3


def test_a_node_whose_supervisor_and_anchorer_were_killed_still_runs(tmp_path: Path, free_port: Any) -> None:
    """Its receivers have the index open until they end."""
    live = make_live_node(tmp_path, free_port)
    live.start()
    assert live.process is not None
    children = live.children()
    try:
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        live.process.kill()
        live.process.wait()
        live.command("reindex", code=2)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in children), 20, "all have ended")
    live.command("reindex")


def test_with_a_new_certificate_the_nodes_own_loss_is_still_one(node: Node, command: Command) -> None:
    [instance] = node.index.select(studies=[OTHER])
    place(node, str(instance.manifest)).unlink()
    renewed = issue(node.config.data_dir.parent / ORGANISATIONS / "owner", "node-renewed", "node")
    shutil.rmtree(node.config.identity)
    renewed.rename(node.config.identity)
    done = command("reindex", "--json")
    assert (done.code, done.row["elsewhere"], done.row["lost"]) == (1, 0, 1)


def test_what_waits_for_the_custodian_does_not_take_the_place_of_a_lost_first_content(
    node: Node, command: Command
) -> None:
    sop_uid = f"{STUDY}.1.2"
    [first] = node.index.select(instances=[sop_uid])
    place(node, first.object).unlink()
    assert command("reindex", "--accept-loss").code == 1
    rebuilt = again(node)
    assert rebuilt.index.select(instances=[sop_uid]) == []
    confirm(rebuilt)
    let_go(rebuilt)
    assert command("reindex", "--accept-loss").code == 1
    [corrected] = again(node).index.select(instances=[sop_uid])
    assert corrected.object != first.object


def test_with_the_ledger_away_nothing_is_replaced(node: Node, command: Command) -> None:
    before = rows(node)
    ledger = node.config.data_dir / "ledger.db"
    ledger.rename(ledger.with_suffix(".away"))
    assert command("reindex").code in (2, 3)
    ledger.with_suffix(".away").rename(ledger)
    assert rows(node) == before
    assert not list(node.config.data_dir.glob(f"{INDEX}.new*"))
