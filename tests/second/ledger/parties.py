"""Who takes part: policies, nodes, datasets, certificates, and the word of either party against its proposal."""

from tests.second.ledger.cbor import Value
from tests.second.ledger.forms import wrong_field
from tests.second.ledger.turn import Turn, key, node_key, version_key


def init_policy(t: Turn) -> Value:
    t.again("policy", None)
    t.put("policy", t["policy"])


def propose_policy(t: Turn) -> Value:
    where = key("policyProposal", t.id)
    t.again(where, {"id": t.id})
    wrong = wrong_field(t["policy"])
    t.refuse(wrong is not None, "INVALID", wrong)
    then = t["policy"]["organisations"]
    for organisation, role in t.policy["organisations"].items():
        stays = then.get(organisation, "gone") == role or (role == "research" and organisation not in then)
        t.refuse(not stays, "INVALID", "organisations")
    t.put(where, {"policy": t["policy"], "basis": _confirmed(t), "state": "pending"} | t.stamp)
    return {"id": t.id}


def _confirmed(t: Turn) -> int:
    return t.state.get("policyVersion", 0)


def _proposal_state(t: Turn, proposal: dict[str, Value]) -> str:
    void = proposal["state"] == "pending" and proposal["basis"] != _confirmed(t)
    return "void" if void else proposal["state"]


def confirm_policy(t: Turn) -> Value:
    old = t.need("id", "policyProposal", t["id"])
    t.refuse(old["by"]["organisation"] == t.call.organisation, "NOT_PERMITTED", "id")
    where = key("policyConfirmation", t["id"])
    t.again(where, {"version": t.state.get(where, {}).get("version")})
    t.state_is_not(_proposal_state(t, old), "cancelled", "void")
    version = _confirmed(t) + 1
    t.put(where, {"version": version} | t.stamp)
    t.put(key("policyProposal", t["id"]), old | {"state": "confirmed"})
    t.put("policyVersion", version)
    t.put("policy", old["policy"])
    return {"version": version}


def cancel(t: Turn) -> Value:
    if proposal := t.get("policyProposal", t["id"]):
        where, old, state = key("policyProposal", t["id"]), proposal, _proposal_state(t, proposal)
    else:
        where, old = key("supersede", t["id"]), t.need("id", "supersede", t["id"])
        state = old["state"]
        t.about(old["study"])
    cancellation = key("cancellation", t["id"])
    own = t.state.get(cancellation, t.stamp)["by"]["organisation"] == t.call.organisation
    t.again(cancellation, None, own)
    t.state_is_not(state, "confirmed", "cancelled", "void")
    t.put(cancellation, t.stamp)
    t.put(where, old | {"state": "cancelled"})


def register_node(t: Turn) -> Value:
    t.refuse((t["role"] == "research") != (t.role == "research"), "NOT_PERMITTED", "role")
    node = {"organisation": t.call.organisation, "aeTitle": t["aeTitle"]}
    none = {"node": node, "versions": 0, "proposed": None, "confirmed": None, "revocations": 0}
    old = t.state.get(node_key("node", node), none)
    if standing := old["proposed"] or old["confirmed"]:
        where = node_key("nodeVersion", node, str(standing))
        same = all(t.state[where][part] == t[part] for part in ("role", "certDigests"))
        t.again(where, {"node": node, "version": standing}, same)
    version = old["versions"] + 1
    entry = {"role": t["role"], "certDigests": t["certDigests"]}
    t.put(node_key("nodeVersion", node, str(version)), entry | t.stamp)
    t.put(node_key("node", node), old | {"versions": version, "proposed": version})
    return {"node": node, "version": version}


def confirm_node(t: Turn) -> Value:
    where = node_key("node", t["node"])
    old = t.need("node", where)
    confirmation = node_key("nodeConfirmation", t["node"], str(t["version"]))
    t.again(confirmation, None)
    t.refuse(old["proposed"] != t["version"], "WRONG_STATE", "version")
    t.put(confirmation, t.stamp)
    t.put(where, old | {"proposed": None, "confirmed": t["version"]})


def revoke_node(t: Turn) -> Value:
    may = t.role == "custodian" or t["node"]["organisation"] == t.call.organisation
    t.refuse(not may, "NOT_PERMITTED", "node")
    where = node_key("node", t["node"])
    old = t.need("node", where)
    revocation = node_key("nodeRevocation", t["node"], str(old["revocations"]))
    t.again(revocation, None, old["proposed"] is None and old["confirmed"] is None)
    times = old["revocations"] + 1
    t.put(node_key("nodeRevocation", t["node"], str(times)), t.stamp)
    t.put(where, old | {"proposed": None, "confirmed": None, "revocations": times})


def register_dataset(t: Turn) -> Value:
    first = t.state.get(version_key("dataset", t["id"], 1), {"by": t.by})
    t.refuse(first["by"]["organisation"] != t.call.organisation, "NOT_PERMITTED", "id")
    where = version_key("dataset", t["id"], t["version"])
    if old := t.state.get(where):
        t.refuse(differing := t.differing(old), "CONFLICT", differing)
        t.again(where, None)
    gap = t["version"] > 1 and version_key("dataset", t["id"], t["version"] - 1) not in t.state
    t.refuse(gap, "INVALID", "version")
    return t.note(where)


def withdraw_dataset(t: Turn) -> Value:
    t.need("id", version_key("dataset", t["id"], t["version"]))
    where = version_key("datasetWithdrawal", t["id"], t["version"])
    t.again(where, None)
    t.put(where, t.stamp)


def revoke_certificate(t: Turn) -> Value:
    where = key("revokedCertificate", t.call.organisation, t["serial"])
    t.again(where, None)
    t.put(where, t.stamp)


RULES = {
    "InitPolicy": init_policy,
    "ProposePolicy": propose_policy,
    "ConfirmPolicy": confirm_policy,
    "Cancel": cancel,
    "RegisterNode": register_node,
    "ConfirmNode": confirm_node,
    "RevokeNode": revoke_node,
    "RegisterDataset": register_dataset,
    "WithdrawDataset": withdraw_dataset,
    "RevokeCertificate": revoke_certificate,
}
