"""One error tree, split by what a caller may do about it.

CustodyError
├── DataError              the data or the call is wrong: retrying cannot help
│   ├── Unreadable         no DICOM, receipt or certificate that can be parsed
│   ├── UidMismatch        data set and C-STORE command disagree on a UID
│   ├── IntegrityError     differs from its CID, seal, digest or anchor
│   ├── NotHeld            this node has no such object or key
│   ├── ConfigError        a configuration key, file or option is wrong
│   └── ContractError      the ledger's contract refused a call (code, field)
└── ServiceAway            a service did not answer: retry later
    ├── ContentAway        the content store
    ├── LedgerAway         the ledger
    ├── SinkAway           where checkpoints or notices of alarms are kept
    └── SpoolFull          the spool cannot take it: below its reserve, object too large, disk fault
"""


class CustodyError(Exception):
    """Root of everything this project raises."""


class DataError(CustodyError):
    """The data or the call is wrong; retrying cannot help."""


class Unreadable(DataError):
    """The bytes are no DICOM, receipt or certificate that can be parsed."""


class UidMismatch(DataError):
    """The data set's SOP Class or Instance UID is not that of the C-STORE command."""


class IntegrityError(DataError):
    """The bytes differ from their CID, seal, digest or anchor."""


class NotHeld(DataError):
    """This node has no such object or key."""


class ConfigError(DataError):
    """A configuration key, file or option is wrong; the message names it."""


class ContractError(DataError):
    """The ledger's contract refused a call.

    ``code`` is one of NOT_FOUND, NOT_PERMITTED, WRONG_STATE, EXPIRED, CONFLICT, INVALID, SKEW; ``field`` names
    the argument or state that was at fault.
    """

    def __init__(self, code: str, field: str, detail: str = "") -> None:
        super().__init__(f"{code} {field}" + (f": {detail}" if detail else ""))
        self.code = code
        self.field = field
        self.detail = detail


class ServiceAway(CustodyError):
    """A service did not answer; the same call may be tried again later."""


class ContentAway(ServiceAway):
    """The content store is away."""


class LedgerAway(ServiceAway):
    """The ledger is away."""


class SinkAway(ServiceAway):
    """A sink did not keep a checkpoint or a notice, or might not have."""


class OrthancAway(ServiceAway):
    """Orthanc does not answer the node, or does not let it in."""


class SpoolFull(ServiceAway):
    """The spool cannot take an object: it is below its reserve, the object is too large, or the disk fails."""
