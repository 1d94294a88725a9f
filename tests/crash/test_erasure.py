"""Eraser and anchorer killed at any call, or any call of which fails, while they carry out an erasure: the next ones
end it, nothing of the study is left, the other study opens, and this organisation has said so once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from erase_make import OTHER, Marked, carry_out, check_gone, confirm, fill
from node_make import make_node, open_node

from orthanc_ledger.assemble import Node
from orthanc_ledger.erasure import NODE_KEY
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.setup_node import CONFIG_NAME
from tests.crash.custody import check_whole, fresh
from tests.crash.points import EIO, ENOSPC, EVERY_CALL, KILL, KILLED, Call, Point, Victim, by_call, points

pytestmark = pytest.mark.timeout(0 if EVERY_CALL else 600)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, strace: str) -> tuple[Path, Marked]:
    """A node with a study that the ledger calls erased; and what must not be found of it."""
    folder = tmp_path_factory.mktemp("erasure") / "template"
    folder.mkdir()
    node = make_node(folder)
    marked, _ = fill(node)
    confirm(node, marked.token)
    config = folder / "node" / CONFIG_NAME
    config.write_text(f"{config.read_text()}\nspool_reserve_mb: 1\n")
    return folder, marked


@pytest.fixture(scope="module")
def calls(made: tuple[Path, Marked]) -> Sequence[Call]:
    victim = Victim("erase", fresh(made[0]), watched=True)
    assert victim.wait() == 0
    return victim.calls()


def strike(made: tuple[Path, Marked], point: Point) -> int:
    """Carry it out with processes that are struck, then with others; what ended the first. Nothing is left then."""
    template, marked = made
    folder = fresh(template)
    victim = Victim("erase", folder, point)
    code = victim.wait()
    node = open_node(folder)
    for _ in range(2):
        carry_out(node)
    print(point, code, victim.log)  # which pytest shows of what failed
    check_gone(node, marked)
    check_others(node)
    return code


def check_others(node: Node) -> None:
    """The other study opens; nothing waits, and no alarm stands but that the node key is new."""
    [anchor] = [row for row in all_rows(node.ledger, "Anchors", {}) if row["study"] in node.keyring.study_tokens()]
    assert [each.fault for each in node.library.check_manifest(OTHER, anchor)] == [None, None]
    assert node.outbox.posted() == []
    assert {alarm.kind for alarm in node.outbox.alarms()} == {NODE_KEY}
    assert [row.state for row in node.erasures.all()] == ["done"]
    assert [row for row in all_rows(node.ledger, "Audit", {}) if row["function"] == "ErasureDone"]
    assert sorted(path.name for path in node.config.node_key.path.parent.iterdir()) == ["node.key"]
    check_whole(node)


def test_killed_at_any_call(calls: Sequence[Call], made: tuple[Path, Marked], figure: Callable[[str], None]) -> None:
    struck = points(calls, KILL)
    codes = [strike(made, point) for point in struck]
    assert codes.count(KILLED) > 0.9 * len(codes)  # a folder more or less: CIDs differ, and so does their order
    figure(f"eraser killed at {by_call(struck)}")


@pytest.mark.parametrize(("error", "step"), [(EIO, 3), (ENOSPC, 6)])
def test_any_call_fails(
    error: str, step: int, calls: Sequence[Call], made: tuple[Path, Marked], figure: Callable[[str], None]
) -> None:
    struck = points(calls, error, step)
    for point in struck:
        assert strike(made, point) not in (2, KILLED), point
    figure(f"{error} of the eraser at {by_call(struck)}")
