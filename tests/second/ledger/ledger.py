"""The second ledger: a state, its history, and the checks that every call goes through."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from tests.second.ledger import access, custody, parties
from tests.second.ledger.cbor import Value, encode
from tests.second.ledger.forms import FUNCTIONS, wrong_field
from tests.second.ledger.turn import Again, Call, Refused, Turn, key

RULES = custody.RULES | parties.RULES | access.RULES


@dataclass
class Ledger:
    """`started_with` is the one policy that InitPolicy may bring."""

    started_with: dict[str, Any]
    state: dict[str, Value] = field(default_factory=dict)
    history: dict[str, list[tuple[int, Value]]] = field(default_factory=dict)
    commits: int = 0

    def copy(self) -> "Ledger":
        """The same, to go on from in another way."""
        history = {where: list(rows) for where, rows in self.history.items()}
        return Ledger(self.started_with, dict(self.state), history, self.commits)

    def commit(self, call: Call) -> tuple[Value, int | None]:
        """(result, None) and the writes made, or (first result, its sequence). Raises Refused.

        The call's sequence is given here: one more than the last commit's, from 1.
        """
        call = replace(call, sequence=self.commits + 1)
        turn = Turn(self.state, call, check(self, call))
        if FUNCTIONS[call.function].is_id:
            turn.id = sha256(encode([call.function, call.args, call.organisation, call.nonce])).digest()
        try:
            result = RULES[call.function](turn)
        except Again as again:
            return again.result, self.history[again.key][0][0]
        self._write(turn, result)
        return result, None

    def _write(self, turn: Turn, result: Value) -> None:
        call, digits = turn.call, f"{turn.call.sequence:020d}"
        event = {"function": call.function, "args": call.args, "result": result, "sequence": call.sequence}
        turn.put(key("event", digits), event | turn.stamp)
        for study in turn.studies:
            turn.put(key("studyEvent", study, digits), call.function)
        for where, value in deepcopy(turn.writes).items():
            self.state[where] = value
            self.history.setdefault(where, []).append((call.sequence, value))
        self.commits = call.sequence


def check(ledger: Ledger, call: Call) -> dict[str, Any]:
    """What every call is checked for, in the page's order; the policy that it is judged by."""
    if call.function not in FUNCTIONS:
        raise Refused("INVALID", "function")
    row = FUNCTIONS[call.function]
    if wrong := row.wrong(call.args):
        raise Refused("INVALID", wrong)
    if len(call.nonce) != 16:
        raise Refused("INVALID", "nonce")
    policy = ledger.state.get("policy")
    if call.function == "InitPolicy":
        policy = call.args["policy"]
        if wrong := wrong_field(policy):
            raise Refused("INVALID", wrong)
    if policy is None:
        raise Refused("WRONG_STATE", "policy")
    allowed = policy["max_clock_skew_s"]
    if allowed and abs(call.time - call.host_time) > allowed:
        raise Refused("SKEW", "time")
    if call.organisation not in policy["organisations"]:
        raise Refused("NOT_PERMITTED", "organisation")
    if key("revokedCertificate", call.organisation, call.serial) in ledger.state:
        raise Refused("NOT_PERMITTED", "certificate")
    if row.roles and policy["organisations"][call.organisation] not in row.roles:
        raise Refused("NOT_PERMITTED", "role")
    if call.function == "InitPolicy" and encode(policy) != encode(ledger.started_with):
        raise Refused("INVALID", "policy")
    return policy
