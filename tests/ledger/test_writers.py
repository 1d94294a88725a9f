"""Three local processes append at once, each as an identity of its own, also while one of them is killed."""

import itertools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import dag_cbor
import pytest

from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.embedded import EmbeddedLedger, create_ledger
from orthanc_ledger.ledger.fsck import check
from orthanc_ledger.ledger.identity import load_identity
from tests.ledger.channel import CUSTODIAN, DIGEST, LAB, OWNER, START, STUDY, People, cid, policy

EACH = 60
KILLS = 4
PACE_S = 0.005
SPAWN = multiprocessing.get_context("spawn")


def call_of(organisation: str, number: int) -> tuple[str, dict[str, Any]]:
    """A call that only this organisation makes."""
    if organisation == OWNER:
        manifest = cid(f"m{number}")
        return "Anchor", {"manifestCid": manifest, "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}
    if organisation == CUSTODIAN:
        dataset = {"id": number.to_bytes(16), "version": 1, "root": DIGEST, "count": 1, "descriptorDigest": DIGEST}
        return "RegisterDataset", {**dataset, "duo": []}
    return "RegisterNode", {"aeTitle": f"LAB{number}", "role": "research", "certDigests": []}


def append(path: Path, people: Path, organisation: str, wanted: Callable[[int], bool]) -> None:
    """Append an organisation's calls, as long as the next number is wanted, noting each once it is acknowledged."""
    identity = load_identity(people / organisation / "identities" / "person-1")
    noting = os.open(path.with_name(organisation), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with closing(EmbeddedLedger(path, identity, lambda: START)) as ledger:
        for number in itertools.takewhile(wanted, itertools.count()):
            ledger.submit(*call_of(organisation, number))
            os.write(noting, f"{number}\n".encode())


def append_some(path: Path, people: Path, organisation: str, start: Barrier) -> None:
    append(path, people, organisation, lambda number: (number or start.wait(60) >= 0) and number < EACH)


def append_until(path: Path, people: Path, organisation: str, stop: Event) -> None:
    append(path, people, organisation, lambda number: not stop.wait(PACE_S))


StartWriter = Callable[..., BaseProcess]


@pytest.fixture
def path(tmp_path: Path, people: People) -> Path:
    create_ledger(tmp_path / "ledger.db", people.ca_certificates, policy(), lambda: START)
    with closing(EmbeddedLedger(tmp_path / "ledger.db", people.identities[OWNER], lambda: START)) as ledger:
        ledger.submit("InitPolicy", {"policy": policy()})
    return tmp_path / "ledger.db"


@pytest.fixture
def start_writer(path: Path, people: People) -> Iterator[StartWriter]:
    """Start a process that appends an organisation's calls; what still runs in the end is killed."""
    started: list[BaseProcess] = []

    def start(target: Callable[..., None], organisation: str, signal: Barrier | Event) -> BaseProcess:
        started.append(SPAWN.Process(target=target, args=(path, people.folder, organisation, signal)))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join(10)


def noted(path: Path, organisation: str) -> list[int]:
    """Numbers of the calls that were acknowledged, also again."""
    file = path.with_name(organisation)
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def check_each_is_there_once(path: Path) -> int:
    """Every call that was acknowledged by now is one entry of a clean ledger; the number of entries."""
    acknowledged = [(name, number) for name in (OWNER, CUSTODIAN, LAB) for number in set(noted(path, name))]
    report = check(path)
    assert report.findings == ()
    with closing(EmbeddedLedger(path)) as ledger:
        events = list(all_rows(ledger, "Audit", {}))
    calls = Counter(
        (event["by"]["organisation"], event["function"], dag_cbor.encode(event["args"])) for event in events
    )
    for organisation, number in acknowledged:
        function, args = call_of(organisation, number)
        assert calls[organisation, function, dag_cbor.encode(args)] == 1
    return report.size


def test_all_that_three_processes_append_is_there_once(path: Path, start_writer: StartWriter) -> None:
    start = SPAWN.Barrier(3)
    processes = [start_writer(append_some, organisation, start) for organisation in (OWNER, CUSTODIAN, LAB)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert check_each_is_there_once(path) == 2 + 3 * EACH


def test_a_process_killed_again_and_again_takes_nothing_from_the_others_nor_what_it_was_told(
    path: Path, start_writer: StartWriter, wait_until: Callable[[Callable[[], object], float, str], None]
) -> None:
    stop, alone = SPAWN.Event(), SPAWN.Barrier(1)
    others = [start_writer(append_until, organisation, stop) for organisation in (OWNER, CUSTODIAN)]
    for _ in range(KILLS):
        told = len(noted(path, LAB))
        victim = start_writer(append_some, LAB, alone)
        wait_until(lambda told=told: len(noted(path, LAB)) > told + EACH // 3, 60, "it has appended a third")
        victim.kill()
        victim.join(10)
        check_each_is_there_once(path)
    stop.set()
    last = start_writer(append_some, LAB, alone)
    for process in (*others, last):
        process.join(60)
        assert process.exitcode == 0
    assert all(noted(path, organisation) for organisation in (OWNER, CUSTODIAN))
    assert set(noted(path, LAB)) == set(range(EACH))
    check_each_is_there_once(path)
