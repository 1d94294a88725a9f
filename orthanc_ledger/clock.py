"""Time, as everything here takes it: injected, in whole seconds of UTC since 1970."""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def system_clock() -> int:
    """Seconds of UTC since 1970-01-01, rounded down."""
    return int(time.time())
