"""Every DIMSE status this node sends, each with its clause; those of C-STORE are in `orthanc_ledger.store_status`. No
other file of the node chooses one.

Success is 0x0000 (PS3.7 C.1.1). The texts of refusals are `orthanc_ledger.reasons`.
"""

from types import MappingProxyType

from dicom_scp.ports import Refused
from orthanc_ledger.errors import CustodyError, IntegrityError, LedgerAway
from orthanc_ledger.reasons import Reason
from orthanc_ledger.store_status import NOT_AUTHORIZED as NOT_AUTHORIZED
from orthanc_ledger.store_status import Answer as Answer

SUCCESS = 0x0000  # PS3.7 C.1.1
CANCELLED = 0xFE00  # PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4
PENDING = 0xFF00  # PS3.4 C.4.1.1.4 (match), C.4.2.1.5, C.4.3.1.4 (sub-operations are continuing)
PENDING_UNSUPPORTED_KEYS = 0xFF01  # PS3.4 C.4.1.1.4: optional keys were not supported for this identifier
SUB_OPERATIONS_WARNING = 0xB000  # PS3.4 C.4.2.1.5, C.4.3.1.4: one or more failures or warnings
SUB_OPERATIONS_FAILED = 0xA702  # PS3.4 C.4.2.1.5, C.4.3.1.4: unable to perform sub-operations

FIND_OUT_OF_RESOURCES = 0xA700  # PS3.4 C.4.1.1.4
BAD_IDENTIFIER = 0xA900  # PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4: identifier does not match SOP Class

ECHO_SUCCESS = Answer(SUCCESS)  # PS3.7 9.1.5.1.4
SOP_CLASS_NOT_SUPPORTED = Answer(0x0122)  # PS3.7 C.5.21: this service is not offered under that abstract syntax
MOVE_DESTINATION_UNKNOWN = Answer(0xA801, Reason.DESTINATION)  # PS3.4 C.4.2.1.5

FIND_LEDGER_AWAY = Answer(FIND_OUT_OF_RESOURCES, Reason.LEDGER_UNAVAILABLE)
RETRIEVE_LEDGER_AWAY = Answer(SUB_OPERATIONS_FAILED, Reason.LEDGER_UNAVAILABLE)
FIND_AWAY = Answer(FIND_OUT_OF_RESOURCES)  # for a service that the fixed list of reasons has no word for
RETRIEVE_AWAY = Answer(SUB_OPERATIONS_FAILED)
IDENTIFIER_REFUSED = Answer(BAD_IDENTIFIER, Reason.BAD_IDENTIFIER)

# What is refused because it may not be had is not authorized; what cannot be had now, or not whole, is a failure.
_RETRIEVE_REFUSALS = MappingProxyType(
    {
        Reason.LEDGER_UNAVAILABLE: SUB_OPERATIONS_FAILED,
        Reason.WITHHELD_INTEGRITY: SUB_OPERATIONS_FAILED,
        Reason.BAD_IDENTIFIER: BAD_IDENTIFIER,
    }
)


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
