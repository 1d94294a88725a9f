"""The sweep finds whatever differs from the ledger, tells it once, and nothing that interrupts it makes it miss any."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import dag_cbor
import pytest
import yaml
from conftest import ROOT, wait_until
from damage import flip
from node_make import anchoring, drain, make_node, open_node, real_file, store, variant
from sweep_make import STUDY, hold, place

from orthanc_ledger import cli
from orthanc_ledger.anchors import Anchors
from orthanc_ledger.assemble import INDEX, KEYRING, Node
from orthanc_ledger.content.cid import block_cid, cid_text
from orthanc_ledger.errors import ConfigError, ContentAway, LedgerAway, NotHeld, ServiceAway
from orthanc_ledger.index import Instance, Supersession
from orthanc_ledger.ledger.identity import issue, load_identity
from orthanc_ledger.setup_node import CONFIG_NAME, ORGANISATIONS
from orthanc_ledger.sole import sole
from orthanc_ledger.spool import CONFLICTS
from orthanc_ledger.sweep import Round, Rounds, Sweep

OTHER_STUDY = f"{STUDY}.2"


def go_on(_: Round) -> bool:
    return True


def stop_after(objects: int) -> Callable[[Round], bool]:
    return lambda round_: round_.objects < objects


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Two studies: one of 6 objects in 3 manifests, one of 2 in one."""
    made = make_node(tmp_path)
    hold(made, 6, batches=3)
    hold(made, 2, study_uid=OTHER_STUDY)
    return made


def swept(node: Node) -> Round:
    """A round by a process started now."""
    return Node(node.config).sweep(0.0).round(go_on)


def alarms(node: Node) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.claim) for alarm in node.outbox.alarms()]


def flags(node: Node) -> list[tuple[str, bytes | None]]:
    """Manifest and observed digest of each flag that waits for the ledger."""
    calls = node.outbox.posted()
    assert {call.function for call in calls} <= {"FlagTampered"}
    return [(call.args["manifestCid"], call.args["observed"]) for call in calls]


def by_person(node: Node, who: str, function: str, **args: Any) -> None:
    folder = node.config.data_dir.parent / ORGANISATIONS / who / "identities" / "person"
    node.ledger_as(folder).submit(function, args)


def standing(node: Node, instance: Instance) -> Any:
    study = node.keyring.ensure_study(instance.study_uid)
    return node.ledger.query("StandingOf", {"study": study.token})


def resolve(node: Node, instance: Instance, manifest: str | None = None) -> None:
    """Owner and custodian resolve the instance's flag, on its own manifest or on another."""
    [flag] = standing(node, instance)["flagged"]
    study = node.keyring.ensure_study(instance.study_uid)
    for who in ("owner", "custodian"):
        agreed = manifest or flag["manifestCid"]
        by_person(node, who, "Resolve", study=study.token, instance=flag["instance"], n=flag["n"], manifestCid=agreed)


# What it finds


def test_a_changed_byte_in_any_of_10_000_objects_is_found(tmp_path: Path, figure: Callable[[str], None]) -> None:
    node, any_of_them = make_node(tmp_path), random.Random(4)
    hold(node, 10_000, batches=20)
    bad = any_of_them.sample(node.index.select(), 50)
    for instance in bad:
        flip(place(node, instance.object), any_of_them.random())
    round_ = swept(node)
    figure(f"sweep: {round_.objects_s:.0f} objects/s, {round_.mb_s:.1f} MiB/s")
    assert (round_.anchors, round_.objects, round_.damaged) == (20, 10_000, 50)
    assert sorted(alarms(node)) == sorted(("integrity", instance.claim) for instance in bad)
    assert sorted(cid for cid, _ in flags(node)) == sorted(str(instance.manifest) for instance in bad)


