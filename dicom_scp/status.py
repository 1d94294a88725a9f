"""Every DIMSE status this node sends, each with its clause. No other file of the node chooses one.

Success is 0x0000 (PS3.7 C.1.1). The texts of refusals are `orthanc_ledger.reasons`.
"""

from dataclasses import dataclass
from types import MappingProxyType

from dicom_scp.ports import Refused, UidMismatch
from orthanc_ledger.errors import CustodyError, IntegrityError, LedgerAway, SpoolFull, Unreadable
from orthanc_ledger.reasons import Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with its Error Comment (0000,0902)."""

    status: int
    comment: Reason | None = None


SUCCESS = 0x0000  # PS3.7 C.1.1
CANCELLED = 0xFE00  # PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4
PENDING = 0xFF00  # PS3.4 C.4.1.1.4 (match), C.4.2.1.5, C.4.3.1.4 (sub-operations are continuing)
PENDING_UNSUPPORTED_KEYS = 0xFF01  # PS3.4 C.4.1.1.4: optional keys were not supported for this identifier
SUB_OPERATIONS_WARNING = 0xB000  # PS3.4 C.4.2.1.5, C.4.3.1.4: one or more failures or warnings
SUB_OPERATIONS_FAILED = 0xA702  # PS3.4 C.4.2.1.5, C.4.3.1.4: unable to perform sub-operations

NOT_AUTHORIZED = 0x0124  # PS3.7 C.5.23, for every DIMSE-C service
FIND_OUT_OF_RESOURCES = 0xA700  # PS3.4 C.4.1.1.4
BAD_IDENTIFIER = 0xA900  # PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4: identifier does not match SOP Class

ECHO_SUCCESS = Answer(SUCCESS)  # PS3.7 9.1.5.1.4
STORED = Answer(SUCCESS)  # PS3.4 B.2.3
STORE_DUPLICATE = Answer(0x0111, Reason.DUPLICATE_UID)  # PS3.7 C.5.5: other content under a known SOP Instance UID
STORE_FAULT = Answer(0x0110)  # PS3.7 C.5.17, processing failure: a fault of this node, worth sending again
SOP_CLASS_NOT_SUPPORTED = Answer(0x0122)  # PS3.7 C.5.21: this service is not offered under that abstract syntax
MOVE_DESTINATION_UNKNOWN = Answer(0xA801, Reason.DESTINATION)  # PS3.4 C.4.2.1.5

FIND_LEDGER_AWAY = Answer(FIND_OUT_OF_RESOURCES, Reason.LEDGER_UNAVAILABLE)
RETRIEVE_LEDGER_AWAY = Answer(SUB_OPERATIONS_FAILED, Reason.LEDGER_UNAVAILABLE)
FIND_AWAY = Answer(FIND_OUT_OF_RESOURCES)  # for a service that the fixed list of reasons has no word for
RETRIEVE_AWAY = Answer(SUB_OPERATIONS_FAILED)
IDENTIFIER_REFUSED = Answer(BAD_IDENTIFIER, Reason.BAD_IDENTIFIER)

_STORE_REFUSALS = MappingProxyType(
    {
        SpoolFull: Answer(0xA700, Reason.SPOOL_FULL),  # PS3.4 B.2.3: out of resources
        UidMismatch: Answer(0xA900, Reason.UID_MISMATCH),  # PS3.4 B.2.3: data set does not match SOP Class
        Unreadable: Answer(0xC000, Reason.NOT_READABLE),  # PS3.4 B.2.3: cannot understand
    }
)

# What is refused because it may not be had is not authorized; what cannot be had now, or not whole, is a failure.
_RETRIEVE_REFUSALS = MappingProxyType(
    {
        Reason.LEDGER_UNAVAILABLE: SUB_OPERATIONS_FAILED,
        Reason.WITHHELD_INTEGRITY: SUB_OPERATIONS_FAILED,
        Reason.BAD_IDENTIFIER: BAD_IDENTIFIER,
    }
)


def store_refusal(error: CustodyError) -> Answer:
    """The answer to a C-STORE that raised ``error``; STORE_FAULT for one that no port promises."""
    if isinstance(error, Refused):
        return Answer(NOT_AUTHORIZED, error.reason)
    return _STORE_REFUSALS.get(type(error), STORE_FAULT)


def retrieve_refusal(reason: Reason) -> Answer:
    """The answer to a C-GET or C-MOVE of which nothing may go."""
    return Answer(_RETRIEVE_REFUSALS.get(reason, NOT_AUTHORIZED), reason)


def retrieve_outcome(completed: int, warnings: int, failed: int) -> int:
    """The final status of a retrieve that was not cancelled, from its sub-operations' counts."""
    if failed and not completed and not warnings:
        return SUB_OPERATIONS_FAILED
    return SUB_OPERATIONS_WARNING if failed or warnings else SUCCESS


def sub_operation_reason(error: CustodyError) -> Reason | None:
    """Why one object did not go, None where the fixed list has no word for it (no usable presentation context)."""
    if isinstance(error, Refused):
        return error.reason
    if isinstance(error, IntegrityError):
        return Reason.WITHHELD_INTEGRITY
    return Reason.LEDGER_UNAVAILABLE if isinstance(error, LedgerAway) else None


def is_stored(answered: int) -> bool:
    """Whether a recipient's C-STORE response means that it has the object: success or a warning (PS3.4 B.2.3)."""
    return answered == SUCCESS or answered & 0xF000 == 0xB000


def is_out_of_resources(answered: int) -> bool:
    """Whether a recipient has no room at this moment, for this object or any (PS3.4 B.2.3, 0xA7xx)."""
    return answered & 0xFF00 == 0xA700
