"""Requests and responses, and what each must be like: from which host and page it may come, how large it may be, and
what browsers are told with every answer.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

LARGEST_BODY = 65_536
"""Bytes: a description is the longest that anybody types."""

HTML = "text/html; charset=utf-8"
SAFE_METHODS = ("GET", "HEAD")

HEADERS = {
    # Nothing from elsewhere, no script, no frame, no form that leads away (CSP Level 3).
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""With every answer."""

_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 40
_FIELD = re.compile(r"[a-z][a-z_]{0,31}")


class BadRequest(Exception):
    """A request that no page of the console makes; ``status`` is its answer's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request that is ours to answer. ``address``: the caller's, of which there is nothing but what TCP says."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    address: str

    @property
    def start(self) -> int:
        """Where in a list a page of it begins."""
        typed = self.query.get("from", "")
        return int(typed) if typed.isdecimal() and len(typed) < 10 else 0

    def cookie(self, name: str) -> str | None:
        """A cookie's value; None also when there are several of that name, of which one is somebody else's."""
        cookies = (each.strip().partition("=") for each in self.headers.get("cookie", "").split(";"))
        values = [value for known, _, value in cookies if known == name]
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True)
class Response:
    """An answer; a body that is not there yet comes in parts."""

    status: int
    body: bytes | Iterator[bytes]
    media_type: str = HTML
    headers: tuple[tuple[str, str], ...] = ()


def redirect(path: str, *headers: tuple[str, str]) -> Response:
    """To another page, by GET (RFC 9110 15.4.4)."""
    return Response(303, b"", HTML, (("Location", path), *headers))


def address_of(path: str, /, **query: Any) -> str:
    """A path with a query; what is None or empty is left out."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


@dataclass(frozen=True)
class Doorman:
    """Lets in what the console's own pages send. ``hosts``: what Host may say, so that no foreign name leads here (DNS
    rebinding); ``secure``: whether it is reached by https.
    """

    hosts: frozenset[str]
    secure: bool

    def read(self, scope: Mapping[str, Any], body: bytes | None) -> Request:
        """The request of an ASGI scope; ``body`` None: it was too large. Raises BadRequest."""
        headers = _headers(scope["headers"])
        if headers.get("host", "").lower() not in self.hosts:
            raise BadRequest(421, "this console is not reached under that name")
        method = scope["method"]
        if method not in (*SAFE_METHODS, "POST"):
            raise BadRequest(405, "this method is not known here")
        if body is None:
            raise BadRequest(413, "this is more than any form holds")
        if method == "POST":
            self._check_sender(headers)
        query = _fields(scope["query_string"])
        form = _form(headers, body) if method == "POST" else {}
        return Request(method, scope["path"], query, form, headers, (scope.get("client") or ("", 0))[0])

    def _check_sender(self, headers: Mapping[str, str]) -> None:
        """Only a page of the console sends a form here. One of its own has no referrer, so its Origin may be `null`
        (Fetch, "serializing a request origin"): then Sec-Fetch-Site must say it.
        """
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        scheme = "https" if self.secure else "http"
        own = origin is not None and origin.lower() == f"{scheme}://{headers['host'].lower()}"
        if site not in (None, "same-origin") or not (own or (origin in (None, "null") and site == "same-origin")):
            raise BadRequest(403, "this form was not sent by a page of this console")


def _headers(raw: list[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """By name in lower case; several of one are one that fits nothing (RFC 9110 5.3)."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _form(headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise BadRequest(415, "this is not a form")
    return _fields(body)


def _fields(raw: bytes) -> Mapping[str, str]:
    """Raises BadRequest when one stands twice: which counts would be anybody's guess."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="replace")
    except ValueError as error:
        raise BadRequest(400, "this is not a form") from error
    fields = dict(pairs)
    if len(fields) < len(pairs) or not all(_FIELD.fullmatch(name) for name in fields):
        raise BadRequest(400, "this is not a form of this console")
    return fields
