"""What errors of the Gateway mean: statuses as peers of Fabric 3.1.1 gave them, and what is raised for each."""

from collections.abc import Sequence

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2
from google.rpc import status_pb2

from orthanc_ledger.errors import ContractError, LedgerAway
from orthanc_ledger.ledger.fabric.faults import NeverOrdered, OwnPeerAway, fault_of

OWN, OTHER = "HospitalMSP", "CustodianMSP"
PEER, SECOND, CUSTODIANS = "127.0.0.1:7051", "127.0.0.1:7061", "127.0.0.1:8051"
REMOTE = "rpc error: code = Unknown desc = "
ENDORSE_FAILED = "failed to endorse transaction, see attached details for more info"
COLLECT_FAILED = "failed to collect enough transaction endorsements, see attached details for more info"
LATE = (
    "request unauthorized due to incorrect timestamp 2026-11-21T22:57:52Z, peer time 2026-11-22T00:04:32Z, "
    "peer.authentication.timewindow 5m0s"
)
MALFORMED = "error validating proposal: access denied: channel [custody] creator org unknown, creator is malformed"
NO_CHAINCODE = (
    "error in simulation: failed to execute transaction 010b8e: could not launch chaincode custody_hospital:bbe1d3: "
    'connection refused"'
)

Detail = tuple[str, str, str]


class Status(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # as grpc's own, which has more
    """A failed call as grpc raises it."""

    def __init__(self, code: str, text: str, details: Sequence[Detail]) -> None:
        self._code, self._text = grpc.StatusCode[code], text
        status = status_pb2.Status(code=self._code.value[0], message=text)
        for address, msp_id, message in details:
            status.details.add().Pack(gateway_pb2.ErrorDetail(address=address, msp_id=msp_id, message=message))
        self._metadata = (("grpc-status-details-bin", status.SerializeToString()),) if details else None

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> "tuple[tuple[str, bytes], ...] | None":
        return self._metadata


def raised(code: str, text: str, *details: Detail) -> ContractError | LedgerAway:
    return fault_of("Endorse", OWN, PEER, Status(code, text, details))


def refused(text: str) -> str:
    return f"chaincode response 500, {text}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("WRONG_STATE erased", ("WRONG_STATE", "erased", "")),
        ("CONFLICT count: this manifest is anchored", ("CONFLICT", "count", "this manifest is anchored")),
        ("INVALID no such name: unknown: argument", ("INVALID", "no such name", "unknown: argument")),
        ("SKEW time: 1 is more\nthan", ("SKEW", "time", "1 is more\nthan")),
    ],
)
def test_a_refusal_of_the_chaincode_has_the_contracts_code_and_field(text: str, parts: tuple[str, ...]) -> None:
    endorsing = raised("ABORTED", ENDORSE_FAILED, (PEER, OWN, refused(text)), (SECOND, OWN, refused(text)))
    asking = raised("UNKNOWN", f"evaluate call to endorser returned error: {refused(text)}", (PEER, OWN, refused(text)))
    for error in (endorsing, asking):
        assert isinstance(error, ContractError)
        assert (error.code, error.field, error.detail) == parts


def test_a_refusal_that_peers_of_one_house_tell_differently_is_asked_again() -> None:
    told = ((PEER, OWN, refused("NOT_FOUND id")), (SECOND, OWN, refused("WRONG_STATE denied")))
    assert isinstance(raised("ABORTED", ENDORSE_FAILED, *told), LedgerAway)


def test_a_refusal_by_others_only_is_asked_again() -> None:
    error = raised("ABORTED", COLLECT_FAILED, (CUSTODIANS, OTHER, refused("SKEW time: 70 s")))
    assert isinstance(error, LedgerAway)
    assert "SKEW time: 70 s" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "field"),
    [
        (("ABORTED", ENDORSE_FAILED, (PEER, OWN, LATE), (SECOND, OWN, REMOTE + LATE)), "SKEW", "time"),
        (("UNAVAILABLE", "failed to evaluate transaction", (PEER, OWN, LATE)), "SKEW", "time"),
        (
            ("ABORTED", ENDORSE_FAILED, (PEER, OWN, "proposal client identity expired")),
            "NOT_PERMITTED",
            "certificate",
        ),
        (("FAILED_PRECONDITION", "evaluate call", (PEER, OWN, MALFORMED)), "NOT_PERMITTED", "certificate"),
        (("ABORTED", COLLECT_FAILED, (CUSTODIANS, OTHER, REMOTE + MALFORMED)), "NOT_PERMITTED", "certificate"),
        (("PERMISSION_DENIED", "failed evaluating policy"), "NOT_PERMITTED", "certificate"),
        (
            ("ABORTED", "received unsuccessful response from orderer: status=FORBIDDEN, info=implicit policy"),
            "NOT_PERMITTED",
            "certificate",
        ),
    ],
)
def test_certificate_and_clock_are_refused_as_the_contract_would(
    status: tuple[str, str], code: str, field: str
) -> None:
    error = raised(*status)
    assert isinstance(error, ContractError)
    assert (error.code, error.field) == (code, field)
    assert error.detail.startswith("Endorse: ")


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (("ABORTED", ENDORSE_FAILED, (PEER, OWN, NO_CHAINCODE)), "could not launch chaincode"),
        (("ABORTED", COLLECT_FAILED, (CUSTODIANS, OTHER, "ProposalResponsePayloads do not match")), "do not match"),
        (("ABORTED", ENDORSE_FAILED, (PEER, OWN, refused("FAILED sequence 7 is taken"))), "FAILED sequence"),
        (("UNAVAILABLE", "no orderers could", ("127.0.0.1:7050", "HospitalOrdererMSP", "refused")), "HospitalOrderer"),
    ],
)
def test_what_others_could_not_do_is_away_in_their_words(status: tuple[str, str], told: str) -> None:
    error = raised(*status)
    assert type(error) is LedgerAway
    assert told in str(error)


@pytest.mark.parametrize(
    "status",
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        ("DEADLINE_EXCEEDED", "endorsement timeout expired while collecting endorsements"),
        ("FAILED_PRECONDITION", "no combination of peers can be derived which satisfy the endorsement policy"),
        ("RESOURCE_EXHAUSTED", "too many requests for /gateway.Gateway, exceeding concurrency limit (500)"),
    ],
)
def test_what_the_own_peer_could_not_do_another_may(status: tuple[str, str]) -> None:
    error = raised(*status)
    assert isinstance(error, OwnPeerAway)
    assert str(error) == f"Endorse: {PEER} ({OWN}): {status[0]} {status[1]}"


def test_an_envelope_that_orderers_refuse_is_told_apart() -> None:
    error = raised("ABORTED", "received unsuccessful response from orderer: status=BAD_REQUEST, info=no such channel")
    assert isinstance(error, NeverOrdered)


def test_what_all_peers_of_a_house_say_is_told_once() -> None:
    error = raised("ABORTED", ENDORSE_FAILED, (PEER, OWN, "gone"), (SECOND, OWN, f"{REMOTE}gone"))
    assert str(error) == f"Endorse: {PEER} ({OWN}), {SECOND} ({OWN}): gone; {PEER} ({OWN}): ABORTED {ENDORSE_FAILED}"


def test_an_error_without_a_status_is_told_as_it_is() -> None:
    error = fault_of("Endorse", OWN, PEER, grpc.RpcError("channel closed"))
    assert isinstance(error, OwnPeerAway)
    assert "channel closed" in str(error)
