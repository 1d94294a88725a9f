"""What waits to be forwarded: all that was acknowledged is queued before this node shows it, and none of it is lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Command, runner
from node_make import begin, drain, make_node, open_node, real_file, store, variant

from orthanc_ledger import serve
from orthanc_ledger.assemble import Node
from orthanc_ledger.config import load
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.forwarding import LATE_S, Forwarding
from orthanc_ledger.forwards import Forward, Forwards
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.index import Index, Supersession
from orthanc_ledger.setup_node import CONFIG_NAME, ORGANISATIONS
from orthanc_ledger.spool import CONFLICTS, QUARANTINE

PACS = {"ae_title": "PACS", "role": "clinical", "host": "127.0.0.1", "port": 104}


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Forwards:
    return Forwards(tmp_path / "forwards.db", ("PACS", "BACKUP"), clock)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path, forward=("PACS",))


@pytest.fixture
def forwarding(node: Node, queue: Forwards, clock: Clock) -> Forwarding:
    """Over a node's index, with a queue of its own and a clock."""
    return Forwarding(queue, node.index, node.library, node.outbox, clock)


def claims(rows: list[Forward]) -> list[str]:
    return [row.claim for row in rows]


class TestQueue:
    def test_an_object_is_queued_once_for_every_destination(self, queue: Forwards) -> None:
        for _ in range(2):
            queue.queue(["a", "b"])
        assert [(row.destination, row.claim) for row in queue.rows()] == [
            ("PACS", "a"),
            ("BACKUP", "a"),
            ("PACS", "b"),
            ("BACKUP", "b"),
        ]

    def test_oldest_goes_first_and_what_was_put_off_neither_holds_the_others_nor_comes_too_early(
        self, queue: Forwards, clock: Clock
    ) -> None:
        queue.queue(["a", "b", "c"])
        queue.failed(queue.due("PACS", 1)[0], "status 0xC000", 10)
        assert claims(queue.due("PACS", 9)) == ["b", "c"]
        clock.now += 10
        assert claims(queue.due("PACS", 9)) == ["b", "c", "a"]
        assert claims(queue.due("PACS", 2)) == ["b", "c"]

    def test_what_waits_for_a_destination_that_is_away_keeps_its_place(self, queue: Forwards) -> None:
        queue.queue(["a", "b"])
        queue.failed(queue.due("PACS", 1)[0], "PACS cannot be reached")
        assert claims(queue.due("PACS", 9)) == ["a", "b"]

    def test_clock_that_was_set_back_holds_nothing_up(self, queue: Forwards, clock: Clock) -> None:
        queue.queue(["a"])
        queue.failed(queue.due("PACS", 1)[0], "status 0xC000", LATE_S)
        clock.now -= 24 * LATE_S
        assert claims(queue.due("PACS", 9)) == ["a"]

    def test_content_that_was_replaced_while_the_one_before_was_sent_still_waits(self, queue: Forwards) -> None:
        queue.queue(["a"])
        (sending,) = queue.due("PACS", 9)
        queue.queue_again("a")
        queue.done(sending)
        assert claims(queue.due("PACS", 9)) == ["a"]
        queue.done(queue.due("PACS", 9)[0])
        assert queue.due("PACS", 9) == []

    def test_it_outlives_the_process_with_its_troubles(self, queue: Forwards, tmp_path: Path) -> None:
        queue.queue(["a"])
        queue.failed(queue.due("PACS", 1)[0], "status 0xC000", 10)
        again = Forwards(tmp_path / "forwards.db", (), lambda: 0)
        assert again.rows() == queue.rows()
        assert [(each.destination, each.count, each.trouble) for each in again.waiting()] == [
            ("BACKUP", 1, None),
            ("PACS", 1, "status 0xC000"),
        ]

    def test_an_object_that_is_no_longer_held_is_forgotten_for_all(self, queue: Forwards) -> None:
        queue.queue(["a", "b"])
        queue.forget("a")
        assert {row.claim for row in queue.rows()} == {"b"}


