"""Calls that are answered line by line, as an ASGI application for processes of this machine.

Each line is a JSON object. The answer begins at once; an empty line every `BEAT_S` says that its end is still to come,
whatever it waits for. A caller that leaves ends its call.
"""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from orthanc_ledger.web.body import Receive, read_body

LOGGER = logging.getLogger(__name__)

BEAT_S = 5.0
LARGEST_CALL = 1 << 20
"""Bytes of a body."""

Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Call:
    """One call: the parts of its path that its route names, its body, and who waits for it."""

    names: Mapping[str, str]
    body: bytes
    tell: Callable[[Mapping[str, Any]], None]
    left: threading.Event


@dataclass(frozen=True)
class Route:
    """What answers calls of a method to a path, and the threads in which it does."""

    method: str
    path: "re.Pattern[str]"
    answer: Callable[[Call], None]
    threads: Executor


class Lines:
    """The ASGI application."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI 3."""
        body = await read_body(receive, LARGEST_CALL)
        for route in self._routes:
            found = route.path.fullmatch(scope["path"])
            if found and scope["method"] == route.method:
                break
        else:
            await _refuse(send, 404)
            return
        if body is None:
            await _refuse(send, 413)
            return
        told: asyncio.Queue[bytes | None] = asyncio.Queue()
        loop, left = asyncio.get_running_loop(), threading.Event()

        def tell(line: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(told.put_nowait, json.dumps(line).encode() + b"\n")

        work = loop.run_in_executor(route.threads, _work, route, Call(found.groupdict(), body, tell, left))
        work.add_done_callback(lambda _: told.put_nowait(None))
        waiting = loop.create_task(_await_end(receive, left))
        try:
            headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while (line := await _next(told)) is not None:
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            left.set()
            waiting.cancel()


def _work(route: Route, call: Call) -> None:
    if call.left.is_set():
        return
    try:
        route.answer(call)
    except Exception as error:  # the answer just ends; what it was may quote a patient's data
        LOGGER.error("%s: not answered whole: %s", route.path.pattern, type(error).__name__)
        LOGGER.debug("what it was", exc_info=error)


async def _next(told: "asyncio.Queue[bytes | None]") -> bytes | None:
    try:
        return await asyncio.wait_for(told.get(), BEAT_S)
    except TimeoutError:
        return b"\n"


async def _await_end(receive: Receive, left: threading.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    left.set()


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
