"""What the embedded ledger's log is made of: the genesis, signed transactions, entries. Formats: docs/ledger.md."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import dag_cbor

from orthanc_ledger.errors import ContractError, IntegrityError
from orthanc_ledger.ledger.contract.call import Value
from orthanc_ledger.ledger.identity import Identity


@dataclass(frozen=True)
class Genesis:
    """Entry 0: what every later entry is checked against."""

    log: bytes  # 32 random bytes: no transaction fits two logs
    time: int  # UTC seconds
    organisations: Mapping[str, bytes]  # MSP ID to CA certificate, DER
    policy_sha256: bytes  # of the dag-cbor of the one policy InitPolicy takes

    def encode(self) -> bytes:
        """The entry's bytes."""
        return dag_cbor.encode(
            {
                "v": 1,
                "log": self.log,
                "time": self.time,
                "organisations": dict(self.organisations),
                "policy": self.policy_sha256,
            }
        )

    @classmethod
    def decode(cls, entry: bytes) -> "Genesis":
        """Raises IntegrityError when the bytes are no genesis of version 1."""
        fields = _decode(entry)
        types = {"v": int, "log": bytes, "time": int, "organisations": dict, "policy": bytes}
        if fields is None or {name: type(value) for name, value in fields.items()} != types or fields["v"] != 1:
            raise IntegrityError("entry 0: expected a genesis of version 1, got something else")
        return cls(fields["log"], fields["time"], fields["organisations"], fields["policy"])


@dataclass(frozen=True)
class SignedTransaction:
    """A call with its signature; the signature covers `payload` byte for byte."""

    payload: bytes  # dag-cbor {v, log, function, args, nonce, time, cert}
    signature: bytes
    log: bytes
    function: str
    args: Mapping[str, Value]
    nonce: bytes  # 16 random bytes: tells two equal calls of one second apart
    time: int  # the signer's clock
    certificate: bytes  # DER

    @property
    def tx_id(self) -> bytes:
        """SHA-256 of the payload. Without the signature: one call cannot become two by being signed twice."""
        return hashlib.sha256(self.payload).digest()

    def entry(self, time: int) -> bytes:
        """As the log keeps it: dag-cbor {time, tx, signature} with the time of the entry."""
        return dag_cbor.encode({"time": time, "tx": self.payload, "signature": self.signature})

    @classmethod
    def decode_entry(cls, entry: bytes) -> tuple[int, "SignedTransaction"]:
        """An entry's time and its transaction. Raises ContractError INVALID `transaction`."""
        fields = _decode(entry)
        if fields is None or set(fields) != {"time", "tx", "signature"} or type(fields["time"]) is not int:
            raise _invalid("expected dag-cbor {time, tx, signature}")
        return fields["time"], cls._of(fields["tx"], fields["signature"])

    @classmethod
    def _of(cls, payload: Value, signature: Value) -> "SignedTransaction":
        types = {"log": bytes, "function": str, "args": dict, "nonce": bytes, "time": int, "cert": bytes}
        fields = _decode(payload) if isinstance(payload, bytes) and isinstance(signature, bytes) else None
        if fields is None or set(fields) != {*types, "v"} or fields["v"] != 1:
            raise _invalid("expected dag-cbor {v: 1, log, function, args, nonce, time, cert}")
        if not all(type(fields[name]) is kind for name, kind in types.items()):
            raise _invalid("a field has the wrong type")
        log, function, args, nonce = fields["log"], fields["function"], fields["args"], fields["nonce"]
        return cls(payload, signature, log, function, args, nonce, fields["time"], fields["cert"])


def sign(
    identity: Identity, log: bytes, function: str, args: Mapping[str, Value], nonce: bytes, time: int
) -> SignedTransaction:
    """Sign a call for one log at the signer's time (UTC seconds).

    Raises ContractError INVALID `args` when they are no dag-cbor values.
    """
    fields: dict[str, Value] = {
        "v": 1,
        "log": log,
        "function": function,
        "args": dict(args),
        "nonce": nonce,
        "time": time,
    }
    try:
        payload = dag_cbor.encode({**fields, "cert": identity.certificate})
    except (dag_cbor.encoding.CBOREncodingError, TypeError, ValueError) as error:
        raise ContractError("INVALID", "args", str(error)) from error
    return SignedTransaction(
        payload, identity.sign(payload), log, function, dict(args), nonce, time, identity.certificate
    )


def _decode(data: bytes) -> dict[str, Value] | None:
    """A map in dag-cbor, or None. The decoder takes canonical encodings only: keys in order, shortest integers."""
    try:
        value = dag_cbor.decode(data)
    # It lets through what broken lengths and links raise beneath it.
    except (dag_cbor.decoding.CBORDecodingError, ArithmeticError, LookupError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _invalid(detail: str) -> ContractError:
    return ContractError("INVALID", "transaction", detail)
