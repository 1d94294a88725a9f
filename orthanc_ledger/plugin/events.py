"""Orthanc's changes, for all parts of the plugin that want to know of them: Orthanc itself tells one function only."""

from collections.abc import Callable

import orthanc

Listener = Callable[[int, str], object]
"""Takes the level, one of ``orthanc.ResourceType``, and Orthanc's id of what changed. Orthanc tells changes in a thread
of its own, one after the other: whoever waits keeps the next waiting, but no sender.
"""

_listeners: dict[int, list[Listener]] = {}


def listen(change: int, listener: Listener) -> None:
    """Have ``listener`` called at each change of a kind, one of ``orthanc.ChangeType``."""
    _listeners.setdefault(int(change), []).append(listener)


def register() -> None:
    """Ask Orthanc for its changes."""
    orthanc.RegisterOnChangeCallback(_tell)


def _tell(change: int, level: int, resource: str) -> None:
    for listener in _listeners.get(int(change), ()):
        listener(level, resource)
