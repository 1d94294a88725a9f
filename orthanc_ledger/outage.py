"""A ledger that takes nothing, as the anchorer sees it: it may answer questions meanwhile, so nobody else does."""

from collections.abc import Mapping

from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger import Committed, Ledger, Value, refused_for_now
from orthanc_ledger.outbox import Outbox

ANCHORS_WAIT = "anchors wait"
ALARM_S = 60.0
"""A ledger that takes nothing for longer is an alarm."""

_LEDGER = "ledger"  # the claim of that alarm


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
    """An alarm once it lasts, taken back when the ledger takes something, or nothing waits any more."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._since_us: int | None = None
        self._is_told = any(alarm.kind == ANCHORS_WAIT for alarm in outbox.alarms())

    def lasts(self, now_us: int, error: LedgerAway) -> bool:
        """Note another vain try; whether that is news: the first, or the one that is an alarm."""
        is_first = self._since_us is None
        self._since_us = now_us if self._since_us is None else self._since_us
        if self._is_told or now_us - self._since_us <= ALARM_S * 1e6:
            return is_first
        self._outbox.alarm(ANCHORS_WAIT, _LEDGER, f"the ledger takes nothing, `status` says what waits: {error}")
        self._is_told = True
        return True

    def is_over(self) -> None:
        self._since_us = None
        if self._is_told:
            self._outbox.settle(_LEDGER, kind=ANCHORS_WAIT)
            self._is_told = False
