"""The courier: every entry is covered at every sink, nothing of a ledger that was put back, alarms reach people."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, wait_until
from node_make import make_node

from orthanc_ledger import courier
from orthanc_ledger.assemble import DELIVERIES, Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.courier import Courier, Delivery, Errand
from orthanc_ledger.deliveries import Deliveries, Place, Route
from orthanc_ledger.errors import SinkAway
from orthanc_ledger.ledger import log
from orthanc_ledger.ledger.checkpoint import Note, open_note, read_trusted, sign_note
from orthanc_ledger.ledger.identity import ca_certificate, load_identity
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.merkle import EMPTY_ROOT
from orthanc_ledger.setup_node import Plan, create_checkpoint_key, create_node
from orthanc_ledger.sinks import kept

WITHIN_S = 5.0
ALARM_S = 60


class World:
    """A node, its clock, and a courier that is made anew as if its process had been started again."""

    def __init__(self, folder: Path) -> None:
        self.node = make_node(folder)
        self.began = self.now = system_clock()  # its certificates are valid then
        self.folder = folder
        self.sinks = [folder / "sink0", folder / "sink1"]
        for sink in self.sinks:
            sink.mkdir()
        self.alarm_sinks: tuple[str, ...] = ()
        self._grown = 0
        self.start()

    def start(self) -> None:
        """Begin as a process does."""
        config = self.node.config
        self.deliveries = Deliveries(config.data_dir / DELIVERIES)
        self.courier = Courier(
            self.node.ledger_as,
            load_identity(config.identity),
            ca_certificate(config.identity),
            self.node.outbox,
            self.deliveries,
            Errand("NODE", tuple(f"path:{sink}" for sink in self.sinks), self.alarm_sinks, WITHIN_S),
            lambda: self.now,
        )
        self.routes: list[Delivery] = self.courier.begin()

    def look(self) -> list[bool]:
        """A round of all threads; whether each sink has all."""
        for route in self.routes:
            route.deliver()  # which asks what it keeps: nothing is signed before
        self.courier.look()
        done = [route.deliver() for route in self.routes]
        self.courier.look()
        return done

    def grow(self, entries: int = 1) -> None:
        for _ in range(entries):
            self._grown += 1
            args = {"study": bytes(16), "root": bytes(32), "count": 1, "kind": "original"}
            manifest = block_cid(f"{self.folder}{self._grown}".encode())
            self.node.ledger.submit("Anchor", {**args, "manifestCid": manifest})

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        with closing(self.node.ledger_as()) as ledger:
            return ledger.checkpoint(size)

    def kept(self, sink: int = 0) -> list[Checkpoint]:
        return [self.open(text).checkpoint for text in kept(f"path:{self.sinks[sink]}")]

    def open(self, text: str) -> Note:
        with closing(self.node.ledger_as()) as ledger:
            return open_note(text, ledger.log_id, {"any": ca_certificate(self.node.config.identity)})

    def place(self, number: int = 0) -> Place:
        return next(place for place in self.deliveries.places() if place.route == self.routes[number].route)

    def alarms(self) -> list[tuple[str, str]]:
        return [(alarm.kind, alarm.claim) for alarm in self.node.outbox.alarms()]

    @property
    def ledger_file(self) -> Path:
        return self.node.config.data_dir / "ledger.db"

    def save(self, name: str) -> Path:
        """A copy of the ledger as it is now."""
        copy = self.folder / name
        with closing(sqlite3.connect(self.ledger_file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy

    def put_back(self, copy: Path) -> None:
        """Put a copy in the ledger's place, as who has the disk can."""
        self.node.ledger.close()
        for path in self.ledger_file.parent.glob("ledger.db*"):
            path.unlink()
        shutil.copy(copy, self.ledger_file)
        self.node = Node(self.node.config)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_half_of_the_promised_time_is_left_for_the_sinks() -> None:
    assert Errand("PACS", (), (), within_s=8.0).pace_s <= 4.0


