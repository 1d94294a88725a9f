"""The anchors on the ledger, page by page, and which of them this node made."""

from collections.abc import Iterator, Mapping
from typing import Any

from orthanc_ledger.ledger import Ledger
from orthanc_ledger.ledger.identity import parse_certificate, serial_of

Anchor = Mapping[str, Any]
"""A row of the queries Anchors and AnchorsOfStudy."""

_PAGE = 100


class Anchors:
    """All methods raise LedgerAway."""

    def __init__(self, ledger: Ledger, certificate: bytes) -> None:
        """``certificate``: what this node signs its anchors with (DER)."""
        self._ledger = ledger
        self._serial = serial_of(parse_certificate(certificate))

    def behind(self, place: str = "") -> Iterator[Anchor]:
        """All anchors whose manifest CID is greater, by manifest CID."""
        while True:
            start = {"from": place} if place else {}
            page = self._ledger.query("Anchors", {**start, "limit": _PAGE})
            page = [anchor for anchor in page if anchor["manifestCid"] != place]
            if not page:
                return
            yield from page
            place = page[-1]["manifestCid"]

    def of_study(self, token: bytes) -> list[Anchor]:
        """A study's anchors, in the order of their commits."""
        anchors: list[Anchor] = self._ledger.query("AnchorsOfStudy", {"study": token})
        return anchors

    def is_own(self, anchor: Anchor) -> bool:
        """Whether this node made it: another one of the organisation has a certificate of its own."""
        question = {"study": anchor["study"], "from": anchor["time"], "until": anchor["time"] + 1}
        events = self._ledger.query("Audit", question)
        return (anchor["sequence"], self._serial) in ((event["sequence"], event["by"]["serial"]) for event in events)
