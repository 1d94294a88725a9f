"""The times of proposals: the clock's second, rising milliseconds."""

import time

from orthanc_ledger.clock import system_clock
from orthanc_ledger.ledger.fabric.timestamps import Timestamps


def test_by_the_machines_clock_it_is_the_machines_time() -> None:
    before = time.time_ns() // 1_000_000
    stamp = Timestamps().take(system_clock)
    assert before <= stamp <= time.time_ns() // 1_000_000


def test_calls_of_one_second_rise_and_stay_in_it() -> None:
    stamps = Timestamps()
    taken = [stamps.take(lambda: 1_800_000_000) for _ in range(1_200)]
    assert taken[:1_000] == list(range(1_800_000_000_000, 1_800_000_001_000))
    assert set(taken[1_000:]) == {1_800_000_000_999}


def test_a_clock_set_back_is_followed() -> None:
    stamps = Timestamps()
    assert [stamps.take(lambda second=second: second) for second in (9, 7, 7, 9)] == [9000, 7000, 7001, 9000]
