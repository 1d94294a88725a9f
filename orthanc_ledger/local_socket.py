"""Unix sockets under any path: the kernel takes one of 107 bytes (unix(7)), so the folder is named by a descriptor."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """A listening socket that only its owner may connect to, in place of whatever was left there. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(door.fileno(), 0o600)  # before it has a name
        with _short(new) as short:
            door.bind(short)
        door.listen()
        os.replace(new, path)
    except OSError:
        door.close()
        raise
    return door


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A connection to what listens there. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        with _short(path) as short:
            connection.connect(short)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
