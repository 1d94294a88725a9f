"""What the leaf needs from the core: the core's values, and the ports it calls.

Nothing here knows pynetdicom; the core implements `Inbox` and `Archive`, the leaf turns their errors into statuses
(`status.py`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from orthanc_ledger.config import RESERVED_ASSOCIATIONS
from orthanc_ledger.errors import UidMismatch
from orthanc_ledger.gate import Refused
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.peer import Peer, Role
from orthanc_ledger.reasons import Reason
from orthanc_ledger.retrieve import Item, Level, Plan, Query
from orthanc_ledger.spool import ArrivalHead

__all__ = [
    "Archive",
    "ArrivalHead",
    "Inbox",
    "Incoming",
    "Item",
    "Level",
    "ListenerConfig",
    "Peer",
    "Plan",
    "Query",
    "Receipt",
    "Refused",
    "Role",
    "UidMismatch",
]


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """One listening port. ``peers`` are all the node's: the port picks its own by role, moves may name any of them.

    ``reserved_associations`` of ``max_associations`` are kept for modalities (clinical port). Timeouts in seconds:
    ``network_timeout_s`` of silence ends an association, ``dimse_timeout_s`` bounds the wait for a C-STORE response.
    """

    serves: Literal["clinical", "research"]
    ae_title: str
    host: str
    port: int
    peers: tuple[Peer, ...]
    max_associations: int = 100
    reserved_associations: int = RESERVED_ASSOCIATIONS
    network_timeout_s: float = 900.0
    dimse_timeout_s: float = 60.0


class Incoming(Protocol):
    """One object while it arrives. Called by one thread.

    Exactly one `accept` or `discard` ends it; `discard` after a failed `accept` is harmless. Until `accept` has
    returned nothing of it has a name on disk.
    """

    def write(self, data: bytes | memoryview) -> None:
        """Append encoded data set bytes (no file meta). Raises SpoolFull when they cannot be kept."""

    def accept(self) -> Receipt:
        """Make the object durable: when this returns it survives ``kill -9`` and power loss.

        Raises Unreadable (no UIDs can be read), UidMismatch (they are unlike the head's), SpoolFull (not written).
        """

    def discard(self) -> None:
        """Forget what was written; never raises for a second call."""


class Inbox(Protocol):
    """Where received objects go."""

    def begin(self, arrival: ArrivalHead) -> Incoming:
        """Open room for one object. Raises SpoolFull when the spool is below its reserve."""


class Archive(Protocol):
    """What this node holds, as one peer may see it."""

    def find(
        self,
        asker: Peer,
        level: Level,
        uids: Query,
        keys: Mapping[str, str],
        combined: bool,
        meanwhile: Callable[[], object],
    ) -> Iterator[Mapping[str, str]]:
        """What fits a query at a level, each as DICOM keyword → text (several values joined by a backslash).

        ``uids``: the unique keys of the levels above; ``keys``: the identifier's other elements by keyword, decoded,
        the level's own unique key included; an empty value asks for the element. ``combined``: Study Date and Study
        Time are matched as one (PS3.4 C.5.1.1). An answer holds every keyword the archive supports for this asker at
        this level, with an empty value where there is none: a keyword asked for but not in an answer is reported as
        unsupported (0xFF01). ``meanwhile`` is called time and again, whether anything fits or not; what it raises ends
        the search. Raises LedgerAway and ContentAway, at the call or while iterating.
        """

    def plan(self, asker: Peer, recipient: Peer, level: Level, uids: Query, meanwhile: Callable[[], object]) -> Plan:
        """Decide what may go to ``recipient`` (the asker itself for C-GET).

        ``meanwhile`` is called before each study that the ledger is asked about; what it raises ends the planning.
        Raises LedgerAway, ContentAway.
        """

    def count_refusal(self, peer: Peer, reason: Reason) -> None:
        """Count a refusal the leaf gave by itself, for the ledger."""
