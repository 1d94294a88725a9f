"""The tables of docs/conformance.md, made from the code that they speak of.

`python -m tests.scp.conformance` writes them into the page, each between its marks.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from dicom_scp import association, contexts, dimse, forward, identifier, pdu_socket, query, server, transcode
from dicom_scp.ports import ListenerConfig, Peer
from orthanc_ledger import __version__, arrival, find, matching
from orthanc_ledger.config import Config, Listen
from orthanc_ledger.decoders import DECODERS, NATIVE
from orthanc_ledger.retrieve import UNIQUE_KEYS

from .conformance_page import Table, replaced
from .conformance_statuses import find_statuses, plugin_statuses, retrieve_statuses, store_statuses

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"

# VR → a key, and a value that fits it as a range, by wildcard, as one of several UIDs; asked of the matcher itself.
_RANGES = {"DA": ("20260101-", "20260301"), "TM": ("0900-1000", "093000")}
_WILDCARD = ("A?C*", "ABCD")
_UIDS = ("1.2\\1.3", "1.3")

_EXTENDED = (
    "Relational queries",
    "Combined date-time matching",
    "Fuzzy semantic matching of person names",
    "Timezone query adjustment",
    "Enhanced Multi-Frame Image Conversion",
)
"""Service class application information of C-FIND, byte by byte (PS3.4 C.5.1.1.1)."""


def product() -> Table:
    """Cover page (PS3.2 N.0)."""
    return ("Product", "Version"), [("orthanc-ledger, node and Orthanc plugin", __version__)]


def storage() -> Table:
    """Storage SOP classes in the order of their UIDs (PS3.2 N.1.1)."""
    known = [uid for uid in UID_dictionary if contexts.is_storage(uid)]
    ordered = sorted(known, key=lambda uid: [int(part) for part in uid.split(".")])
    return ("SOP Class", "UID", "SCU", "SCP", "Archive"), [(_name(uid), uid, "Y", "Y", "Y") for uid in ordered]


def transfer_syntaxes() -> Table:
    """The acceptor's order, and which an object may be re-encoded from (PS3.2 N.1.1, N.5.2.5.1.1, N.7.2)."""
    head = ("Preference", "Transfer Syntax", "UID", "Re-encoded from, if need be")
    rows = enumerate(contexts.TRANSFER_SYNTAXES, 1)
    return head, [(number, _name(syntax), syntax, _re_encoded(syntax)) for number, syntax in rows]


def services() -> Table:
    """Verification and Query/Retrieve (PS3.2 N.1.2.1, N.1.2.4)."""
    syntaxes = "; ".join(map(_name, contexts._SERVICE_SYNTAXES))
    head = ("SOP Class", "UID", "Transfer Syntaxes", "SCU", "SCP")
    return head, [(_name(uid), uid, syntaxes, "N", "Y") for uid in sorted(contexts.SERVICES)]


