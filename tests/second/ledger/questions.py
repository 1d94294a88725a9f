"""The queries of the page, over a whole state."""

from collections.abc import Iterator
from typing import Any

from tests.second.ledger.access import names
from tests.second.ledger.cbor import Value
from tests.second.ledger.forms import QUERIES
from tests.second.ledger.ledger import Ledger
from tests.second.ledger.turn import Call, Refused, Turn, key, node_key, version_key

Record = dict[str, Any]


def ask(ledger: Ledger, query: str, args: Record, time: int) -> Value:
    """The answer at a time. Raises Refused."""
    if query not in QUERIES:
        raise Refused("INVALID", "function")
    if wrong := QUERIES[query].wrong(args):
        raise Refused("INVALID", wrong)
    if "policy" not in ledger.state:
        raise Refused("WRONG_STATE", "policy")
    answer = ANSWERS[query](Asked(ledger, args, time))
    if not isinstance(answer, list):
        return answer
    if "after" in args:
        answer = [row for row in answer if row[NAMED_BY[query]] > args["after"]]
    return answer[args.get("offset", 0) :][: args.get("limit", 50)]


class Asked(Turn):
    """A query's arguments, the ledger and the time."""

    def __init__(self, ledger: Ledger, args: Record, time: int) -> None:
        call = Call("", args, b"", "", "", "", time, time, 0)
        super().__init__(ledger.state, call, ledger.state["policy"])
        self.ledger, self.time = ledger, time

    def under(self, *parts: str | bytes) -> Iterator[tuple[list[str], Value]]:
        """(the rest of the key, record) of all keys below, ascending."""
        start = key(*parts) + "/"
        for where in sorted(self.state):
            if where.startswith(start):
                yield where.removeprefix(start).split("/"), self.state[where]

    def shown(self, request: Record) -> str:
        """The request's state at this time."""
        over = request["state"] == "approved" and request["until"] <= self.time
        return "expired" if over else request["state"]


def anchor_of(q: Asked, cid: str) -> Record:
    return q.state[key("anchor", cid)] | {"stored": key("stored", cid) in q.state}


def get_anchor(q: Asked) -> Record:
    q.need("manifestCid", "anchor", q["manifestCid"])
    return anchor_of(q, q["manifestCid"])


def anchors(q: Asked) -> list[Record]:
    return [anchor_of(q, cid) for (cid,), _ in q.under("anchor")]


def anchors_of_study(q: Asked) -> list[Record]:
    return [anchor_of(q, cid) for _, cid in q.under("studyAnchor", q["study"])]


def standing_of(q: Asked) -> Record:
    study = q["study"]
    flags = [(rest, flag) for rest, flag in q.under("flag", study)]
    settled = {tuple(rest): record for rest, record in q.under("resolved", study)}

    def flagged(rest: list[str], cid: str) -> Record:
        return {"instance": bytes.fromhex(rest[0]), "manifestCid": cid, "n": int(rest[1])}

    withdrawals = [(rest[0], q.state[key("withdrawal", rest[0])]) for rest, _ in q.under("studyWithdrawal", study)]
    return {
        "version": q.standing(study),
        "superseded": [
            {"instance": bytes.fromhex(rest[0]), "newManifest": record["newManifest"]}
            for rest, record in q.under("superseded", study)
        ],
        "flagged": [flagged(rest, flag["manifestCid"]) for rest, flag in flags if tuple(rest) not in settled],
        "resolved": [flagged(list(rest), record["manifestCid"]) for rest, record in settled.items()],
        "withdrawn": [
            {"id": bytes.fromhex(number), "instances": record.get("instances")}
            for number, record in withdrawals
            if record["state"] == "withdrawn"
        ],
        "erased": q.erasure(study),
    }


def whole_request(q: Asked, request: Record) -> Record:
    needed = q.policy["identified_needs" if request["release"] == "identified" else "approvals"]
    given = {role: record for (role,), record in q.under("approval", request["id"])}
    approvals = {
        role: {"until": record["until"], "by": record["by"], "time": record["time"]} for role, record in given.items()
    }
    return request | {"state": q.shown(request), "needs": needed, "approvals": approvals}


def get_request(q: Asked) -> Record:
    return whole_request(q, q.need("id", "request", q["id"]))


def requests_by_state(q: Asked) -> list[Record]:
    every = [whole_request(q, request) for _, request in q.under("request")]
    return [request for request in every if q["state"] in (None, request["state"])]


