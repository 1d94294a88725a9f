"""Whatever system call kills a process or fails, a ledger keeps whole entries only, and all that it acknowledged."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from orthanc_ledger.ledger.embedded import create_ledger
from orthanc_ledger.ledger.fsck import check
from orthanc_ledger.ledger.identity import Identity
from tests.ledger.channel import START, People, policy
from tests.ledger.kill_child import ENTRIES, work

ROOT = Path(__file__).resolve().parents[2]
MORE_THAN_ANY = {"pwrite64": 250, "write": 30, "fsync": 30, "fdatasync": 40, "ftruncate": 30, "unlink": 30}


@dataclass(frozen=True)
class Point:
    """What a child that was hit at one call left."""

    call: str
    folder: str
    status: int  # how often the ledger was away for it; negative: the signal that killed it

    @property
    def ledger(self) -> Path:
        return Path(self.folder) / "ledger.db"

    @property
    def acknowledged(self) -> set[str]:
        noted = Path(self.folder) / "acknowledged"
        return set(noted.read_text().split()) if noted.exists() else set()


Hit = Callable[..., list[Point]]


@pytest.fixture(scope="module")
def hit(strace: str, people: People, tmp_path_factory: pytest.TempPathFactory) -> Hit:
    """Do the work on copies of a new ledger, hit by an injection of strace at each of its calls."""
    folder = tmp_path_factory.mktemp("template")
    create_ledger(folder / "ledger.db", people.ca_certificates, policy(), lambda: START)

    def run(mode: str, injection: str, calls: Mapping[str, int]) -> list[Point]:
        target = tmp_path_factory.mktemp("hit")
        command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={','.join(calls)}"]
        for name, number in calls.items():
            command += ["-e", f"inject={name}:{injection}:when={number}"]
        command += [sys.executable, "-m", "tests.ledger.kill_child", mode]
        command += [str(folder / "ledger.db"), str(target), str(people.folder)]
        command += [f"{name}={number}" for name, number in calls.items()]
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # which would be writes of its own
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return [Point(**point) for point in json.loads(done.stdout)]

    return run


@pytest.fixture(scope="module")
def killed(hit: Hit) -> list[Point]:
    """Killed before each call that the work makes; the last point of each kind of call survived."""
    return hit("kill", "signal=KILL", MORE_THAN_ANY)


def calls_made(killed: list[Point]) -> dict[str, int]:
    """How many calls of each kind the work makes."""
    return dict(Counter(point.call for point in killed if point.status == -signal.SIGKILL))


def check_whole(point: Point, people: Mapping[str, Identity]) -> None:
    """The file is clean and holds what was acknowledged, and a later run goes on to the end, each entry once."""
    report = check(point.ledger)
    assert report.findings == (), point
    assert point.acknowledged <= set(transactions(point.ledger)), point
    noted: list[str] = []
    assert work(point.ledger, people, noted.append) == 0
    report = check(point.ledger)
    assert (report.size, report.findings) == (ENTRIES, ()), point
    assert point.acknowledged <= set(transactions(point.ledger)), point


def transactions(path: Path) -> list[str]:
    """Their ids, in order."""
    with closing(sqlite3.connect(path)) as db:
        return [tx_id.hex() for (tx_id,) in db.execute("SELECT tx_id FROM entries ORDER BY position")]


@pytest.mark.timeout(280)
def test_killed_anywhere_nothing_acknowledged_is_lost_and_nothing_is_half_written(
    killed: list[Point], people: People, figure: Callable[[str], None]
) -> None:
    survivors = [point.call for point in killed if point.status == 0]
    assert sorted(survivors) == sorted(MORE_THAN_ANY), "a call is made more often than MORE_THAN_ANY says"
    for point in killed:
        check_whole(point, people.identities)
    assert {len(point.acknowledged) for point in killed} == set(range(ENTRIES))
    figure(f"embedded ledger killed at {len(killed) - len(survivors)} points: {calls_made(killed)}")


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("mode", "error", "failing"),
    [
        ("fail", "EIO", ("pwrite64", "fsync", "fdatasync", "ftruncate", "unlink")),
        ("fail some", "ENOSPC", ("pwrite64", "ftruncate")),
    ],
)
def test_a_call_that_fails_is_a_ledger_away_and_the_same_transactions_go_on(
    hit: Hit,
    killed: list[Point],
    people: People,
    mode: str,
    error: str,
    failing: tuple[str, ...],
    figure: Callable[[str], None],
) -> None:
    calls = {name: number for name, number in calls_made(killed).items() if name in failing}
    points = hit(mode, f"error={error}", calls)
    for point in points:
        assert 0 <= point.status <= 2, point
        check_whole(point, people.identities)
    # What fails while the WAL is copied back at the end of a session is nobody's call.
    assert sum(point.status for point in points) > len(points) / 4
    figure(f"embedded ledger: {error} at {len(points)} points of {calls}")
