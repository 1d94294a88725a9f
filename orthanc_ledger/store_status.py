"""What a C-STORE is answered, each status with its clause: by the node's receivers, and in Orthanc by its plugin."""

from dataclasses import dataclass
from types import MappingProxyType

from orthanc_ledger.errors import CustodyError, SpoolFull, UidMismatch, Unreadable
from orthanc_ledger.gate import Refused
from orthanc_ledger.reasons import Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with its Error Comment (0000,0902)."""

    status: int
    comment: Reason | None = None


NOT_AUTHORIZED = 0x0124  # PS3.7 C.5.23, for every DIMSE-C service

STORED = Answer(0x0000)  # PS3.4 B.2.3
STORE_DUPLICATE = Answer(0x0111, Reason.DUPLICATE_UID)  # PS3.7 C.5.5: other content under a known SOP Instance UID
STORE_FAULT = Answer(0x0110)  # PS3.7 C.5.17, processing failure: a fault of this node, worth sending again

_REFUSALS = MappingProxyType(
    {
        SpoolFull: Answer(0xA700, Reason.SPOOL_FULL),  # PS3.4 B.2.3: out of resources
        UidMismatch: Answer(0xA900, Reason.UID_MISMATCH),  # PS3.4 B.2.3: data set does not match SOP Class
        Unreadable: Answer(0xC000, Reason.NOT_READABLE),  # PS3.4 B.2.3: cannot understand
    }
)


def store_refusal(error: CustodyError) -> Answer:
    """The answer to a C-STORE that raised ``error``; STORE_FAULT for one that no port promises."""
    if isinstance(error, Refused):
        return Answer(NOT_AUTHORIZED, error.reason)
    return _REFUSALS.get(type(error), STORE_FAULT)
