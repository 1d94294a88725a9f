"""What the applications for others' machines have in common: ports, TLS, and uvicorn as it is set for them."""

import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

from orthanc_ledger.errors import ConfigError, ServiceAway

App = Callable[..., Awaitable[None]]

STRANGERS = 100
"""Connections at once that have said nothing yet; the oldest are cut off. Anybody can open one, and each takes a
descriptor, of which the process has some hundreds: without one it can neither accept nor ask the ledger.
"""

_AT_ONCE = 100  # connections
_IDLE_S = 5
_LARGEST_HEAD = 16_384


class Strangers:
    """Connections that are nobody's yet."""

    def __init__(self) -> None:
        self._connections: dict[Any, socket.socket] = {}  # by their address, the oldest first

    def accepted(self, connection: socket.socket, address: Any) -> None:
        """Note a new connection."""
        if len(self._connections) >= STRANGERS:
            self._connections = {place: each for place, each in self._connections.items() if each.fileno() >= 0}
        if len(self._connections) >= STRANGERS:
            oldest = self._connections.pop(next(iter(self._connections)))
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        self._connections[address] = connection

    def known(self, address: Any) -> None:
        """It is a stranger no more."""
        self._connections.pop(address, None)


class _Door(socket.socket):
    """A listening socket that tells of what it accepts."""

    strangers: Strangers

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self.strangers.accepted(connection, address)
        return connection, address


def listen(section: str, host: str, port: int, strangers: Strangers) -> list[socket.socket]:
    """Listening sockets on each address of a host. Raises ServiceAway, naming the section of the configuration."""
    doors: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            doors.append(door := _Door(family, kind, protocol))
            door.strangers = strangers
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(address)
    except OSError as error:
        raise ServiceAway(f"{section}: {host} port {port} cannot be listened on: {error}") from error
    return doors


def make_server(app: App, protocol: Callable[..., Any], context: ssl.SSLContext | None) -> uvicorn.Server:
    """A server of an application, each connection by a `protocol`; without a context in the clear."""
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # uvicorn calls it, no more
        ws="none",
        lifespan="off",
        loop="asyncio",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # what a caller says of himself is nothing
        server_header=False,
        limit_concurrency=_AT_ONCE,
        backlog=STRANGERS,  # as many are accepted before anything else is done
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_IDLE_S,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        ssl_context_factory=None if context is None else lambda *_: context,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Server(config)


def tls_context(section: str, certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's TLS 1.3. Raises ConfigError, naming the section, when certificate or key cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"{section}: {certificate} and {key}: expected a certificate (chain) and its key, in PEM and not "
            f"encrypted: {error}"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")
