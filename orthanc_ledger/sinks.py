"""Where checkpoints and notices of alarms go, out of the node's own reach: a folder, a command or an HTTP address.

A URL's scheme chooses: `path:FOLDER`, `command:PROGRAM ARGUMENTS`, `http://…` or `https://…`.
"""

import contextlib
import http.client
import operator
import os
import re
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from orthanc_ledger.durable import sync
from orthanc_ledger.errors import ConfigError, IntegrityError, SinkAway

DEADLINE_S = 30.0
MAX_FILE_BYTES = 65_536
"""Of a checkpoint (`checkpoint.MAX_NOTE_CHARACTERS`)."""
Same = Callable[[str, str], bool]
"""Whether the text that a file holds is as good as the one to deliver."""

_CHECKPOINT_NAME = re.compile(r"[0-9]{20}")
_NO_TRAP = os.O_NOFOLLOW | os.O_NONBLOCK  # others may write there, too: no link is followed, no pipe waited for


class Sink(Protocol):
    """Keeps texts. May be called by one thread at a time."""

    def deliver(self, name: str, text: str) -> None:
        """Have a text kept under a name; returns once the sink says it is. The same again is no error.

        Raises SinkAway when it was not kept, or might not have been; IntegrityError when the sink holds another
        checkpoint under that name.
        """


@dataclass(frozen=True)
class PathSink:
    """Checkpoints in a folder, one file each, on storage that may forbid every change (WORM).

    The folder is never made: a disk that is not mounted must not be mistaken for one that keeps.
    """

    folder: Path
    same: Same = operator.eq

    def deliver(self, name: str, text: str) -> None:
        """Durable (file and folder synced) when it returns; what lies there already is never overwritten."""
        path, rest = self.folder / name, text.encode()
        try:
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                rest = self._rest(path, text)
                descriptor = os.open(path, _NO_TRAP | (os.O_WRONLY | os.O_APPEND if rest else os.O_RDONLY))
            with open(descriptor, "wb") as file:  # also with nothing to write: whoever wrote it may not have synced it
                file.write(rest)
                file.flush()
                os.fsync(file.fileno())
            sync(self.folder)
        except OSError as error:
            raise SinkAway(f"{path}: cannot be kept: {error.strerror}") from error

    def _rest(self, path: Path, text: str) -> bytes:
        """What a delivery that broke off has still to write. Raises IntegrityError when the file holds another text."""
        held, content = _read(path), text.encode()
        if held is not None and content.startswith(held):
            return content[len(held) :]
        if held is not None and self.same(held.decode("utf-8", "replace"), text):
            return b""
        raise IntegrityError(
            f"{path}: holds another checkpoint of this size, or none: this ledger is not what it was, or others write "
            "there; see docs/checkpoint.md"
        )


@dataclass(frozen=True)
class CommandSink:
    """A command that gets each text on standard input; exit code 0 means that it is kept. No shell is involved."""

    argv: tuple[str, ...]
    deadline_s: float = DEADLINE_S

    def deliver(self, name: str, text: str) -> None:
        quiet = subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
            )
        except OSError as error:
            raise SinkAway(f"{self.argv[0]}: cannot be started: {error.strerror}") from error
        with process:
            try:
                process.communicate(text.encode(), self.deadline_s)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)  # and what it started: its own session's group
                raise SinkAway(f"{self.argv[0]}: not done within {self.deadline_s} s, stopped") from error
        if process.returncode:
            raise SinkAway(f"{self.argv[0]}: expected exit code 0, got {process.returncode}: run it by hand to see why")


@dataclass(frozen=True)
class HttpSink:
    """An HTTP address that gets each text by POST; 2xx means that it is kept. Redirects are not followed."""

    url: str
    deadline_s: float = DEADLINE_S

    def deliver(self, name: str, text: str) -> None:
        parts = urlsplit(self.url)
        connection = self._connection()
        try:
            connection.connect()
            with ended_after(self.deadline_s, connection.sock):
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", path, text.encode(), {"Content-Type": "text/plain; charset=utf-8"})
                status = connection.getresponse().status
        except http.client.HTTPException as error:  # quoted: it holds what the other side likes
            raise SinkAway(f"{self.url}: expected HTTP within {self.deadline_s:g} s, got {str(error)!a}") from error
        except OSError as error:
            raise SinkAway(f"{self.url}: cannot be reached: {str(error)!a}") from error
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise SinkAway(f"{self.url}: expected HTTP status 2xx, got {status}")

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=self.deadline_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=self.deadline_s, context=context)


def open_sink(url: str, same: Same = operator.eq) -> Sink:
    """The sink that a URL names; nothing is opened before it delivers. `same`: of a `PathSink`.

    Raises ConfigError when the scheme is unknown, the rest is missing, or an HTTP address holds a user or password.
    """
    scheme, _, rest = url.partition(":")
    if scheme not in _SCHEMES or not rest.strip():
        raise ConfigError(
            f"sink {url!r}: expected path:FOLDER, command:PROGRAM ARGUMENTS, or an http: or https: address"
        )
    try:
        return _SCHEMES[scheme](url, same)
    except ValueError as error:
        raise ConfigError(f"sink {url!r}: {error}") from error


def kept(url: str) -> Iterator[str]:
    """The checkpoints at a path sink, the largest first; nothing at other sinks, which cannot be asked.

    What was not written to its end, or is no file of a checkpoint's size, is passed over: nobody was told that it is
    kept. Raises SinkAway.
    """
    sink = open_sink(url)
    if not isinstance(sink, PathSink):
        return
    try:
        for name in sorted(filter(_CHECKPOINT_NAME.fullmatch, os.listdir(sink.folder)), reverse=True):
            content = _read(sink.folder / name)
            if content is not None and _complete(content):
                yield content.decode("utf-8", "replace")
    except OSError as error:
        raise SinkAway(f"{sink.folder}: cannot be read: {error.strerror}") from error


def _path_sink(url: str, same: Same) -> Sink:
    return PathSink(Path(url.removeprefix("path:")), same)


def _command_sink(url: str, _: Same) -> Sink:
    return CommandSink(tuple(shlex.split(url.removeprefix("command:"))))


def _http_sink(url: str, _: Same) -> Sink:
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0 or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("expected an address of a host, in ASCII, without spaces")
    parts.hostname.encode("idna")  # raises a ValueError when no name of a host can be so long
    if parts.username is not None:
        raise ValueError("a user or password does not belong here: use command: with a program that reads it elsewhere")
    return HttpSink(url)


_SCHEMES: dict[str, Callable[[str, Same], Sink]] = {
    "path": _path_sink,
    "command": _command_sink,
    "http": _http_sink,
    "https": _http_sink,
}


def _read(path: Path) -> bytes | None:
    """A file's content; None when it is no regular one, or larger than a checkpoint."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        return None
    with open(os.open(path, os.O_RDONLY | _NO_TRAP), "rb") as file:
        return file.read(MAX_FILE_BYTES)


def _complete(note: bytes) -> bool:
    """Whether it was written to its end."""
    _, empty_line, signatures = note.rpartition(b"\n\n")
    return bool(empty_line) and signatures.endswith(b"\n")


@contextlib.contextmanager
def ended_after(seconds: float, connected: socket.socket) -> Iterator[None]:
    """End a connection after so many seconds; its own timeout begins anew with each byte that comes."""

    def end() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
