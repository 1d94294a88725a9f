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


class Problem(StrEnum):
    """What the HTTPS application says of a call that it cannot answer, whoever asks. On no ledger."""

    CERTIFICATE = "certificate not accepted"
    NO_PUBLIC_KEY = "request names no public key"
    OTHER_PUBLIC_KEY = "public key is not the request's"
    BAD_CALL = "call not readable"
    TOO_LARGE = "call too large"
    NO_ADDRESS = "no such address"
    AWAY = "a service of this node is away"
    FAULT = "fault of this node"
