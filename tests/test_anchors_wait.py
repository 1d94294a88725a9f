"""A ledger that takes nothing may answer questions: the anchorer alone sees it, and tells a person once it lasts. So
with a content store that is away.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from node_make import make_node, real_file, store, variant
from test_anchorer import anchorer_of

from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock_us
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger import Committed, Ledger
from orthanc_ledger.outage import ALARM_S, ANCHORS_WAIT, CONTENT_AWAY

WITHIN_S = 20.0


class Closed:
    """A ledger that answers, and takes transactions only when it is open."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self.is_open, self.tries = ledger, False, 0

    def submit(self, function: str, args: Mapping[str, Any], nonce: bytes | None = None) -> Committed:
        self.tries += 1
        if not self.is_open:
            raise LedgerAway("no orderers")
        return self._ledger.submit(function, args, nonce)

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        return self._ledger.query(function, args)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


@pytest.fixture
def ledger(node: Node) -> Closed:
    closed = Closed(node.ledger)
    node.__dict__["ledger"] = closed
    store(node, real_file())
    return closed


@contextmanager
def running(node: Node, now_us: Callable[[], int], idle_s: float = 0.0) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=anchorer_of(node, idle_s=idle_s).run, args=(stop, now_us))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def alarms(node: Node) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.text) for alarm in node.outbox.alarms()]


def tried_again(ledger: Closed) -> None:
    before = ledger.tries
    wait_until(lambda: ledger.tries > before + 1, WITHIN_S, "it was tried again")


def test_a_ledger_that_takes_nothing_is_an_alarm_once_it_lasts_until_it_has_what_waited(
    node: Node, ledger: Closed, caplog: pytest.LogCaptureFixture
) -> None:
    ahead_us = [0]
    with running(node, lambda: system_clock_us() + ahead_us[0]):
        tried_again(ledger)
        assert alarms(node) == []
        ahead_us[0] = int(ALARM_S * 1e6)
        wait_until(lambda: alarms(node), WITHIN_S, "the alarm is raised")
        tried_again(ledger)
        told = "the ledger takes nothing, `status` says what waits: no orderers"
        assert alarms(node) == [(ANCHORS_WAIT, told)]
        assert caplog.text.count("ledger away") == 2  # the first try, the alarm
        ledger.is_open = True
        wait_until(lambda: not alarms(node), WITHIN_S, "the alarm is taken back")
    assert node.index.counts() == {"anchored": 1}


def test_the_next_anchorer_takes_the_alarm_back(node: Node, ledger: Closed) -> None:
    ahead_us = [0]
    with running(node, lambda: system_clock_us() + ahead_us[0]):
        tried_again(ledger)
        ahead_us[0] = int(ALARM_S * 1e6)
        wait_until(lambda: alarms(node), WITHIN_S, "the alarm is raised")
    with running(node, system_clock_us):
        tried_again(ledger)
        assert [kind for kind, _ in alarms(node)] == [ANCHORS_WAIT]
        ledger.is_open = True
        wait_until(lambda: not alarms(node), WITHIN_S, "the alarm is taken back")


def test_two_short_outages_are_no_alarm(node: Node, ledger: Closed) -> None:
    ahead_us = [0]
    with running(node, lambda: system_clock_us() + ahead_us[0]):
        tried_again(ledger)
        ledger.is_open = True
        wait_until(lambda: node.index.counts() == {"anchored": 1}, WITHIN_S, "the first is over")
        ledger.is_open = False
        ahead_us[0] = int(ALARM_S * 1e6)
        store(node, variant(SOPInstanceUID="1.2.826.0.2"))  # in another turn of the anchorer than the first
        tried_again(ledger)
        assert alarms(node) == []


def test_a_content_store_away_is_an_alarm_once_it_lasts_and_what_waited_is_anchored_when_it_is_back(
    node: Node, ledger: Closed, caplog: pytest.LogCaptureFixture
) -> None:
    """Away at the start of the anchorer already; clinical peers see what arrives meanwhile."""
    ledger.is_open = True
    staging = node.config.data_dir / "objects" / "staging"
    (staging / "left").mkdir()  # by a dead anchorer
    ahead_us = [0]
    _ = node.content  # opened before
    staging.rename(staging.with_name("unmounted"))
    with running(node, lambda: system_clock_us() + ahead_us[0]):
        wait_until(lambda: "content store away" in caplog.text, WITHIN_S, "it is noticed")
        wait_until(lambda: node.index.counts() == {"spooled": 1}, WITHIN_S, "what arrived is taken in")
        assert alarms(node) == []
        ahead_us[0] = int(ALARM_S * 1e6)
        wait_until(lambda: alarms(node), WITHIN_S, "the alarm is raised")
        [(kind, text)] = alarms(node)
        assert kind == CONTENT_AWAY
        assert "is its disk mounted?" in text
        staging.with_name("unmounted").rename(staging)
        wait_until(lambda: not alarms(node), WITHIN_S, "the alarm is taken back")
        wait_until(lambda: node.index.counts() == {"anchored": 1}, WITHIN_S, "the backlog is anchored")
    assert caplog.text.count("content store away") == 2  # the first try, the alarm
    assert list(staging.iterdir()) == []


def test_asking_the_content_store_again_and_again_disturbs_no_open_batch(
    node: Node, ledger: Closed, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.is_open = True
    staging, ahead_us = node.config.data_dir / "objects" / "staging", [0]
    with running(node, lambda: system_clock_us() + ahead_us[0], idle_s=60.0):
        wait_until(lambda: list(staging.rglob("*/0")), WITHIN_S, "the object is sealed into an open batch")
        ahead_us[0] = 61_000_000
        wait_until(lambda: node.index.counts() == {"anchored": 1}, WITHIN_S, "the batch is anchored")
    assert "a service is away" not in caplog.text
