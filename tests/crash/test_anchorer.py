"""An anchorer killed at any call, or any call of which fails, once or for a while: all that it was left is anchored
once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import wait_until

from tests.crash.custody import Sender, check_custody, fresh, make_template
from tests.crash.points import EIO, ENOSPC, EVERY_CALL, KILL, KILLED, Call, Point, Victim, beyond, by_call, points

WRONG_CONFIGURATION = 2  # ends the node
A_WHILE = 3  # failed calls
TRIES = 3  # two folders are the same once in a hundred runs

pytestmark = pytest.mark.timeout(0 if EVERY_CALL else 600)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], strace: str) -> Path:
    """A node whose receiver has taken everything and was killed."""
    folder, port = tmp_path_factory.mktemp("anchorer") / "template", free_port()
    make_template(folder, port)
    receiver, sender = Victim("receive", folder), Sender(port)
    assert sender.send(receiver.lives)
    receiver.kill()
    receiver.forget()
    return folder


@pytest.fixture(scope="module")
def calls(template: Path) -> Sequence[Call]:
    """What an anchorer calls until the inbox is empty. Folders are named after CIDs, and two may be the same: the
    longer list of two runs.
    """
    lists = []
    for _ in range(2):
        victim = Victim("anchor", fresh(template), watched=True)
        assert victim.wait() == 0
        lists.append(victim.calls())
    return max(lists, key=len)


def anchor(template: Path, point: Point) -> tuple[int, int]:
    """Have all anchored by an anchorer that is struck, for a while at most, and then by another; what ended the first,
    and how often it was struck. All is in custody then.
    """
    folder = fresh(template)
    victim = Victim("anchor", folder, point)
    if point.on:
        wait_until(lambda: victim.hits >= A_WHILE or not victim.lives(), 30, f"{point} was hit")
        victim.release()
    code = victim.wait()
    check_custody(folder)
    return code, victim.hits


def strike(template: Path, point: Point) -> int:
    """As `anchor`, again when the point was not reached; what ended the anchorer that was struck."""
    for _ in range(TRIES):
        code, hits = anchor(template, point)
        if hits or code == KILLED or point.thread:  # each worker reaches its one answer in any case
            return code
    pytest.fail(f"{point} was not reached")


def test_killed_at_any_call(calls: Sequence[Call], template: Path, figure: Callable[[str], None]) -> None:
    struck = points(calls, KILL)
    for point in struck:
        assert strike(template, point) == (0 if point.thread else KILLED), point  # a worker's death is none
    figure(f"anchorer killed at {by_call(struck)}")


def test_no_call_was_overlooked(calls: Sequence[Call], template: Path) -> None:
    for point in beyond(calls):
        code, _ = anchor(template, point)
        assert code == 0, point


@pytest.mark.parametrize(
    ("error", "step", "on"), [(EIO, 1, False), (ENOSPC, 3, False), (EIO, 6, True), (ENOSPC, 6, True)]
)
def test_any_call_fails(
    error: str, step: int, on: bool, calls: Sequence[Call], template: Path, figure: Callable[[str], None]
) -> None:
    struck = points(calls, error, step, on)
    for point in struck:
        assert strike(template, point) not in (WRONG_CONFIGURATION, KILLED), point
    figure(f"{'lasting ' * on}{error} of the anchorer {'from' if on else 'at'} {by_call(struck)}")