class TestCheckpoints:
    def test_every_new_size_is_at_every_sink_after_a_round(self, world: World) -> None:
        for entries in (0, 1, 5):
            world.grow(entries)
            assert world.look() == [True, True]
            assert world.kept(0)[0] == world.kept(1)[0] == world.checkpoint()
        assert [checkpoint.size for checkpoint in world.kept()] == [8, 3, 2]
        assert world.place() == replace(world.place(1), route=world.place().route)
        assert (world.place().position, world.place().time, world.place().waiting_since) == (8, world.began, None)

    def test_all_sinks_get_the_same_note_signed_at_its_time(self, world: World) -> None:
        world.look()
        (text,) = kept(f"path:{world.sinks[0]}")
        assert [text] == list(kept(f"path:{world.sinks[1]}"))
        assert world.open(text).time == world.began

    def test_nothing_is_signed_again_while_nothing_is_new(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.look()
        monkeypatch.setattr(courier, "sign_note", lambda *_: pytest.fail("signed"))
        world.now += 1000
        assert world.look() == [True, True]

    def test_killed_between_signing_and_delivering_the_same_bytes_are_delivered(self, world: World) -> None:
        for route in world.routes:
            route.deliver()
        world.courier.look()
        signed = world.deliveries.signed()
        assert signed is not None
        world.now += 10
        world.start()
        world.look()
        assert list(kept(f"path:{world.sinks[0]}")) == [signed.note]

    def test_killed_between_delivering_and_noting_it_nothing_changes_at_the_sink(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Deliveries, "delivered", killed)
            with pytest.raises(KeyboardInterrupt):
                world.look()
        before = list(kept(f"path:{world.sinks[0]}"))
        world.start()
        assert world.look() == [True, True]
        assert (list(kept(f"path:{world.sinks[0]}")), world.place().position) == (before, 2)

    def test_its_age_counts_from_signing(self, world: World) -> None:
        world.look()
        world.sinks[1].rename(world.folder / "unplugged")
        world.grow()
        world.look()
        world.now += 10
        (world.folder / "unplugged").rename(world.sinks[1])
        world.look()
        assert (world.place(1).position, world.place(1).time) == (3, world.began)

    def test_with_its_memory_lost_it_goes_on_with_the_note_that_a_sink_keeps(self, world: World) -> None:
        world.look()
        (world.node.config.data_dir / DELIVERIES).unlink()
        world.sinks.append(world.folder / "sink2")
        world.sinks[2].mkdir()
        world.now += 10
        world.start()
        assert world.look() == [True] * 3
        assert list(kept(f"path:{world.sinks[2]}")) == list(kept(f"path:{world.sinks[0]}"))

    @pytest.mark.parametrize("seconds", [-3600, 1200 * 86_400])
    def test_a_note_that_would_not_count_is_an_alarm_and_never_delivered(self, world: World, seconds: int) -> None:
        world.look()
        world.grow()
        world.now += seconds
        world.look()
        assert world.alarms() == [("checkpoint not signed", "ledger")]
        assert [checkpoint.size for checkpoint in world.kept()] == [2]
        world.now = world.began
        world.look()
        assert (world.alarms(), world.kept()[0]) == ([], world.checkpoint())

    def test_a_new_sink_gets_the_last_checkpoint_at_once(self, world: World) -> None:
        world.look()
        world.sinks.append(world.folder / "sink2")
        world.sinks[2].mkdir()
        world.start()
        assert world.look() == [True] * 3
        assert world.kept(2) == [world.checkpoint()]


class TestSinkAway:
    @pytest.fixture
    def world(self, world: World) -> World:
        """With its second sink away and something due."""
        world.look()
        world.sinks[1].rename(world.folder / "unplugged")
        world.grow()
        return world

    def test_the_others_get_what_is_due(self, world: World) -> None:
        assert world.look() == [True, False]
        assert world.kept(0)[0] == world.checkpoint()
        assert "No such file" in (world.place(1).error or "")
        assert world.place(1).waiting_since == world.began

    def test_it_is_logged_once_when_it_begins_and_when_it_ends(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.clear()
        for _ in range(3):
            world.look()
        (world.folder / "unplugged").rename(world.sinks[1])
        for _ in range(3):
            world.look()
        lines = [record.getMessage() for record in caplog.records if "a sink" in record.getMessage()]
        assert [line.split(":")[0] for line in lines] == ["a sink waits", "a sink has all again"]

    def test_after_a_start_nothing_is_signed_before_it_was_asked_what_it_keeps(self, world: World) -> None:
        world.start()
        assert world.look() == [True, False]
        assert [checkpoint.size for checkpoint in world.kept(0)] == [2]
        world.now += ALARM_S + 1
        world.look()
        assert world.alarms() == [("checkpoint sink", f"path:{world.sinks[1]}")]
        (world.folder / "unplugged").rename(world.sinks[1])
        world.look()
        assert (world.look(), world.alarms()) == ([True, True], [])
        assert world.kept(0)[0] == world.kept(1)[0] == world.checkpoint()

    def test_it_is_an_alarm_once_it_is_late_and_only_one(self, world: World) -> None:
        world.look()
        world.now += ALARM_S
        world.look()
        assert world.alarms() == []
        world.now += 1
        world.look()
        assert world.alarms() == [("checkpoint sink", f"path:{world.sinks[1]}")]
        world.grow()
        world.now += 1000
        world.start()
        world.look()
        assert len(world.alarms()) == 1

    def test_back_again_it_gets_the_newest_and_the_alarm_is_taken_back(self, world: World) -> None:
        world.look()
        world.now += ALARM_S + 1
        world.grow(3)
        world.look()
        assert len(world.alarms()) == 1
        (world.folder / "unplugged").rename(world.sinks[1])
        assert world.look() == [True, True]
        assert world.alarms() == []
        assert [checkpoint.size for checkpoint in world.kept(1)] == [6, 2]
        assert (world.place(1).error, world.place(1).waiting_since) == (None, None)

    def test_away_from_the_start_is_an_alarm_too(self, world: World) -> None:
        (world.node.config.data_dir / DELIVERIES).unlink()
        world.start()
        world.look()
        world.now += ALARM_S + 1
        world.look()
        assert world.alarms() == [("checkpoint sink", f"path:{world.sinks[1]}")]

    def test_one_that_is_no_longer_configured_leaves_no_alarm(self, world: World) -> None:
        world.look()
        world.now += ALARM_S + 1
        world.look()
        assert len(world.alarms()) == 1
        world.sinks.pop()
        world.start()
        world.look()
        assert world.alarms() == []
        assert [place.route.url for place in world.deliveries.places()] == [f"path:{world.sinks[0]}"]


class TestRollback:
    ROLLED_BACK = ("ledger rolled back", "ledger")

    @pytest.fixture
    def short(self, world: World) -> Path:
        """The ledger of three entries; that in place has six, and a checkpoint at every sink."""
        world.grow()
        copy = world.save("short.db")
        world.grow(3)
        world.look()
        return copy

    def test_a_ledger_cut_short_alarms_and_nothing_is_signed_or_delivered(self, world: World, short: Path) -> None:
        whole = world.save("whole.db")
        world.put_back(short)
        for _ in range(2):
            world.start()
            world.look()
            assert world.alarms() == [self.ROLLED_BACK]
        assert [checkpoint.size for checkpoint in world.kept()] == [6]
        world.put_back(whole)
        world.look()
        assert world.alarms() == []

    @pytest.mark.parametrize("entries", [2, 3, 4, 7])
    def test_a_ledger_that_went_another_way_alarms_at_any_length(self, world: World, short: Path, entries: int) -> None:
        world.put_back(short)
        world.grow(entries)
        for _ in range(3):
            world.look()
            assert world.alarms() == [self.ROLLED_BACK]
            world.grow()
        assert [checkpoint.size for checkpoint in world.kept()] == [6]

    def test_another_log_in_its_place_alarms(self, world: World, tmp_path: Path) -> None:
        world.look()
        other = create_node(Plan(tmp_path / "other", tmp_path / "key", all_roles=True))
        world.put_back(other.data_dir / "ledger.db")
        world.look()
        assert world.alarms() == [self.ROLLED_BACK]
        assert [path.name for path in world.sinks[0].iterdir()] == [f"{2:020d}"]

    def test_it_is_seen_while_the_ledger_is_open_elsewhere(self, world: World, short: Path) -> None:
        with closing(world.node.ledger_as()) as opened:
            assert opened.size == 6
            world.put_back(short)
            world.look()
        assert world.alarms() == [self.ROLLED_BACK]

    def test_a_data_dir_put_back_whole_is_told_by_what_a_sink_keeps(self, world: World, short: Path) -> None:
        world.put_back(short)
        (world.node.config.data_dir / DELIVERIES).unlink()
        world.start()
        world.look()
        assert world.alarms() == [self.ROLLED_BACK]
        world.grow(5)
        world.look()
        assert [checkpoint.size for checkpoint in world.kept()] == [6]

    def test_a_note_that_a_sink_gives_while_others_are_proven_is_proven_before_anything_is_signed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.look()
        short = world.save("short.db")
        world.grow(3)
        world.courier.look()
        assert world.routes[1].deliver()  # only this sink knows of what is cut off now
        (world.node.config.data_dir / DELIVERIES).unlink()
        world.put_back(short)
        world.grow(6)
        world.start()
        assert world.routes[0].deliver()
        real = courier.prove_growth

        def proving(*args: Any) -> list[bytes]:
            proof = real(*args)
            world.routes[1].deliver()
            return proof

        with monkeypatch.context() as patch:
            patch.setattr(courier, "prove_growth", proving)
            world.courier.look()
        assert world.deliveries.signed() is None
        world.look()
        assert world.alarms() == [self.ROLLED_BACK]

    @pytest.mark.parametrize("memory", ["lost", "older"])
    def test_a_fork_that_outgrew_what_the_sinks_keep_is_told(self, world: World, short: Path, memory: str) -> None:
        world.deliveries.close()
        (world.node.config.data_dir / DELIVERIES).unlink()
        if memory == "older":
            aside = [sink.rename(world.folder / f"aside{number}") for number, sink in enumerate(world.sinks)]
            for sink in world.sinks:
                sink.mkdir()
            world.put_back(short)
            world.start()
            world.look()
            for sink, kept_aside in zip(world.sinks, aside, strict=True):
                shutil.rmtree(sink)
                kept_aside.rename(sink)
        world.put_back(short)
        world.grow(6)
        world.start()
        for _ in range(2):
            world.look()
            assert world.alarms() == [self.ROLLED_BACK]
            world.grow()
        assert [checkpoint.size for checkpoint in world.kept()] == [6]

    def test_a_false_note_of_our_own_alarms_until_it_is_taken_away(self, world: World) -> None:
        world.look()
        false = world.sinks[1] / f"{99:020d}"
        identity = load_identity(world.node.config.identity)
        with closing(world.node.ledger_as()) as ledger:
            false.write_text(sign_note(Checkpoint(99, EMPTY_ROOT), ledger.log_id, world.began, identity))
        world.grow()
        for _ in range(2):
            world.start()
            world.look()
            assert world.alarms() == [self.ROLLED_BACK]
        false.unlink()
        world.look()
        assert (world.look(), world.alarms()) == ([True, True], [])
        assert world.kept(1)[0] == world.checkpoint()

    def test_the_alarm_stands_while_the_ledger_is_away(self, world: World, short: Path) -> None:
        world.put_back(short)
        world.look()
        world.ledger_file.unlink()
        for _ in range(2):
            world.start()
            world.look()
            assert world.alarms() == [self.ROLLED_BACK]

    @pytest.mark.parametrize("signer", ["owner", "custodian"])
    def test_a_checkpoint_that_others_put_at_a_sink_is_not_taken_for_ours(self, world: World, signer: str) -> None:
        world.look()
        organisations = world.node.config.data_dir.parent / "organisations"
        identity = load_identity(organisations / signer / "identities" / "person")
        with closing(world.node.ledger_as()) as ledger:
            log_id = ledger.log_id if signer == "custodian" else bytes(32)
        forged = sign_note(Checkpoint(99, EMPTY_ROOT), log_id, world.began, identity)
        (world.sinks[0] / f"{99:020d}").write_text(forged)
        (world.sinks[0] / f"{98:020d}").write_text("\n\n\n")
        world.start()
        world.grow()
        assert world.look() == [True, True]
        assert (world.alarms(), world.place().position) == ([], 3)

    def test_with_a_second_key_a_checkpoint_without_its_signature_is_not_taken_for_ours(self, world: World) -> None:
        world.look()
        forger = load_identity(world.node.config.identity)  # has broken ECDSA
        _, pins = read_trusted([create_checkpoint_key(world.node.config.identity)])
        with closing(world.node.ledger_as()) as ledger:
            forged = sign_note(Checkpoint(99, EMPTY_ROOT), ledger.log_id, world.began, forger)
        (world.sinks[0] / f"{99:020d}").write_text(forged)
        world.start()
        world.grow()
        assert world.look() == [True, True]
        assert world.alarms() == []
        newest = (world.sinks[0] / f"{3:020d}").read_text()
        assert open_note(newest, None, {"ours": next(iter(pins))}, pins).checkpoint == world.checkpoint()
        (world.sinks[1] / f"{4:020d}").write_text(newest.rpartition("\N{EM DASH}")[0])
        world.grow()
        assert world.look() == [True, False]
        assert [kind for kind, _ in world.alarms()] == ["checkpoint differs"]

    @pytest.mark.parametrize("signer", ["a person of ours", "nobody"])
    def test_our_checkpoint_in_another_note_counts_when_we_signed_it(self, world: World, signer: str) -> None:
        person = load_identity(world.node.config.data_dir.parent / "organisations" / "owner" / "identities" / "person")
        with closing(world.node.ledger_as()) as ledger:
            note = sign_note(world.checkpoint(), ledger.log_id, world.began - 1, person)
        if signer == "nobody":
            note = note.rpartition(" ")[0] + " AAAA\n"
        world.look()
        for sink in world.sinks:
            (sink / f"{world.checkpoint().size:020d}").write_text(note)
        world.start()
        with closing(sqlite3.connect(world.node.config.data_dir / DELIVERIES)) as memory, memory:
            memory.execute("UPDATE places SET position = 0")
        assert world.look() == [signer != "nobody"] * 2

    def test_another_checkpoint_of_our_size_at_a_sink_alarms_for_good_and_gets_no_more(self, world: World) -> None:
        size = world.checkpoint().size
        (world.sinks[1] / f"{size:020d}").write_text("other\n2\nroot\n\n\N{EM DASH} other AAAA\n")
        for _ in range(2):
            assert world.look() == [True, False]
            assert world.alarms() == [("checkpoint differs", f"path:{world.sinks[1]}")]
            assert world.kept(0)[0] == world.checkpoint()
            world.grow()
            world.now += ALARM_S + 1
            world.start()
        assert len(list(world.sinks[1].iterdir())) == 1
        assert "holds another checkpoint of this size" in world.node.outbox.alarms()[0].text


class TestLedgerAway:
    def test_it_is_no_error_and_goes_on_by_itself(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(log, "BUSY_TIMEOUT_S", 0.1)
        world.node.ledger.close()
        with locked(world.ledger_file):
            world.look()
            world.look()
        assert caplog.text.count("ledger away, research waits") == 1
        assert (world.alarms(), world.deliveries.signed()) == ([], None)
        world.look()
        assert world.kept() == [world.checkpoint()]

    @pytest.mark.parametrize("in_its_place", [None, b"no database" * 1000])
    def test_one_that_is_gone_is_an_alarm_until_it_is_back(self, world: World, in_its_place: bytes | None) -> None:
        world.look()
        world.node.ledger.close()
        gone = world.ledger_file.rename(world.folder / "gone.db")
        if in_its_place is not None:
            world.ledger_file.write_bytes(in_its_place)
        world.look()
        world.now += ALARM_S
        world.look()
        assert world.alarms() == []
        world.now += 1
        for _ in range(2):
            world.look()
            assert world.alarms() == [("ledger away", "ledger")]
            world.start()
        gone.rename(world.ledger_file)
        world.look()
        assert world.alarms() == []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.close()


class TestAlarms:
    @pytest.fixture
    def told(self, world: World) -> Path:
        """What an alarm sink was told; that sink is the world's third."""
        told = world.folder / "told"
        world.alarm_sinks = (f"command:sh -c 'cat >> {told}'",)
        world.start()
        return told

    def test_each_alarm_is_told_once_in_order_also_when_it_was_taken_back(self, world: World, told: Path) -> None:
        world.node.outbox.alarm("integrity", "c1", "an object differs")
        world.node.outbox.alarm("quarantine", "c2", "unit 1 cannot be read")
        world.node.outbox.settle("c2", "unit 1")
        for _ in range(2):
            assert world.look() == [True, True, True]
            world.start()
        lines = [line.split(" ", 2) for line in told.read_text().splitlines()]
        assert [(node, text) for node, _, text in lines] == [
            ("NODE", "integrity: an object differs"),
            ("NODE", "quarantine: unit 1 cannot be read"),
        ]
        assert lines[0][1].endswith("+00:00")
        assert world.node.outbox.notices(0) == []

    def test_a_sink_that_is_away_is_told_later_and_the_others_at_once(self, world: World, told: Path) -> None:
        door = world.folder / "door"
        world.alarm_sinks += (f"command:sh -c 'cat >> {door}/told'",)
        world.start()
        world.node.outbox.alarm("integrity", "c1", "an object differs")
        assert world.look() == [True, True, True, False]
        assert "integrity" in told.read_text()
        assert len(world.node.outbox.notices(0)) == 1
        world.now += ALARM_S + 1
        world.look()
        assert ("alarm sink", world.alarm_sinks[1]) in world.alarms()
        door.mkdir()
        assert world.look() == [True] * 4
        lines = (door / "told").read_text().splitlines()
        assert [line.split(" ")[2:][0] for line in lines] == ["integrity:", "alarm"]
        assert world.alarms() == [("integrity", "c1")]
        assert world.node.outbox.notices(0) == []

    def test_without_an_alarm_sink_notices_are_not_kept(self, world: World) -> None:
        world.node.outbox.alarm("integrity", "c1", "an object differs")
        world.look()
        assert world.node.outbox.notices(0) == []


class TestProcess:
    """`orthanc-ledger courier` as `serve` starts it."""

    @pytest.fixture
    def start(
        self, world: World, start_process: Callable[..., "subprocess.Popen[bytes]"]
    ) -> Callable[..., "subprocess.Popen[bytes]"]:
        path = world.node.config.data_dir.parent / "orthanc-ledger.yaml"

        def start(*sinks: str) -> "subprocess.Popen[bytes]":
            raw = yaml.safe_load(path.read_text())
            path.write_text(yaml.safe_dump({**raw, "checkpoint_sinks": list(sinks), "checkpoint_within_s": 0.2}))
            return start_process([sys.executable, "-m", "orthanc_ledger", "--config", path, "courier"], cwd=ROOT)

        return start

    def covered(self, world: World, number: int) -> bool:
        return bool(world.kept(number)) and world.kept(number)[0] == world.checkpoint()

    def test_killed_again_and_again_it_covers_every_entry(
        self, world: World, start: Callable[..., "subprocess.Popen[bytes]"]
    ) -> None:
        for _ in range(3):
            process = start(f"path:{world.sinks[0]}")
            world.grow()
            wait_until(lambda: self.covered(world, 0), 60, "the entry is covered")
            world.grow()
            process.kill()
            process.wait(10)
        process = start(f"path:{world.sinks[0]}")
        wait_until(lambda: self.covered(world, 0), 60, "the last entry is covered")
        process.terminate()
        assert process.wait(20) == 0
        assert world.alarms() == []

    def test_a_sink_that_hangs_holds_up_no_other_and_not_the_end(
        self, world: World, start: Callable[..., "subprocess.Popen[bytes]"]
    ) -> None:
        pid = world.folder / "pid"
        process = start(f"command:sh -c 'echo $$ > {pid}; exec sleep 60'", f"path:{world.sinks[0]}")
        wait_until(lambda: pid.exists() and pid.read_text(), 60, "the command hangs")
        try:
            world.grow()
            wait_until(lambda: self.covered(world, 0), 60, "the entry is covered at the other sink")
            process.terminate()
            assert process.wait(20) == 0
        finally:
            os.kill(int(pid.read_text()), signal.SIGKILL)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_it_ends_to_be_started_anew_when_a_deliverys_thread_ended(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delivered = Deliveries.delivered

        def full(self: Deliveries, route: Route, position: int, time: int) -> None:
            if route.url == f"path:{world.sinks[0]}":
                raise sqlite3.OperationalError("database or disk is full")
            delivered(self, route, position, time)

        monkeypatch.setattr(Deliveries, "delivered", full)
        stop = threading.Event()
        try:
            with pytest.raises(SinkAway, match="a delivery ended"):
                world.courier.run(stop)
        finally:
            stop.set()
