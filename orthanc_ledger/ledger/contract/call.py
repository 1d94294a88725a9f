"""What goes into the contract and what comes out of it: calls, the state's read ports, effects."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import dag_cbor

from orthanc_ledger.errors import ContractError

Value = Any
"""A dag-cbor value: None, bool, int, str, bytes, list or dict of str."""

Assurance = Literal["person", "node"]


@dataclass(frozen=True)
class Caller:
    """Who signed a transaction, as the certificate says it."""

    organisation: str  # MSP ID
    assurance: Assurance  # the certificate's attribute `kind`
    serial: str  # of the certificate, lower-case hex


@dataclass(frozen=True)
class Call:
    """One transaction as its host hands it to the contract."""

    function: str
    args: Mapping[str, Value]
    nonce: bytes  # 16 bytes; part of the id of functions that give one
    caller: Caller
    time: int  # the transaction's time, UTC seconds: what every rule goes by
    host_time: int  # the host's own clock, only compared with `time`
    sequence: int  # the host's name for this commit, unlike any other's; embedded: the entry's position
    policy_sha256: bytes  # of the one policy InitPolicy may take, dag-cbor encoded


@dataclass(frozen=True)
class Event:
    """What a state change announces: named like its function."""

    name: str
    payload: dict[str, Value]


@dataclass(frozen=True)
class Applied:
    """What a call comes to; the host writes `changes` and nothing else.

    A repeat of an earlier call has no changes and no event: `result` is that of the first, which was the first write of
    the key `repeats`.
    """

    result: Value
    changes: Mapping[str, Value]
    event: Event | None
    repeats: str | None = None


class State(Protocol):
    """What a contract function may read: single keys, so that two peers read the same (no scans in writes)."""

    def get(self, key: str) -> Value | None:
        """The value last committed under the key, or None."""


class Records(State, Protocol):
    """What a query may read besides."""

    def scan(self, prefix: str, after: str = "") -> Iterator[tuple[str, Value]]:
        """All keys > `after` that start with the prefix, and their values, ascending by key."""

    def history(self, key: str) -> Iterator[tuple[int, Value]]:
        """(sequence, value) of every write of the key, first to last."""


@dataclass(frozen=True)
class Transaction:
    """A call that passed the general checks, as a contract function sees it."""

    state: State
    policy: Mapping[str, Value]
    role: str  # owner, custodian or research: from the policy
    call: Call

    @cached_property
    def id(self) -> bytes:
        """Of what this call makes: a hash of its content, so that nobody chooses it and a repeat is recognised."""
        content: list[Value] = [self.call.function, dict(self.args), self.caller.organisation, self.call.nonce]
        return hashlib.sha256(dag_cbor.encode(content)).digest()

    @property
    def args(self) -> Mapping[str, Value]:
        return self.call.args

    @property
    def caller(self) -> Caller:
        return self.call.caller

    def record(self, key: str, argument: str) -> Value:
        """The record an argument names. Raises ContractError NOT_FOUND with the argument's name when there is none."""
        return _record(self.state, key, argument)

    @property
    def by(self) -> dict[str, Value]:
        """The caller as records keep it."""
        return {
            "organisation": self.caller.organisation,
            "role": self.role,
            "assurance": self.caller.assurance,
            "serial": self.caller.serial,
        }

    @property
    def stamp(self) -> dict[str, Value]:
        """Who and when: the end of every record of a decision."""
        return {"by": self.by, "time": self.call.time}

    @property
    def noted(self) -> dict[str, Value]:
        """The call as a record: its arguments as given, who and when."""
        return {**self.args, **self.stamp}


@dataclass(frozen=True)
class Effect:
    """What a contract function decided.

    `repeats` names the key that the first such call wrote first; then there are no changes. `studies` are those the
    event is about, for Audit.
    """

    result: Value
    changes: Mapping[str, Value] = field(default_factory=dict)
    studies: tuple[bytes, ...] = ()
    repeats: str | None = None


@dataclass(frozen=True)
class Question:
    """A query: read only, open to every member of the channel."""

    records: Records
    policy: Mapping[str, Value]
    args: Mapping[str, Value]
    time: int

    def record(self, key: str, argument: str) -> Value:
        """As `Transaction.record`."""
        return _record(self.records, key, argument)


def differing(first: Mapping[str, Value], args: Mapping[str, Value], names: Iterable[str]) -> str | None:
    """The first of these arguments that an earlier call's record has otherwise; None when the call is a repeat."""
    return next((name for name in names if first.get(name) != args.get(name)), None)


def _record(state: State, key: str, argument: str) -> Value:
    found = state.get(key)
    if found is None:
        raise ContractError("NOT_FOUND", argument, f"no record {key}")
    return found
