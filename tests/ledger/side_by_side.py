"""Hosts of the contract side by side: what is asked of one is asked of all, and everything that can be seen compared.

What a host may name as it likes is set aside: a commit's sequence stands for its place among the commits, and a
caller's serial is left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger import Committed
from orthanc_ledger.ledger.contract.arguments import MAX_ROWS
from orthanc_ledger.ledger.contract.call import Applied
from tests.ledger.channel import Host, Memory

YES, SAME = "yes", "same"
_CALLER = {"organisation", "role", "assurance", "serial"}


@dataclass
class Seen:
    """A host as its users see it."""

    host: Host
    places: dict[int, int] = field(default_factory=dict)  # sequence → place among the commits

    def outcome(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> tuple[Any, ...]:
        """(yes or same, result, place, time), or (code, field)."""
        try:
            committed = self.host.submit(organisation, function, args, nonce)
        except ContractError as error:
            return error.code, error.field
        known = committed.position in self.places
        place = self.places.setdefault(committed.position, len(self.places))
        return SAME if known else YES, self.plain(committed.result), place, committed.time

    def answer(self, query: str, args: Mapping[str, Any], model: "Seen") -> Any:
        """The answer, or (code, field)."""
        if query == "Audit" and "after" in args:
            args = {**args, "after": self._own(args["after"], model)}
        try:
            return self.plain(self.host.query(query, args))
        except ContractError as error:
            return error.code, error.field

    def history(self, key: str, model: "Seen") -> Any:
        """What the host tells of a key of the model's."""
        kind, _, rest = key.rpartition("/")
        if kind.partition("/")[0] in ("event", "studyEvent"):
            key = f"{kind}/{self._own(int(rest), model):020d}"
        return self.answer("HistoryOf", {"key": key}, model)

    def _own(self, sequence: int, model: "Seen") -> int:
        """What the host calls a commit that the model calls so."""
        (own,) = (own for own, place in self.places.items() if place == model.places[sequence])
        return own

    def plain(self, value: Any) -> Any:
        """A value without what hosts name as they like."""
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = {name: self.plain(item) for name, item in value.items()}
        if type(value.get("sequence")) is int:
            found["sequence"] = self.places[value["sequence"]]
        return {name: item for name, item in found.items() if name != "serial" or set(value) != _CALLER}


class SideBySide:
    """A host: a model in memory, and others that must do as it does."""

    def __init__(self, policy: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        self.model = Memory(policy, min(host.now for host in others.values()))
        self.others = others
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._model = Seen(self.model)
        self._seen = {name: Seen(host) for name, host in others.items()}

    @property
    def now(self) -> int:
        return self.model.now

    @now.setter
    def now(self, now: int) -> None:
        for host in (self.model, *self.others.values()):
            host.now = now

    def submit(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> Committed:
        call = (organisation, function, args, nonce)
        expected = self._model.outcome(*call)
        self.outcomes[function, expected[0]] += 1
        for name, seen in self._seen.items():
            assert (name, *call, seen.outcome(*call)) == (name, *call, expected)
        if expected[0] not in (YES, SAME):
            raise ContractError(*expected)
        return Committed(b"", expected[2], expected[3], expected[1])

    def query(self, function: str, args: Mapping[str, Any]) -> Any:
        expected = self._model.answer(function, args, self._model)
        for name, seen in self._seen.items():
            assert (name, function, args, seen.answer(function, args, self._model)) == (name, function, args, expected)
        return self.model.query(function, args)

    def compare_state(self) -> int:
        """Compare every value that any key of the model ever had; the number of keys."""
        keys = [key for key, _ in self.model.scan("")]
        for key in keys:
            expected = self._model.history(key, self._model)
            assert len(expected) < MAX_ROWS, f"{key}: one page does not show all it had"
            for name, seen in self._seen.items():
                assert seen.history(key, self._model) == expected, (name, key)
        return len(keys)

    def compare_events(self, name: str, events: Iterable[tuple[str, Any]]) -> None:
        """Compare what a host announced, in the order of its commits, with the model's."""
        expected = [self._model.plain(record) for _, record in self.model.scan("event/")]
        found = [(event, self._seen[name].plain(record)) for event, record in events]
        assert found == [(record["function"], record) for record in expected]

    def judge(self, organisation: str, function: str, args: Mapping[str, Any], nonce: bytes) -> Applied:
        return self.model.judge(organisation, function, args, nonce)

    def entries(self) -> int:
        return self.model.entries()

    def get(self, key: str) -> Any:
        return self.model.get(key)

    def scan(self, prefix: str, after: str = "") -> Iterator[tuple[str, Any]]:
        return self.model.scan(prefix, after)
