"""The custodian's keeper: it confirms what it holds whole, nothing else, and goes on wherever it was killed."""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
import yaml

from orthanc_ledger import assemble
from orthanc_ledger.assemble import ERASURES
from orthanc_ledger.config import Party
from orthanc_ledger.erasures import Erasures
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.forgetting import NOT_ERASED
from orthanc_ledger.sweep import Round
from tests.conftest import ROOT, wait_until
from tests.erase_make import confirm, no_grace
from tests.gate_world import World, exits
from tests.kubo.custodian import Custodian, new_study, objects, stored
from tests.kubo.live import Kubos, Node
from tests.kubo.test_store import flip, holds, lose, pinned
from tests.kubo.world import DAMAGES, again, events

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

WITHIN_S = 30.0


def test_only_the_custodian_has_a_keeper(custodian: Custodian, world: World) -> None:
    research = world.folder / "node" / "organisations" / "research" / "identities" / "node"
    custodian.party = replace(custodian.party, organisation="ResearchMSP", identity=research)
    with pytest.raises(ConfigError, match="expected the ledger's custodian, got ResearchMSP"):
        custodian.work()
    assert events(world, "ErasureDone") == []


def test_what_is_anchored_is_pinned_and_confirmed_and_research_waits_for_it(
    custodian: Custodian, world: World, theirs: Node
) -> None:
    policy = {**world.ledger("owner").query("GetPolicy", {}), "require_stored": True}
    policy.pop("version", None)
    proposed = world.ledger("owner").submit("ProposePolicy", {"policy": policy}, b"p" * 16).result["id"]
    world.ledger("custodian").submit("ConfirmPolicy", {"id": proposed})
    world.approve(world.request(), "owner", "custodian")
    assert exits(world) == set()
    custodian.work()
    [(cid, is_stored)] = stored(world).items()
    assert is_stored
    assert cid in pinned(theirs)
    assert all(holds(theirs, each) for each in objects(world))
    assert exits(world) == set(world.sop_uids)
    [confirmed] = events(world, "ConfirmStored")
    assert confirmed["by"]["organisation"] == "CustodianMSP"  # type: ignore[index]
    new_study(world)
    custodian.work()
    assert list(stored(world).values()) == [True, True]
    assert custodian.alarms == []


def test_what_comes_late_is_confirmed_then(custodian: Custodian, world: World, hospital: Node, kubos: Kubos) -> None:
    kubos.kill("kubo0.hospital")
    try:
        custodian.work()
        assert list(stored(world).values()) == [False]
    finally:
        kubos.start("kubo0.hospital")
        kubos.wait_connected()
    custodian.work()
    assert list(stored(world).values()) == [True]


# Verifying again


