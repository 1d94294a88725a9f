"""The channel's policy: who is what, and what a release needs."""

import hashlib
from collections.abc import Mapping

import dag_cbor

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.arguments import (
    arguments,
    boolean,
    check_arguments,
    code,
    integer,
    msp_id,
    unique,
)
from orthanc_ledger.ledger.contract.call import Effect, Question, Transaction, Value
from orthanc_ledger.ledger.contract.codes import ORIGINS, RELEASE_FORMS, ROLES

KEY = "policy"
MAX_ORGANISATIONS = 256

_APPROVERS = unique(code(("owner", "custodian")), 1, 2)
_DAY_S = 86_400


def _organisations(value: Value) -> bool:
    """Exactly one owner and one custodian; any number of research organisations."""
    if type(value) is not dict or not 2 <= len(value) <= MAX_ORGANISATIONS:
        return False
    roles = list(value.values())
    known = all(msp_id(name) for name in value) and all(code(ROLES)(role) for role in roles)
    return known and roles.count("owner") == 1 and roles.count("custodian") == 1


_POLICY = arguments(
    organisations=_organisations,
    approvals=_APPROVERS,
    identified_needs=_APPROVERS,
    release_forms=unique(code(RELEASE_FORMS), 1, len(RELEASE_FORMS)),
    max_days=integer(1, 3650),
    lease_s=integer(1, 60),  # objects may start to leave until a lease ends: 60 s is the promise
    require_stored=boolean,
    erase_grace_s=integer(0, 365 * _DAY_S),
    max_clock_skew_s=integer(0, _DAY_S),
    excluded_origins=unique(code(ORIGINS), 0, len(ORIGINS)),
)


def default_policy(organisations: Mapping[str, str]) -> dict[str, Value]:
    """The policy of an embedded ledger for these organisations (MSP ID to role)."""
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
    check_arguments(_POLICY, policy)
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


def get_policy(question: Question) -> Value:
    return question.policy
