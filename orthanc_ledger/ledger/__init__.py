"""The ledger port: what the rest of the node may ask of a ledger, and which backend a URL names."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.errors import ConfigError, ContractError, LedgerAway
from orthanc_ledger.ledger.contract.arguments import MAX_ROWS
from orthanc_ledger.ledger.identity import Identity

Value = Any
"""A dag-cbor value: None, bool, int, str, bytes, list or dict of str."""


@dataclass(frozen=True)
class Committed:
    """A transaction that is on the ledger for good."""

    tx_id: bytes  # SHA-256 of what was signed; on Fabric its transaction id, empty for a repeat
    position: int  # the contract's sequence: entry number, or on Fabric as docs/contract.md has it
    time: int  # the ledger's time of it, UTC seconds
    result: Value  # what the contract function returned


class Ledger(Protocol):
    """A ledger as one identity sees it.

    ``submit`` returns only when the transaction is committed and survives a crash. Whoever gets no answer may call
    again with the same arguments (and nonce, for functions marked *id* in docs/contract.md): the first result comes
    back and nothing changes.
    """

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        """Run a contract function.

        Raises ContractError when the contract refuses; LedgerAway when no answer could be had.
        """

    def query(self, function: str, args: Mapping[str, Value]) -> Value:
        """Run a read-only contract query. Raises as ``submit``."""


_NAMED_BY = {"Anchors": "manifestCid", "AnchorsOfStudy": "number", "RequestsByState": "id", "Audit": "sequence"}


def one_page(ledger: Ledger, query: str, args: Mapping[str, Value]) -> tuple[list[Mapping[str, Any]], bool]:
    """One page of a list (docs/contract.md, "Queries"), and whether there may be more. Raises as ``query``."""
    page: list[Mapping[str, Any]] = ledger.query(query, args)
    return page, len(page) == MAX_ROWS


def all_rows(ledger: Ledger, query: str, args: Mapping[str, Value]) -> Iterator[Mapping[str, Any]]:
    """All rows of a list, asked for page by page. Raises as ``query``."""
    place: dict[str, Value] = {}
    while True:
        page, more = one_page(ledger, query, {**args, **place})
        yield from page
        if not more:
            return
        name = _NAMED_BY.get(query)
        place = {"after": page[-1][name]} if name else {"offset": place.get("offset", 0) + len(page)}


@contextmanager
def refused_for_now() -> Iterator[None]:
    """Tell a refusal of clock or certificate as LedgerAway: a person mends it, and the same call is made again."""
    try:
        yield
    except ContractError as error:
        if (error.code, error.field) not in (("SKEW", "time"), ("NOT_PERMITTED", "certificate")):
            raise
        raise LedgerAway(f"refused for now, set the clock or renew the certificate: {error}") from error


class OpenLedger(Ledger, Protocol):
    """A ledger as `open_ledger` gives it."""

    def authorities(self) -> Mapping[str, bytes]:
        """MSP ID to CA certificate (DER) of its organisations, as this machine is to believe them.

        Raises LedgerAway.
        """

    def close(self) -> None:
        """Let go of files and connections; a later call takes them up again."""


def first_row(ledger: Ledger, query: str, args: Mapping[str, Value]) -> Mapping[str, Any] | None:
    """The first row of a list, None when it is empty. Raises as ``query``."""
    rows: list[Mapping[str, Any]] = ledger.query(query, {**args, "limit": 1})
    return next(iter(rows), None)


def first_record(ledger: Ledger, key: str) -> Any:
    """What was first written under a key of the ledger's state (docs/contract.md), or None. Raises as ``query``."""
    row = first_row(ledger, "HistoryOf", {"key": key})
    return None if row is None else row["value"]


def is_erased(ledger: Ledger, study: bytes) -> bool:
    """Whether a study's erasure was confirmed. Raises as ``query``."""
    return bool(ledger.query("StandingOf", {"study": study})["erased"] == "erased")


def _embedded(location: str, identity: Identity | None, clock: Clock, patience_s: float | None) -> OpenLedger:
    from orthanc_ledger.ledger.embedded import EmbeddedLedger  # here, because it imports this port

    return EmbeddedLedger(Path(location), identity, clock, patience_s)


def _fabric(location: str, identity: Identity | None, clock: Clock, patience_s: float | None) -> OpenLedger:
    try:
        from orthanc_ledger.ledger.fabric.ledger import FabricLedger  # here, because few need what it imports
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"ledger fabric:{location}: {error.name} is not installed: pip install 'orthanc-ledger[consortium]'"
        ) from error
    return FabricLedger(Path(location), identity, clock, patience_s)


SCHEMES: dict[str, Callable[[str, Identity | None, Clock, float | None], OpenLedger]] = {
    "embedded": _embedded,
    "fabric": _fabric,
}


def open_ledger(
    url: str, identity: Identity | None = None, clock: Clock = system_clock, patience_s: float | None = None
) -> OpenLedger:
    """The ledger that a URL names, as one identity sees it: `embedded:PATH` of its file (without an identity: queries
    only), `fabric:PATH` of the connection file.

    ``patience_s``: it is away when it cannot be had for so many seconds; None: as long as suits a person.

    Raises ConfigError for an unknown scheme and a wrong connection file. A ledger that is not there is away, and may
    come back.
    """
    scheme, _, location = url.partition(":")
    if scheme not in SCHEMES or not location:
        raise ConfigError(f"ledger {url!r}: expected one of {', '.join(f'{name}:…' for name in SCHEMES)}")
    return SCHEMES[scheme](location, identity, clock, patience_s)
