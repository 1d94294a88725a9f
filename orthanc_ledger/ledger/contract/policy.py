"""The channel's policy: who is what, and what a release needs. It changes when owner and custodian agree."""

import hashlib
from collections.abc import Mapping

import dag_cbor

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.arguments import (
    MAX_DAYS,
    arguments,
    boolean,
    check_arguments,
    code,
    integer,
    msp_id,
    optional,
    unique,
)
from orthanc_ledger.ledger.contract.call import Effect, Question, State, Transaction, Value
from orthanc_ledger.ledger.contract.codes import ORIGINS, RELEASE_FORMS, ROLES

KEY = "policy"
PROPOSALS = "policyProposal/"
MAX_ORGANISATIONS = 256
MAX_CERTIFICATE_BYTES = 4096

_APPROVERS = unique(code(("owner", "custodian")), 1, 2)
_DAY_S = 86_400
_VERSION = "policyVersion"


def _organisations(value: Value) -> bool:
    """Exactly one owner and one custodian; any number of research organisations."""
    if type(value) is not dict or not 2 <= len(value) <= MAX_ORGANISATIONS:
        return False
    roles = list(value.values())
    known = all(msp_id(name) for name in value) and all(code(ROLES)(role) for role in roles)
    return known and roles.count("owner") == 1 and roles.count("custodian") == 1


def _certificates(value: Value) -> bool:
    """MSP ID to CA certificate. Whether it is one is for the host to say, which goes by it: here only its form."""
    if type(value) is not dict or len(value) > MAX_ORGANISATIONS or not all(msp_id(name) for name in value):
        return False
    return all(type(der) is bytes and 1 <= len(der) <= MAX_CERTIFICATE_BYTES for der in value.values())


POLICY = arguments(
    organisations=_organisations,
    approvals=_APPROVERS,
    identified_needs=_APPROVERS,
    release_forms=unique(code(RELEASE_FORMS), 1, len(RELEASE_FORMS)),
    max_days=integer(1, MAX_DAYS),
    lease_s=integer(1, 60),  # objects may start to leave until a lease ends: 60 s is the promise
    require_stored=boolean,
    erase_grace_s=integer(0, 365 * _DAY_S),
    max_clock_skew_s=integer(0, _DAY_S),
    excluded_origins=unique(code(ORIGINS), 0, len(ORIGINS)),
    certificates=optional(_certificates),
)


def default_policy(organisations: Mapping[str, str]) -> dict[str, Value]:
    """A policy for these organisations (MSP ID to role), with the defaults of docs/contract.md."""
    return {
        "organisations": dict(organisations),
        "approvals": ["custodian"],
        "identified_needs": ["owner", "custodian"],
        "release_forms": ["identified"],
        "max_days": 365,
        "lease_s": 60,
        "require_stored": False,
        "erase_grace_s": 7 * _DAY_S,
        "max_clock_skew_s": 0,
        "excluded_origins": ["rest-user", "stow"],
    }


def policy_digest(policy: Mapping[str, Value]) -> bytes:
    """SHA-256 of the policy's dag-cbor. Raises ContractError INVALID with the name of the field that is wrong."""
    check_arguments(POLICY, policy)
    return hashlib.sha256(dag_cbor.encode(dict(policy))).digest()


def needed_roles(policy: Mapping[str, Value], release: str) -> list[str]:
    """The roles that must all approve a release of this form."""
    needs: list[str] = policy["identified_needs" if release == "identified" else "approvals"]
    return needs


def init_policy(tx: Transaction) -> Effect:
    if policy_digest(tx.args["policy"]) != tx.call.policy_sha256:
        raise ContractError("INVALID", "policy", "not the policy whose SHA-256 this ledger was started with")
    if tx.state.get(KEY) is not None:  # the digest fits: it can only be the same one
        return Effect(None, repeats=KEY)
    return Effect(None, {KEY: dict(tx.args["policy"])})


def propose_policy(tx: Transaction) -> Effect:
    """A proposal on the policy in force; the other party confirms it, or another one and this is void."""
    policy = dict(tx.args["policy"])
    policy_digest(policy)
    key = proposal_key(tx.id)
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    if _hospital(policy) != _hospital(tx.policy):
        raise ContractError("INVALID", "organisations", "owner and custodian are fixed with the channel")
    record = {"policy": policy, "basis": _version(tx.state), "state": "pending", **tx.stamp}
    return Effect({"id": tx.id}, {key: record})


def confirm_policy(tx: Transaction) -> Effect:
    key = proposal_key(tx.args["id"])
    proposal = tx.record(key, "id")
    if proposal["by"]["organisation"] == tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "id", "its own proposal: the other party confirms")
    confirmation = f"policyConfirmation/{tx.args['id'].hex()}"
    first = tx.state.get(confirmation)
    if first is not None:
        return Effect({"version": first["version"]}, repeats=confirmation)
    if (state := proposal_state(tx.state, proposal)) != "pending":
        raise ContractError("WRONG_STATE", state, "propose it anew on the policy in force")
    version = _version(tx.state) + 1
    changes = {
        confirmation: {"version": version, **tx.stamp},
        key: {**proposal, "state": "confirmed"},
        KEY: proposal["policy"],
        _VERSION: version,
    }
    return Effect({"version": version}, changes)


def proposal_state(state: State, proposal: Value) -> str:
    """`pending`, `confirmed`, `cancelled`, or `void`: made on a policy that is in force no more."""
    void = proposal["state"] == "pending" and proposal["basis"] != _version(state)
    return "void" if void else str(proposal["state"])


def proposal_key(proposal: bytes) -> str:
    return PROPOSALS + proposal.hex()


def get_policy(question: Question) -> Value:
    return question.policy


def _hospital(policy: Mapping[str, Value]) -> dict[str, str]:
    """Owner and custodian organisation; all others are research."""
    return {name: role for name, role in policy["organisations"].items() if role != "research"}


def _version(state: State) -> int:
    """How many policies were confirmed after the first."""
    version: int = state.get(_VERSION) or 0
    return version
