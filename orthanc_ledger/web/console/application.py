"""The console as an ASGI application: who may see which page, and what is answered when one cannot be made.

Nothing of a request is logged but its page and how it ended: addresses and forms hold patients' data.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from orthanc_ledger.errors import ConfigError, ContractError, DataError, NotHeld, ServiceAway
from orthanc_ledger.web.body import Receive, read_body
from orthanc_ledger.web.console import pages
from orthanc_ledger.web.console.frame import ICON, STYLE, bare_page, page
from orthanc_ledger.web.console.house import House
from orthanc_ledger.web.console.html import h
from orthanc_ledger.web.console.http import (
    HEADERS,
    LARGEST_BODY,
    SAFE_METHODS,
    BadRequest,
    Doorman,
    Request,
    Response,
    address_of,
    redirect,
)
from orthanc_ledger.web.console.login import Entrance, ask_again, is_own_form
from orthanc_ledger.web.console.throttle import Throttle
from orthanc_ledger.web.console.visit import Route, Visit

LOGGER = logging.getLogger(__name__)

_WORKERS = 8
_LOGINS = 2
_LOGINS_OF_ADDRESS = 4  # tried at once or waiting: more would take the connections of who is in
_STATIC = {STYLE: ("console.css", "text/css; charset=utf-8"), ICON: ("icon.svg", "image/svg+xml")}
_OF_ANYBODY = frozenset({"/login", *_STATIC})
_PART = 65_536  # bytes of a body that is sent as it is made
_AWAY = "A service is away"


@dataclass(frozen=True)
class Guard:
    """Everything that decides whether a request is answered."""

    doorman: Doorman
    entrance: Entrance
    wrong: Throttle


class Application:
    """The ASGI application. Pages are made in threads of its own, what needs no session in others: who guesses
    passwords holds up nobody who is in, and pages that wait keep nobody out.
    """

    def __init__(self, house: House, guard: Guard) -> None:
        self._house = house
        self._guard = guard
        self._threads = ThreadPoolExecutor(_WORKERS, "console")
        self._logins = ThreadPoolExecutor(_LOGINS, "login")
        self._trying: Counter[str] = Counter()  # logins, by address
        self._static = {path: _read_static(name, kind) for path, (name, kind) in _STATIC.items()}

    async def __call__(
        self, scope: Mapping[str, Any], receive: Receive, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        """ASGI 3."""
        body = await read_body(receive, LARGEST_BODY)
        response = await self._answered(scope, body)
        headers = {"Content-Type": response.media_type, **HEADERS}
        if isinstance(response.body, bytes):
            headers["Content-Length"] = str(len(response.body))
        raw = [(name.encode(), value.encode("latin-1")) for name, value in (*headers.items(), *response.headers)]
        await send({"type": "http.response.start", "status": response.status, "headers": raw})
        if isinstance(response.body, bytes):
            await send({"type": "http.response.body", "body": response.body})
            return
        parts, loop = _gathered(response.body), asyncio.get_running_loop()
        while (part := await loop.run_in_executor(self._threads, next, parts, None)) is not None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _answered(self, scope: Mapping[str, Any], body: bytes | None) -> Response:
        run, address = asyncio.get_running_loop().run_in_executor, scope["client"][0]
        if scope["path"] not in _OF_ANYBODY:
            return await run(self._threads, self.answer, scope, body)
        if scope["method"] in SAFE_METHODS:
            return await run(self._logins, self.answer, scope, body)
        if self._trying[address] >= _LOGINS_OF_ADDRESS:
            return bare_page("Too many at once", h("p", "Go back, and try again in a moment."), status=503)
        self._trying[address] += 1
        try:
            return await run(self._logins, self.answer, scope, body)
        finally:
            self._trying[address] -= 1
            self._trying += Counter()  # forgets who has none

    def answer(self, scope: Mapping[str, Any], body: bytes | None) -> Response:
        """What a request is answered. ``body`` None: it was too large."""
        try:
            request = self._guard.doorman.read(scope, body)
            return self._static.get(request.path) or self._answer(request)
        except BadRequest as error:
            return bare_page("Not accepted", h("p", f"{error}."), status=error.status)
        except Exception as error:  # an answer in any case; its text may hold what nobody but staff may read
            LOGGER.error("a page could not be made: %s", type(error).__name__)
            LOGGER.debug("what it was", exc_info=error)
            return bare_page("Something is wrong", h("p", "The console's log names it."), status=500)

    def _answer(self, request: Request) -> Response:
        entrance = self._guard.entrance
        if request.path == "/login":
            return entrance.form(request) if request.method in SAFE_METHODS else entrance.log_in(request)
        session = entrance.session(request)
        if session is None:
            if request.method in SAFE_METHODS and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                return ask_again(request)
            to = address_of(request.path, **request.query) if request.method in SAFE_METHODS else None
            return redirect(address_of("/login", to=to))
        if request.method not in SAFE_METHODS and not is_own_form(session, request):
            raise BadRequest(403, "this form is not of this session: open its page again")
        if request.path == "/logout" and request.method == "POST":
            return entrance.log_out(request)
        return self._page(Visit(request, self._house, session, self._guard.wrong))

    def _page(self, visit: Visit) -> Response:
        route, names = self._find(visit)
        if route is None:
            return page(visit, "Not found", h("p", "There is no such page, or it is not yours to see."), status=404)
        try:
            return route.answer(visit, names)
        except NotHeld as error:
            return page(visit, "Not found", h("p", str(error)), status=404)
        except ServiceAway as error:
            LOGGER.warning("%s: a service is away: %s", route.path.pattern, error)
            return page(visit, _AWAY, h("p", f"Try again later: {error}."), status=503)
        except (ConfigError, ContractError) as error:
            return page(visit, "Not possible", problem=str(error), status=409)
        except DataError as error:
            LOGGER.warning("%s: %s", route.path.pattern, type(error).__name__)
            return page(visit, "Not possible", problem="What is stored cannot be used: see the alarms.", status=409)

    def _find(self, visit: Visit) -> tuple[Route | None, Mapping[str, str]]:
        method = "GET" if visit.request.method == "HEAD" else visit.request.method
        for route in pages.ROUTES:
            found = route.path.fullmatch(visit.request.path) if route.method == method else None
            if found is None or (route.of_node and self._house.node is None):
                continue
            if route.role is None or visit.account.may(route.role):
                return route, found.groupdict()
        return None, {}


def _gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Small parts as fewer large ones."""
    kept = b""
    for part in parts:
        kept += part
        if len(kept) >= _PART:
            yield kept
            kept = b""
    yield kept


def _read_static(name: str, media_type: str) -> Response:
    return Response(200, (files(__package__) / "static" / name).read_bytes(), media_type)