def test_a_sound_node_is_counted_and_nothing_is_alarmed(node: Node) -> None:
    round_ = swept(node)
    sealed_bytes = sum(place(node, instance.object).stat().st_size for instance in node.index.select())
    found = (round_.anchors, round_.elsewhere, round_.objects, round_.bytes, round_.damaged)
    assert found == (4, 0, 8, sealed_bytes, 0)
    assert round_.is_sound
    assert (alarms(node), flags(node)) == ([], [])
    assert (node.rounds.finished(), node.rounds.unfinished()) == (round_, None)


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["changed", "deleted"])
def test_a_damaged_object_is_alarmed_and_flagged_once_and_all_others_verified(
    node: Node, damage: Callable[[Path], None]
) -> None:
    bad = node.index.select()[3]
    damage(place(node, bad.object))
    for _ in range(2):
        round_ = swept(node)
        assert (round_.objects, round_.damaged) == (8, 1)
        assert alarms(node) == [("integrity", bad.claim)]
        [(manifest, observed)] = flags(node)
        assert (manifest, observed is None) == (bad.manifest, damage is not flip)


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["changed", "deleted"])
@pytest.mark.parametrize("block", ["root", "shard"])
def test_a_damaged_manifest_is_alarmed_its_instances_are_flagged_and_the_walk_goes_on(
    node: Node, damage: Callable[[Path], None], block: str
) -> None:
    bad = node.index.select(studies=[OTHER_STUDY])
    root = place(node, bad[0].manifest)
    [shard] = dag_cbor.decode(root.read_bytes())["shards"]  # type: ignore[index, call-overload]
    damage(root if block == "root" else place(node, cid_text(bytes(shard))))
    round_ = swept(node)
    assert (round_.anchors, round_.objects, round_.damaged) == (4, 8, 2)
    assert sorted(alarms(node)) == sorted([("manifest", root.name), *(("integrity", row.claim) for row in bad)])
    assert flags(node) == [(root.name, None)] * 2


def test_a_damaged_manifest_that_is_whole_again_is_no_alarm_any_more(node: Node) -> None:
    root = place(node, node.index.select()[0].manifest)
    flip(root)
    swept(node)
    flip(root)
    swept(node)
    assert "manifest" not in {kind for kind, _ in alarms(node)}


def test_a_manifest_that_is_not_the_anchored_one_is_alarmed(node: Node) -> None:
    """Whole and held, but the ledger has another root for it: somebody anchored what nobody can verify."""
    anchored = sweep_over(node, lambda anchor: {**anchor, "root": bytes(32)}).round(go_on)
    assert (anchored.anchors, anchored.damaged) == (4, 8)
    assert {kind for kind, _ in alarms(node)} == {"manifest", "integrity"}


def test_what_another_node_of_the_organisation_anchored_is_counted_only(node: Node) -> None:
    """On the same ledger, with a certificate, a keyring and an index of its own."""
    other = issue(node.config.data_dir.parent / ORGANISATIONS / "owner", "node-2", "node")
    node.ledger_as(other).submit("Anchor", anchoring(block_cid(b"theirs")))
    round_ = swept(node)
    assert (round_.anchors, round_.elsewhere, round_.not_held, round_.objects) == (5, 1, 0, 8)
    assert round_.is_sound
    assert (alarms(node), flags(node)) == ([], [])


def forget_studies(node: Node) -> list[tuple[Any, ...]]:
    """The index's rows of its studies, taken from it."""
    with closing(sqlite3.connect(node.config.data_dir / INDEX, isolation_level=None)) as db:
        rows = db.execute("SELECT * FROM studies").fetchall()
        db.execute("DELETE FROM studies")
    return rows


def test_a_sweep_is_not_blinded_by_an_index_that_lost_its_studies(node: Node) -> None:
    """An insider with the disk: objects and manifests are gone, and nothing here says that they ever were."""
    forget_studies(node)
    for file in (node.config.data_dir / "objects").rglob("bafy*"):
        file.unlink()
    for _ in range(2):
        round_ = swept(node)
        assert (round_.anchors, round_.elsewhere, round_.not_held, round_.objects) == (4, 0, 4, 0)
        assert not round_.is_sound
        cids = sorted(anchor["manifestCid"] for anchor in node.ledger.query("Anchors", {}))
        assert alarms(node) == [("not held", cid) for cid in cids]


