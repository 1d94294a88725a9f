"""Presentation contexts: what is accepted, in which order, and what is proposed to a move destination (PS3.8 9.3)."""

from collections.abc import Iterable, Sequence

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import time from tables
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicom_scp.ports import Item
from orthanc_ledger.decoders import DECODERS, NATIVE

EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4."

_LOSSLESS = tuple(syntax for syntax in DECODERS if syntax not in NATIVE)

# Reversible too, but kept encoded: no decoder is pinned for them.
_OTHER_LOSSLESS = (
    "1.2.840.10008.1.2.8.1",
    *(JPEG + tail for tail in ("92", "110", "58", "65", "66")),
)
_LOSSY = tuple(
    JPEG + tail
    for tail in (
        *("50", "51", "81", "91", "93", "111", "112", "203"),
        *("52", "53", "54", "55", "56", "59", "60", "61", "62", "63", "64"),
        *("100", "101", "102", "103", "104", "105", "106", "107", "108"),
        *("100.1", "101.1", "102.1", "103.1", "104.1", "105.1", "106.1"),
    )
)

# The acceptor's order. Explicit VR first: an implicit stream loses the VRs of private elements for ever. Lossy last:
# a peer that offers anything else keeps its samples. JPIP is missing on purpose: its pixels lie elsewhere.
TRANSFER_SYNTAXES = (EXPLICIT_LE, DEFLATED, *_LOSSLESS, *_OTHER_LOSSLESS, IMPLICIT_LE, EXPLICIT_BE, *_LOSSY)

FIND_MODELS = frozenset({PatientRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelFind})
GET_MODELS = frozenset({PatientRootQueryRetrieveInformationModelGet, StudyRootQueryRetrieveInformationModelGet})
MOVE_MODELS = frozenset({PatientRootQueryRetrieveInformationModelMove, StudyRootQueryRetrieveInformationModelMove})
PATIENT_ROOT = frozenset(
    {
        PatientRootQueryRetrieveInformationModelFind,
        PatientRootQueryRetrieveInformationModelGet,
        PatientRootQueryRetrieveInformationModelMove,
    }
)
VERIFICATION: UID = Verification
SERVICES = frozenset({VERIFICATION}) | FIND_MODELS | GET_MODELS | MOVE_MODELS

# Identifiers are small: no deflated ones, so that nothing has to be inflated within bounds.
_SERVICE_SYNTAXES = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE)

# "Storage" in their names, yet no composite object is stored under them.
_NOT_STORAGE = ("Storage Commitment", "Media Storage Directory", "Storage Management")

MOST_PROPOSED = 128  # PS3.8 9.3.2.2: context IDs are the odd numbers from 1 to 255


def is_storage(abstract_syntax: str) -> bool:
    """Whether objects are stored under this SOP class: current and retired storage classes, and every unknown UID.

    A UID that the standard does not list is taken for a private storage class: scanners send them.
    """
    uid = UID(abstract_syntax)
    if not uid.type:
        return True
    return uid.type == "SOP Class" and "Storage" in uid.name and not uid.name.startswith(_NOT_STORAGE)


def supported(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """The acceptor's side of a negotiation: one context for each abstract syntax proposed that this node serves.

    Storage contexts take both roles, so that one association serves C-STORE and C-GET (PS3.7 D.3.3.4).
    """
    offered: dict[str, set[str]] = {}
    for context in proposed:
        offered.setdefault(str(context.abstract_syntax), set()).update(context.transfer_syntax)
    contexts = []
    for abstract_syntax, syntaxes in offered.items():
        if abstract_syntax in SERVICES:
            contexts.append(_context(abstract_syntax, _SERVICE_SYNTAXES))
        elif is_storage(abstract_syntax):
            common = [syntax for syntax in TRANSFER_SYNTAXES if syntax in syntaxes]
            context = _context(abstract_syntax, common or TRANSFER_SYNTAXES[:1])
            context.scu_role = context.scp_role = True
            contexts.append(context)
    return contexts


def wanted(transfer_syntax: str) -> tuple[str, ...]:
    """Transfer syntaxes an object may be sent in, best first: as stored, then native forms if it can be decoded."""
    if transfer_syntax in DECODERS:
        return tuple(dict.fromkeys((transfer_syntax, EXPLICIT_LE, IMPLICIT_LE)))
    return (transfer_syntax,)


def proposals(items: Sequence[Item]) -> list[tuple[list[PresentationContext], list[Item]]]:
    """Contexts to propose to a move destination, with the items they are for; no association needs more than 128.

    One context for each SOP class and transfer syntax: the destination answers for each alone.
    """
    groups: list[tuple[list[PresentationContext], list[Item]]] = []
    by_class: dict[str, list[Item]] = {}
    for item in items:
        by_class.setdefault(item.sop_class, []).append(item)
    for sop_class, members in by_class.items():
        syntaxes = dict.fromkeys(syntax for item in members for syntax in wanted(item.transfer_syntax))
        contexts = [_context(sop_class, (syntax,)) for syntax in syntaxes]
        if not groups or len(groups[-1][0]) + len(contexts) > MOST_PROPOSED:
            groups.append(([], []))
        groups[-1][0].extend(contexts)
        groups[-1][1].extend(members)
    for contexts, _ in groups:
        for index, context in enumerate(contexts):
            context.context_id = 2 * index + 1
    return groups


def _context(abstract_syntax: str, syntaxes: Sequence[str]) -> PresentationContext:
    return build_context(UID(abstract_syntax), [UID(syntax) for syntax in syntaxes])
