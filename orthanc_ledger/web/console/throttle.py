"""How often somebody may be wrong."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

WINDOW_S = 900.0

_MOST_KEYS = 10_000


class Throttle:
    """Counts failures by key within `WINDOW_S`; safe for several threads."""

    def __init__(self, limit: int, monotonic: Callable[[], float]) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures: OrderedDict[Hashable, deque[float]] = OrderedDict()  # the longest untouched first

    def allows(self, key: Hashable) -> bool:
        """Whether a key has failed less often than it may."""
        with self._lock:
            return len(self._recent(key)) < self._limit

    def failed(self, key: Hashable) -> None:
        """Note a failure."""
        with self._lock:
            recent = self._recent(key)
            recent.append(self._monotonic())
            self._failures[key] = recent
            self._failures.move_to_end(key)
            while len(self._failures) > _MOST_KEYS:
                self._failures.popitem(last=False)

    def succeeded(self, key: Hashable) -> None:
        """Forget a key's failures."""
        with self._lock:
            self._failures.pop(key, None)

    def _recent(self, key: Hashable) -> deque[float]:
        recent = self._failures.get(key, deque(maxlen=self._limit))
        while recent and recent[0] <= self._monotonic() - WINDOW_S:
            recent.popleft()
        return recent