def test_what_was_not_held_is_no_alarm_once_it_is_found_again(node: Node) -> None:
    rows = forget_studies(node)
    swept(node)
    with closing(sqlite3.connect(node.config.data_dir / INDEX, isolation_level=None)) as db:
        db.executemany("INSERT INTO studies VALUES (?, ?, ?, ?)", rows)
    assert swept(node).is_sound
    assert alarms(node) == []


def test_lost_keys_are_alarmed_and_flag_nothing(node: Node) -> None:
    """A keyring restored from an older backup: the objects are what was anchored, but nobody here can open them."""
    with sqlite3.connect(node.config.data_dir / KEYRING) as db:
        db.execute("DELETE FROM study")
    round_ = swept(node)
    assert (round_.anchors, round_.objects, round_.damaged) == (4, 8, 8)
    assert [kind for kind, _ in alarms(node)] == ["manifest"] * 4
    assert flags(node) == []


def test_one_study_alone_keeps_no_place(node: Node) -> None:
    flip(place(node, node.index.select(studies=[OTHER_STUDY])[0].object))
    assert node.sweep(0.0).study(STUDY, go_on).objects == 6
    round_ = node.sweep(0.0).study(OTHER_STUDY, go_on)
    assert (round_.objects, round_.damaged) == (2, 1)
    assert (node.rounds.finished(), node.rounds.unfinished()) == (None, None)
    with pytest.raises(NotHeld, match="nothing of it"):
        node.sweep(0.0).study("1.2.3", go_on)


# What interrupts it


def test_a_round_may_be_ended_between_manifests_of_others(node: Node) -> None:
    elsewhere = sweep_over(node, lambda anchor: {**anchor, "study": bytes(16)})
    assert elsewhere.round(lambda round_: round_.anchors < 2).anchors == 2


def test_a_round_goes_on_behind_the_last_manifest_that_was_done(node: Node) -> None:
    stopped = node.sweep(0.0).round(stop_after(5))
    assert (stopped.anchors, stopped.objects, stopped.finished) == (2, 4, None)  # the third is begun anew
    assert node.rounds.unfinished() == stopped
    for instance in node.index.select():
        if str(instance.manifest) <= stopped.place:
            place(node, instance.object).unlink()
    round_ = swept(node)
    assert (round_.started, round_.anchors, round_.objects, round_.damaged) == (stopped.started, 4, 8, 0)
    assert swept(node).damaged == 4


def test_content_store_away_is_no_damage_and_the_round_goes_on_when_it_is_back(node: Node) -> None:
    objects = node.config.data_dir / "objects" / "objects"

    def unmount(round_: Round) -> bool:
        if round_.objects == 3:
            objects.rename(objects.with_name("unmounted"))
        return True

    sweep = node.sweep(0.0)
    for _ in range(2):
        with pytest.raises(ContentAway):
            sweep.round(unmount)
    reached = node.rounds.unfinished()
    assert reached is not None
    assert reached.anchors == 1
    objects.with_name("unmounted").rename(objects)
    round_ = sweep.round(go_on)
    assert (round_.started, round_.anchors, round_.objects, round_.damaged) == (reached.started, 4, 8, 0)
    assert (alarms(node), flags(node)) == ([], [])


def test_a_disk_that_is_not_mounted_at_start_flags_nothing(tmp_path: Path, node: Node) -> None:
    """The mount point is an empty folder, and no process that starts now takes it for a store."""
    store = node.config.data_dir / "objects"
    store.rename(store.with_name("unmounted"))
    store.mkdir()
    with pytest.raises(ConfigError, match="mount its disk"):
        swept(open_node(tmp_path))
    assert (alarms(node), flags(node)) == ([], [])


