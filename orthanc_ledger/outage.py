"""Services that are away, as the anchorer sees it: the ledger takes nothing, but may answer questions meanwhile, so
nobody else does; the content store keeps batches and research waiting.
"""

from collections.abc import Mapping

from orthanc_ledger.errors import CustodyError
from orthanc_ledger.ledger import Committed, Ledger, Value, refused_for_now
from orthanc_ledger.outbox import Outbox

ANCHORS_WAIT = "anchors wait"
CONTENT_AWAY = "content away"
"""Kinds of alarms."""

ALARM_S = 60.0
"""A service that is away for longer is an alarm."""


class SignedAnew:
    """A ledger that is away when it refuses clock or certificate: somebody mends it, and the call is signed anew."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        with refused_for_now():
            return self._ledger.submit(function, args, nonce)

    def query(self, function: str, args: Mapping[str, Value]) -> Value:
        return self._ledger.query(function, args)


class Outage:
    """An alarm once it lasts, taken back when the service is back, or nothing waits for it any more."""

    def __init__(self, outbox: Outbox, kind: str, service: str, text: str) -> None:
        """``service`` is the alarm's claim; ``text`` says what a person has to know, the error follows it."""
        self._outbox = outbox
        self._kind = kind
        self._service = service
        self._text = text
        self._since_us: int | None = None
        self._is_told = any(alarm.kind == kind for alarm in outbox.alarms())

    def lasts(self, now_us: int, error: CustodyError) -> bool:
        """Note another vain try; whether that is news: the first, or the one that is an alarm."""
        is_first = self._since_us is None
        self._since_us = now_us if self._since_us is None else self._since_us
        if self._is_told or now_us - self._since_us <= ALARM_S * 1e6:
            return is_first
        self._outbox.alarm(self._kind, self._service, f"{self._text}: {error}")
        self._is_told = True
        return True

    def is_over(self) -> None:
        self._since_us = None
        if self._is_told:
            self._outbox.settle(self._service, kind=self._kind)
            self._is_told = False
