"""Who is logged in: kept in memory only, so that nobody is after a restart."""

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orthanc_ledger.web.console.accounts import Account

IDLE_S = 900.0
LONGEST_S = 8 * 3600.0
OFFER_S = 600.0

_EACH = 10  # sessions of an account at once; of more, the oldest ends
_MOST_OFFERS = 20


@dataclass(frozen=True)
class Offer:
    """A call that was shown to be signed, exactly so. ``seen``: what it was shown about; ``until``: when it counts no
    more, by the clock of `Session.used`.
    """

    function: str
    args: Mapping[str, Any]
    seen: bytes
    until: float


@dataclass
class Session:
    """One login. ``token`` stands in each of its forms; ``said`` is shown on its next page; ``signing`` is held while
    something is signed, or tried to be.
    """

    account: Account
    began: float
    used: float
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    said: str | None = None
    offers: dict[str, Offer] = field(default_factory=dict, repr=False)
    signing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def offer(self, offer: Offer) -> str:
        """Keep what is offered to be signed; its name in the form."""
        while len(self.offers) >= _MOST_OFFERS:
            self.offers.pop(next(iter(self.offers)))
        name = secrets.token_urlsafe(32)
        self.offers[name] = offer
        return name


class Sessions:
    """All sessions, by the secret in their cookie; safe for several threads."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, account: Account) -> tuple[str, Session]:
        """A new session and its secret, which nobody chose."""
        now, secret = self._monotonic(), secrets.token_urlsafe(32)
        session = Session(account, now, now)
        with self._lock:
            self._drop_old(now)
            own = [each for each, one in self._sessions.items() if one.account.name == account.name]
            for each in own[: max(len(own) - _EACH + 1, 0)]:
                del self._sessions[each]
            self._sessions[secret] = session
        return secret, session

    def find(self, secret: str, account_of: Callable[[str], Account | None]) -> Session | None:
        """The session, used now; its account as it is now. None once it has ended, also because the account's password
        was changed, or the account is gone.
        """
        now = self._monotonic()
        with self._lock:
            self._drop_old(now)
            session = self._sessions.get(secret)
            if session is None:
                return None
            account = account_of(session.account.name)
            if account is None or account.digest != session.account.digest:
                del self._sessions[secret]
                return None
            session.account, session.used = account, now
            return session

    def end(self, secret: str) -> None:
        """End a session; one that has ended is no error."""
        with self._lock:
            self._sessions.pop(secret, None)

    def _drop_old(self, now: float) -> None:
        ended = [
            secret
            for secret, session in self._sessions.items()
            if now - session.used >= IDLE_S or now - session.began >= LONGEST_S
        ]
        for secret in ended:
            del self._sessions[secret]
