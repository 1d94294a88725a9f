"""Tables of docs/conformance.md: which status is answered when (PS3.2 N.7.3.2)."""

from collections.abc import Iterator

from dicom_scp import status
from dicom_scp.status import Answer
from orthanc_ledger import store_status
from orthanc_ledger.errors import SpoolFull, UidMismatch, Unreadable
from orthanc_ledger.gate import Refused
from orthanc_ledger.reasons import Reason

from .conformance_page import Table

_HEAD = ("Service Status", "Status Code", "Error Comment", "When")
_FAILED, _NOT_AUTHORIZED = "Failure: sub-operations", "Error: not authorized"

Case = tuple[str, Answer, str]
"""Service status, status and comment, when."""

_NOT_SERVED = ("Error: SOP Class not supported", status.SOP_CLASS_NOT_SUPPORTED, "the context is of another service")
_BAD_IDENTIFIER = (
    "Error: identifier does not match SOP Class",
    status.IDENTIFIER_REFUSED,
    "it cannot be decoded, is too large (7.1.2), or its level and unique keys do not fit the model",
)

STORE: tuple[Case, ...] = (
    ("Success", store_status.STORED, "the object survives power loss; a repeat of the same bytes changes nothing"),
    (
        "Success",
        store_status.STORED,
        "other content under a known SOP Instance UID, from a peer with `duplicate: accept`: it waits for a person",
    ),
    (
        "Error: duplicate SOP Instance",
        store_status.STORE_DUPLICATE,
        "other content under a known SOP Instance UID, from any other peer: it waits for a person, too",
    ),
    (
        "Refused: out of resources",
        store_status.store_refusal(SpoolFull("")),
        "the spool is below its reserve, or the object is larger than `largest_object_mb`",
    ),
    (
        "Error: data set does not match SOP Class",
        store_status.store_refusal(UidMismatch("")),
        "class or instance UID of command and data set differ",
    ),
    (
        "Error: cannot understand",
        store_status.store_refusal(Unreadable("")),
        "class, instance or study UID cannot be read from the data set",
    ),
    (_NOT_AUTHORIZED, store_status.store_refusal(Refused(Reason.NO_APPROVAL)), "a research AE sends"),
    _NOT_SERVED,
    ("Error: processing failure", store_status.STORE_FAULT, "a fault of this node; worth sending again"),
)

PLUGIN_STORE: tuple[Case, ...] = (
    (
        "Refused: out of resources",
        store_status.store_refusal(SpoolFull("")),
        "the node's spool is below its reserve, or the object is larger than `largest_object_mb`",
    ),
    (
        "Error: duplicate SOP Instance",
        store_status.STORE_DUPLICATE,
        'other content under a known SOP Instance UID, where `"Duplicate": "refuse"`: it waits for a person',
    ),
    (
        _NOT_AUTHORIZED,
        store_status.store_refusal(Refused(Reason.NO_APPROVAL)),
        'a research AE sends, and `"DicomAlwaysAllowStore"` has it associate (else: A-ABORT)',
    ),
    ("Error: processing failure", store_status.STORE_FAULT, "a fault of the plugin; worth sending again"),
)

FIND: tuple[Case, ...] = (
    ("Pending", Answer(status.PENDING), "a match; every key was supported"),
    ("Pending", Answer(status.PENDING_UNSUPPORTED_KEYS), "a match; some optional keys were not supported"),
    ("Success", Answer(status.SUCCESS), "there are no more matches"),
    ("Cancel", Answer(status.CANCELLED), "C-CANCEL came, the search has ended"),
    ("Refused: out of resources", status.FIND_LEDGER_AWAY, "research: the ledger cannot be asked"),
    ("Refused: out of resources", status.FIND_AWAY, "research: another service of the node is away"),
    _BAD_IDENTIFIER,
    _NOT_SERVED,
)

RETRIEVE: tuple[Case, ...] = (
    ("Pending", Answer(status.PENDING), "after each sub-operation, with the counts so far"),
    ("Success", Answer(status.retrieve_outcome(2, 0, 0)), "every sub-operation succeeded, or none was needed"),
    (
        "Warning",
        Answer(status.retrieve_outcome(1, 0, 1)),
        "some failed or had warnings; Failed SOP Instance UID List names those that failed, Error Comment the first "
        "reason there is a word for",
    ),
    ("Cancel", Answer(status.CANCELLED), "C-CANCEL came, no further object is sent"),
    (_FAILED, Answer(status.retrieve_outcome(0, 0, 2)), "every sub-operation failed"),
    (_FAILED, status.retrieve_refusal(Reason.WITHHELD_INTEGRITY), "all that was asked for differs from its anchor"),
    (_FAILED, status.RETRIEVE_LEDGER_AWAY, "research: the ledger cannot be asked"),
    (_FAILED, status.RETRIEVE_AWAY, "the content store is away"),
    (
        "Refused: move destination unknown",
        status.MOVE_DESTINATION_UNKNOWN,
        "C-MOVE by a clinical AE: no peer of that title has `host` and `port`",
    ),
    (
        _NOT_AUTHORIZED,
        status.retrieve_refusal(Reason.NO_APPROVAL),
        "research: nothing is approved, or nothing of it is held here, which is answered alike",
    ),
    (_NOT_AUTHORIZED, status.retrieve_refusal(Reason.APPROVAL_EXPIRED), "research: the approval has ended"),
    (_NOT_AUTHORIZED, status.retrieve_refusal(Reason.WITHDRAWN), "research: withdrawn, or to be erased"),
    (
        _NOT_AUTHORIZED,
        status.retrieve_refusal(Reason.RELEASE_FORM),
        "research: this node cannot make the form approved",
    ),
    (_NOT_AUTHORIZED, status.retrieve_refusal(Reason.DESTINATION), "research: C-MOVE to an AE that may not have it"),
    _BAD_IDENTIFIER,
    _NOT_SERVED,
)


def store_statuses() -> Table:
    """C-STORE as SCP (PS3.2 N.7.3.2.5)."""
    return _HEAD, _rows(STORE)


def plugin_statuses() -> Table:
    """What the plugin has Orthanc answer to a C-STORE, by number alone."""
    whole = _HEAD.index("Error Comment")
    rows = (row[:whole] + row[whole + 1 :] for row in _rows(PLUGIN_STORE))
    return _HEAD[:whole] + _HEAD[whole + 1 :], rows


def find_statuses() -> Table:
    """C-FIND as SCP (PS3.2 N.7.3.2.7)."""
    return _HEAD, _rows(FIND)


def retrieve_statuses() -> Table:
    """C-GET and C-MOVE as SCP (PS3.2 N.7.3.2.7)."""
    return _HEAD, _rows(RETRIEVE)


def _rows(cases: tuple[Case, ...]) -> Iterator[tuple[str, ...]]:
    for kind, answer, when in cases:
        yield kind, f"0x{answer.status:04X}", str(answer.comment or ""), when
