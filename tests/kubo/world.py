"""A hospital's node in this process whose sealed objects are kept on Kubo nodes, on an embedded ledger."""

import os
from collections.abc import Callable
from pathlib import Path

from orthanc_ledger.assemble import Node as Hospital
from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.ledger import all_rows
from tests.gate_world import World
from tests.kubo.live import Node, write_yaml
from tests.kubo.test_store import flip, holds, lose
from tests.node_make import drain, make_node, open_node, store, variant

STALL_S = 2.0
DAMAGES: dict[str, Callable[[Node, str], None]] = {"corrupt": flip, "missing": lose}

_SLICES = iter(range(1, 1_000_000))


def make_hospital(folder: Path, *nodes: Node, **keys: object) -> World:
    """One study of three slices, anchored, that no other test has."""
    file = write_yaml(folder / "kubo.yaml", *nodes, **{"local": "node/data/objects", **keys})
    hospital = make_node(folder, content=f"kubo:{file}")
    soon(hospital)
    study_uid = next_uid()
    sop_uids = [arrive(hospital, study_uid) for _ in range(3)]
    drain(hospital)
    return World(hospital, folder, study_uid, sop_uids)


def soon(hospital: Hospital) -> Hospital:
    """The node, with a store that does not wait long."""
    hospital.__dict__["content"] = KuboStore(Path(hospital.config.content.partition(":")[2]), STALL_S)
    return hospital


def again(world: World) -> Hospital:
    """The node, as a process started now sees it."""
    return soon(open_node(world.folder, content=world.node.config.content))


def arrive(hospital: Hospital, study_uid: str) -> str:
    """Have another slice of a study stored; its SOP Instance UID."""
    uids = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": f"{study_uid}.1", "SOPInstanceUID": next_uid()}
    store(hospital, variant(**uids))
    return uids["SOPInstanceUID"]


def next_uid() -> str:
    return f"1.2.826.0.1.3680043.10.9.{os.getpid()}.{next(_SLICES)}"


def events(world: World, function: str) -> list[dict[str, object]]:
    """The ledger's events of a function."""
    return [dict(row) for row in all_rows(world.node.ledger, "Audit", {}) if row["function"] == function]


def near_file(world: World, cid: str | None) -> Path:
    """The file of an object or block in the local store."""
    [found] = (world.folder / "node" / "data" / "objects").glob(f"*/{str(cid)[-2:]}/{cid}")
    return found


def is_sound(node: Node, cid: str | None) -> bool:
    """Whether a Kubo node itself gives a block."""
    return holds(node, str(cid)) and bool(node.call("block/get", str(cid), offline="true"))
