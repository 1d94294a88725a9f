"""Nodes: AE titles of an organisation, proposed by it and confirmed by the custodian, version by version."""

from collections.abc import Mapping

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Effect, Question, State, Transaction, Value
from orthanc_ledger.ledger.contract.codes import NODE_ROLES
from orthanc_ledger.ledger.contract.paging import page

_NEW = {"versions": 0, "proposed": None, "confirmed": None, "revocations": 0}


def register_node(tx: Transaction) -> Effect:
    args = tx.args
    if args["role"] not in NODE_ROLES[tx.role]:
        raise ContractError("NOT_PERMITTED", "role", f"{tx.role} registers {', '.join(NODE_ROLES[tx.role])} nodes")
    node = {"organisation": tx.caller.organisation, "aeTitle": args["aeTitle"]}
    head = tx.state.get(_key("node", node)) or {**_NEW, "node": node}
    content = {"role": args["role"], "certDigests": args["certDigests"]}
    latest = head["proposed"] or head["confirmed"]
    if latest is not None:
        key = _key("nodeVersion", node, latest)
        first = tx.record(key, "aeTitle")
        if all(first[name] == value for name, value in content.items()):
            return Effect({"node": node, "version": latest}, repeats=key)
    version = head["versions"] + 1
    changes = {
        _key("node", node): {**head, "versions": version, "proposed": version},
        _key("nodeVersion", node, version): {**content, **tx.stamp},
    }
    return Effect({"node": node, "version": version}, changes)


def confirm_node(tx: Transaction) -> Effect:
    node, version = tx.args["node"], tx.args["version"]
    head = tx.record(_key("node", node), "node")
    key = _key("nodeConfirmation", node, version)
    if tx.state.get(key) is not None:
        return Effect(None, repeats=key)
    if head["proposed"] != version:
        raise ContractError("WRONG_STATE", "version", f"the proposed version is {head['proposed']}")
    changes = {
        _key("node", node): {**head, "proposed": None, "confirmed": version},
        key: tx.stamp,
    }
    return Effect(None, changes)


def revoke_node(tx: Transaction) -> Effect:
    node = tx.args["node"]
    if tx.role != "custodian" and tx.caller.organisation != node["organisation"]:
        raise ContractError("NOT_PERMITTED", "node", "only its own organisation and the custodian revoke a node")
    head = tx.record(_key("node", node), "node")
    if head["confirmed"] is None and head["proposed"] is None:
        return Effect(None, repeats=_key("nodeRevocation", node, head["revocations"]))
    revocations = head["revocations"] + 1
    changes = {
        _key("node", node): {**head, "proposed": None, "confirmed": None, "revocations": revocations},
        _key("nodeRevocation", node, revocations): tx.stamp,
    }
    return Effect(None, changes)


def nodes(question: Question) -> Value:
    return page((_shown(question.records, head) for _, head in question.records.scan("node/")), question.args)


def node_head(state: State, node: Value) -> Value | None:
    """{versions, proposed, confirmed, revocations} of a registered node: version numbers from 1, or None."""
    return state.get(_key("node", node))


def node_stands(policy: Mapping[str, Value], state: State, request: Value) -> bool:
    """Whether the node a request is for may still have what is approved on it.

    A node that is confirmed anew after a revocation does not get its old approvals back.
    """
    head = node_head(state, request["node"])
    if head is None or request["node"]["organisation"] not in policy["organisations"]:
        return False
    return head["confirmed"] is not None and head["revocations"] == request["revocations"]


def node_path(node: Value) -> str:
    """A node in a key. An AE title may hold a slash: it goes in as hex."""
    return f"{node['organisation']}/{node['aeTitle'].encode().hex()}"


def _key(kind: str, node: Value, number: int | None = None) -> str:
    return f"{kind}/{node_path(node)}" + ("" if number is None else f"/{number}")


def _shown(state: State, head: Value) -> Value:
    shown = {"node": head["node"], "state": "revoked"}
    for standing in ("proposed", "confirmed"):
        version = head[standing]
        content = None if version is None else state.get(_key("nodeVersion", head["node"], version))
        shown[standing] = content and {
            "version": version,
            "role": content["role"],
            "certDigests": content["certDigests"],
        }
        if content is not None:
            shown["state"] = standing
    return shown
