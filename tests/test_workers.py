"""Worker processes: results in order, deaths survived and told, nothing left running."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from node_make import make_node, store, variant

from orthanc_ledger import batch
from orthanc_ledger.clock import system_clock_us
from orthanc_ledger.errors import Unreadable
from orthanc_ledger.fingerprint import Fingerprint
from orthanc_ledger.instance import Instance
from orthanc_ledger.workers import Workers

DIED = "the process died 2 times while decoding it, or took too long"


def limit_s(_: object) -> int:
    return 60


def double(number: int) -> int:
    return 2 * number


def own_pid(_: object) -> int:
    return os.getpid()


def die_of_odd(number: int) -> int:
    if number % 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number


def die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def hang_at_odd(number: int) -> int:
    while number % 2:
        signal.pause()
    return number


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("jobs", [0, 1, 2, 3, 10])
def test_every_job_has_its_result_in_order(count: int, jobs: int) -> None:
    with Workers(double, count, limit_s) as workers:
        for _ in range(2):
            assert list(workers.map(range(jobs))) == [2 * number for number in range(jobs)]


def test_jobs_run_in_so_many_other_processes() -> None:
    with Workers(own_pid, 2, limit_s) as workers:
        pids = set(workers.map(range(10)))
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_jobs_are_taken_no_further_ahead_than_there_are_workers() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with Workers(double, 2, limit_s) as workers:
        results = workers.map(jobs())
        assert next(results) == 0
        assert taken == [0, 1, 2]


def test_death_of_a_process_with_nothing_to_do_is_not_counted_against_the_next_job(tmp_path: Path) -> None:
    with Workers(lambda mark: die_once(mark) if mark else os.getpid(), 1, limit_s) as workers:
        [idle] = workers.map([None])
        assert isinstance(idle, int)
        os.kill(idle, signal.SIGKILL)
        wait_until(lambda: ended(idle), 10, "the process has ended")
        assert list(workers.map([tmp_path / "mark"])) == ["done"]


def test_job_that_kills_two_processes_is_told_and_the_others_are_done() -> None:
    with Workers(die_of_odd, 2, limit_s) as workers:
        results = list(workers.map(range(6)))
    assert [result for result in results if not isinstance(result, Unreadable)] == [0, 2, 4]
    assert [str(result) for result in results[1::2]] == [DIED] * 3


def test_job_that_hangs_in_two_processes_is_told_and_the_others_are_done() -> None:
    with Workers(hang_at_odd, 2, lambda number: 1 if number % 2 else 60) as workers:
        assert [str(result) for result in workers.map(range(3))] == ["0", DIED, "2"]


def test_worker_that_cannot_be_started_anew_is_signalled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of one that has ended may be that of any other process."""
    signalled, kill = [], os.kill

    def recorded(pid: int, number: int) -> None:
        signalled.append(pid)
        kill(pid, number)

    def no_process() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    workers = Workers(die_of_odd, 1, limit_s)
    monkeypatch.setattr(os, "fork", no_process)
    monkeypatch.setattr(os, "kill", recorded)
    with pytest.raises(BlockingIOError), workers:
        list(workers.map([1]))
    assert len(signalled) == 1


def test_one_death_is_an_accident_and_the_job_is_done_again(tmp_path: Path) -> None:
    def die_once(number: int) -> int:
        if not (tmp_path / str(number)).exists():
            (tmp_path / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with Workers(die_once, 2, limit_s) as workers:
        assert list(workers.map(range(4))) == [0, 1, 2, 3]


def test_worker_killed_while_idle_is_started_anew() -> None:
    with Workers(own_pid, 1, limit_s) as workers:
        [before] = workers.map([None])
        assert isinstance(before, int)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: ended(before), 10, "it is dead")
        [after] = workers.map([None])
    assert after != before


def test_what_was_begun_and_not_waited_for_is_not_taken_for_another_result() -> None:
    with Workers(double, 2, limit_s) as workers:
        abandoned = workers.map(range(10))
        assert next(abandoned) == 0
        assert list(workers.map([7])) == [14]


def test_workers_end_with_the_block() -> None:
    with Workers(own_pid, 2, limit_s) as workers:
        pids = set(workers.map(range(4)))
    assert all(ended(pid) for pid in pids if isinstance(pid, int))


ORPHANS = """
import fcntl, os, signal, sys
from orthanc_ledger.workers import Workers
lock = open(sys.argv[1], "ab")
fcntl.flock(lock, fcntl.LOCK_EX)
with Workers(lambda _: os.getpid(), 3, lambda _: 60) as workers:
    print(*workers.map(range(6)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_of_a_killed_process_end_and_keep_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", ORPHANS, str(lock)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60)  # its output ends when all have ended
    pids = {int(pid) for pid in killed.stdout.split()}
    assert len(pids) == 3
    wait_until(lambda: all(map(ended, pids)), 10, "the workers ended")
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


HANGING = """
import os, signal
from orthanc_ledger.workers import Workers
def hang(_):
    os.write(1, b"%d" % os.getpid())
    os.kill(os.getppid(), signal.SIGKILL)
    while True:
        signal.pause()
with Workers(hang, 1, lambda _: 1) as workers:
    list(workers.map([None]))
"""


def test_worker_that_hangs_does_not_outlive_a_killed_process_for_long() -> None:
    """Its standard output, which this reads to the end, is its parent's."""
    killed = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    wait_until(lambda: ended(int(killed.stdout)), 10, "the worker has ended")


def test_limit_grows_with_the_object(tmp_path: Path) -> None:
    (tmp_path / "unit").touch()
    os.truncate(tmp_path / "unit", 100 << 20)
    units = [batch.Unit(tmp_path / name, b"", b"") for name in ("unit", "gone")]
    assert [batch.fingerprint_limit_s(unit) for unit in units] == [160, 60]


def test_deadly_object_goes_to_quarantine_and_the_others_are_anchored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, fingerprints = make_node(tmp_path), batch.fingerprints
    for number in range(4):
        store(node, variant(SOPInstanceUID=f"1.2.826.0.{number}"))

    def crash(instance: Instance, salts: tuple[bytes | None, ...]) -> tuple[Fingerprint, ...]:
        if instance.sop_instance_uid == "1.2.826.0.2":
            os.kill(os.getpid(), signal.SIGSEGV)
        return fingerprints(instance, salts)

    monkeypatch.setattr(batch, "fingerprints", crash)
    stop = threading.Event()
    thread = threading.Thread(target=node.anchorer().run, args=(stop, system_clock_us))
    thread.start()
    try:
        wait_until(lambda: node.index.counts() == {"anchored": 3, "quarantined": 1}, 30, "the others are anchored")
    finally:
        stop.set()
        thread.join(30)
    [alarm] = node.outbox.alarms()
    assert alarm.kind == "quarantine"
    assert "died 2 times" in alarm.text