class TestWhatIsQueued:
    @pytest.mark.parametrize("step", ["queue", "enter"])
    @pytest.mark.parametrize("persisted", [False, True], ids=["failed", "failed but persisted"])
    def test_whatever_is_in_the_index_was_queued_wherever_the_anchorer_died(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, persisted: bool
    ) -> None:
        node = make_node(tmp_path, forward=("PACS",))
        store(node, real_file())
        owner: type = Forwards if step == "queue" else Index
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, dies(getattr(owner, step), persisted))
            with pytest.raises(Killed):
                node.anchorer().take_in()
        entered = {instance.claim for instance in node.index.select()}
        assert entered <= set(claims(node.forwards.rows()))
        after = open_node(tmp_path, forward=("PACS",))
        drain(after)
        assert claims(after.forwards.rows()) == [instance.claim for instance in after.index.select()]

    def test_a_repeat_is_not_sent_again(self, node: Node) -> None:
        store(node, real_file())
        drain(node)
        node.forwards.done(node.forwards.rows()[0])
        assert store(node, real_file()) is Receipt.SAME_AGAIN
        drain(node)
        assert node.forwards.rows() == []

    def test_what_cannot_be_read_is_forwarded_as_it_came(self, node: Node) -> None:
        cut_off = store_broken(node)
        drain(node)
        assert len(node.spool.names(QUARANTINE)) == 1
        run = node.forwarding.run("PACS")
        assert run is not None
        (item,) = run.plan.items
        with run.plan.open(item) as data_set:
            assert data_set.read() == cut_off

    def test_discarded_from_quarantine_it_is_no_longer_forwarded(
        self, node: Node, capsys: pytest.CaptureFixture[str]
    ) -> None:
        on = runner(capsys, "--config", node.config.data_dir.parent / CONFIG_NAME)
        store_broken(node)
        drain(node)
        (aside,) = node.spool.names(QUARANTINE)
        assert on("quarantine", "discard", aside).code == 0
        assert node.forwards.rows() == []

    def test_other_content_under_a_known_uid_waits_for_a_person_and_follows_once_confirmed(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(node, real_file())
        store(node, variant(PatientName="Corrected"))
        drain(node)
        (first,) = node.forwards.rows()
        node.forwards.done(first)
        confirm_correction(node)
        with monkeypatch.context() as patch:
            patch.setattr(Forwards, "queue_again", dies(Forwards.queue_again, persisted=False))
            with pytest.raises(Killed):
                drain(node)
        drain(node)
        run = node.forwarding.run("PACS")
        assert run is not None
        with run.plan.open(run.plan.items[0]) as data_set:
            assert b"Corrected" in data_set.read()

    def test_without_destinations_nothing_is_queued(self, tmp_path: Path) -> None:
        node = make_node(tmp_path)
        store(node, real_file())
        drain(node)
        assert node.forwards.rows() == []


class TestForwarding:
    @pytest.fixture(autouse=True)
    def held(self, node: Node, queue: Forwards) -> None:
        """Two objects, and one that is queued but not held."""
        for source in (real_file(), variant(SOPInstanceUID="1.2.826.0.7")):
            store(node, source)
        drain(node)
        queue.queue(["gone", *(instance.claim for instance in node.index.select())])

    def test_an_object_that_is_not_held_holds_up_no_other_and_stays(
        self, forwarding: Forwarding, queue: Forwards
    ) -> None:
        run = forwarding.run("PACS")
        assert run is not None
        assert len(run.plan.items) == len(run.forwards) == 2
        for forward in run.forwards.values():
            forwarding.sent(forward)
        assert forwarding.run("PACS") is None
        (left,) = [row for row in queue.rows() if row.destination == "PACS"]
        assert (left.claim, left.trouble) == ("gone", "not held here")

    def test_put_off_it_comes_again_within_a_minute(
        self, forwarding: Forwarding, queue: Forwards, clock: Clock
    ) -> None:
        for age_s, wait_s in ((0, 1), (30, 30), (5000, 60)):
            clock.now = 1_000_000 + age_s
            forwarding.put_off(queue.rows()[0], "lost")
            assert queue.rows()[0].due == clock.now + wait_s

    def test_refused_it_is_an_alarm_with_destination_and_claim_until_it_was_sent(
        self, node: Node, forwarding: Forwarding, queue: Forwards, clock: Clock
    ) -> None:
        run = forwarding.run("PACS")
        assert run is not None
        refused = next(iter(run.forwards.values()))
        for _ in range(2):
            forwarding.refused(refused, "status 0xA900")
        other = next(row for row in queue.rows() if (row.destination, row.claim) == ("BACKUP", refused.claim))
        forwarding.refused(other, "status 0xC000")
        (alarm, at_backup) = node.outbox.alarms()
        assert all(word in alarm.text for word in ("PACS", refused.claim, "status 0xA900"))
        again = forwarding.run("PACS")
        assert again is not None
        assert refused.claim not in claims(list(again.forwards.values()))
        clock.now += LATE_S
        assert refused.claim in claims(queue.due("PACS", 9))
        forwarding.sent(refused)
        assert node.outbox.alarms() == [at_backup]

    def test_late_is_an_alarm_that_ends_with_delivery(
        self, node: Node, forwarding: Forwarding, queue: Forwards, clock: Clock
    ) -> None:
        forwarding.tell_lateness("PACS")
        assert node.outbox.alarms() == []
        clock.now += LATE_S + 1
        for each in (forwarding, forwarding, Forwarding(queue, node.index, node.library, node.outbox, clock)):
            each.tell_lateness("PACS")
        assert [(alarm.kind, alarm.claim) for alarm in node.outbox.alarms()] == [("forwarding to PACS is late", "PACS")]
        queue.discard("PACS")
        forwarding.tell_lateness("PACS")
        assert node.outbox.alarms() == []
        assert len(queue.rows()) == 3


class TestCommands:
    @pytest.fixture
    def on(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
        """A node with an object that PACS, still configured, refused, and one that waits for OLD, which is not."""
        path = tmp_path / "node" / CONFIG_NAME
        make_node(tmp_path)
        configure(path, peers=[PACS], forward=["PACS"])
        node = Node(replace(load(path), spool_reserve_mb=1))
        store(node, real_file())
        drain(node)
        run = node.forwarding.run("PACS")
        assert run is not None
        (forward,) = run.forwards.values()
        node.forwarding.refused(forward, "status 0xC000")
        Forwards(node.config.data_dir / "forwards.db", ("OLD",), lambda: 5).queue([forward.claim])
        return runner(capsys, "--config", path)

    def test_list_names_the_object_and_why_it_waits(self, on: Command) -> None:
        pacs, old = on("forwards", "--json").rows
        assert (pacs["destination"], pacs["trouble"], old["trouble"]) == ("PACS", "status 0xC000", None)
        assert pacs["sop_instance_uid"] == "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457"
        assert pacs["claim"] in on("forwards", "list").out

    def test_retry_makes_all_due(self, on: Command) -> None:
        assert on("forwards", "retry", "--json").row["retried"] == 1
        assert [row["due"] for row in on("forwards", "--json").rows] == [None, None]

    def test_retry_says_what_waits_though_nothing_was_put_off(self, on: Command) -> None:
        on("forwards", "retry")
        again = on("forwards", "retry").out
        assert all(words in again for words in ("within a minute", "0 objects had been put off", "PACS: 1 object"))

    def test_discarded_it_is_gone_with_its_alarm(self, on: Command) -> None:
        claim = on("forwards", "--json").rows[0]["claim"]
        assert on("status", "--json").row["alarms"] != []
        assert on("forwards", "discard", "PACS", claim).code == 0
        assert [row["destination"] for row in on("forwards", "--json").rows] == ["OLD"]
        assert on("status", "--json").row["alarms"] == []
        assert on("forwards", "discard", "PACS", claim).code == 2

    @pytest.mark.parametrize(
        "words", [["PACS"], ["PACS", "claim", "--all"], ["PACS", "claim"], ["NOBODY", "--all"], ["PACS", "--all"]]
    )
    def test_discard_of_nothing_or_of_everything_by_mistake_is_refused(self, on: Command, words: list[str]) -> None:
        assert on("forwards", "discard", *words).code == 2
        assert len(on("forwards", "--json").rows) == 2

    def test_status_says_what_waits_and_for_whom_that_is_no_longer_configured(self, on: Command) -> None:
        pacs, old = on("status", "--json").row["forwards"]
        assert (pacs["destination"], pacs["waiting"], pacs["trouble"]) == ("PACS", 1, "status 0xC000")
        assert (old["destination"], old["waiting"], old["configured"]) == ("OLD", 1, False)
        lines = on("status").out.splitlines()
        assert ["forwards", "2"] in [line.split() for line in lines]
        assert ["not tried" in line for line in lines if line.startswith("FORWARDS")] == [False, True]
        assert on("forwards", "discard", "OLD", "--all", "--json").row == {"destination": "OLD", "discarded": 1}
        assert [each["destination"] for each in on("status", "--json").row["forwards"]] == ["PACS"]

    def test_all_that_waits_is_given_up_only_for_who_left_the_destinations(self, on: Command, tmp_path: Path) -> None:
        refused = on("forwards", "discard", "PACS", "--all")
        assert "take it out of `forward`" in refused.err
        configure(tmp_path / "node" / CONFIG_NAME, forward=[])
        assert on("forwards", "discard", "PACS", "--all").code == 0
        assert on("status", "--json").row["alarms"] == []


class TestConfiguration:
    @pytest.mark.parametrize(
        ("peers", "forward", "said"),
        [
            ([PACS], ["OTHER"], "forward: OTHER"),
            ([{**PACS, "role": "modality"}], ["PACS"], "forward: PACS"),
            ([{**PACS, "role": "research", "organisation": "ResearchMSP"}], ["PACS"], "forward: PACS"),
            ([{"ae_title": "PACS", "role": "clinical"}], ["PACS"], "host and port"),
            ([PACS], ["PACS", "PACS"], "forward: an AE title stands twice"),
        ],
    )
    def test_a_destination_that_cannot_be_one_stops_the_start(
        self, tmp_path: Path, peers: list[dict[str, Any]], forward: list[str], said: str
    ) -> None:
        make_node(tmp_path)
        path = tmp_path / "node" / CONFIG_NAME
        configure(path, peers=peers, forward=forward)
        with pytest.raises(ConfigError, match=said):
            load(path)

    def test_a_forwarder_runs_only_where_there_is_a_destination(self, tmp_path: Path) -> None:
        make_node(tmp_path)
        path = tmp_path / "node" / CONFIG_NAME
        names = [child.name for child in serve.children(load(path), path)]
        configure(path, peers=[PACS], forward=["PACS"])
        assert [child.name for child in serve.children(load(path), path)] == [*names, "forwarder"]


class Killed(BaseException):
    """The process dies here."""


def dies(step: Callable[..., Any], persisted: bool) -> Callable[..., Any]:
    """The step, dying before it or after it has persisted."""

    def killed(*args: Any) -> None:
        if persisted:
            step(*args)
        raise Killed

    return killed


def store_broken(node: Node) -> bytes:
    """Have an object accepted whose data set breaks off; the data set."""
    incoming, data_set = begin(node, real_file())
    incoming.write(data_set[:-5000])
    incoming.accept()
    return data_set[:-5000]


def configure(path: Path, **settings: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | settings))


def confirm_correction(node: Node) -> None:
    """Have the conflict queue's one unit proposed and confirmed; the anchorer has not seen that yet."""
    (conflict,) = node.spool.names(CONFLICTS)
    (holder,) = node.index.select()
    assert holder.manifest is not None
    node.index.keep_supersession(Supersession(conflict, holder.claim, "metadata-corrected", "decided", holder.manifest))
    for _ in range(2):
        drain(node)
    (proposed,) = node.index.supersessions("proposed")
    custodian = node.config.data_dir.parent / ORGANISATIONS / "custodian" / "identities" / "person"
    node.ledger_as(custodian).submit("ConfirmSupersede", {"id": proposed.ledger_id})
