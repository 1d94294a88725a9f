"""A story: calls and queries on a ledger of the second implementation, kept as the vectors show them."""

import json
from base64 import b64encode
from copy import deepcopy
from typing import Any

from tests.second.ledger.cast import POLICY, T0
from tests.second.ledger.cbor import Value
from tests.second.ledger.ledger import Ledger
from tests.second.ledger.questions import ask
from tests.second.ledger.turn import Call, Refused, key

Json = dict[str, Any]


class Story:
    """Goes on from `start`'s end, or from an empty ledger that was started with a policy."""

    def __init__(self, name: str, start: "Story | None" = None, policy: Json | None = None) -> None:
        self.name, self.start = name, start
        self.ledger = start.ledger.copy() if start else Ledger(policy or POLICY)
        self.now = start.now if start else T0
        self.steps: list[Json] = []
        self._first = self.ledger.commits + 1

    def wait(self, seconds: int) -> "Story":
        """The next call comes that much later than it would."""
        self.now += seconds
        return self

    def tries(self, by: str, function: str, args: Json, **other: Any) -> str:
        """A call, one second after the last unless `at` says when: "yes", "same" or "CODE field".

        `nonce` is one byte, meant 16 times, or the whole; `host_at`, `serial` and `assurance` as in the vectors.
        """
        self.now = at = other.pop("at", self.now + 1)
        nonce, args = other.pop("nonce", 0), deepcopy(args)
        shown = {"at": at, "by": by, **other, "function": function, "args": args}
        if nonce != 0:
            shown["nonce"] = nonce if isinstance(nonce, bytes) else bytes([nonce]) * 16
        given = {"assurance": "person", "serial": "1", "host_at": at, "nonce": bytes(16)} | other | shown
        who = (given["by"], given["assurance"], given["serial"])
        call = Call(function, args, given["nonce"], *who, at, given["host_at"], 0)
        self.steps.append(shown)
        try:
            result, first = self.ledger.commit(call)
        except Refused as refusal:
            shown["then"] = {"error": [refusal.code, refusal.field]}
            return f"{refusal.code} {refusal.field}"
        shown["then"] = {"result": result} | ({"repeats": first} if first else {"sequence": self.ledger.commits})
        return "same" if first else "yes"

    def does(self, by: str, function: str, args: Json, **other: Any) -> Value:
        """A call that must commit; its result."""
        return self._expect("yes", by, function, args, other)

    def repeats(self, by: str, function: str, args: Json, **other: Any) -> Value:
        """A call that must be recognised; the first result."""
        return self._expect("same", by, function, args, other)

    def refused(self, why: str, by: str, function: str, args: Json, **other: Any) -> None:
        """A call that must be refused with "CODE field"."""
        self._expect(why, by, function, args, other)

    def _expect(self, expected: str, by: str, function: str, args: Json, other: Json) -> Value:
        came = self.tries(by, function, args, **other)
        if came != expected:
            raise AssertionError(f"{self.name}: {function} by {by}: expected {expected}, got {came}")
        return self.steps[-1]["then"].get("result")

    def asks(self, query: str, args: Json | None = None, at: int | None = None) -> Value:
        """A query, at the time of the last call unless `at` says when: the answer, or [code, field]."""
        shown = {"at": self.now if at is None else at, "query": query, "args": args or {}}
        self.steps.append(shown)
        try:
            shown["then"] = {"answer": ask(self.ledger, query, shown["args"], shown["at"])}
        except Refused as refusal:
            shown["then"] = {"error": [refusal.code, refusal.field]}
        (answer,) = shown["then"].values()
        return answer

    def version(self, study: bytes) -> int:
        """A study's standing."""
        return self.ledger.state.get(key("standing", study), 0)

    def text(self) -> str:
        """As it stands in the vectors: a line for each step and key."""
        head = {"name": self.name} | (
            {"start": self.start.name} if self.start else {"policy": self.ledger.started_with}
        )
        written = sorted(k for k, rows in self.ledger.history.items() if rows[-1][0] >= self._first)
        state = [f"{json.dumps(k)}: {line(self.ledger.state[k])}" for k in written]
        parts = [("steps", "[]", list(map(line, self.steps))), ("state", "{}", state)]
        shown = [f'"{name}": {_lines(ends, lines)}' for name, ends, lines in parts]
        return line(head)[:-1] + ",\n " + ",\n ".join(shown) + "}"


def _lines(ends: str, lines: list[str]) -> str:
    return ends[0] + "".join(f"\n  {one}," for one in lines).rstrip(",") + ends[1]


def line(value: Value) -> str:
    """One value as JSON; bytes as DAG-JSON has them."""
    return json.dumps(_dag_json(value))


def _dag_json(value: Value) -> Value:
    if isinstance(value, bytes):
        return {"/": {"bytes": b64encode(value).decode().rstrip("=")}}
    if isinstance(value, list):
        return [_dag_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _dag_json(item) for name, item in value.items()}
    return value
