"""Time, as everything here takes it: injected, UTC since 1970."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Whole seconds: the ledger's time."""

MicrosecondClock = Callable[[], int]
"""Microseconds: arrivals and pacing."""


def system_clock() -> int:
    """Seconds of UTC since 1970-01-01, rounded down."""
    return time.time_ns() // 1_000_000_000


def system_clock_us() -> int:
    """Microseconds of UTC since 1970-01-01, rounded down."""
    return time.time_ns() // 1_000
