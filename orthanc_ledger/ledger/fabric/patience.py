"""How long and how often one call is tried."""

import random
import time
from collections.abc import Callable

PATIENCE_S = 10.0
LEAST_S = 1.0
"""A request gets so much time however little is left: less would give a healthy network no chance."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Patience:
    """The time of one call: what is left of it, and pauses that double, each shortened at random by up to a half."""

    def __init__(self, patience_s: float | None, wait: Callable[[float], object] = time.sleep) -> None:
        """``patience_s``: seconds until no further try begins; None: as long as suits a person."""
        self._end = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
        self._pause_s, self._wait = _FIRST_PAUSE_S, wait
        self.tries = 1

    def deadline(self, most_s: float, least_s: float = LEAST_S) -> float:
        """Seconds that a request may take: its own deadline, or what is left if that is less, but ``least_s``."""
        return min(most_s, max(self._end - time.monotonic(), least_s))

    def again(self) -> bool:
        """Pause before another try; False when there is no time for one."""
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # so that those who collided do not meet again
        if time.monotonic() + pause_s >= self._end:
            return False
        self._wait(pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self.tries += 1
        return True
