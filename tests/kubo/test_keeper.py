"""The custodian's keeper: it confirms what it holds whole, nothing else, and goes on wherever it was killed."""

import hashlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orthanc_ledger import assemble, manifest
from orthanc_ledger.assemble import ERASURES, OUTBOX
from orthanc_ledger.clock import system_clock
from orthanc_ledger.config import Party
from orthanc_ledger.content import ContentStore, cbor, open_store
from orthanc_ledger.content.cid import block_cid, cid_bytes, cid_of, cid_text
from orthanc_ledger.content.kubo import pins
from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.erasures import NOT_ERASED, Erasures
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.keeper import LATE_S, NOT_CONFIRMED, Keeper
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.manifest import Manifest, Record
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.sweep import Round
from tests.conftest import ROOT, wait_until
from tests.erase_make import confirm, no_grace
from tests.gate_world import World, exits
from tests.kubo.live import Kubos, Node, write_yaml
from tests.kubo.test_client import tree_block
from tests.kubo.test_store import flip, holds, lose, pinned
from tests.kubo.world import DAMAGES, STALL_S, again, arrive, events, make_hospital, next_uid
from tests.node_make import drain

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

HOUR_S = 3600
WITHIN_S = 30.0


@dataclass
class Custodian:
    """A custodian's folder, with a clock that is moved by hand."""

    world: World
    folder: Path
    kubo: Node
    later_s: int = 0
    party: Party = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir(parents=True)
        file = write_yaml(self.folder / "kubo.yaml", self.kubo, keep_days=0)
        self.party = Party(
            organisation="CustodianMSP",
            ae_title="KEEPER",
            data_dir=self.folder / "data",
            identity=self.world.folder / "node" / "organisations" / "custodian" / "identities" / "node",
            content=f"kubo:{file}",
            ledger=self.world.node.config.ledger,
        )

    def keeper(self) -> Keeper:
        """As a process started now."""
        return assemble.keeper(self.party, lambda _: None, self.clock, lambda: float(self.clock()))

    def clock(self) -> int:
        return system_clock() + self.later_s

    def work(self) -> None:
        """What a process started now does until nothing is due."""
        keeper = self.keeper()
        while keeper.step():
            pass

    def work_next_day(self) -> None:
        self.later_s += 25 * HOUR_S
        self.work()

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.party.data_dir / OUTBOX, system_clock)

    @property
    def alarms(self) -> list[tuple[str, str]]:
        return sorted((alarm.kind, alarm.claim) for alarm in self.outbox.alarms())


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_soon(url: str) -> ContentStore:
        scheme, _, rest = url.partition(":")
        return KuboStore(Path(rest), STALL_S) if scheme == "kubo" else open_store(url)

    monkeypatch.setattr(assemble, "open_store", open_soon)
    monkeypatch.setattr(pins, "PATIENCE_S", 1.0)


@pytest.fixture
def world(tmp_path: Path, hospital: Node) -> World:
    return make_hospital(tmp_path, hospital)


@pytest.fixture
def theirs(kubos: Kubos) -> Node:
    return kubos.node("kubo0.custodian")


@pytest.fixture
def custodian(world: World, tmp_path: Path, theirs: Node) -> Custodian:
    return Custodian(world, tmp_path / "custodian", theirs)


def stored(world: World) -> dict[str, bool]:
    """By manifest CID, whether the ledger calls it stored."""
    return {row["manifestCid"]: row["stored"] for row in all_rows(world.node.ledger, "Anchors", {})}


def objects(world: World, study_uid: str = "") -> list[str]:
    return [str(row.object) for row in world.node.index.select(studies=[study_uid or world.study_uid])]


def new_study(world: World) -> str:
    study_uid = next_uid()
    arrive(world.node, study_uid)
    drain(world.node)
    return study_uid


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


def forge(
    world: World, hospital: Node, seq: int, change: Callable[[list[Record]], list[Record]], **differs: Any
) -> str:
    """Anchor another manifest of the study's objects; ``study`` is the manifest's own token; the rest the anchor's."""
    token = world.node.keyring.ensure_study(world.study_uid).token
    real = world.node.manifests.read(str(world.node.index.select()[0].manifest), token)
    forged = manifest.build(differs.pop("study", token), seq, real.key_id, change(list(real.records)))
    for block in forged.blocks.values():
        hospital.call("block/put", body=block, cid_codec="dag-cbor", mhtype="sha2-256")
    return anchor(world, forged, token, **differs)


