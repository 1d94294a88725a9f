"""A study that the ledger calls erased: what is left of it opens for nobody, and others are served as ever."""

import logging
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from command_line import Command, runner
from erase_make import (
    OTHER,
    PATIENT,
    STUDY,
    Marked,
    carry_out,
    check_gone,
    confirm,
    fill,
    found,
    ledger_as,
    no_grace,
    slice_of,
)
from gate_world import World, exits
from node_make import anchoring, drain, make_node, open_node, store
from pydicom.dataset import Dataset

from orthanc_ledger import erasure
from orthanc_ledger.assemble import Node
from orthanc_ledger.content import cbor
from orthanc_ledger.content.cbor import CID
from orthanc_ledger.content.cid import cid_bytes
from orthanc_ledger.erasure import NODE_KEY, NOT_DONE
from orthanc_ledger.errors import ContentAway, NotHeld, ServiceAway
from orthanc_ledger.forgetting import NOT_ERASED
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.fsck import check
from orthanc_ledger.manifest import encode_record
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import Query
from orthanc_ledger.setup_node import CONFIG_NAME
from orthanc_ledger.sole import sole
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE

VIEWER = Peer("VIEWER", "clinical", host="127.0.0.1", port=104)
DAY_S = 86_400


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path, forward=("VIEWER",), peers=(VIEWER,))


@pytest.fixture
def filled(node: Node) -> tuple[Marked, list[Dataset]]:
    return fill(node)


