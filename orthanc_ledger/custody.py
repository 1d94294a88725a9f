"""Which record of an instance counts: the first anchor's, until a confirmed supersession names another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orthanc_ledger.manifest import Record

Anchor = Mapping[str, Any]
"""A row of the queries Anchors and AnchorsOfStudy."""


@dataclass(frozen=True)
class Records:
    """A study's records by instance token, each with its anchor.

    ``unproven``: by manifest CID, an anchor whose own manifest, or that of an earlier one, cannot be read. Which record
    of an instance is the first is not known then, so no later one may take its place. ``unreadable``: those CIDs.
    """

    current: Mapping[bytes, tuple[Anchor, Record]]
    unproven: Mapping[str, Anchor]
    unreadable: frozenset[str]


def agreed_on(standing: Mapping[str, Any]) -> dict[bytes, str]:
    """By instance, the manifest on which both parties lifted its last flag; ``standing`` as StandingOf has it."""
    return {flag["instance"]: flag["manifestCid"] for flag in sorted(standing["resolved"], key=lambda flag: flag["n"])}


def records_that_count(
    anchors: Iterable[Anchor],
    superseded: Iterable[Mapping[str, Any]],
    records_of: Callable[[Anchor], Sequence[Record] | None],
) -> Records:
    """``anchors``: all of a study in their order; ``superseded``: as StandingOf has them; ``records_of``: an anchor's
    records, None when its manifest cannot be read or is another one.
    """
    replaced = {row["instance"]: row["newManifest"] for row in superseded}
    current: dict[bytes, tuple[Anchor, Record]] = {}
    unproven: dict[str, Anchor] = {}
    unreadable = set()
    for anchor in anchors:
        cid = anchor["manifestCid"]
        records = records_of(anchor)
        if records is None:
            unreadable.add(cid)
        if unreadable:
            unproven[cid] = anchor
        for record in records or ():
            if replaced.get(record.instance) == cid or not (unreadable or record.instance in replaced):
                current.setdefault(record.instance, (anchor, record))
    return Records(current, unproven, frozenset(unreadable))
