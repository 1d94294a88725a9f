"""The body of an HTTP call, within bounds."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


async def read_body(receive: Receive, largest: int) -> bytes | None:
    """A call's body; None when it has more than ``largest`` bytes, whatever else of it would come."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > largest:
            return None
        if not message.get("more_body"):
            return body
