"""The HTTPS server: TLS 1.3, and only for clients with a certificate that a CA of the ledger issued.

uvicorn serves; what it lacks for this is added here: the client's certificate in the call's scope, an end to each
connection, and the CAs of organisations that join while it runs.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from orthanc_ledger.config import Https
from orthanc_ledger.errors import ConfigError, ContractError, ServiceAway
from orthanc_ledger.ledger import OpenLedger
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.web.application import CERTIFICATE

LOGGER = logging.getLogger(__name__)

CONNECTION_S = 120.0
"""A connection is ended after so many seconds, whatever it does: beyond what a release on Fabric may take."""

EACH = 20
"""Connections of one organisation at once; more are cut off."""

STRANGERS = 100
"""Connections at once that have shown no certificate yet; the oldest are cut off. Anybody can open one, and each takes
a descriptor, of which the process has some hundreds: without one it can neither accept nor ask the ledger.
"""

_AT_ONCE = 100  # connections
_IDLE_S = 5
_LARGEST_HEAD = 16_384
_REFRESH_S = 30.0
_FIRST_S = 1.0

App = Callable[..., Awaitable[None]]


class Callers:
    """How many connections each organisation has; one for all who are none of the ledger's."""

    def __init__(self) -> None:
        self.members = Members({})
        self._connections: Counter[str] = Counter()
        self._strangers: dict[Any, socket.socket] = {}  # by their address, the oldest first

    def accepted(self, connection: socket.socket, address: Any) -> None:
        """Note a new connection, which is nobody's yet."""
        if len(self._strangers) >= STRANGERS:
            self._strangers = {place: each for place, each in self._strangers.items() if each.fileno() >= 0}
        if len(self._strangers) >= STRANGERS:
            oldest = self._strangers.pop(next(iter(self._strangers)))
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        self._strangers[address] = connection

    def enter(self, certificate: bytes, address: Any) -> str:
        """Count one more; whose it is. Before it is known to be anybody's on the ledger, the application asks that."""
        self._strangers.pop(address, None)
        organisation = ""
        with contextlib.suppress(ContractError):
            organisation = self.members.identify(certificate).caller.organisation
        self._connections[organisation] += 1
        return organisation

    def leave(self, organisation: str) -> None:
        """Count one less."""
        self._connections[organisation] -= 1

    def too_many(self, organisation: str) -> bool:
        """Whether an organisation has more than it may."""
        return self._connections[organisation] > EACH


class Connection(H11Protocol):
    """A connection whose calls carry the client's certificate, and that ends in time."""

    def __init__(self, callers: Callers, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._callers = callers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself
        super().connection_made(transport)
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self._organisation = self._callers.enter(certificate, transport.get_extra_info("peername"))
        app: App = self.app

        async def named(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await app({**scope, CERTIFICATE: certificate}, receive, send)

        self.app = named
        crowded = self._callers.too_many(self._organisation)
        self._end = self.loop.call_later(0 if crowded else CONNECTION_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        self._callers.leave(self._organisation)
        super().connection_lost(exc)


class _Door(socket.socket):
    """A listening socket that tells of what it accepts."""

    callers: Callers

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self.callers.accepted(connection, address)
        return connection, address


class Server:
    """Serves an application on a port until it is stopped."""

    def __init__(self, https: Https, app: App, ledger: OpenLedger) -> None:
        """Raises ConfigError when certificate or key of the server cannot be used."""
        self._ledger = ledger
        self._context = _context(https)
        self._trusted: set[bytes] = set()
        self._callers = Callers()
        self._address = https.host, https.port
        config = uvicorn.Config(
            app,
            http=partial(Connection, self._callers),  # type: ignore[arg-type]  # uvicorn calls it, no more
            ws="none",
            lifespan="off",
            loop="asyncio",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_AT_ONCE,
            backlog=STRANGERS,  # as many are accepted before anything else is done
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_IDLE_S,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            ssl_context_factory=lambda *_: self._context,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._server = uvicorn.Server(config)

    @property
    def started(self) -> bool:
        """Whether it listens."""
        return self._server.started

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set. Raises ServiceAway when the port cannot be listened on now."""
        doors = self._listen()
        self._trust()
        threading.Thread(target=self._attend, args=(stop,), daemon=True, name="attend").start()
        try:
            self._server.run(doors)
        finally:
            stop.set()

    def _listen(self) -> list[socket.socket]:
        """On each address of the host."""
        doors = []
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM):
                doors.append(door := _Door(family, kind, protocol))
                door.callers = self._callers
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                door.bind(address)
        except OSError as error:
            host, port = self._address
            raise ServiceAway(f"https: {host} port {port} cannot be listened on: {error}") from error
        return list(doors)

    def _attend(self, stop: threading.Event) -> None:
        while not stop.wait(_REFRESH_S if self._trusted else _FIRST_S):
            self._trust()
        self._server.should_exit = True

    def _trust(self) -> None:
        """Let in whom the ledger's CAs name. One that left is kept out by the application, which asks each time."""
        try:
            authorities = self._ledger.authorities()
            self._callers.members = Members(authorities)
        except (ServiceAway, ConfigError) as error:
            LOGGER.warning("who may call is not known: %s", error)
            return
        for certificate in set(authorities.values()) - self._trusted:
            self._context.load_verify_locations(cadata=certificate)
            self._trusted.add(certificate)


def _context(https: Https) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # each connection shows its certificate itself
    try:
        context.load_cert_chain(https.certificate, https.key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"https: {https.certificate} and {https.key}: expected a certificate (chain) and its key, in PEM and not "
            f"encrypted: {error}"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")
