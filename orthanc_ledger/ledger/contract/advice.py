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
    """What LogRelease would most likely say: {permitted, reason, request, until} of the approval that runs longest."""
    records, time = question.records, question.time
    requests = [
        request
        for request in requests_of_node(records, question.args["node"])
        if _covers(question, request) and not fallen(question.policy, records, request)
    ]
    states = {state_at(request, time) for request in requests}
    if "approved" not in states:
        return _refused(Reason.APPROVAL_EXPIRED if "expired" in states else Reason.NO_APPROVAL)
    if erasure_of(records, question.args["study"]) != "none":
        return _refused(Reason.WITHDRAWN)
    running = (request for request in requests if state_at(request, time) == "approved")
    longest = max(running, key=lambda request: int(request["until"]))
    return {"permitted": True, "reason": None, "request": longest["id"], "until": longest["until"]}


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


def _refused(reason: Reason) -> Value:
    return {"permitted": False, "reason": reason.value, "request": None, "until": None}


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
