"""The HTTPS server: TLS 1.3, and only for clients with a certificate that a CA of the ledger issued.

uvicorn serves; what it lacks for this is added here: the client's certificate in the call's scope, an end to each
connection, and the CAs of organisations that join while it runs.
"""

import asyncio
import contextlib
import logging
import ssl
import threading
from collections import Counter
from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from orthanc_ledger.config import Https
from orthanc_ledger.errors import ConfigError, ContractError, ServiceAway
from orthanc_ledger.ledger import OpenLedger
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.web.application import CERTIFICATE
from orthanc_ledger.web.serving import App, Strangers, listen, make_server, tls_context

LOGGER = logging.getLogger(__name__)

CONNECTION_S = 120.0
"""A connection is ended after so many seconds, whatever it does: beyond what a release on Fabric may take."""

EACH = 20
"""Connections of one organisation at once; more are cut off."""

_REFRESH_S = 30.0
_FIRST_S = 1.0


class Callers:
    """How many connections each organisation has; one for all who are none of the ledger's."""

    def __init__(self) -> None:
        self.members = Members({})
        self.strangers = Strangers()
        self._connections: Counter[str] = Counter()

    def enter(self, certificate: bytes, address: Any) -> str:
        """Count one more; whose it is. Before it is known to be anybody's on the ledger, the application asks that."""
        self.strangers.known(address)
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


class Server:
    """Serves an application on a port until it is stopped."""

    def __init__(self, https: Https, app: App, ledger: OpenLedger) -> None:
        """Raises ConfigError when certificate or key of the server cannot be used."""
        self._ledger = ledger
        self._context = _context(https)
        self._trusted: set[bytes] = set()
        self._callers = Callers()
        self._address = https.host, https.port
        self._server = make_server(app, partial(Connection, self._callers), self._context)

    @property
    def started(self) -> bool:
        """Whether it listens."""
        return self._server.started

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set. Raises ServiceAway when the port cannot be listened on now."""
        doors = listen("https", *self._address, self._callers.strangers)
        self._trust()
        threading.Thread(target=self._attend, args=(stop,), daemon=True, name="attend").start()
        try:
            self._server.run(doors)
        finally:
            stop.set()

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
    context = tls_context("https", https.certificate, https.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # each connection shows its certificate itself
    return context
