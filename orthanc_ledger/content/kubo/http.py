"""HTTP as a Kubo node and an ipfs-cluster peer are asked by it.

Every call ends: who neither takes nor gives a byte for ``stall_s`` seconds is away, and so is who is slower over a
whole transfer than ``LEAST_BYTES_S``. No proxy of the environment is obeyed, no redirect followed, no call sent twice.
What is said of an error is quoted up to ``_MOST_QUOTED`` characters.
"""

import contextlib
import json
import os
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from orthanc_ledger.content.kubo.listener import users_at
from orthanc_ledger.errors import ContentAway

STALL_S = 10.0
LEAST_BYTES_S = 1 << 20
PIECE = 1 << 18
LARGEST_ANSWER = 4 << 20
_SOCKETS = 16
_LARGEST_QUOTED = 1 << 16
_MOST_QUOTED = 300


class Refused(ContentAway):
    """An answer other than success: its status and what was said."""

    def __init__(self, what: str, status: int, said: str) -> None:
        super().__init__(f"{what}: {status} {said}")
        self.status = status
        self.said = said


class _Owned(urllib3.connection.HTTPConnection):
    """A connection to whom it is meant for: while he is down, any user of the machine may listen at his port."""

    def __init__(self, *args: Any, users: Collection[int], **options: Any) -> None:
        super().__init__(*args, **options)
        self._users = users

    def __str__(self) -> str:
        """As it stands in errors."""
        return f"{self.host}:{self.port}"

    def connect(self) -> None:
        super().connect()
        if strangers := users_at(self.sock) - set(self._users):
            self.close()
            expected = ", ".join(map(str, sorted(self._users)))
            raise HTTPError(f"user {min(strangers)} listens there and is told nothing: expected user {expected}")


class Api:
    """Who is asked. All methods raise ContentAway when that fails; threads may share it."""

    def __init__(
        self, name: str, url: str, authorization: str, stall_s: float = STALL_S, users: Collection[int] = ()
    ) -> None:
        """``name`` stands in errors; ``authorization`` is the header's value. ``users``: the user ids, besides root's
        and this process's, that who is asked may have when he is on this machine.
        """
        self.name = name
        self.stall_s = stall_s
        self.failed_s = float("-inf")  # monotonic; when it was away the last time
        self._url = url
        self._authorization = authorization
        self._pool = urllib3.connection_from_url(url, maxsize=_SOCKETS, retries=False)
        if self._pool.scheme == "http":  # by https he has to prove who he is
            self._pool.ConnectionCls = _Owned
            self._pool.conn_kw["users"] = {0, os.geteuid(), *users}

    def ask(
        self,
        method: str,
        target: str,
        body: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float | None = None,
        authorized: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, its body not yet read. ``wait_s``: in which it must begin, and go on.

        Raises Refused when it is no success.
        """
        given = {"Authorization": self._authorization} if authorized else {}
        with self.away(target):
            answer = self._pool.request(
                method,
                target,
                body=body,
                headers={**given, **(headers or {})},
                timeout=urllib3.Timeout(connect=self.stall_s, read=wait_s or self.stall_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        if not 200 <= answer.status < 300:
            said = message(self.whole(answer, target, LARGEST_ANSWER))
            raise Refused(f"{self.name} ({self._url}): {_called(target)}", answer.status, said)
        return answer

    def lines(self, answer: urllib3.BaseHTTPResponse, target: str) -> Iterator[dict[str, Any]]:
        """The JSON values of an answer, one a line, as they come."""
        rest = b""
        for piece in self.pieces(answer, target):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield self.parsed(line, target)
            if len(rest) > LARGEST_ANSWER:
                raise self.error(target, f"a line of more than {LARGEST_ANSWER} bytes")
        if rest:
            yield self.parsed(rest, target)

    def json(self, answer: urllib3.BaseHTTPResponse, target: str) -> dict[str, Any]:
        """A body that is one JSON object."""
        return self.parsed(self.whole(answer, target, LARGEST_ANSWER), target)

    def parsed(self, data: bytes, target: str) -> dict[str, Any]:
        """A JSON object; empty, when it is another value."""
        try:
            value = json.loads(data)
        except ValueError as error:
            raise self.error(target, f"JSON expected, got {message(data)!r}") from error
        return value if isinstance(value, dict) else {}

    def whole(self, answer: urllib3.BaseHTTPResponse, target: str, most: int) -> bytes:
        """A body of at most so many bytes."""
        data = bytearray()
        for piece in self.pieces(answer, target, self.until(most)):
            data += piece
            if len(data) > most:
                raise self.error(target, f"an answer of more than {most} bytes")
        return bytes(data)

    def pieces(
        self, answer: urllib3.BaseHTTPResponse, target: str, until: float = float("inf")
    ) -> Generator[bytes, None, None]:
        """A body as it comes; away when there is more of it at the time ``until``."""
        try:
            with self.away(target):
                while piece := answer.read1(PIECE):  # what is there: `stream` waits for a whole piece
                    self.check_time(until, target)
                    yield piece
        finally:
            answer.close()  # what was read to its end has let go of its connection, which is used again

    def in_time(self, pieces: Iterable[bytes], until: float, target: str) -> Iterator[bytes]:
        """The pieces of a body to be sent; away when there are more at the time ``until``."""
        for piece in pieces:
            self.check_time(until, target)
            yield piece

    def check_time(self, until: float, target: str) -> None:
        """Raises when it is later than ``until``."""
        if time.monotonic() > until:
            raise self.error(target, f"is slower than {LEAST_BYTES_S} bytes a second")

    def until(self, size: int) -> float:
        """When a transfer of so many bytes that begins now must be over."""
        return time.monotonic() + self.stall_s + max(size, 0) / LEAST_BYTES_S

    @contextlib.contextmanager
    def away(self, target: str) -> Iterator[None]:
        """Errors of the transport are that it is away."""
        try:
            yield
        except HTTPError as error:
            self.failed_s = time.monotonic()
            raise self.error(target, message(str(error).encode())) from error

    def error(self, target: str, text: str) -> ContentAway:
        """What is raised when it fails: who, asked what."""
        return ContentAway(f"{self.name} ({self._url}): {_called(target)}: {text}")


def message(data: bytes) -> str:
    """What an answer says is wrong, on one line."""
    text = data[:_LARGEST_QUOTED].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, AttributeError):
        text = str(json.loads(text).get("Message", text))
    return " ".join(text.split())[:_MOST_QUOTED]


def _called(target: str) -> str:
    """What was asked for, without its arguments."""
    return target.partition("?")[0].removeprefix("/api/v0/")
