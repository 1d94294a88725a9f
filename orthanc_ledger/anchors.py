"""The anchors on the ledger, and which of them this node made."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from orthanc_ledger.custody import Anchor
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.ledger.identity import parse_certificate, serial_of


def in_order(anchors: Iterable[Anchor]) -> list[Anchor]:
    """By sequence, a study's own by number: sequences follow the commits only as well as the clocks agree."""
    latest: defaultdict[bytes, int] = defaultdict(int)
    placed = []
    for anchor in sorted(anchors, key=lambda anchor: int(anchor["number"])):
        latest[anchor["study"]] = max(latest[anchor["study"]], anchor["sequence"])
        placed.append((latest[anchor["study"]], anchor["number"], anchor))
    return [anchor for _, _, anchor in sorted(placed, key=lambda place: place[:2])]


class Anchors:
    """Raises LedgerAway, and what the keyring raises."""

    def __init__(self, ledger: Ledger, certificate: bytes, keyring: Keyring) -> None:
        """``certificate``: what this node signs its anchors with now (DER)."""
        self._ledger = ledger
        self._serial = serial_of(parse_certificate(certificate))
        self._keyring = keyring

    @cached_property
    def _studies(self) -> frozenset[bytes]:
        return self._keyring.study_tokens()

    def behind(self, place: str = "") -> Iterator[Anchor]:
        """All anchors whose manifest CID is greater, by manifest CID."""
        return all_rows(self._ledger, "Anchors", {"after": place} if place else {})

    def of_study(self, token: bytes) -> list[Anchor]:
        """A study's anchors, in the order of their commits."""
        return list(all_rows(self._ledger, "AnchorsOfStudy", {"study": token}))

    def is_own(self, anchor: Anchor) -> bool:
        """Whether this node made it: it has the study's keys, or its certificate signed it. Another node of the
        organisation has keyring and certificate of its own.
        """
        if anchor["study"] in self._studies:
            return True
        question = {"study": anchor["study"], "from": anchor["time"], "until": anchor["time"] + 1}
        events = all_rows(self._ledger, "Audit", question)
        return (anchor["sequence"], self._serial) in ((event["sequence"], event["by"]["serial"]) for event in events)