@pytest.mark.parametrize("which", ["object", "manifest"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_block_is_fetched_anew_and_reported_by_the_custodian(
    custodian: Custodian, world: World, theirs: Node, which: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    custodian.work()
    instance = world.node.index.select()[0]
    cid = str(instance.object if which == "object" else instance.manifest)
    DAMAGES[damage](theirs, cid)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        custodian.work_next_day()
        assert theirs.call("block/get", cid, offline="true")
    [report] = events(world, "ReportRepair")
    assert report["args"]["node"] == {"organisation": "CustodianMSP", "aeTitle": "KEEPER"}  # type: ignore[index]
    assert instance.manifest in pinned(theirs)
    assert custodian.alarms == []
    assert "verified 1 manifests, 3 objects" in caplog.text


def test_what_nobody_has_is_alarmed_flagged_when_that_lasts_and_no_alarm_once_it_is_healed(
    custodian: Custodian, world: World, theirs: Node, hospital: Node
) -> None:
    custodian.work()
    bad = world.node.index.select()[0]
    for node in (theirs, hospital):
        lose(node, str(bad.object))
    for flags in (0, 1, 1):
        custodian.work_next_day()
        assert custodian.alarms == [("integrity", str(bad.object))]
        assert len(events(world, "FlagTampered")) == flags
    assert again(world).sweep(0.0).round(lambda _: True).is_sound  # it has its near copy
    custodian.work_next_day()
    assert custodian.alarms == []
    assert holds(theirs, str(bad.object))


def test_what_only_an_absent_node_may_have_is_no_damage(custodian: Custodian, world: World, kubos: Kubos) -> None:
    custodian.work()
    other = new_study(world)
    custodian.work()
    flip(custodian.kubo, objects(world)[0])
    kubos.kill("kubo0.research")
    try:
        lose(kubos.node("kubo0.hospital"), objects(world)[0])
        for _ in range(2):
            custodian.work_next_day()
            assert [kind for kind, _ in custodian.alarms] == ["not verified"]
    finally:
        kubos.start("kubo0.research")
        kubos.wait_connected()
    assert events(world, "FlagTampered") == []
    assert all(holds(custodian.kubo, cid) for cid in objects(world, other))


# Erasure


def test_an_erased_study_is_gone_from_the_custodians_node_and_others_are_not(
    custodian: Custodian, world: World, theirs: Node
) -> None:
    no_grace(world.node)
    other = new_study(world)
    custodian.work()
    gone, manifest_cid = objects(world), str(world.node.index.select(studies=[world.study_uid])[0].manifest)
    confirm(world.node, world.node.keyring.ensure_study(world.study_uid).token)
    for _ in range(2):
        custodian.work()
        assert [cid for cid in (*gone, manifest_cid) if holds(theirs, cid)] == []
        assert manifest_cid not in pinned(theirs)
        assert all(holds(theirs, cid) for cid in objects(world, other))
        assert [row["by"]["organisation"] for row in events(world, "ErasureDone")] == ["CustodianMSP"]  # type: ignore[index]
    custodian.work_next_day()
    assert custodian.alarms == []
    assert Erasures(custodian.party.data_dir / ERASURES).all() == []


def test_a_sweep_that_ends_behind_an_erasure_fetches_nothing_again(
    custodian: Custodian, world: World, hospital: Node
) -> None:
    no_grace(world.node)
    custodian.work()
    cids, root = objects(world), str(world.node.index.select()[0].manifest)

    def erase_at_the_end(round_: Round) -> bool:
        if round_.objects == 3:
            confirm(world.node, world.node.keyring.ensure_study(world.study_uid).token)
            world.node.content.forget([root], cids)
        return True

    assert again(world).sweep(0.0).round(erase_at_the_end).is_sound
    assert root not in pinned(hospital)
    assert [cid for cid in (root, *cids) if holds(hospital, cid)] == []


def test_a_study_that_cannot_be_erased_is_an_alarm_and_keeps_nothing_else_waiting(
    custodian: Custodian, world: World, theirs: Node
) -> None:
    no_grace(world.node)
    custodian.work()
    [stays, *_] = objects(world)
    theirs.call("pin/add", stays)
    token = world.node.keyring.ensure_study(world.study_uid).token
    confirm(world.node, token)
    new_study(world)
    keeper = custodian.keeper()
    while keeper.step():
        pass
    assert custodian.alarms == [(NOT_ERASED, token.hex())]
    assert list(stored(world).values()).count(True) == 2
    theirs.call("pin/rm", stays)
    custodian.later_s += 700
    while keeper.step():
        pass
    assert custodian.alarms == []
    assert len(events(world, "ErasureDone")) == 1


def test_a_study_that_was_erased_before_it_was_fetched_is_never_fetched(
    custodian: Custodian, world: World, theirs: Node
) -> None:
    no_grace(world.node)
    confirm(world.node, world.node.keyring.ensure_study(world.study_uid).token)
    custodian.work()
    assert [cid for cid in objects(world) if holds(theirs, cid)] == []
    assert len(events(world, "ErasureDone")) == 1


def test_what_comes_to_lie_before_what_was_seen_is_found_within_a_day_without_any_round(
    custodian: Custodian, world: World
) -> None:
    """On Fabric places are by the clocks of who signs."""
    custodian.party = replace(custodian.party, sweep_every_h=0.0)
    no_grace(world.node)
    keeper = custodian.keeper()
    while keeper.step():
        pass
    Erasures(custodian.party.data_dir / ERASURES).keep_place(1 << 40, custodian.clock())
    first = world.node.keyring.ensure_study(world.study_uid).token
    new_study(world)
    confirm(world.node, first)
    custodian.later_s += 90_000  # a day and an hour
    while keeper.step():
        pass
    assert list(stored(world).values()) == [True, True]
    assert len(events(world, "ErasureDone")) == 1


# Killed, away, or not alone


class Killed(BaseException):
    """The process ends here."""


class Strikes:
    """Kills before the n-th call of a port: what was done by the call before has happened."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def on(self, port: Any) -> Any:
        strikes = self

        class Struck:
            def __getattr__(self, name: str) -> Any:
                found = getattr(port, name)
                return strikes._counted(found) if callable(found) else found

        return Struck()

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise Killed
            return call(*args, **options)

        return counted


def test_killed_at_any_call_it_goes_on_and_does_nothing_twice(
    custodian: Custodian, world: World, theirs: Node, figure: Callable[[str], None]
) -> None:
    no_grace(world.node)
    custodian.work()
    first, calls, struck = world.study_uid, 0, True
    while struck:
        calls += 1
        second = new_study(world)
        gone = objects(world, first)
        confirm(world.node, world.node.keyring.ensure_study(first).token)
        keeper, strikes = custodian.keeper(), Strikes(calls)
        for port in ("_ledger", "_content", "_outbox", "_erasures"):
            setattr(keeper, port, strikes.on(getattr(keeper, port)))
        try:
            while keeper.step():
                pass
            struck = False
        except Killed:
            custodian.work()
        assert [cid for cid in gone if holds(theirs, cid)] == [], f"call {calls}"
        assert all(holds(theirs, cid) for cid in objects(world, second)), f"call {calls}"
        assert list(stored(world).values())[-1], f"call {calls}"
        assert len(events(world, "ErasureDone")) == calls
        first = second
    assert len(events(world, "ConfirmStored")) == calls + 1
    assert custodian.alarms == []
    figure(f"keeper: {calls - 1} places to be killed at")


@pytest.fixture
def start(
    custodian: Custodian, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> Callable[..., "subprocess.Popen[bytes]"]:
    path = custodian.folder / "party.yaml"
    told = [each.name for each in fields(Party) if each.default is MISSING]
    path.write_text(yaml.safe_dump({name: str(getattr(custodian.party, name)) for name in told}))
    return lambda: start_process(
        [sys.executable, "-m", "orthanc_ledger", "keeper", "--config", path], cwd=ROOT, stderr=subprocess.PIPE
    )


def test_the_process_confirms_goes_on_when_killed_is_alone_and_ends_when_told(
    start: Callable[..., "subprocess.Popen[bytes]"], world: World
) -> None:
    keeper = start()
    wait_until(lambda: all(stored(world).values()), WITHIN_S, "the first study is confirmed")
    new_study(world)
    keeper.send_signal(signal.SIGKILL)
    keeper.communicate()
    keeper = start()
    wait_until(lambda: all(stored(world).values()), WITHIN_S, "the second study is confirmed")
    second = start()
    assert second.wait(WITHIN_S) == 2
    assert b"another keeper" in second.communicate()[1]
    keeper.terminate()
    assert keeper.wait(WITHIN_S) == 0
    assert b"confirmed 1 objects" in keeper.communicate()[1]


def test_services_that_are_away_are_waited_for_and_named_once(
    custodian: Custodian, world: World, kubos: Kubos, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = world.folder / "node" / "data" / "ledger.db"
    stop = threading.Event()
    kubos.kill("kubo0.custodian")
    thread = threading.Thread(target=custodian.keeper().run, args=(stop, custodian.folder / "keeper.lock", 0.05))
    thread.start()
    try:
        wait_until(lambda: "the keeper waits" in caplog.text, WITHIN_S, "it says that Kubo is away")
        kubos.start("kubo0.custodian")
        kubos.wait_connected()
        wait_until(lambda: all(stored(world).values()), WITHIN_S, "it goes on")
        ledger.rename(ledger.with_suffix(".away"))
        wait_until(lambda: caplog.text.count("the keeper waits") == 2, WITHIN_S, "it says that the ledger is away")
        ledger.with_suffix(".away").rename(ledger)
        new_study(world)
        wait_until(lambda: all(stored(world).values()), WITHIN_S, "it goes on")
    finally:
        stop.set()
        thread.join(WITHIN_S)
    assert caplog.text.count("the keeper waits") == 2


def test_a_store_of_its_own_folder_alone_is_refused(custodian: Custodian) -> None:
    local = f"local:{custodian.world.folder / 'node' / 'data' / 'objects'}"
    with pytest.raises(ConfigError, match="expected kubo:"):
        assemble.keeper(replace(custodian.party, content=local))
