"""What the Gateway's errors mean, in the port's two kinds, with the peers' own words.

The contract has refused when an own peer says so. What only others' peers refuse is asked again, however long: one of
them is some blocks behind, or its clock is wrong, or its word is; nobody's queue is emptied by a neighbour's word.

A gRPC status of the Gateway carries a gateway.ErrorDetail for every peer or orderer that did not do its part. What a
chaincode refuses stands there as `chaincode response 500, CODE field: detail`. The other texts known here are the
peer's filters and checks before any chaincode (core/handlers/auth/filter, core/endorser of Fabric 2.5 and 3.1).
"""

import re
from dataclasses import dataclass

import grpc
from fabric_protos.gateway import gateway_pb2
from google.rpc import status_pb2

from orthanc_ledger.errors import ContractError, LedgerAway

_CODES = "NOT_FOUND|NOT_PERMITTED|WRONG_STATE|EXPIRED|CONFLICT|INVALID|SKEW"
_REFUSAL = re.compile(rf"chaincode response 500, ({_CODES}) ([^:]*)(?:: (.*))?", re.DOTALL)
_BAD_IDENTITY = re.compile(r"identity expired|access denied|identity is not valid|FORBIDDEN")
_BAD_TIME = re.compile(r"incorrect timestamp")
_NOT_ORDERED = re.compile(r"unsuccessful response from orderer: status=(\w+)")


class OwnPeerAway(LedgerAway):
    """The peer that was asked did not do its part; with what others said it would have told their words."""


class NeverOrdered(LedgerAway):
    """The ordering service will not take this envelope, however often it is sent."""


@dataclass(frozen=True)
class Word:
    """What one peer or orderer said."""

    speaker: str  # HOST:PORT
    msp_id: str
    text: str


def fault_of(step: str, own_msp_id: str, endpoint: str, error: grpc.RpcError) -> ContractError | LedgerAway:
    """What to raise for a failed request to an own peer at `endpoint`; whoever raises it adds `from error`."""
    code, text, details = _status(error)
    words = [*details, Word(endpoint, own_msp_id, f"{code} {text}")]
    message = f"{step}: {_told(words)}"
    refusals = [(word.msp_id, found) for word in words if (found := _REFUSAL.search(word.text))]
    if refusals:
        own = {found.group(1, 2): found for msp_id, found in refusals if msp_id == own_msp_id}
        if len(own) == 1:
            (found,) = own.values()
            return ContractError(*(part or "" for part in found.groups()))
        return LedgerAway(message)
    if _BAD_IDENTITY.search(message) or code == grpc.StatusCode.PERMISSION_DENIED.name:
        return ContractError("NOT_PERMITTED", "certificate", message)
    if _BAD_TIME.search(message):
        return ContractError("SKEW", "time", message)
    if _NOT_ORDERED.search(message) and code == grpc.StatusCode.ABORTED.name:
        return NeverOrdered(message)
    return LedgerAway(message) if details else OwnPeerAway(message)


def _told(words: list[Word]) -> str:
    """All words, each once: peers of one organisation often say the same."""
    speakers: dict[str, list[str]] = {}
    for word in words:
        text = word.text.removeprefix("rpc error: code = Unknown desc = ")
        speakers.setdefault(text, []).append(f"{word.speaker} ({word.msp_id})")
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in speakers.items())


def _status(error: grpc.RpcError) -> tuple[str, str, list[Word]]:
    """Code, text and details of a failed call."""
    if not isinstance(error, grpc.Call):
        return "UNKNOWN", str(error), []
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
    words = []
    for packed in status.details:
        detail = gateway_pb2.ErrorDetail()
        if packed.Unpack(detail):
            words.append(Word(detail.address, detail.msp_id, detail.message))
    return error.code().name, error.details() or "", words
