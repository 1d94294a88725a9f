"""The keeper, when somebody of the hospital anchors what no node made: nothing of it counts, or stops the others."""

import hashlib
import io
import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orthanc_ledger import manifest
from orthanc_ledger.content import cbor
from orthanc_ledger.content.cid import block_cid, cid_bytes, cid_of, cid_text
from orthanc_ledger.keeper import LATE_S, NOT_CONFIRMED
from orthanc_ledger.manifest import Manifest, Record
from tests.erase_make import confirm, no_grace
from tests.gate_world import World
from tests.kubo.custodian import HOUR_S, Custodian, new_study, objects, stored
from tests.kubo.live import Node
from tests.kubo.test_client import tree_block
from tests.kubo.test_store import holds, lose, pinned
from tests.kubo.world import events
from tests.node_make import anchoring, anchoring_of

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time


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
    world.ledger("owner", "node").submit("Anchor", anchoring_of(forged, **{"study": token, **differs}))
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
    world.ledger("owner", "node").submit("Anchor", anchoring(root, token))
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
