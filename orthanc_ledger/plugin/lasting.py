"""Functions that Orthanc is given to call are kept here, to the end of the process.

Plugin 5.0 lets go of them after Python has ended; where its reference is the last, Orthanc crashes as it stops.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Callback = TypeVar("Callback", bound=Callable[..., Any])

_kept: list[Callable[..., Any]] = []


def lasting(callback: Callback) -> Callback:
    """Keep a function, and give it back."""
    _kept.append(callback)
    return callback