def anchor(world: World, forged: Manifest, token: bytes, **differs: Any) -> str:
    args = {
        "manifestCid": forged.cid,
        "study": token,
        "root": forged.record_root,
        "count": forged.count,
        "kind": "original",
    }
    world.ledger("owner", "node").submit("Anchor", {**args, **differs})
    return forged.cid


def test_what_is_not_what_was_anchored_is_never_confirmed_and_keeps_nothing_else_waiting(
    custodian: Custodian, world: World, hospital: Node, theirs: Node
) -> None:
    lost = cid_of(io.BytesIO(os.urandom(100)))
    differ = [
        forge(world, hospital, 11, lambda rows: [replace(rows[0], sealed_size=rows[0].sealed_size + 1), *rows[1:]]),
        forge(world, hospital, 12, lambda rows: rows, root=bytes(32)),
        forge(world, hospital, 13, lambda rows: rows, count=2),
        forge(world, hospital, 14, lambda rows: rows, study=bytes(16)),
    ]
    missing = forge(world, hospital, 15, lambda rows: [replace(rows[0], object=lost), *rows[1:]])
    token = world.node.keyring.ensure_study(world.study_uid).token
    never_there = anchor(world, manifest.build(token, 16, bytes(16), []), token, count=1)
    good = str(world.node.index.select()[0].manifest)
    custodian.work()
    assert [cid for cid, is_stored in stored(world).items() if is_stored] == [good]
    assert custodian.alarms == sorted((NOT_CONFIRMED, cid) for cid in differ)
    assert pinned(theirs).isdisjoint(differ)
    keeper = custodian.keeper()
    for passed_s in (60, LATE_S):  # of one process
        while keeper.step():
            pass
        assert custodian.alarms == sorted((NOT_CONFIRMED, cid) for cid in differ)
        custodian.later_s += int(passed_s)
    while keeper.step():
        pass
    assert custodian.alarms == sorted((NOT_CONFIRMED, cid) for cid in (*differ, missing, never_there))
    assert [cid for cid, is_stored in stored(world).items() if is_stored] == [good]


def tree(node: Node, size: int, *links: tuple[bytes, int]) -> bytes:
    """Put a node of a file's tree: its binary CID."""
    cid, block = tree_block(size, *links)
    node.call("block/put", body=block, cid_codec="dag-pb", mhtype="sha2-256")
    return cid


def leaf(node: Node, data: bytes) -> bytes:
    node.call("block/put", body=data, cid_codec="raw", mhtype="sha2-256")
    return b"\1\x55\x12\x20" + hashlib.sha256(data).digest()


