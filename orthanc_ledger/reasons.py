"""The fixed list of reasons for a refusal: the DICOM Error Comment (0000,0902) and the ledger's LogDenials reason
are these texts.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why something was refused. LO, at most 64 characters (PS3.7 E.2-1). On ledgers for good: add, never change."""

    NO_APPROVAL = "no approval"
    APPROVAL_EXPIRED = "approval expired"
    LEDGER_UNAVAILABLE = "ledger unavailable"
    WITHHELD_INTEGRITY = "withheld: integrity"
    WITHDRAWN = "withdrawn"
    RELEASE_FORM = "release form not available"
    DESTINATION = "destination not permitted"
    SPOOL_FULL = "spool full"
    NOT_READABLE = "not readable"
    UID_MISMATCH = "uid mismatch"
    DUPLICATE_UID = "duplicate uid"
    BAD_IDENTIFIER = "bad identifier"
