"""The times of proposals: seconds by the node's clock, milliseconds so that what is called later has the later time."""

import threading
import time

from orthanc_ledger.clock import Clock


class Timestamps:
    """Gives times of proposals, in milliseconds since 1970. For several threads; shared by a process's ledgers.

    The second is always the clock's: the contract's time. The milliseconds are the machine's where both clocks tell the
    same second; else, with a clock that a test sets, they count from 0. Within a second they rise by one at least, up
    to 999: the contract orders the trail by them. A clock set back is followed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def take(self, clock: Clock) -> int:
        """The next time."""
        machine = time.time_ns() // 1_000_000
        with self._lock:
            second = clock()
            begin = second * 1000
            stamp = machine if machine // 1000 == second else begin
            if self._last // 1000 == second:
                stamp = min(max(stamp, self._last + 1), begin + 999)
            self._last = stamp
            return stamp