def parameters() -> Table:
    """Association parameters of all AEs (PS3.2 N.7.1.1)."""
    listen, port = Listen(), ListenerConfig("clinical", "", "", 0, ())
    return ("Name", "Value"), [
        ("Application Context Name", "1.2.840.10008.3.1.1.1"),
        ("Implementation Class UID", arrival.IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", arrival.IMPLEMENTATION_VERSION),
        ("Maximum PDU Length", f"{pdu_socket.MAXIMUM_PDU} bytes; sent: what the peer takes, at most as many"),
        ("ARTIM Timeout", f"{association._ACSE_TIMEOUT_S} s"),
        ("TCP connection timeout", f"{association._CONNECTION_TIMEOUT_S} s"),
        ("Silence that ends an Association", f"{port.network_timeout_s:.0f} s"),
        ("Wait for a C-STORE-RSP", f"{port.dimse_timeout_s:.0f} s; FORWARDER {forward._ANSWER_TIMEOUT_S} s"),
        (
            "Maximum number of simultaneous Associations as Association Acceptor",
            f"{listen.max_associations} in each of {listen.processes} processes of a port (configurable); "
            f"{port.reserved_associations} of CLINICAL's in each process are kept for modalities",
        ),
        (
            "Maximum number of simultaneous Associations as Association Initiator",
            "1 for each C-MOVE that is being served, 1 for each destination of FORWARDER",
        ),
        ("Maximum number of outstanding asynchronous Transactions", "1 (not negotiated)"),
        ("Presentation Contexts proposed in one Association", f"at most {contexts.MOST_PROPOSED}"),
    ]


def rejections() -> Table:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    cases = (
        (server._CALLED_AE_NOT_RECOGNIZED, "called AE title not recognized", "it is not this node's `ae_title`"),
        (
            server._CALLING_AE_NOT_RECOGNIZED,
            "calling AE title not recognized",
            "no peer of that title has a role that the port serves, or it calls from none of its `hosts`",
        ),
        (server._LOCAL_LIMIT_EXCEEDED, "local limit exceeded", "as many associations are open as there may be"),
    )
    return ("Result", "Source", "Reason", "Meaning", "When"), [(*code, *said) for code, *said in cases]


def find_keys() -> Table:
    """Matching keys level by level (PS3.2 N.5.2.7.5)."""
    research = Peer("", "research")
    return ("Level", "Attribute", "Tag", "Key", "Matching Type", "For research"), [
        (
            level,
            dictionary_description(_tag(keyword)),
            Tag(_tag(keyword)),
            "unique" if keyword in UNIQUE_KEYS else "optional",
            "; ".join(_matching_types(keyword)),
            "Y" if keyword in find.supported(research, level) else "N",
        )
        for level, keywords in find.KEYS.items()
        for keyword in keywords
    ]


def negotiation() -> Table:
    """SOP Class Extended Negotiation of C-FIND: what is accepted when proposed (PS3.2 N.7.2)."""
    accepted = {query._DATE_TIME_MATCHING: "0; 1"}
    rows = [(at + 1, item, accepted.get(at, "0")) for at, item in enumerate(_EXTENDED)]
    return ("Byte", "Item", "Accepted values"), rows


def bounds() -> Table:
    """What is refused for its size."""
    defaults = {name: field.default for name, field in Config.__dataclass_fields__.items()}
    return ("What", "At most", "Beyond it"), [
        ("PDU", f"{pdu_socket._LARGEST_PDU} bytes", "the connection is closed"),
        ("Command set; identifier", f"{dimse._LARGEST_MESSAGE} bytes each", "A-ABORT"),
        ("Key of an identifier", f"{identifier._MOST} bytes; {identifier._MOST} UIDs", "0xA900"),
        ("Object received", f"`largest_object_mb` (default {defaults['largest_object_mb']} MiB)", "0xA700"),
        ("Object re-encoded for a peer", f"{transcode.LARGEST >> 20} MiB, decoded too", "its sub-operation fails"),
    ]


_TABLES = (
    *(product, storage, transfer_syntaxes, services, parameters, rejections, find_keys, negotiation, bounds),
    *(store_statuses, plugin_statuses, find_statuses, retrieve_statuses),
)
TABLES: Mapping[str, Callable[[], Table]] = {table.__name__: table for table in _TABLES}


def _name(uid: str) -> str:
    """As PS3.6 Annex A has it."""
    name, _, _, retired, _ = UID_dictionary[uid]
    return f"{name} ({retired})" if retired else name


def _re_encoded(syntax: str) -> str:
    if syntax in DECODERS:
        return "Y" if syntax in NATIVE else f"Y (decoder: {DECODERS[syntax]})"
    return "N"


def _matching_types(keyword: str) -> Iterator[str]:
    """In the template's words; every key can be matched universally."""
    if keyword in find.VRS or keyword in find._MULTIPLE:
        vr = dictionary_VR(_tag(keyword))
        if vr == "UI" and _fits(vr, _UIDS):
            yield "UID"
        else:
            yield "SINGLE_VALUE"
        if vr in _RANGES and _fits(vr, _RANGES[vr]):
            yield "RANGE"
        if vr not in _RANGES and _fits(vr, _WILDCARD):
            yield "WILDCARD"
    yield "UNIVERSAL"


def _fits(vr: str, case: tuple[str, str]) -> bool:
    key, value = case
    return matching.matcher(vr, key)(value)


def _tag(keyword: str) -> int:
    return int(tag_for_keyword(keyword) or 0)


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
