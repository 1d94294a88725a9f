"""Key files: the keys of what one release names, sealed to its recipient and signed by the node (docs/keyfile.md).

No I/O. `key_release.py` makes them, `key_check.py` says whether one may be used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from orthanc_ledger.content import cbor
from orthanc_ledger.content.cbor import CID
from orthanc_ledger.content.cid import check_file_cid, cid_bytes, cid_text
from orthanc_ledger.errors import IntegrityError, Unreadable
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.recipient_key import PrivateKey, PublicKey
from orthanc_ledger.tokens import ObjectKeys, label

LARGEST = 24 << 20
"""Bytes: of the 100,000 instances that a release may name, and some; read, the worst takes 70 times the memory."""

_VERSION = 1
_LABEL = label(f"keyfile/v{_VERSION}")
_FORM = {"v": int, "release": bytes, "recipient": bytes, "sealed": bytes, "certificate": bytes, "signature": bytes}
_CONTENT = {"request": bytes, "study": bytes, "instances": list}
_INSTANCE = {"instance": bytes, "manifest": CID, "object": CID, "seal": bytes, "salt": bytes}


@dataclass(frozen=True, slots=True)
class InstanceKeys:
    """The keys of one instance, and the manifest and object (CIDs) that they are of."""

    instance: bytes
    manifest: str
    object: str
    keys: ObjectKeys


@dataclass(frozen=True)
class ReleasedKeys:
    """What is sealed: of one request (id) and study (token), by rising instance token."""

    request: bytes
    study: bytes
    instances: tuple[InstanceKeys, ...] = field(repr=False)

    def encode(self) -> bytes:
        """dag-cbor."""
        rows = [
            {
                "instance": row.instance,
                "manifest": CID(cid_bytes(row.manifest)),
                "object": CID(cid_bytes(row.object)),
                "seal": row.keys.seal,
                "salt": row.keys.salt,
            }
            for row in self.instances
        ]
        return cbor.encode({"request": self.request, "study": self.study, "instances": rows})

    @classmethod
    def decode(cls, data: bytes) -> "ReleasedKeys":
        """Raises IntegrityError when it has another form, or its instances do not rise strictly."""
        content = _map(cbor.decode(data), _CONTENT, "keys")
        _check_sizes("keys", content, request=32, study=16)
        instances = tuple(_instance(row) for row in content["instances"])
        if any(before.instance >= after.instance for before, after in pairwise(instances)):
            raise IntegrityError("keys: expected instance tokens that rise strictly")
        return cls(content["request"], content["study"], instances)


@dataclass(frozen=True)
class KeyFile:
    """A key file as it travels. ``recipient``: the public key's digest; ``certificate``: DER, of who signed."""

    release: bytes
    recipient: bytes
    sealed: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    signature: bytes = field(default=b"", repr=False)

    @classmethod
    def make(cls, release: bytes, keys: ReleasedKeys, recipient: PublicKey, identity: Identity) -> "KeyFile":
        """Seal and sign."""
        sealed = recipient.seal(keys.encode(), _info(release, recipient.digest))
        unsigned = cls(release, recipient.digest, sealed, identity.certificate)
        return cls(release, recipient.digest, sealed, identity.certificate, identity.sign(unsigned.signed))

    @property
    def signed(self) -> bytes:
        """What the signature covers: a label that begins no other signed thing, then all other fields."""
        return _LABEL + cbor.encode(self._fields())

    def encode(self) -> bytes:
        """The file's bytes."""
        return cbor.encode({**self._fields(), "signature": self.signature})

    @classmethod
    def decode(cls, data: bytes) -> "KeyFile":
        """Raises Unreadable when the bytes are no key file of version 1."""
        try:
            raw = cbor.decode(data)
            if type(raw) is dict and type(version := raw.get("v")) is int and version != _VERSION:
                raise Unreadable(f"key file: expected version {_VERSION}; a newer program may read it")
            fields = _map(raw, _FORM, "key file")
            _check_sizes("key file", fields, release=32, recipient=32)
        except IntegrityError as error:
            raise Unreadable(f"not a key file: {error}") from error
        del fields["v"]
        return cls(**fields)

    def open(self, private: PrivateKey) -> ReleasedKeys:
        """The keys; whose word they are the caller must have checked. Raises IntegrityError."""
        return ReleasedKeys.decode(private.open(self.sealed, _info(self.release, self.recipient)))

    def _fields(self) -> dict[str, Any]:
        return {
            "v": _VERSION,
            "release": self.release,
            "recipient": self.recipient,
            "sealed": self.sealed,
            "certificate": self.certificate,
        }


def _info(release: bytes, recipient: bytes) -> bytes:
    """HPKE's info: the keys open as this version's, for this release and recipient, or not at all."""
    return _LABEL + release + recipient


def _instance(row: Any) -> InstanceKeys:
    fields = _map(row, _INSTANCE, "keys: instance")
    _check_sizes("keys: instance", fields, instance=32, seal=32, salt=32)
    manifest, content = cid_text(fields["manifest"]), cid_text(fields["object"])
    check_file_cid(content)
    return InstanceKeys(fields["instance"], manifest, content, ObjectKeys(fields["seal"], fields["salt"]))


def _map(value: Any, form: Mapping[str, type], what: str) -> dict[str, Any]:
    """A map of exactly these keys and types; what it holds instead is not told, it may be a key."""
    if type(value) is not dict or {name: type(part) for name, part in value.items()} != form:
        raise IntegrityError(f"{what}: expected a map of {', '.join(form)}, each of its type")
    return value


def _check_sizes(what: str, fields: Mapping[str, bytes], **sizes: int) -> None:
    for name, size in sizes.items():
        if len(fields[name]) != size:
            raise IntegrityError(f"{what}: {name}: expected {size} bytes, got {len(fields[name])}")
