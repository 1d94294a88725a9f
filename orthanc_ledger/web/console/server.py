"""The console's server: on this machine alone in the clear, else by TLS 1.3. Who is slow is cut off."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from orthanc_ledger.config import Console
from orthanc_ledger.web.console.accounts import Accounts
from orthanc_ledger.web.console.application import Application, Guard
from orthanc_ledger.web.console.house import House
from orthanc_ledger.web.console.http import Doorman
from orthanc_ledger.web.console.login import Entrance
from orthanc_ledger.web.console.names import hosts
from orthanc_ledger.web.console.throttle import Throttle
from orthanc_ledger.web.serving import App, Strangers, listen, make_server, tls_context

REQUEST_S = 15.0
"""A request has come whole within so many seconds, or never."""

ANSWER_S = 600.0
"""An answer has gone: an export of a whole ledger, to a slow line."""

EACH = 30
"""Connections of one address at once."""

SILENT = 60
"""Connections at once from which a request is still to come; of more, one of the address that has most is cut off."""

WRONG_AT_SIGNING = 5
"""How often somebody who is logged in may give a wrong password or passphrase in a quarter of an hour."""

_REFUSED_S = 1.0  # to read the answer to what was too large, of which the rest may still come


class _Crowd:
    """Who is connected: how often each address, and where a request is still to come from, the longest silent first."""

    def __init__(self) -> None:
        self.strangers = Strangers()
        self._each: Counter[str] = Counter()
        self._silent: dict[asyncio.Transport, str] = {}

    def enter(self, address: str) -> bool:
        """Count one more; whether its address has not more than it may."""
        self._each[address] += 1
        return self._each[address] <= EACH

    def leave(self, address: str, transport: asyncio.Transport) -> None:
        """Count one less."""
        self.heard(transport)
        self._each[address] -= 1
        self._each += Counter()  # forgets who has none

    def await_request(self, address: str, transport: asyncio.Transport) -> None:
        """Note that a request is to come; where too many are, one is waited for no longer."""
        self._silent[transport] = address
        if len(self._silent) > SILENT:
            [(crowded, _)] = Counter(self._silent.values()).most_common(1)
            oldest = next(each for each, its_address in self._silent.items() if its_address == crowded)
            oldest.abort()
            self.heard(oldest)

    def heard(self, transport: asyncio.Transport) -> None:
        """Note that a request has come, or never will."""
        self._silent.pop(transport, None)


class _Connection(H11Protocol):
    """A connection that ends in time, one of not too many."""

    def __init__(self, crowd: _Crowd, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._crowd = crowd
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._crowd.strangers.known(peer)
        self._address = str(peer[0])
        app: App = self.app

        async def timed(scope: dict[str, Any], receive: Any, send: Any) -> None:
            next_s = _REFUSED_S

            async def received() -> Any:
                nonlocal next_s
                message = await receive()
                if not message.get("more_body"):
                    next_s = REQUEST_S
                    self._crowd.heard(self.transport)
                    self._end_in(ANSWER_S)
                return message

            try:
                await app(scope, received, send)
            finally:
                self._await_request(next_s)

        self.app = timed
        self._await_request(REQUEST_S if self._crowd.enter(self._address) else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self._crowd.leave(self._address, self.transport)
        super().connection_lost(exc)

    def _await_request(self, seconds: float) -> None:
        self._end_in(seconds)
        if self._end is not None:
            self._crowd.await_request(self._address, self.transport)

    def _end_in(self, seconds: float) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = None if self.transport.is_closing() else self.loop.call_later(seconds, self.transport.abort)


class Server:
    """Serves a house's console until it is stopped."""

    def __init__(self, console: Console, house: House, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError when certificate or key cannot be used."""
        self._console, self._house = console, house
        self._context = (
            tls_context("console", console.certificate, console.key) if console.certificate and console.key else None
        )
        self._entrance = Entrance(Accounts(console.accounts), monotonic, self._context is not None)
        self._wrong = Throttle(WRONG_AT_SIGNING, monotonic)
        self.port: int | None = None
        """Where it listens, once it does."""

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set. Raises ServiceAway when the port cannot be listened on now."""
        crowd = _Crowd()
        doors = listen("console", self._console.host, self._console.port, crowd.strangers)
        port = doors[0].getsockname()[1]
        doorman = Doorman(hosts(self._console, port), self._context is not None)
        application = Application(self._house, Guard(doorman, self._entrance, self._wrong))
        server = make_server(application, partial(_Connection, crowd), self._context)

        def attend() -> None:
            while not stop.wait(0.1):
                if server.started:
                    self.port = port
            server.should_exit = True

        threading.Thread(target=attend, daemon=True, name="attend").start()
        try:
            server.run(doors)
        finally:
            stop.set()
