"""One call being decided: what it reads, what it would write, and the three ways it ends."""

from dataclasses import dataclass, field
from typing import Any

from tests.second.ledger.cbor import Value
from tests.second.ledger.forms import FUNCTIONS


class Refused(Exception):
    """The call breaks a rule: code and field."""

    def __init__(self, code: str, field: str) -> None:
        super().__init__(code, field)
        self.code, self.field = code, field


class Again(Exception):
    """The call was committed before: the first result, and the key that the first call wrote first."""

    def __init__(self, result: Value, key: str) -> None:
        super().__init__(result, key)
        self.result, self.key = result, key


@dataclass(frozen=True)
class Call:
    """A transaction as its host passes it on."""

    function: str
    args: dict[str, Value]
    nonce: bytes
    organisation: str
    assurance: str
    serial: str
    time: int
    host_time: int
    sequence: int


def key(*parts: str | bytes) -> str:
    """Parts joined by a slash; bytes as lower-case hex."""
    return "/".join(part.hex() if isinstance(part, bytes) else part for part in parts)


def node_key(kind: str, node: dict[str, str], *more: str) -> str:
    """A key of a node: its organisation as it is, its AE title as hex."""
    return key(kind, node["organisation"], node["aeTitle"].encode(), *more)


def version_key(kind: str, dataset: bytes, version: int) -> str:
    """A key of a dataset's version, 10 digits."""
    return key(kind, dataset, f"{version:010d}")


@dataclass
class Turn:
    """The state as the call finds it, and the writes it has decided on so far."""

    state: dict[str, Value]
    call: Call
    policy: dict[str, Any]
    id: bytes = b""
    writes: dict[str, Value] = field(default_factory=dict)
    studies: list[bytes] = field(default_factory=list)

    def __getitem__(self, argument: str) -> Value:
        """An argument; None when it was left out."""
        return self.call.args.get(argument)

    @property
    def role(self) -> str:
        """The caller's role by the policy."""
        return self.policy["organisations"][self.call.organisation]

    @property
    def by(self) -> dict[str, Value]:
        """The caller as records keep it."""
        call = self.call
        return {
            "organisation": call.organisation,
            "role": self.role,
            "assurance": call.assurance,
            "serial": call.serial,
        }

    @property
    def stamp(self) -> dict[str, Value]:
        """{by, time}."""
        return {"by": self.by, "time": self.call.time}

    @property
    def kept(self) -> dict[str, Value]:
        """args, by, time."""
        return {**self.call.args, **self.stamp}

    def refuse(self, broken: bool, code: str, field: str) -> None:
        """Ends the call when a rule is broken."""
        if broken:
            raise Refused(code, field)

    def state_is_not(self, state: str, *refused: str) -> None:
        """WRONG_STATE with the state's name when it is one of those."""
        self.refuse(state in refused, "WRONG_STATE", state)

    def get(self, *parts: str | bytes) -> Value:
        """The record under a key, or None."""
        return self.state.get(key(*parts))

    def need(self, argument: str, *parts: str | bytes) -> Value:
        """The record under a key; NOT_FOUND with the argument when there is none."""
        self.refuse(self.get(*parts) is None, "NOT_FOUND", argument)
        return self.get(*parts)

    def again(self, where: str, result: Value, repeated: bool = True) -> None:
        """Ends the call as a repeat of the one that first wrote the key, when it did."""
        if repeated and where in self.state:
            raise Again(result, where)

    def same(self, old: dict[str, Value]) -> bool:
        """Whether the old record is of a call with the same arguments by the same organisation."""
        return self.differing(old) is None and old["by"]["organisation"] == self.call.organisation

    def differing(self, old: dict[str, Value]) -> str | None:
        """The first argument, in the table's order, that is not the old record's."""
        args = self.call.args
        return next((n for n in FUNCTIONS[self.call.function].forms if args.get(n) != old.get(n)), None)

    def put(self, where: str, value: Value) -> None:
        """Decides on a write."""
        self.writes[where] = value

    def note(self, where: str, result: Value = None) -> Value:
        """A write of {args, by, time}; the call's result."""
        self.put(where, self.kept)
        return result

    def about(self, *studies: bytes) -> None:
        """The studies that the event is about."""
        self.studies.extend(study for study in studies if study not in self.studies)

    def standing(self, study: bytes) -> int:
        """The study's version: 0 when nothing was ever taken or given back."""
        return self.get("standing", study) or 0

    def raised(self, study: bytes) -> int:
        """The study's version after this call, which raises it."""
        self.put(key("standing", study), self.standing(study) + 1)
        return self.standing(study) + 1

    def erasure(self, study: bytes) -> str:
        """none, requested or erased."""
        return (self.get("erasure", study) or {"state": "none"})["state"]

    def manifest(self, argument: str, study: bytes, cid: str) -> dict[str, Value]:
        """The anchor of a manifest of this study."""
        anchor = self.need(argument, "anchor", cid)
        self.refuse(anchor["study"] != study, "INVALID", argument)
        return anchor

    def stands(self, request: dict[str, Value]) -> bool:
        """Whether the request's node stands for it."""
        node = self.state[node_key("node", request["node"])]
        return (
            request["node"]["organisation"] in self.policy["organisations"]
            and node["confirmed"] is not None
            and node["revocations"] == request["revocations"]
        )

    def withdrawn(self, request: dict[str, Value]) -> bool:
        """Whether the request is on a dataset that was withdrawn."""
        on_dataset = "dataset" in request
        return on_dataset and version_key("datasetWithdrawal", request["dataset"], request["version"]) in self.state
