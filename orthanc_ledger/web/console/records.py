"""The ledger's records that fit what an auditor asks: those that the ledger itself can pick, and of these the ones of a
function or about a request.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from orthanc_ledger.ledger import Ledger, all_rows, first_record

PAGE = 50

_MOST_READ = 2_000

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Filter:
    """``question``: arguments of the query Audit; ``function`` and ``request`` (an id) pick among its events."""

    question: Mapping[str, Any]
    function: str = ""
    request: bytes | None = None


@dataclass(frozen=True)
class Found:
    """Events that fit; ``after``: the sequence to go on from, None at the end."""

    events: list[Event]
    after: int | None


def page_of(ledger: Ledger, wanted: Filter, after: int | None) -> Found:
    """At most `PAGE` events behind a sequence that fit. Raises ContractError, LedgerAway."""
    fits = _Fits(ledger, wanted)
    question = wanted.question if after is None else {**wanted.question, "after": after}
    events: list[Event] = []
    last = None
    for number, event in enumerate(islice(all_rows(ledger, "Audit", question), _MOST_READ + 1)):
        if len(events) == PAGE or number == _MOST_READ:
            return Found(events, last)
        last = event["sequence"]
        if fits(event):
            events.append(event)
    return Found(events, None)


def all_of(ledger: Ledger, wanted: Filter) -> Iterator[Event]:
    """All events that fit. Raises ContractError, LedgerAway."""
    return filter(_Fits(ledger, wanted), all_rows(ledger, "Audit", wanted.question))


class _Fits:
    """Whether an event fits. What is about a release is about the request that it was given for."""

    def __init__(self, ledger: Ledger, wanted: Filter) -> None:
        self._ledger = ledger
        self._wanted = wanted
        self._requests: dict[bytes, bytes] = {}  # by release

    def __call__(self, event: Event) -> bool:
        wanted = self._wanted
        if wanted.function and event["function"] != wanted.function:
            return False
        return wanted.request is None or wanted.request in self._about(event)

    def _about(self, event: Event) -> Iterator[Any]:
        args, result = event["args"], event["result"]
        yield from (args.get("id"), args.get("request"), result.get("id") if isinstance(result, Mapping) else None)
        release = args.get("release")
        if isinstance(release, bytes):  # a text is a release's form
            yield self._request_of(release)

    def _request_of(self, release: bytes) -> bytes:
        if release not in self._requests:
            self._requests[release] = first_record(self._ledger, f"release/{release.hex()}")["request"]
        return self._requests[release]
