"""What readers go by: a study's standing, and what a node may ask for. Only LogRelease decides."""

from collections.abc import Iterator

from orthanc_ledger.ledger.contract.call import Question, Value
from orthanc_ledger.ledger.contract.custody import superseded
from orthanc_ledger.ledger.contract.datasets import is_proven
from orthanc_ledger.ledger.contract.paging import page
from orthanc_ledger.ledger.contract.requests import fallen, named_studies, requests_of_node, state_at
from orthanc_ledger.ledger.contract.standing import erasure_of, standing
from orthanc_ledger.ledger.contract.tampering import flags
from orthanc_ledger.ledger.contract.withdrawal import withdrawn
from orthanc_ledger.reasons import Reason


def standing_of(question: Question) -> Value:
    """What a gate must leave out of a release at this version."""
    records, study = question.records, question.args["study"]
    flagged, resolved = flags(records, study)
    return {
        "version": standing(records, study),
        "superseded": superseded(records, study),
        "flagged": flagged,
        "resolved": resolved,
        "withdrawn": withdrawn(records, study),
        "erased": erasure_of(records, study),
    }


def check_access(question: Question) -> Value:
    """What LogRelease would most likely say: {permitted, reason, request, until}."""
    answer = {"permitted": False, "reason": Reason.NO_APPROVAL.value, "request": None, "until": None}
    erasure = erasure_of(question.records, question.args["study"])
    for request in requests_of_node(question.records, question.args["node"]):
        if not _covers(question, request) or fallen(question.policy, question.records, request):
            continue
        state = state_at(request, question.time)
        if state == "approved" and erasure != "none":
            return {**answer, "reason": Reason.WITHDRAWN.value}
        if state == "approved":
            return {"permitted": True, "reason": None, "request": request["id"], "until": request["until"]}
        if state == "expired":
            answer["reason"] = Reason.APPROVAL_EXPIRED.value
    return answer


def approved_studies(question: Question) -> Value:
    """What a node may ask for now, request by request."""
    return page(_approved(question), question.args)


def _approved(question: Question) -> Iterator[Value]:
    shown = ("sopClasses", "release", "until", "future", "coveredUntil")
    for request in requests_of_node(question.records, question.args["node"]):
        running = state_at(request, question.time) == "approved"
        if running and not fallen(question.policy, question.records, request):
            subject = {"request": request["id"], "studies": _studies(question, request), "dataset": _dataset(request)}
            yield {**subject, **{name: request[name] for name in shown}}


def _studies(question: Question, request: Value) -> list[bytes] | None:
    if "dataset" in request:
        return None
    return [study for study in named_studies(request) if erasure_of(question.records, study) == "none"]


def _dataset(request: Value) -> Value:
    return {"id": request["dataset"], "version": request["version"]} if "dataset" in request else None


def _covers(question: Question, request: Value) -> bool:
    study, proof = question.args["study"], question.args.get("proof")
    if "dataset" in request:
        return proof is not None and is_proven(question.records, request, study, proof)
    return study in named_studies(request)
