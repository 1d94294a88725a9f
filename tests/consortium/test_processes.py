"""Processes known by pid and start time: started, frozen, ended, and nobody else's touched."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from orthanc_ledger.consortium.processes import Processes
from orthanc_ledger.errors import LedgerAway
from tests.conftest import ROOT, free_ports

WAIT_S = 20.0
LASTING = "import signal, sys; print('here', flush=True); signal.pause()"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    for name in started.names():
        started.end(name)


def start(processes: Processes, program: str, name: str = "one") -> int:
    processes.start(name, [sys.executable, "-c", program], {"SAID": "so"})
    pid = processes.pid(name)
    assert pid is not None
    return pid


def test_it_runs_in_a_session_of_its_own_and_its_output_is_kept(
    processes: Processes, wait_until: Callable[..., None]
) -> None:
    pid = start(processes, "import os, signal; print(os.environ['SAID'], flush=True); signal.pause()")
    wait_until(lambda: processes.last_lines("one") == "so", WAIT_S, "it has written")
    assert os.getsid(pid) == pid
    assert processes.names() == ["one"]


def test_started_again_while_it_runs_it_is_the_same(processes: Processes) -> None:
    assert start(processes, LASTING) == start(processes, LASTING)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGKILL])
def test_ended_it_leaves_neither_process_nor_file(processes: Processes, first: signal.Signals, tmp_path: Path) -> None:
    pid = start(processes, LASTING)
    processes.end("one", first)
    assert not Path(f"/proc/{pid}").exists()
    assert list((tmp_path / "run").iterdir()) == []
    processes.end("one")  # and once more is nothing


def test_a_frozen_one_is_ended_too(processes: Processes) -> None:
    pid = start(processes, LASTING)
    processes.signal("one", signal.SIGSTOP)
    processes.end("one")
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_will_not_end_is_killed(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    processes = Processes(tmp_path, terminate_s=0.1)
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    pid = start(processes, f"{program}\nwhile True: signal.pause()")
    wait_until(lambda: processes.last_lines("one") == "deaf", WAIT_S, "it has become deaf")
    processes.end("one")
    assert not Path(f"/proc/{pid}").exists()


def test_another_process_with_a_remembered_pid_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    pid = start(processes, LASTING)
    known = tmp_path / "run" / "one.json"
    remembered = json.loads(known.read_text())
    known.write_text(json.dumps({**remembered, "started": remembered["started"] - 1}))
    assert processes.pid("one") is None
    processes.signal("one", signal.SIGKILL)
    processes.end("one")
    assert Path(f"/proc/{pid}").exists()
    known.write_text(json.dumps(remembered))


def test_one_that_ends_at_once_is_told_with_its_last_words(processes: Processes) -> None:
    processes.start("one", [sys.executable, "-c", "raise SystemExit('no such channel')"], {})
    with pytest.raises(LedgerAway, match=r"one: ended instead of coming up; .*one\.log ends:\nno such channel"):
        processes.wait_ready("one", lambda: False, WAIT_S)


def test_one_that_never_gets_ready_is_told(processes: Processes) -> None:
    start(processes, LASTING)
    with pytest.raises(LedgerAway, match="one: not ready after 0 s"):
        processes.wait_ready("one", lambda: False, 0.0)


KILLED = f"""
import os, signal, sys
from orthanc_ledger.consortium.processes import Processes

def test_that_is_killed(tmp_path):
    Processes(tmp_path / "network").start("one", [sys.executable, "-c", {LASTING!r}], {{}})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_tests_that_are_killed_leave_no_server(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    (tmp_path / "test_killed.py").write_text(KILLED)
    tests = ["-p", "tests.conftest", "--basetemp", tmp_path / "temporary", "--rootdir", tmp_path, tmp_path]
    killed = subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    known = tmp_path / "temporary" / "test_that_is_killed0" / "network" / "run"
    wait_until(lambda: not list(known.iterdir()), WAIT_S, "its server has ended")


def test_tests_that_run_at_the_same_time_get_no_port_of_each_other_s() -> None:
    with closing(free_ports()) as some, closing(free_ports()) as others:
        drawn = [*islice(some, 150), *islice(others, 150), *islice(some, 150)]
    assert len(set(drawn)) == len(drawn)
