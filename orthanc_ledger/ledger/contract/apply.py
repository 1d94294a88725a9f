"""Running a call: the checks every function has in common, then the function, then the event."""

from collections.abc import Mapping

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract import policy as policies
from orthanc_ledger.ledger.contract.arguments import check_arguments
from orthanc_ledger.ledger.contract.audit import event_key, study_event_key
from orthanc_ledger.ledger.contract.call import (
    Applied,
    Call,
    Effect,
    Event,
    Question,
    Records,
    State,
    Transaction,
    Value,
)
from orthanc_ledger.ledger.contract.certificates import is_revoked
from orthanc_ledger.ledger.contract.functions import FUNCTIONS
from orthanc_ledger.ledger.contract.queries import QUERIES

NONCE_BYTES = 16


def apply(state: State, call: Call) -> Applied:
    """What a call changes; nothing is written here. Reads single keys only, and neither clock nor randomness.

    Raises ContractError with the first rule the call breaks.
    """
    function = FUNCTIONS.get(call.function)
    if function is None:
        raise ContractError("INVALID", "function", f"unknown: {call.function}")
    check_arguments(function.arguments, call.args)
    if len(call.nonce) != NONCE_BYTES:
        raise ContractError("INVALID", "nonce", f"expected {NONCE_BYTES} bytes, got {len(call.nonce)}")
    policy = _policy(state, call)
    _check_skew(policy, call)
    role = policy["organisations"].get(call.caller.organisation)
    if role is None:
        raise ContractError("NOT_PERMITTED", "organisation", f"{call.caller.organisation} is not in the policy")
    if is_revoked(state, call.caller):
        raise ContractError("NOT_PERMITTED", "certificate", f"{call.caller.serial} was revoked by its organisation")
    if role not in function.roles:
        raise ContractError("NOT_PERMITTED", "role", f"{call.function} is for {', '.join(function.roles)}, not {role}")
    transaction = Transaction(state, policy, role, call)
    return _applied(transaction, function.run(transaction))


def answer(records: Records, function: str, args: Mapping[str, Value], time: int) -> Value:
    """The answer to a query at a time (UTC seconds). Raises ContractError."""
    query = QUERIES.get(function)
    if query is None:
        raise ContractError("INVALID", "function", f"unknown query: {function}")
    check_arguments(query.arguments, args)
    policy = records.get(policies.KEY)
    if policy is None:
        raise ContractError("WRONG_STATE", "policy", "InitPolicy comes first")
    return query.run(Question(records, policy, args, time))


def _policy(state: State, call: Call) -> Mapping[str, Value]:
    """The policy in force; for InitPolicy the one it brings, so that its sender has a role."""
    if call.function == "InitPolicy":
        brought: dict[str, Value] = call.args["policy"]
        policies.policy_digest(brought)
        return brought
    policy: dict[str, Value] | None = state.get(policies.KEY)
    if policy is None:
        raise ContractError("WRONG_STATE", "policy", "InitPolicy comes first")
    return policy


def _check_skew(policy: Mapping[str, Value], call: Call) -> None:
    most = policy["max_clock_skew_s"]
    if most and abs(call.time - call.host_time) > most:
        raise ContractError("SKEW", "time", f"{call.time} is more than {most} s from the host's clock {call.host_time}")


def _applied(tx: Transaction, effect: Effect) -> Applied:
    if effect.repeats is not None:
        return Applied(effect.result, {}, None, effect.repeats)
    payload = {
        "function": tx.call.function,
        "args": dict(tx.args),
        "result": effect.result,
        "by": tx.by,
        "time": tx.call.time,
        "sequence": tx.call.sequence,
    }
    trail = {study_event_key(study, tx.call.sequence): tx.call.function for study in effect.studies}
    changes = {**effect.changes, **trail, event_key(tx.call.sequence): payload}
    return Applied(effect.result, changes, Event(tx.call.function, payload))
