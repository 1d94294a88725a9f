"""What happens to scans: anchors, supersession, withdrawal, flags, erasure. Rules in the order of the page."""

from tests.second.ledger.cbor import Value
from tests.second.ledger.turn import Turn, key


def anchor(t: Turn) -> Value:
    where = key("anchor", t["manifestCid"])
    if old := t.state.get(where):
        t.refuse(differing := t.differing(old), "CONFLICT", differing)
        t.again(where, {"sequence": old["sequence"], "time": old["time"]})
    t.refuse((t["kind"] == "derived") != (t["from"] is not None), "INVALID", "from")
    t.refuse(t["kind"] != "derived" and t["profile"] is not None, "INVALID", "profile")
    t.state_is_not(t.erasure(t["study"]), "erased")
    result = {"sequence": t.call.sequence, "time": t.call.time}
    number = t.get("studyAnchors", t["study"]) or 0
    t.put(where, t.call.args | result | {"number": number, "datasetApprovals": t.get("datasetApprovals") or 0})
    t.put(key("studyAnchors", t["study"]), number + 1)
    t.put(key("studyAnchor", t["study"], f"{number:010d}"), t["manifestCid"])
    t.about(t["study"])
    return result


def confirm_stored(t: Turn) -> Value:
    found = t.need("manifestCid", "anchor", t["manifestCid"])
    where = key("stored", t["manifestCid"])
    t.again(where, None)
    t.put(where, t.by)
    t.about(found["study"])


def report_conflict(t: Turn) -> Value:
    where = key("conflict", t["study"], t.id)
    t.again(where, {"id": t.id})
    t.about(t["study"])
    return t.note(where, {"id": t.id})


def supersede(t: Turn) -> Value:
    where = key("supersede", t.id)
    t.again(where, {"id": t.id})
    for argument in ("oldManifest", "newManifest"):
        t.manifest(argument, t["study"], t[argument])
    t.refuse(t["newManifest"] == t["oldManifest"], "INVALID", "newManifest")
    t.state_is_not(t.erasure(t["study"]), "erased")
    _is_current(t, t.call.args)
    t.put(where, t.kept | {"state": "pending"})
    t.about(t["study"])
    return {"id": t.id}


def confirm_supersede(t: Turn) -> Value:
    old = t.need("id", "supersede", t["id"])
    confirmation = key("confirmedSupersede", t["id"])
    t.again(confirmation, {"version": t.state.get(confirmation, {}).get("version")})
    t.state_is_not(old["state"], "cancelled")
    t.state_is_not(t.erasure(old["study"]), "erased")
    _is_current(t, old)
    version = t.raised(old["study"])
    t.put(confirmation, {"version": version} | t.stamp)
    t.put(key("supersede", t["id"]), old | {"state": "confirmed"})
    current = {"newManifest": old["newManifest"], "supersede": t["id"]}
    t.put(key("superseded", old["study"], old["instance"]), current)
    t.about(old["study"])
    return {"version": version}


def _is_current(t: Turn, claim: dict[str, Value]) -> None:
    current = t.get("superseded", claim["study"], claim["instance"])
    stale = current is not None and current["newManifest"] != claim["oldManifest"]
    t.refuse(stale, "WRONG_STATE", "oldManifest")


def withdraw(t: Turn) -> Value:
    where = key("withdrawal", t.id)
    t.again(where, {"id": t.id, "version": t.state.get(where, {}).get("version")})
    t.state_is_not(t.erasure(t["study"]), "erased")
    version = t.raised(t["study"])
    t.put(where, t.kept | {"state": "withdrawn", "version": version})
    t.put(key("studyWithdrawal", t["study"], t.id), True)
    t.about(t["study"])
    return {"id": t.id, "version": version}


def reinstate(t: Turn) -> Value:
    old = t.need("id", "withdrawal", t["id"])
    where = key("reinstatement", t["id"], t.role)
    t.again(where, t.state.get(where, {}).get("result"))
    t.state_is_not(t.erasure(old["study"]), "erased")
    both = t.get("reinstatement", t["id"], _other(t.role)) is not None
    result = {"state": "reinstated" if both else "withdrawn"}
    t.put(where, {"result": result} | t.stamp)
    if both:
        t.put(key("withdrawal", t["id"]), old | {"state": "reinstated"})
        t.raised(old["study"])
    t.about(old["study"])
    return result


def _other(role: str) -> str:
    return {"owner": "custodian", "custodian": "owner"}[role]


def _flag(t: Turn, n: int) -> str:
    return key("flag", t["study"], t["instance"], f"{n:06d}")


