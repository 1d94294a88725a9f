"""The HTTP request that the running thread answers, kept by the HTTP filter for the hooks that come after it in that
thread: of objects that another plugin stores (STOW-RS), Orthanc says neither user nor address.
"""

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What is known of a request. ``method`` as HTTP writes it; ``uri``: the path, as Orthanc normalised it;
    ``address``: the caller's IP address; ``user``: None when none could be read.
    """

    method: str
    uri: str
    address: str
    user: str | None


# By thread, of which Orthanc has a fixed number. Not a threading.local: between two hooks Python forgets those of a
# thread that is not its own.
_running: dict[int, Request] = {}


def begin(request: Request) -> None:
    """Say what this thread answers from now on, until its next request."""
    _running[threading.get_ident()] = request


def current() -> Request | None:
    """What this thread answers; None in a thread that answers no HTTP, as those for DICOM and for jobs."""
    return _running.get(threading.get_ident())
