"""What the leaf needs from the core: values it hands over, and the ports it calls.

Nothing here knows pynetdicom; the core implements `Inbox` and `Archive`, the leaf turns their errors into statuses
(`status.py`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Literal, Protocol

from orthanc_ledger.errors import DataError
from orthanc_ledger.reasons import Reason

Role = Literal["modality", "clinical", "research"]
Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]


class UidMismatch(DataError):
    """The data set's SOP Class, SOP Instance or Study Instance UID is missing or unlike the command's."""


class Refused(DataError):
    """An item may not leave (any more); ``reason`` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Peer:
    """An AE this node knows.

    ``hosts`` are the IP addresses it may call from (empty: any). ``host`` and ``port`` are where it listens as a move
    destination, None when it is none. ``duplicate`` says how other content under a known UID is answered.
    """

    ae_title: str
    role: Role
    organisation: str
    hosts: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    duplicate: Literal["refuse", "accept"] = "refuse"


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
    max_associations: int = 120
    reserved_associations: int = 20
    network_timeout_s: float = 900.0
    dimse_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ArrivalHead:
    """What is known of an object before its first byte. Addresses are URIs, ``dicom://host:port``."""

    calling_ae: str
    called_ae: str
    peer_address: str
    called_address: str
    association: bytes
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    origin: str


class Receipt(Enum):
    """What became of an accepted object; in each case it is durable."""

    STORED = "stored"
    SAME_AGAIN = "same again"
    CONFLICT = "conflict"


class Incoming(Protocol):
    """One object while it arrives. Called by one thread at a time, not always the same one.

    Exactly one `accept` or `discard` ends it; `discard` after a failed `accept` is harmless. Until `accept` has
    returned nothing of it has a name on disk.
    """

    def write(self, data: bytes) -> None:
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


@dataclass(frozen=True, slots=True)
class Query:
    """The unique keys of a C-GET or C-MOVE identifier, without wildcards (PS3.4 C.4.2.1.4, C.4.3.1.4).

    The level's own key may hold several UIDs, those above it hold one; empty where the identifier had none (Study Root
    has no Patient ID).
    """

    patient_ids: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One object that may be sent; ``size`` in bytes is that of its encoded data set."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    size: int


class Plan(Protocol):
    """What one retrieve may send. ``refused`` set: nothing at all may go, and ``items`` is empty.

    ``withheld`` are the objects that match but may not go, by SOP Instance UID; each is a failed sub-operation.
    """

    @property
    def refused(self) -> Reason | None: ...

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def withheld(self) -> Mapping[str, Reason]: ...

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        """A reader of the encoded data set bytes, seekable, at its start, verified whole before this returns.

        Raises IntegrityError (it differs from its anchor), Refused (the lease has ended, or it was withdrawn),
        ServiceAway (store or ledger away).
        """

    def close(self, sent: Collection[str]) -> None:
        """Log the outcome; called exactly once, whatever happens, before the final response.

        ``sent`` are the SOP Instance UIDs the recipient confirmed. What cannot be logged now is kept and logged later:
        this does not raise for a service that is away.
        """


class Archive(Protocol):
    """What this node holds, as one peer may see it."""

    def find_studies(self, asker: Peer, keys: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        """Studies that match, each as DICOM keyword → value.

        ``keys`` are the identifier's top-level elements by keyword (multiple values joined by a backslash); an empty
        value asks for the element. An answer holds every keyword the archive supports, with an empty value where the
        study has none: a keyword asked for but not in an answer is reported as unsupported (0xFF01). Raises
        LedgerAway, at the call or while iterating.
        """

    def plan(self, asker: Peer, recipient: Peer, level: Level, uids: Query) -> Plan:
        """Decide what may go to ``recipient`` (the asker itself for C-GET). Raises LedgerAway."""
