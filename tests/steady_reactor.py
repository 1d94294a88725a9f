"""pynetdicom's pause of an association's reactor, without its race: who sends may take for paused a reactor that is
just about to go on and then takes the response: a DIMSE timeout, a few in 10,000 requests on a busy machine.
"""

import threading
from typing import Any

from pynetdicom.association import Association


class _Checkpoint(threading.Event):
    """Where the reactor waits while it is paused: it says so itself, each time anew."""

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc
        self._changed = threading.Condition()
        self._is_open = True

    def set(self) -> None:
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            if self._is_open and not self._assoc._kill:  # of one that ends nobody will wait here any more
                self._assoc._is_paused = False
            self._is_open = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            while not self._is_open:
                self._assoc._is_paused = True
                self._changed.wait()
        return True


def install() -> None:
    """Have every association wait there."""
    init = Association.__init__

    def make(self: Association, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self._reactor_checkpoint = _Checkpoint(self)

    Association.__init__ = make  # type: ignore[method-assign]
