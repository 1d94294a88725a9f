"""A receiver killed at any call, or any call of which fails: what it acknowledged is in custody, what it could not make
durable it refuses, and what comes later is received.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.crash.custody import Sender, check_custody, deliveries, fresh, make_template
from tests.crash.points import EIO, ENOSPC, EVERY_CALL, KILL, KILLED, Call, Point, Victim, beyond, by_call, points

OUT_OF_RESOURCES, PROCESSING_FAILURE = 0xA700, 0x0110
DURABLE = {"write", "pwrite64", "fsync", "linkat"}  # what an association calls to keep an object
WRONG_CONFIGURATION = 2  # ends the node

pytestmark = pytest.mark.timeout(0 if EVERY_CALL else 600)


@pytest.fixture(scope="module")
def port(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, port: int, strace: str) -> Path:
    folder = tmp_path_factory.mktemp("receiver") / "template"
    make_template(folder, port)
    return folder


@pytest.fixture(scope="module")
def calls(template: Path, port: int) -> Sequence[Call]:
    """What a receiver calls from its start, in one association, to its end."""
    victim, sender = Victim("receive", fresh(template), watched=True), Sender(port)
    assert sender.send(victim.lives)
    assert victim.stop() == 0
    return victim.calls()


def receive(template: Path, port: int, point: Point) -> tuple[int, Sender, int]:
    """Send everything to a receiver that is struck, and to the next one when that ends it; what ended it, the sender,
    and how much was settled with the first one. All is in custody then.
    """
    folder = fresh(template)
    victim, sender = Victim("receive", folder, point), Sender(port)
    sender.send(victim.lives)
    settled = len(deliveries()) - len(sender.pending)
    code = victim.stop()
    if point.fault != KILL:
        assert victim.hits == 1, point
    if sender.pending:
        victim = Victim("receive", folder)
        assert sender.send(victim.lives), f"{point}: {sender.refusals}, {sender.lost} lost: {victim.log}"
        victim.kill()
    check_custody(folder)
    return code, sender, settled


def test_killed_at_any_call(calls: Sequence[Call], template: Path, port: int, figure: Callable[[str], None]) -> None:
    struck, settled = points(calls, KILL), set()
    for point in struck:
        code, sender, before = receive(template, port, point)
        assert (code, sender.refusals) == (KILLED, []), point
        settled.add(before)
    assert settled == set(range(len(deliveries()) + 1)), "killed before, between and after all of them"
    figure(f"receiver killed at {by_call(struck)}")


def test_no_call_was_overlooked(calls: Sequence[Call], template: Path, port: int) -> None:
    for point in beyond(calls):
        code, *_ = receive(template, port, point)
        assert code == 0, point


@pytest.mark.parametrize(("error", "step"), [(EIO, 1), (ENOSPC, 3)])
def test_any_call_fails(
    error: str, step: int, calls: Sequence[Call], template: Path, port: int, figure: Callable[[str], None]
) -> None:
    struck = points(calls, error, step)
    for point in struck:
        code, sender, _ = receive(template, port, point)
        if point.thread == 0:  # at its start: it may die, and `serve` starts it again
            assert code not in (WRONG_CONFIGURATION, KILLED), point
            assert sender.refusals == [], point
        else:
            assert code == 0, point
            expected = [[OUT_OF_RESOURCES]] if point.call in DURABLE else [[], [OUT_OF_RESOURCES], [PROCESSING_FAILURE]]
            assert sender.refusals in expected, f"{point}: 0x{sender.refusals}"
    figure(f"{error} of the receiver at {by_call(struck)}")


@pytest.mark.parametrize("error", [EIO, ENOSPC])
def test_disk_that_fails_for_a_while(
    error: str, calls: Sequence[Call], template: Path, port: int, figure: Callable[[str], None]
) -> None:
    """An association's calls of one name all fail: each object is refused until they work again, and then stored."""
    struck = [
        point for point in points(calls, error, 3, on=True) if point.thread and point.call in {*DURABLE, "openat"}
    ]
    for point in struck:
        folder = fresh(template)
        victim, sender = Victim("receive", folder, point), Sender(port)
        assert not sender.send(victim.lives, most=3), point
        assert set(sender.refusals) <= {OUT_OF_RESOURCES, PROCESSING_FAILURE}, point
        assert sender.lost == 0, point
        victim.release()
        assert sender.send(victim.lives), point
        assert victim.stop() == 0, point
        check_custody(folder)
    figure(f"lasting {error} of the receiver from {by_call(struck)}")