def requests_of_node(q: Asked) -> list[Record]:
    return [q.state[key("request", number)] for (number,), _ in q.under(node_key("nodeRequest", q["node"]))]


def running(q: Asked, request: Record) -> bool:
    """Whether an approval gives anything at this time."""
    return q.shown(request) == "approved" and q.stands(request) and not q.withdrawn(request)


def check_access(q: Asked) -> Record:
    study = q["study"]
    asked = [request for request in requests_of_node(q) if names(q.state, request, study, q["proof"])]
    given = [request for request in asked if running(q, request)]
    if given and q.erasure(study) == "none":
        longest = min(given, key=lambda request: (-request["until"], request["id"]))
        return {"permitted": True, "reason": None, "request": longest["id"], "until": longest["until"]}
    over = any(q.shown(request) == "expired" for request in asked)
    reason = "withdrawn" if given else "approval expired" if over else "no approval"
    return {"permitted": False, "reason": reason, "request": None, "until": None}


def approved_studies(q: Asked) -> list[Record]:
    answer = []
    for request in requests_of_node(q):
        if running(q, request):
            named, dataset = request.get("studies"), request.get("dataset")
            shown = {part: request[part] for part in ("sopClasses", "release", "until", "future", "coveredUntil")}
            shown["request"] = request["id"]
            shown["studies"] = named and [study for study in named if q.erasure(study) == "none"]
            shown["dataset"] = dataset and {"id": dataset, "version": request["version"]}
            answer.append(shown)
    return answer


def audit(q: Asked) -> list[Record]:
    events = [event for _, event in q.under("event")]
    if q["study"] is not None:
        events = [q.state[key("event", digits)] for (digits,), _ in q.under("studyEvent", q["study"])]
    return [
        event
        for event in events
        if q["organisation"] in (None, event["by"]["organisation"])
        and (q["from"] or 0) <= event["time"]
        and (q["until"] is None or event["time"] < q["until"])
    ]


def history_of(q: Asked) -> list[Record]:
    return [
        {"sequence": sequence, "time": q.state[key("event", f"{sequence:020d}")]["time"], "value": value}
        for sequence, value in q.ledger.history.get(q["key"], [])
    ]


def nodes(q: Asked) -> list[Record]:
    return [whole_node(q, record) for _, record in q.under("node")]


def whole_node(q: Asked, record: Record) -> Record:
    def version(number: int | None) -> Record | None:
        if number is None:
            return None
        entry = q.state[node_key("nodeVersion", record["node"], str(number))]
        return {"version": number, "role": entry["role"], "certDigests": entry["certDigests"]}

    proposed, confirmed = version(record["proposed"]), version(record["confirmed"])
    state = "confirmed" if confirmed else "proposed" if proposed else "revoked"
    return {"node": record["node"], "state": state, "proposed": proposed, "confirmed": confirmed}


def datasets(q: Asked) -> list[Record]:
    return [
        record | {"state": "withdrawn" if version_key("datasetWithdrawal", *named) in q.state else "registered"}
        for record, named in ((record, (record["id"], record["version"])) for _, record in q.under("dataset"))
    ]


def pending(q: Asked) -> list[Record]:
    basis = q.state.get("policyVersion", 0)
    waiting = [
        {"kind": kind, "id": bytes.fromhex(number), "record": record}
        for kind, place in (("policy", "policyProposal"), ("supersession", "supersede"))
        for (number,), record in q.under(place)
        if record["state"] == "pending" and record.get("basis", basis) == basis
    ]
    erasures = [
        {"kind": "erasure", "study": bytes.fromhex(study), "record": record}
        for (study,), record in q.under("erasure")
        if record["state"] == "requested"
    ]
    return waiting + erasures


NAMED_BY = {"Anchors": "manifestCid", "AnchorsOfStudy": "number", "RequestsByState": "id", "Audit": "sequence"}

ANSWERS = {
    "CheckAccess": check_access,
    "ApprovedStudies": approved_studies,
    "GetAnchor": get_anchor,
    "Anchors": anchors,
    "AnchorsOfStudy": anchors_of_study,
    "StandingOf": standing_of,
    "GetRequest": get_request,
    "RequestsByState": requests_by_state,
    "Audit": audit,
    "HistoryOf": history_of,
    "Nodes": nodes,
    "Datasets": datasets,
    "Pending": pending,
    "GetPolicy": lambda q: q.policy,
}
