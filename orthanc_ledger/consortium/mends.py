"""What our builds of Fabric differ in from its release: faults by which any member's client could stop every peer.

Fabric's newer releases are to be looked at first: what they have mended themselves goes from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.errors import ConfigError


@dataclass(frozen=True)
class Mend:
    """A text that stands once in a file of Fabric's sources, and what is built in its place."""

    file: str
    was: str
    becomes: str


MENDS = (
    # A transaction without `action` was a nil pointer here: validation ended the peer, and again at each start, as the
    # block stays. Taken as empty it does not fit the proposal's hash: INVALID_ENDORSER_TRANSACTION.
    Mend(
        "core/common/validation/msgvalidation.go",
        "(ccActionPayload.Action.ProposalResponsePayload)",
        "(ccActionPayload.GetAction().GetProposalResponsePayload())",
    ),
    # A write to a private data collection that nobody defined was an error here, which ends the peer likewise, also for
    # a transaction that is invalid already. There is nothing private to look for then.
    Mend(
        "gossip/privdata/coordinator.go",
        "colConfig, err := c.CollectionStore.RetrieveCollectionConfig(cc)\n",
        "colConfig, err := c.CollectionStore.RetrieveCollectionConfig(cc)\nif err != nil && invalid {\ncontinue\n}\n",
    ),
)


def mend(sources: Path, mends: Iterable[Mend] = MENDS) -> None:
    """Apply to a copy of Fabric's sources. Raises ConfigError when a text does not stand there exactly once."""
    for each in mends:
        path = sources / each.file
        text = path.read_text() if path.is_file() else ""
        if (count := text.count(each.was)) != 1:
            raise ConfigError(f"{each.file}: expected `{each.was.strip()}` once, got it {count} times: see mends.py")
        path.write_text(text.replace(each.was, each.becomes))
