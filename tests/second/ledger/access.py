"""What research asks for and gets: requests, approvals, releases, reports, lineage."""

from hashlib import sha256

from tests.second import merkle
from tests.second.ledger.cbor import Value
from tests.second.ledger.turn import Turn, key, node_key, version_key

DAY = 86_400


def request_access(t: Turn) -> Value:
    where = key("request", t.id)
    t.again(where, {"id": t.id})
    named = {"studies", "dataset", "version"} & t.call.args.keys()
    t.refuse(named not in ({"studies"}, {"dataset", "version"}), "INVALID", "dataset")
    t.refuse(t["release"] not in t.policy["release_forms"], "INVALID", "release")
    t.refuse(t["days"] > t.policy["max_days"], "INVALID", "days")
    t.refuse(t["node"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "node")
    node = t.need("node", node_key("node", t["node"]))
    t.refuse(node["confirmed"] is None, "WRONG_STATE", "node")
    if "dataset" in named:
        t.need("dataset", version_key("dataset", t["dataset"], t["version"]))
        t.refuse(t.withdrawn(t.call.args), "WRONG_STATE", "dataset")
    opened = {"id": t.id, "revocations": node["revocations"], "state": "open", "until": None, "coveredUntil": None}
    t.put(where, t.kept | opened)
    t.put(node_key("nodeRequest", t["node"], t.id.hex()), True)
    t.about(*t["studies"] or [])
    return {"id": t.id}


def _request(t: Turn) -> dict[str, Value]:
    request = t.need("id", "request", t["id"])
    t.about(*request.get("studies", []))
    return request


def approve(t: Turn) -> Value:
    request = _request(t)
    needed = t.policy["identified_needs" if request["release"] == "identified" else "approvals"]
    t.refuse(t.role not in needed, "NOT_PERMITTED", "role")
    where = key("approval", t["id"], t.role)
    mine = t.state.get(where)
    if mine:
        t.again(where, mine["result"], (mine["until"], mine["release"]) == (t["until"], t["release"]))
    t.state_is_not(request["state"], "denied", "revoked", "approved")
    t.refuse(t["release"] != request["release"], "INVALID", "release")
    t.refuse(not t.stands(request), "WRONG_STATE", "node")
    t.refuse(t.withdrawn(request), "WRONG_STATE", "dataset")
    for study in request.get("studies", []):
        t.state_is_not(t.erasure(study), "erased")
    now = t.call.time
    t.refuse(t["until"] <= now, "EXPIRED", "until")
    days = min(request["days"], t.policy["max_days"])
    t.refuse(t["until"] > now + days * DAY, "INVALID", "until")
    t.refuse(mine is not None, "WRONG_STATE", "approved")
    others = [t.get("approval", t["id"], role) for role in needed if role != t.role]
    t.refuse(any(other and other["until"] <= now for other in others), "EXPIRED", "until")
    if all(others):
        until = min([t["until"], *(other["until"] for other in others)])
        covered = None
        if not request["future"] and "dataset" in request:
            covered = (t.get("datasetApprovals") or 0) + 1
            t.put("datasetApprovals", covered)
        elif not request["future"]:
            covered = {study.hex(): t.get("studyAnchors", study) or 0 for study in request["studies"]}
        request = request | {"state": "approved", "until": until, "coveredUntil": covered}
        t.put(key("request", t["id"]), request)
    result = {"id": t["id"], "state": request["state"], "until": request["until"]}
    t.put(where, {"until": t["until"], "release": t["release"], "result": result} | t.stamp)
    return result


def deny(t: Turn) -> Value:
    return _end(t, "denial", "denied", "open")


def revoke(t: Turn) -> Value:
    request = _request(t)
    foreign = t.role == "research" and request["by"]["organisation"] != t.call.organisation
    t.refuse(foreign, "NOT_PERMITTED", "id")
    return _end(t, "revocation", "revoked", "open", "approved")


def _end(t: Turn, kind: str, state: str, *possible: str) -> Value:
    request, where = _request(t), key(kind, t["id"])
    t.again(where, None, where in t.state and t.same(t.state[where]))
    t.refuse(request["state"] not in possible, "WRONG_STATE", request["state"])
    t.put(key("request", t["id"]), request | {"state": state})
    return t.note(where)


def log_release(t: Turn) -> Value:
    where = key("release", t.id)
    t.again(where, {"release": t.id, "leaseEnd": t.state.get(where, {}).get("leaseEnd")})
    request = t.need("request", "request", t["request"])
    until, now = request["until"], t.call.time
    t.refuse(until is not None and now >= until, "EXPIRED", "until")
    t.state_is_not(request["state"], "open", "denied", "revoked")
    t.refuse(t["node"] != request["node"], "NOT_PERMITTED", "node")
    t.refuse(not t.stands(request), "WRONG_STATE", "node")
    t.refuse(t.withdrawn(request), "WRONG_STATE", "dataset")
    t.refuse(("dataset" in request) != (t["proof"] is not None), "INVALID", "proof")
    t.refuse(not names(t.state, request, t["study"], t["proof"]), "NOT_PERMITTED", "study")
    t.state_is_not(t.erasure(t["study"]), "requested", "erased")
    t.refuse(t["standingVersion"] != t.standing(t["study"]), "WRONG_STATE", "standingVersion")
    for cid in t["anchors"]:
        anchor = t.manifest("anchors", t["study"], cid)
        t.refuse(not request["future"] and _is_later(anchor, request), "WRONG_STATE", "anchors")
        t.refuse(t.policy["require_stored"] and t.get("stored", cid) is None, "WRONG_STATE", "stored")
    if t["renews"] is not None:
        first = t.need("renews", "release", t["renews"])
        alike = all(first[argument] == t[argument] for argument in ("request", "study", "node"))
        own = first["by"]["organisation"] == t.call.organisation
        t.refuse(not (alike and own), "INVALID", "renews")
    lease_end = min(now + t.policy["lease_s"], until)
    t.put(where, t.kept | {"leaseEnd": lease_end})
    t.about(t["study"])
    return {"release": t.id, "leaseEnd": lease_end}


def _is_later(anchor: dict[str, Value], request: dict[str, Value]) -> bool:
    """Whether an anchor was made after the request's approval."""
    if "dataset" in request:
        return anchor["datasetApprovals"] >= request["coveredUntil"]
    return anchor["number"] >= request["coveredUntil"][anchor["study"].hex()]


def names(state: dict[str, Value], request: dict[str, Value], study: bytes, proof: Value) -> bool:
    """Whether a request names the study, or the proof leads from it to the root of the request's dataset."""
    if "studies" in request:
        return study in request["studies"]
    if proof is None:
        return False
    dataset = state[version_key("dataset", request["dataset"], request["version"])]
    leaf = merkle.leaf_hash(study)
    return _root(leaf, proof["index"], dataset["count"], proof["path"]) == dataset["root"]


def _root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """The root that an audit path leads to, by RFC 6962 2.1.1 read backwards; None when it has not that length."""
    if size == 1:
        return leaf if index == 0 and not path else None
    if not path:
        return None
    half = 1 << ((size - 1).bit_length() - 1)
    left = index < half
    below = _root(leaf, index if left else index - half, half if left else size - half, path[:-1])
    if below is None:
        return None
    return sha256(b"\x01" + (below + path[-1] if left else path[-1] + below)).digest()


def _release(t: Turn) -> dict[str, Value]:
    release = t.need("release", "release", t["release"])
    t.about(release["study"])
    return release


def log_outcome(t: Turn) -> Value:
    release, where = _release(t), key("outcome", t["release"])
    t.refuse(release["by"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "release")
    t.refuse(t["sent"] + t["withheld"] > release["count"], "INVALID", "sent")
    if old := t.state.get(where):
        t.refuse(t.differing(old) is not None, "WRONG_STATE", "outcome")
        t.again(where, None)
    return t.note(where)


def log_denials(t: Turn) -> Value:
    t.refuse(t["reportingNode"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "reportingNode")
    t.refuse((t["peer"] is None) == (t["unregistered"] is None), "INVALID", "peer")
    if t["peer"]:
        t.need("peer", node_key("node", t["peer"]))
    where = node_key("denials", t["reportingNode"], f"{t['seq']:020d}")
    if old := t.state.get(where):
        t.again(where, None, t.differing(old) is None)
    last = node_key("denialsSeq", t["reportingNode"])
    t.refuse(t["seq"] <= t.state.get(last, -1), "CONFLICT", "seq")
    t.put(last, t["seq"])
    return t.note(where)


def _of_own_request(t: Turn) -> None:
    request = t.state[key("request", _release(t)["request"])]
    t.refuse(request["by"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "release")


def log_retrieval(t: Turn) -> Value:
    _of_own_request(t)
    return _one_word(t, key("retrieval", t["release"]), "outcome")


def report_tamper(t: Turn) -> Value:
    _of_own_request(t)
    return _one_word(t, key("tamperReport", t["release"], t["instance"]), "observed")


def _one_word(t: Turn, where: str, word: str) -> Value:
    if old := t.state.get(where):
        t.refuse(old[word] != t[word], "CONFLICT", word)
        t.again(where, None)
    return t.note(where)


def register_training_run(t: Turn) -> Value:
    where = key("trainingRun", t.id)
    t.again(where, {"id": t.id})
    t.refuse((t["dataset"] is None) != (t["version"] is None), "INVALID", "dataset")
    if t["dataset"] is not None:
        t.need("dataset", version_key("dataset", t["dataset"], t["version"]))
    for number in t["releases"]:
        release = t.need("releases", "release", number)
        request = t.state[key("request", release["request"])]
        t.refuse(request["by"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "releases")
        elsewhere = (request.get("dataset"), request.get("version")) != (t["dataset"], t["version"])
        t.refuse(t["dataset"] is not None and elsewhere, "INVALID", "releases")
        t.about(release["study"])
    return t.note(where, {"id": t.id})


def register_model(t: Turn) -> Value:
    where = key("model", t.id)
    t.again(where, {"id": t.id})
    run = t.need("run", "trainingRun", t["run"])
    t.refuse(run["by"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "run")
    return t.note(where, {"id": t.id})


RULES = {
    "RequestAccess": request_access,
    "Approve": approve,
    "Deny": deny,
    "Revoke": revoke,
    "LogRelease": log_release,
    "LogOutcome": log_outcome,
    "LogDenials": log_denials,
    "LogRetrieval": log_retrieval,
    "ReportTamper": report_tamper,
    "RegisterTrainingRun": register_training_run,
    "RegisterModel": register_model,
}