def test_ledger_away_loses_no_finding(node: Node) -> None:
    """Away when it is asked what stands about a damaged object: the manifest is done again, and nothing twice."""
    bad = node.index.select()[0]
    flip(place(node, bad.object))

    def away(anchor: dict[str, Any]) -> dict[str, Any]:
        return anchor

    broken = sweep_over(node, away, refuses="StandingOf")
    with pytest.raises(LedgerAway):
        broken.round(go_on)
    assert alarms(node) == []
    round_ = swept(node)
    assert (round_.anchors, round_.objects, round_.damaged) == (4, 8, 1)
    assert alarms(node) == [("integrity", bad.claim)]


def test_killed_it_loses_one_manifests_work_at_most(
    tmp_path: Path, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    node = make_node(tmp_path)
    hold(node, 36, batches=12)
    config = tmp_path / "node" / CONFIG_NAME
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "sweep_mb_s": 0.02}))
    command = [sys.executable, "-m", "orthanc_ledger", "--config", str(config), "sweep", "--json"]
    slow = start_process(command, cwd=ROOT)
    wait_until(lambda: (so_far := node.rounds.unfinished()) and so_far.anchors >= 2, 30, "two manifests are done")
    slow.kill()
    slow.wait()
    reached = node.rounds.unfinished()
    assert reached is not None
    last = max(node.index.select(), key=lambda instance: str(instance.manifest))
    assert reached.place < str(last.manifest), "killed in the middle"
    flip(place(node, last.object))
    for instance in node.index.select():
        if str(instance.manifest) <= reached.place:
            place(node, instance.object).unlink()  # a round that began anew would find it
    done = subprocess.run([*command, "--full-speed"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    row = json.loads(done.stdout)
    assert (done.returncode, row["anchors"], row["objects"], row["damaged"]) == (1, 12, 36, 1)
    assert alarms(node) == [("integrity", last.claim)]


def test_two_sweeps_of_a_node_exclude_each_other(node: Node) -> None:
    refused = []

    def meanwhile(_: Round) -> bool:
        with pytest.raises(ServiceAway, match="another sweep") as error:
            swept(node)
        refused.append(error)
        return True

    node.sweep(0.0).study(OTHER_STUDY, meanwhile)
    assert refused
    assert swept(node).finished is not None


# The schedule


class Schedule(threading.Event):
    """A clock that passes while the sweep waits, which ends after so many hours; notes when rounds ended."""

    def __init__(self, hours: float, now: int = 1_900_000_000) -> None:
        super().__init__()
        self.begun = self.now = now
        self._end = now + hours * 3600

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now += 600  # ten minutes, whatever it was
        if self.now >= self._end:
            self.set()
        return self.is_set()


def run(node: Node, schedule: Schedule, every_h: float = 24.0) -> list[float]:
    """Hours after which rounds ended."""
    ended: list[float] = []
    rounds = Rounds(node.config.data_dir / "sweep.db")
    keep = rounds.keep

    def note(round_: Round) -> None:
        keep(round_)
        if round_.finished is not None:
            ended.append((round_.finished - schedule.begun) / 3600)

    rounds.keep = note  # type: ignore[method-assign]
    lock = node.config.data_dir / "lock"
    parts = node.index, node.library, node.outbox, rounds
    made = Sweep(node.ledger, Anchors(node.ledger, certificate(node), node.keyring), *parts, lock, lambda: schedule.now)
    made.run(schedule, every_h * 3600, 1.0)
    return ended


def test_rounds_follow_each_other_by_the_configured_hours(node: Node) -> None:
    assert run(node, Schedule(hours=50)) == [0, 24, 48]


def test_a_restart_sweeps_no_sooner_and_a_clock_set_back_no_later(node: Node) -> None:
    first = Schedule(hours=1)
    assert run(node, first) == [0]
    assert run(node, Schedule(hours=30, now=first.now)) == [23]
    assert run(node, Schedule(hours=1, now=first.begun - 999_999)) == [0]


def test_an_unfinished_round_is_gone_on_with_at_once(node: Node) -> None:
    run(node, Schedule(hours=1))
    node.sweep(0.0).round(stop_after(5))
    assert run(node, Schedule(hours=1)) == [0]
    finished = node.rounds.finished()
    assert finished is not None
    assert finished.anchors == 4


def test_running_it_waits_for_a_store_that_is_away_and_goes_on_by_itself(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    objects = node.config.data_dir / "objects" / "objects"
    stop, running = threading.Event(), Node(node.config).sweep(0.0)
    objects.rename(objects.with_name("unmounted"))
    thread = threading.Thread(target=running.run, args=(stop, 3600.0, 0.01))
    thread.start()
    try:
        wait_until(lambda: "the sweep waits" in caplog.text, 20, "it noticed")
        objects.with_name("unmounted").rename(objects)
        wait_until(node.rounds.finished, 20, "the round ended")
    finally:
        stop.set()
        thread.join(30)
    assert caplog.text.count("the sweep waits") == 1
    assert (alarms(node), flags(node)) == ([], [])


# Flags that come back


def test_the_alarm_stands_until_both_parties_resolved_the_flag_and_the_object_verifies(node: Node) -> None:
    bad = node.index.select()[0]
    flip(place(node, bad.object))
    swept(node)
    drain(node)
    flip(place(node, bad.object))  # restored from a backup
    swept(node)
    assert alarms(node) == [("integrity", bad.claim)], "restored, but nobody said so"
    flip(place(node, bad.object))
    resolve(node, bad)
    swept(node)
    assert alarms(node) == [("integrity", bad.claim)], "said so, but not restored"


def test_an_object_damaged_again_after_its_flag_was_resolved_is_flagged_again(node: Node) -> None:
    bad = node.index.select()[0]
    for n in range(3):
        flip(place(node, bad.object))
        for _ in range(2):  # a flag that stands is not raised again
            swept(node)
            drain(node)
        [flag] = standing(node, bad)["flagged"]
        assert (flag["n"], flag["manifestCid"], flags(node)) == (n, bad.manifest, [])
        resolve(node, bad)
        flip(place(node, bad.object))
        swept(node)
        assert alarms(node) == []
    assert [notice.kind for notice in node.outbox.notices(0)] == ["integrity"] * 3


def test_an_alarm_is_not_taken_back_while_its_next_flag_waits_for_the_ledger(node: Node) -> None:
    bad = node.index.select()[0]
    flip(place(node, bad.object))
    swept(node)
    drain(node)
    resolve(node, bad)
    swept(node)  # damaged still: flagged again
    flip(place(node, bad.object))
    swept(node)
    assert alarms(node) == [("integrity", bad.claim)]
    drain(node)
    swept(node)
    assert alarms(node) == [("integrity", bad.claim)]
    resolve(node, bad)
    swept(node)
    assert alarms(node) == []


@pytest.fixture
def corrected(tmp_path: Path) -> tuple[Node, Instance]:
    """A node whose one object was superseded, and the row the index had of the first content."""
    node = make_node(tmp_path)
    store(node, real_file())
    store(node, variant(PatientName="Corrected"))
    drain(node)
    [first] = node.index.select()
    [conflict] = node.spool.names(CONFLICTS)
    decision = Supersession(conflict, first.claim, "metadata-corrected", "decided", str(first.manifest))
    node.index.keep_supersession(decision)
    drain(node)
    drain(node)
    [proposed] = node.index.supersessions("proposed")
    by_person(node, "custodian", "ConfirmSupersede", id=proposed.ledger_id)
    drain(node)
    return node, first


def test_a_superseded_object_is_alarmed_without_withholding_the_current_one(corrected: tuple[Node, Instance]) -> None:
    node, first = corrected
    flip(place(node, first.object))
    assert swept(node).damaged == 1
    assert (alarms(node), flags(node)) == ([("integrity", str(first.object))], [])
    flip(place(node, first.object))
    assert swept(node).damaged == 0
    assert alarms(node) == []


def test_an_object_given_up_for_its_correction_by_both_parties_is_no_damage(
    corrected: tuple[Node, Instance],
) -> None:
    node, first = corrected
    flip(place(node, first.object))
    node.library.report(first)
    drain(node)
    [current] = node.index.select()
    resolve(node, first, current.manifest)
    round_ = swept(node)
    assert (round_.objects, round_.damaged, alarms(node)) == (2, 0, [])


# The command


def words(node: Node, *more: str) -> list[str]:
    return ["--config", str(node.config.data_dir.parent / CONFIG_NAME), "sweep", *more]


def test_command_exits_by_what_it_found_and_prints_it(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(node, "--json")) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["anchors"], row["objects"], row["damaged"]) == (4, 8, 0)
    assert row["objects_s"] > 0
    flip(place(node, node.index.select()[0].object))
    assert cli.main(words(node, "--study", OTHER_STUDY, "--full-speed")) == 0
    assert cli.main(words(node)) == 1
    assert "damaged" in capsys.readouterr().out


def test_command_names_what_is_damaged(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    changed, [first, second] = node.index.select()[0], node.index.select(studies=[OTHER_STUDY])
    flip(place(node, changed.object))
    place(node, first.manifest).unlink()
    assert cli.main(words(node)) == 1
    said = capsys.readouterr().out.splitlines()
    for instance in (changed, first, second):
        assert [line for line in said if line.startswith(instance.sop_uid) and str(instance.object) in line]
    assert cli.main(words(node, "--json")) == 1
    found = json.loads(capsys.readouterr().out)["found"]
    assert {(row["sop_instance_uid"], row["cid"]) for row in found} == {
        *((instance.sop_uid, instance.object) for instance in (changed, first, second)),
        (None, first.manifest),
    }


def test_command_fails_when_something_is_not_held(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    forget_studies(node)
    assert cli.main(words(node)) == 1
    said = capsys.readouterr().out
    assert all(anchor["manifestCid"] in said for anchor in node.ledger.query("Anchors", {}))


def test_command_exits_by_what_hindered_it(node: Node) -> None:
    assert cli.main(words(node, "--study", "1.2.3")) == 2
    with sole(node.config.data_dir / "sweep.lock", ServiceAway("held")):
        assert cli.main(words(node)) == 3
    shutil.rmtree(node.config.data_dir / "objects" / "blocks")
    assert cli.main(words(node)) == 2


def test_the_sweeper_process_makes_its_round_and_ends_when_told(
    node: Node, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    bad = node.index.select()[0]
    flip(place(node, bad.object))
    sweeper = start_process([sys.executable, "-m", "orthanc_ledger", *words(node)[:-1], "sweeper"], cwd=ROOT)
    wait_until(node.rounds.finished, 30, "its round ended")
    sweeper.terminate()
    assert sweeper.wait(20) == 0
    assert alarms(node) == [("integrity", bad.claim)]


def certificate(node: Node) -> bytes:
    return load_identity(node.config.identity).certificate


class AlteredLedger:
    """A ledger whose anchors read otherwise, or that is away for one query."""

    def __init__(self, node: Node, alter: Callable[[dict[str, Any]], dict[str, Any]], refuses: str) -> None:
        self._ledger, self._alter, self._refuses = node.ledger, alter, refuses
        self.submit = node.ledger.submit

    def query(self, function: str, args: Any) -> Any:
        if function == self._refuses:
            raise LedgerAway("away")
        answer = self._ledger.query(function, args)
        return [self._alter(anchor) for anchor in answer] if function == "Anchors" else answer


def sweep_over(node: Node, alter: Callable[[dict[str, Any]], dict[str, Any]], refuses: str = "") -> Sweep:
    lock = node.config.data_dir / "sweep.lock"
    ledger = AlteredLedger(node, alter, refuses)
    parts = node.index, node.library, node.outbox, node.rounds
    return Sweep(ledger, Anchors(ledger, certificate(node), node.keyring), *parts, lock, lambda: 1_900_000_000)