def flag_tampered(t: Turn) -> Value:
    t.manifest("manifestCid", t["study"], t["manifestCid"])
    where = _flag(t, t["n"])
    if old := t.state.get(where):
        t.refuse(t.differing(old) is not None, "CONFLICT", "n")
        t.again(where, {"version": old["version"]})
    t.refuse(t["n"] > 0 and _flag(t, t["n"] - 1) not in t.state, "INVALID", "n")
    t.state_is_not(t.erasure(t["study"]), "erased")
    version = t.raised(t["study"])
    t.put(where, t.kept | {"version": version})
    t.about(t["study"])
    return {"version": version}


def resolve(t: Turn) -> Value:
    t.refuse(_flag(t, t["n"]) not in t.state, "NOT_FOUND", "n")
    words = ("resolution", t["study"], t["instance"], f"{t['n']:06d}", t["manifestCid"])
    mine, resolved = key(*words, t.role), key("resolved", *words[1:4])
    t.again(mine, t.state.get(mine, {}).get("result"))
    t.state_is_not(t.erasure(t["study"]), "erased")
    t.refuse(resolved in t.state, "WRONG_STATE", "resolved")
    t.manifest("manifestCid", t["study"], t["manifestCid"])
    current = t.get("superseded", t["study"], t["instance"]) or {}
    possible = (t.state[_flag(t, t["n"])]["manifestCid"], current.get("newManifest"))
    t.refuse(t["manifestCid"] not in possible, "INVALID", "manifestCid")
    both = t.get(*words, _other(t.role)) is not None
    result = {"state": "resolved" if both else "flagged"}
    t.put(mine, {"result": result} | t.stamp)
    if both:
        version = t.raised(t["study"])
        t.put(resolved, {"manifestCid": t["manifestCid"], "version": version, "time": t.call.time})
    t.about(t["study"])
    return result


def report_repair(t: Turn) -> Value:
    where = key("repair", t["study"], t.id)
    t.again(where, {"id": t.id})
    t.refuse(t["node"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "node")
    t.about(t["study"])
    return t.note(where, {"id": t.id})


NO_ERASURE = {"state": "none", "number": 0, "organisation": None, "time": None}


def _erasure(t: Turn) -> tuple[dict[str, Value], str, bool]:
    record = t.get("erasure", t["study"]) or NO_ERASURE
    t.about(t["study"])
    return record, f"{record['number']:06d}", record["organisation"] == t.call.organisation


def request_erase(t: Turn) -> Value:
    old, number, own = _erasure(t)
    where = key("erasureRequest", t["study"], number)
    standing = old["state"] in ("requested", "erased")
    t.again(where, {"version": t.state.get(where, {}).get("version")}, own and standing)
    t.state_is_not(old["state"], "requested", "erased")
    version, number = t.raised(t["study"]), old["number"] + 1
    asked = {"state": "requested", "number": number, "organisation": t.call.organisation, "time": t.call.time}
    t.put(key("erasureRequest", t["study"], f"{number:06d}"), {"version": version} | t.stamp)
    t.put(key("erasure", t["study"]), asked)
    return {"version": version}


def cancel_erase(t: Turn) -> Value:
    old, number, _ = _erasure(t)
    where = key("erasureCancel", t["study"], number)
    last = t.state.get(where, {"by": t.by, "version": None})
    own = last["by"]["organisation"] == t.call.organisation
    t.again(where, {"version": last["version"]}, own and old["state"] == "none")
    t.state_is_not(old["state"], "none", "erased")
    version = t.raised(t["study"])
    t.put(where, {"version": version} | t.stamp)
    t.put(key("erasure", t["study"]), old | {"state": "none"})
    return {"version": version}


def confirm_erase(t: Turn) -> Value:
    old, _, own = _erasure(t)
    t.state_is_not(old["state"], "none")
    t.refuse(own, "NOT_PERMITTED", "study")
    where = key("erasureConfirmation", t["study"])
    t.again(where, None)
    t.refuse(t.call.time < old["time"] + t.policy["erase_grace_s"], "WRONG_STATE", "grace")
    t.put(where, t.stamp)
    t.put(key("erasure", t["study"]), old | {"state": "erased"})


def erasure_done(t: Turn) -> Value:
    where = key("erasureDone", t["study"], t.call.organisation)
    t.again(where, None)
    t.state_is_not(t.erasure(t["study"]), "none", "requested")
    t.put(where, t.stamp)
    t.about(t["study"])


RULES = {
    "Anchor": anchor,
    "ConfirmStored": confirm_stored,
    "ReportConflict": report_conflict,
    "Supersede": supersede,
    "ConfirmSupersede": confirm_supersede,
    "Withdraw": withdraw,
    "Reinstate": reinstate,
    "FlagTampered": flag_tampered,
    "Resolve": resolve,
    "ReportRepair": report_repair,
    "RequestErase": request_erase,
    "CancelErase": cancel_erase,
    "ConfirmErase": confirm_erase,
    "ErasureDone": erasure_done,
}