@pytest.fixture
def command(node: Node, capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(capsys, "--config", node.config.data_dir.parent / CONFIG_NAME)


def again(node: Node) -> Node:
    """As a process started now sees it."""
    return open_node(node.config.data_dir.parent.parent, forward=("VIEWER",), peers=(VIEWER,))


def retrieved(node: Node, study_uid: str) -> dict[str, bytes]:
    plan = node.retrieval.plan(VIEWER, VIEWER, "STUDY", Query(studies=(study_uid,)))
    data_sets = {}
    for item in plan.items:
        with plan.open(item) as data_set:
            data_sets[item.sop_instance] = data_set.read()
    return data_sets


def erased(node: Node) -> bytes:
    """A small study that is erased on the ledger and not yet here; its token."""
    token = erased_later(node)
    confirm(node, token)
    return token


def erased_later(node: Node) -> bytes:
    """A small study, and another one beside it; its token."""
    no_grace(node)
    store(node, slice_of(STUDY, 1))
    store(node, slice_of(OTHER, 1))
    drain(node)
    return node.keyring.ensure_study(STUDY).token


def events(node: Node, function: str) -> list[str]:
    rows = all_rows(node.ledger, "Audit", {})
    return [row["by"]["organisation"] for row in rows if row["function"] == function]


def alarms(node: Node) -> list[str]:
    return [alarm.kind for alarm in node.outbox.alarms()]


def test_nothing_of_it_is_left_and_nothing_opens_what_others_kept(
    node: Node, filled: tuple[Marked, list[Dataset]]
) -> None:
    marked, others = filled
    before = found(node.config.data_dir.parent, marked)
    assert {name.partition(":")[0] for name in before} >= {"index.db-wal", "node.key"}, "the search finds"
    assert any(name.endswith("its name") for name in before)
    kept = retrieved(node, OTHER)
    confirm(node, marked.token)
    carry_out(node)
    check_gone(node, marked)
    assert alarms(node) == [NODE_KEY]
    assert node.index.select(studies=[STUDY]) == []
    assert [node.spool.names(queue) for queue in (INBOX, CONFLICTS, QUARANTINE)] == [[], [], []]
    assert retrieved(node, OTHER) == retrieved(again(node), OTHER) == kept
    assert kept.keys() == {ds.SOPInstanceUID for ds in others}
    assert len(node.forwards.rows()) == len(others)
    assert events(node, "ErasureDone") == ["HospitalMSP"]
    assert check(node.config.data_dir / "ledger.db").findings == ()


def test_an_open_batch_of_it_is_discarded_with_its_sealed_files(node: Node) -> None:
    no_grace(node)
    store(node, slice_of(STUDY, 1))
    drain(node)
    token, anchorer = node.keyring.ensure_study(STUDY).token, node.anchorer()
    store(node, slice_of(STUDY, 2))
    anchorer.take_in()
    [waiting] = node.index.waiting()
    anchorer.prepare_due(waiting.newest_us)
    staging = node.config.data_dir / "objects" / "staging"
    assert any(staging.rglob("*"))
    confirm(node, token)
    eraser = node.eraser()
    eraser.step()
    anchorer.prepare_due(waiting.newest_us)
    assert not any(staging.rglob("*"))
    eraser.step()
    assert token not in node.keyring.study_tokens()


def test_nothing_is_called_erased_before_what_else_holds_it_has_let_go(node: Node) -> None:
    token, asked, held = erased(node), list[str](), {STUDY}
    eraser, anchorer = node.eraser(), node.anchorer()
    eraser._is_released = lambda uid: asked.append(uid) or uid not in held  # type: ignore[func-returns-value]
    eraser.step()
    drain(node, anchorer)
    eraser.step()
    assert (asked, events(node, "ErasureDone")) == ([STUDY], [])
    held.clear()
    eraser.step()
    assert events(node, "ErasureDone") == ["HospitalMSP"]
    assert token not in node.keyring.study_tokens()
    assert STUDY.encode() not in (node.config.data_dir / "erasures.db").read_bytes()


def test_nobody_gets_its_keys_from_the_confirmation_on_though_the_content_store_is_away(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased(node)
    with monkeypatch.context() as patch:
        patch.setattr(node.content, "get_block", Mock(side_effect=ContentAway("away")))
        with pytest.raises(ContentAway):
            node.eraser().step()
    assert node.keyring.is_erased(STUDY)
    carry_out(node)
    assert events(node, "ErasureDone") == ["HospitalMSP"]


def test_carried_out_once_however_often_the_processes_look(node: Node) -> None:
    erased(node)
    carry_out(node)
    key = node.config.node_key.path.read_bytes()
    for _ in range(2):
        carry_out(again(node))
    assert events(node, "ErasureDone") == ["HospitalMSP"]
    assert node.config.node_key.path.read_bytes() == key


def test_what_comes_later_waits_in_quarantine_with_an_alarm(node: Node) -> None:
    erased(node)
    node.eraser().step()
    late = slice_of(STUDY, 1)
    late.PatientComments = "sent again"
    with pytest.MonkeyPatch.context() as patch:  # later than the second of the confirmation
        patch.setattr(node.spool, "_now_us", lambda: 4_000_000_000_000_000)
        store(node, slice_of(STUDY, 2))  # before the anchorer has taken its part
        drain(node)
        node.eraser().step()
        store(node, late)
        node.anchorer().take_in()
    assert len(node.spool.names(QUARANTINE)) == 2
    assert node.spool.names(CONFLICTS) == []
    assert {row.state for row in node.index.select(studies=[STUDY])} == {"quarantined"}
    quarantined = [alarm.text for alarm in node.outbox.alarms() if alarm.kind == "quarantine"]
    assert len(quarantined) == 2
    assert all("was erased" in text for text in quarantined)
    assert node.keyring.study(STUDY) is None


def test_a_retrieve_in_flight_ends_without_an_alarm(node: Node) -> None:
    erased(node)
    plan = node.retrieval.plan(VIEWER, VIEWER, "STUDY", Query(studies=(STUDY,)))
    [item] = plan.items
    with plan.open(item) as data_set:
        first = data_set.read(1000)
        node.eraser().step()
        assert len(first + data_set.read()) == item.size
    for _ in range(2):
        with pytest.raises(NotHeld), plan.open(item):
            pass
        drain(node)
        node.eraser().step()
    assert alarms(node) == [NODE_KEY]
    assert node.outbox.posted() == []


def test_sweep_and_reindex_neither_miss_it_nor_bring_it_back(node: Node, command: Command) -> None:
    erased(node)
    carry_out(node)
    swept = node.sweep(0.0).round(lambda _: True)
    assert (swept.damaged, swept.not_held, swept.objects) == (0, 0, 1)
    node.index.close()
    node.index_held.close()
    rebuilt = command("reindex", "--json").row
    assert (rebuilt["erased"], rebuilt["objects"], rebuilt["lost"]) == (1, 1, 0)
    assert [uid for uid, *_ in again(node).index.studies()] == [OTHER]


def test_a_sweep_between_the_mark_and_the_anchorers_part_raises_no_alarm(node: Node) -> None:
    erased(node)
    node.eraser().step()
    swept = node.sweep(0.0).round(lambda _: True)
    assert (swept.damaged, swept.not_held, alarms(node)) == (0, 0, [])


def test_without_its_index_the_study_is_known_by_what_was_sealed(node: Node, command: Command) -> None:
    token = erased(node)
    node.index.close()
    node.index_held.close()
    assert command("reindex").code == 0
    fresh = again(node)
    assert fresh.index.study_of_token(token) is None
    carry_out(fresh)
    assert fresh.keyring.is_erased(STUDY)
    assert token not in fresh.keyring.study_tokens()


def test_a_keyring_put_back_from_before_is_cleared_again(node: Node) -> None:
    token = erased(node)
    keyring = node.config.data_dir / "keyring.db"
    key = node.config.node_key.path.read_bytes()
    with sqlite3.connect(keyring) as db, sqlite3.connect(keyring.with_suffix(".backup")) as kept:
        db.backup(kept)
    carry_out(node)
    keyring.with_suffix(".backup").replace(keyring)
    node.config.node_key.path.write_bytes(key)
    back = again(node)
    assert token in back.keyring.study_tokens()
    back.erasures.keep_place(back.erasures.place()[0], 0)  # a day later
    carry_out(back)
    assert token not in back.keyring.study_tokens()


def test_an_index_put_back_from_before_is_cleared_again(node: Node) -> None:
    """Its keys are gone, but it has the patient's name, and peers would find the study."""
    erased(node)
    index = node.config.data_dir / "index.db"
    with sqlite3.connect(index) as db, sqlite3.connect(index.with_suffix(".backup")) as kept:
        db.backup(kept)
    carry_out(node)
    node.index.close()
    index.with_suffix(".backup").replace(index)
    back = again(node)
    assert [uid for uid, *_ in back.index.studies()] == [STUDY, OTHER]
    back.erasures.keep_place(back.erasures.place()[0], 0)  # a day later
    carry_out(back)
    assert [uid for uid, *_ in back.index.studies()] == [OTHER]
    assert PATIENT.encode() not in index.read_bytes()
    assert retrieved(back, OTHER)


def forged(node: Node, token: bytes, root: dict[str, Any]) -> None:
    """Anchor, as somebody of the hospital, a manifest that no node made; the content store has it."""
    block = cbor.encode({"v": 1, "study": token, "seq": 9, "count": 1, **root})
    with node.content.begin() as batch:
        cid = batch.add_block(block)
        batch.commit()
    ledger_as(node, "owner").submit("Anchor", anchoring(cid, token))


def test_a_manifest_that_names_another_studys_objects_and_keys_marks_only_its_own(node: Node) -> None:
    erased(node)
    carry_out(node)
    [instance] = node.index.select(studies=[OTHER])
    other = node.manifests.read(str(instance.manifest), node.keyring.ensure_study(OTHER).token)
    token = node.keyring.ensure_study("1.2.3").token
    shard = cbor.encode_list([encode_record(record) for record in other.records])
    with node.content.begin() as batch:
        link = CID(cid_bytes(batch.add_block(shard)))
        batch.commit()
    forged(node, token, {"key_id": other.key_id, "shards": [link]})
    confirm(node, token)
    node.eraser().step()
    assert not node.keyring.is_erased(OTHER)
    assert token in node.keyring.study_tokens(), "it is still to be deleted"


def test_a_manifest_that_links_to_what_no_store_can_hold_does_not_stop_an_erasure(node: Node) -> None:
    token = erased_later(node)
    identity = CID(bytes((1, 0x71, 0, 1)) + cbor.encode(None))
    forged(node, token, {"key_id": bytes(16), "shards": [identity]})
    confirm(node, token)
    carry_out(node)
    assert events(node, "ErasureDone") == ["HospitalMSP"]


def test_who_has_not_carried_it_out_in_time_is_an_alarm(node: Node, command: Command) -> None:
    token = erased(node)
    carry_out(node)
    [row] = command("erase", "list", "--json").rows
    assert (row["state"], row["missing"], row["asked_by"]) == ("erased", ["CustodianMSP"], "HospitalMSP")
    eraser = node.eraser()
    eraser._clock = lambda: node.erasures.all()[0].time + 8 * DAY_S
    eraser.step()
    [alarm] = [alarm for alarm in node.outbox.alarms() if alarm.kind == NOT_DONE]
    assert (alarm.claim, "CustodianMSP" in alarm.text) == (token.hex(), True)
    ledger_as(node, "custodian").submit("ErasureDone", {"study": token})
    eraser.step()
    assert alarms(node) == [NODE_KEY]
    assert command("erase", "list", "--json").row["missing"] == []
    assert node.erasures.all() == []


def test_who_got_something_of_it_is_waited_for_too(node: Node, command: Command) -> None:
    token = erased_later(node)
    world = World(node, node.config.data_dir.parent.parent, STUDY, [f"{STUDY}.5.1"])
    world.approve(world.request(), "owner", "custodian")
    assert exits(world) == {*world.sop_uids}
    confirm(node, token)
    assert command("erase", "list", "--json").row["missing"] == ["CustodianMSP", "HospitalMSP", "ResearchMSP"]
    carry_out(node)
    assert command("erase", "list", "--json").row["missing"] == ["CustodianMSP", "ResearchMSP"]
    for who in ("custodian", "research"):
        ledger_as(node, who).submit("ErasureDone", {"study": token})
    assert command("erase", "list", "--json").row["missing"] == []


def test_alarms_and_notices_of_other_studies_stay(node: Node) -> None:
    erased(node)
    [instance] = node.index.select(studies=[OTHER])
    node.outbox.alarm("integrity", instance.claim, f"object {instance.object} differs")
    carry_out(node)
    assert alarms(node) == ["integrity", NODE_KEY]
    assert [notice.kind for notice in node.outbox.notices(0)] == ["integrity", NODE_KEY]


def test_pages_of_a_listing_go_on_behind_an_erasure(node: Node) -> None:
    """VACUUM leaves rowids as they are, by which a C-FIND that is under way asks on."""
    erased(node)
    carry_out(node)
    [(rowid,)] = sqlite3.connect(node.config.data_dir / "index.db").execute("SELECT rowid FROM instances")
    assert rowid == 2


# Commands


def test_the_time_of_grace_is_told(node: Node, command: Command) -> None:
    store(node, slice_of(STUDY, 1))
    drain(node)
    assert "once 7 days have gone;" in command("erase", "request", STUDY).out


def test_a_study_is_erased_by_commands(node: Node, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    no_grace(node)
    store(node, slice_of(STUDY, 1))
    drain(node)
    token = node.keyring.ensure_study(STUDY).token.hex()
    assert command("erase", "confirm", STUDY, "--yes").code == 2, "nobody asked for it"
    assert command("erase", "request", STUDY).code == 0
    [row] = command("erase", "list", "--json").rows
    assert (row["study"], row["study_instance_uid"], row["state"], row["missing"]) == (token, STUDY, "requested", None)
    assert command("erase", "cancel", token).code == 0
    assert command("erase", "list", "--json").rows == []
    assert command("erase", "request", token, "--json").row == {"study": token, "state": "requested"}
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    done = command("erase", "confirm", STUDY)
    assert (done.code, "nothing was changed" in done.err, STUDY in done.out) == (2, True, True)
    monkeypatch.setattr("builtins.input", lambda _: token[:8])
    assert command("erase", "confirm", STUDY).code == 0
    assert command("erase", "done", token, "--as", "custodian").code == 0
    carry_out(again(node))
    [row] = command("erase", "list", "--json").rows
    assert (row["state"], row["missing"], row["study_instance_uid"]) == ("erased", [], None)
    assert command("erase", "request", STUDY).code == 2, "its UID is not known here any more"


def test_the_custodian_signs_on_its_own_machine(node: Node, command: Command, tmp_path: Path) -> None:
    store(node, slice_of(STUDY, 1))
    drain(node)
    token = node.keyring.ensure_study(STUDY).token.hex()
    copy, signed = tmp_path / "copy.db", tmp_path / "request.tx"
    custodian = node.config.data_dir.parent / "organisations" / "custodian"
    assert command("ledger", "copy", copy).code == 0
    words = ("--ledger", copy, "--as", custodian, "--out", signed)
    assert command("erase", "request", STUDY, *words).code == 2, "a copy knows no UID"
    assert command("erase", "request", token, *words).code == 0
    assert command("submit", signed).code == 0
    [row] = command("erase", "list", "--json").rows
    assert (row["state"], row["asked_by"]) == ("requested", "CustodianMSP")


def test_nothing_is_logged_that_names_it(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    erased(node)
    carry_out(node)
    assert "erased: study" in caplog.text
    assert STUDY not in caplog.text
    assert PATIENT not in caplog.text


def test_a_study_that_cannot_be_forgotten_is_an_alarm_and_keeps_no_other_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes = erased(node), node.keyring.ensure_study(OTHER).token
    confirm(node, goes)
    [root] = [anchor["manifestCid"] for anchor in node.ledger.query("AnchorsOfStudy", {"study": stays})]
    forget = node.content.forget

    def forget_others(roots: Collection[str], cids: Collection[str]) -> Sequence[str]:
        if root in roots:
            raise ContentAway("it is pinned by itself")
        return forget(roots, cids)

    monkeypatch.setattr(node.content, "forget", forget_others)
    carry_out(node)
    assert node.keyring.study_tokens() == {stays}
    assert [alarm.claim for alarm in node.outbox.alarms() if alarm.kind == NOT_ERASED] == [stays.hex()]
    monkeypatch.undo()
    carry_out(node)  # a process started later
    assert node.keyring.study_tokens() == set()
    assert alarms(node) == [NODE_KEY]


def test_a_full_disk_behind_the_new_node_key_makes_no_other_one(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else no copy of it would be of the key in force."""
    token = erased(node)
    node.eraser().step()
    drain(node)

    def full() -> None:
        raise ServiceAway("disk full")

    monkeypatch.setattr(node.keyring, "scrub", full)
    keys = set()
    for _ in range(3):
        with pytest.raises(ServiceAway):
            node.eraser().step()
        keys.add(node.config.node_key.path.read_bytes())
    monkeypatch.undo()
    node.eraser().step()
    assert keys == {node.config.node_key.path.read_bytes()}
    assert events(node, "ErasureDone") == ["HospitalMSP"]
    assert token not in node.keyring.study_tokens()


def test_nothing_is_forgotten_while_a_copy_is_repaired(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "_REPAIR_S", 0.0)
    token = erased(node)
    node.eraser().step()
    drain(node)
    with sole(node.config.data_dir / "repair.lock", ContentAway("")), pytest.raises(ContentAway, match="repaired"):
        node.eraser().step()
    assert token in node.keyring.study_tokens()
    node.eraser().step()
    assert token not in node.keyring.study_tokens()