def diamond(node: Node) -> bytes:
    """Of 43 blocks and 2**40 paths, behind a block that breaks it off."""
    first, below, size = leaf(node, b"abcd"), leaf(node, b"x"), 1
    block = cbor.encode({"a": 1})
    node.call("block/put", body=block, cid_codec="dag-cbor", mhtype="sha2-256")
    for _ in range(40):
        size *= 2
        below = tree(node, size, *[(below, size // 2)] * 2)
    return tree(node, size + 8, (first, 4), (cid_bytes(block_cid(block)), 4), (below, size))


def gibibyte(node: Node) -> bytes:
    """In two blocks."""
    return tree(node, 1 << 30, *[(leaf(node, bytes(1 << 20)), 1 << 20)] * 1024)


def broad(node: Node) -> bytes:
    """Of more blocks than its size has, behind one that breaks it off."""
    block = cbor.encode({"a": 1})
    node.call("block/put", body=block, cid_codec="dag-cbor", mhtype="sha2-256")
    return tree(node, 8, (cid_bytes(block_cid(block)), 4), *((leaf(node, bytes([each])), 1) for each in range(40)))


def directory(node: Node) -> bytes:
    """With one file in it."""
    link = b"\n$" + leaf(node, os.urandom(1000)) + b"\x12\1a"
    return dag_pb(node, b"\x12" + bytes([len(link)]) + link + b"\n\2\x08\1")


def nothing(node: Node) -> bytes:
    """What is no UnixFS at all."""
    return dag_pb(node, b"\n\3\xff\xff\xff")


def dag_pb(node: Node, block: bytes) -> bytes:
    node.call("block/put", body=block, cid_codec="dag-pb", mhtype="sha2-256")
    return b"\1\x70\x12\x20" + hashlib.sha256(block).digest()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (directory, "is no file"),
        (nothing, "is no file"),
        (diamond, "expected"),
        (gibibyte, "at most .* bytes expected"),
        (broad, "at most .* blocks"),
    ],
)
def test_an_object_of_a_shape_that_nobody_makes_is_an_alarm_and_keeps_nothing_else_waiting(
    custodian: Custodian, world: World, hospital: Node, shape: Callable[[Node], bytes], said: str
) -> None:
    bad = cid_text(shape(hospital))
    cid = forge(world, hospital, 21, lambda rows: [replace(rows[0], object=bad)])
    custodian.work()
    [alarm] = custodian.outbox.alarms()
    assert (alarm.kind, alarm.claim) == (NOT_CONFIRMED, cid)
    assert re.search(said, alarm.text)
    assert cid not in pinned(custodian.kubo)
    assert stored(world) == {cid: False, str(world.node.index.select()[0].manifest): True}


def test_nothing_of_what_is_no_manifest_is_fetched_but_its_root(
    custodian: Custodian, world: World, hospital: Node, theirs: Node
) -> None:
    token = world.node.keyring.ensure_study(world.study_uid).token
    data = os.urandom(1000)
    below = leaf(hospital, data)
    block = cbor.encode({"a film": cbor.CID(below)})
    [root] = [line["Key"] for line in hospital.call("block/put", body=block, cid_codec="dag-cbor", mhtype="sha2-256")]
    args = {"manifestCid": root, "study": token, "root": bytes(32), "count": 1, "kind": "original"}
    world.ledger("owner", "node").submit("Anchor", args)
    custodian.work()
    assert custodian.alarms == [(NOT_CONFIRMED, root)]
    assert root not in pinned(theirs)
    assert not holds(theirs, cid_text(below))


def test_a_manifest_that_nobody_sends_keeps_no_round_waiting(custodian: Custodian, world: World, theirs: Node) -> None:
    custodian.work()
    token = world.node.keyring.ensure_study(world.study_uid).token
    anchor(world, manifest.build(token, 100, bytes(16), []), token, count=1)
    keeper = custodian.keeper()
    while keeper.step():
        pass
    lose(theirs, objects(world)[0])
    custodian.later_s += 25 * HOUR_S
    for _ in range(4):
        custodian.later_s += 600  # it is due again
        keeper.step()
    assert holds(theirs, objects(world)[0])


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


def test_an_erased_study_that_names_another_s_object_is_erased_but_for_that(
    custodian: Custodian, world: World, hospital: Node, theirs: Node, caplog: pytest.LogCaptureFixture
) -> None:
    no_grace(world.node)
    other = new_study(world)
    [victim], gone = objects(world, other), objects(world)
    forge(world, hospital, 31, lambda rows: [replace(rows[0], object=victim)])
    custodian.work()
    confirm(world.node, world.node.keyring.ensure_study(world.study_uid).token)
    custodian.work()
    assert len(events(world, "ErasureDone")) == 1
    assert custodian.alarms == []
    assert [cid for cid in gone if holds(theirs, cid)] == []
    assert holds(theirs, victim)
    root = world.node.index.select(studies=[other])[0].manifest
    assert f"1 blocks stay: {victim} is indirect through {root}" in caplog.text


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


def write_party(custodian: Custodian, **changes: Any) -> Path:
    party = {name: str(getattr(custodian.party, name)) for name in Party.__annotations__}
    del party["sweep_every_h"], party["sweep_mb_s"]
    path = custodian.folder / "party.yaml"
    path.write_text(yaml.safe_dump({**party, **changes}))
    return path


@pytest.fixture
def start(
    custodian: Custodian, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> Callable[..., "subprocess.Popen[bytes]"]:
    path = write_party(custodian)
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
