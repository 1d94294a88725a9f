"""How somebody gets in and out: by name and password, tried slowly, and told nothing about who exists."""

import logging
import re
import secrets
from collections.abc import Callable, Hashable

from orthanc_ledger.web.console.accounts import Accounts
from orthanc_ledger.web.console.frame import bare_page, button, field
from orthanc_ledger.web.console.html import h
from orthanc_ledger.web.console.http import Request, Response, address_of, redirect
from orthanc_ledger.web.console.sessions import Session, Sessions
from orthanc_ledger.web.console.throttle import Throttle

LOGGER = logging.getLogger(__name__)

WRONG = "Name or password is wrong."
TOO_OFTEN = "Too many attempts: wait a quarter of an hour, or ask whoever keeps the accounts."

WRONG_OF_PAIR, WRONG_OF_NAME, WRONG_OF_ADDRESS = 5, 50, 50
"""How often a login may fail in a quarter of an hour: by a name from an address, by a name, from an address.
For a name that has got in from an address only the first counts there, or anybody could keep its owner out.
"""

_OWN_PATH = re.compile(r"/(?![/\\])[!-~]{0,500}")
_LONGEST_NAME = 64


class Entrance:
    """Logs in and out. ``secure``: whether the console is reached by https."""

    def __init__(self, accounts: Accounts, monotonic: Callable[[], float], secure: bool) -> None:
        self._accounts = accounts
        self._sessions = Sessions(monotonic)
        self._of_pair, self._of_name, self._of_address = (
            Throttle(limit, monotonic) for limit in (WRONG_OF_PAIR, WRONG_OF_NAME, WRONG_OF_ADDRESS)
        )
        self._known: set[tuple[str, str]] = set()  # name and address, once in
        self._secure = secure
        # With this prefix no other host and no path can set it (RFC 6265bis 4.1.3.2).
        self.cookie = "__Host-console" if secure else "console"

    def session(self, request: Request) -> Session | None:
        """The session that a request's cookie names."""
        secret = request.cookie(self.cookie)
        return None if secret is None else self._sessions.find(secret, self._accounts.find)

    def form(self, request: Request) -> Response:
        """The page to log in."""
        return _form(request.query.get("to", "/"))

    def log_in(self, request: Request) -> Response:
        """Check name and password. Whoever is let in gets a new session, whatever cookie came."""
        name, password = request.form.get("name", "")[:_LONGEST_NAME], request.form.get("password", "")
        to, address = request.form.get("to", "/"), request.address
        counted: list[tuple[Throttle, Hashable]] = [(self._of_pair, (name, address))]
        if (name, address) not in self._known:
            counted += [(self._of_name, name), (self._of_address, address)]
        if not all(throttle.allows(key) for throttle, key in counted):
            LOGGER.warning("too many logins failed, the last from %s", address)
            return _form(to, TOO_OFTEN, 429)
        account = self._accounts.check(name, password)
        if account is None:
            for throttle, key in counted:
                throttle.failed(key)
            LOGGER.warning("a login failed from %s", address)
            return _form(to, WRONG, 403)
        self._of_pair.succeeded((name, address))
        self._known.add((name, address))
        self._end(request)
        secret, _ = self._sessions.begin(account)
        LOGGER.info("%s logged in from %s", account.name, address)
        return redirect(own_path(to), self._set_cookie(secret))

    def log_out(self, request: Request) -> Response:
        """End the session."""
        self._end(request)
        return redirect("/login", self._set_cookie("", "; Max-Age=0"))

    def _end(self, request: Request) -> None:
        secret = request.cookie(self.cookie)
        if secret is not None:
            self._sessions.end(secret)

    def _set_cookie(self, value: str, more: str = "") -> tuple[str, str]:
        secure = "; Secure" if self._secure else ""
        return "Set-Cookie", f"{self.cookie}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}"


def is_own_form(session: Session, request: Request) -> bool:
    """Whether a form carries its session's token."""
    sent = request.form.get("token", "").encode("utf-8", "replace")
    return secrets.compare_digest(sent, session.token.encode())


def own_path(text: str) -> str:
    """A path of the console; its first page for anything else."""
    return text if _OWN_PATH.fullmatch(text) else "/"


def ask_again(request: Request) -> Response:
    """For whoever followed a link from elsewhere: browsers keep back the cookie then (SameSite=Strict), and send it
    when our own page asks.
    """
    here = own_path(address_of(request.path, **request.query))
    refresh = h("meta", http_equiv="refresh", content=f"0; url={here}")
    return bare_page("One moment", h("p", h("a", "Go on", href=here)), head=(refresh,))


def _form(to: str, problem: str | None = None, status: int = 200) -> Response:
    return bare_page(
        "Log in",
        h("p", problem, role="alert", class_="problem") if problem else None,
        h(
            "form",
            h("input", type="hidden", name="to", value=own_path(to)),
            field("Name", "name", autocomplete="username", required=True, autocapitalize="none", autofocus=True),
            field("Password", "password", type_="password", autocomplete="current-password", required=True),
            button("Log in"),
            method="post",
            action="/login",
        ),
        status=status,
    )
