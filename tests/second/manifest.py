"""Manifests and arrival records: a minimal canonical dag-cbor encoder and the blocks it makes."""

from base64 import b32decode
from dataclasses import dataclass
from typing import Union

from tests.second import cid, merkle

SHARD = 1000


@dataclass(frozen=True)
class Link:
    """An IPLD link, by the text of its CID."""

    cid: str


Value = Union[None, int, str, bytes, Link, list["Value"], dict[str, "Value"]]  # noqa: UP007 (recursive in 3.11)


@dataclass(frozen=True)
class Manifest:
    """A batch's manifest: root CID, record root, and every block by its CID."""

    cid: str
    record_root: bytes
    blocks: dict[str, bytes]


def encode(value: Value) -> bytes:
    """Canonical dag-cbor: shortest heads, keys by length then bytes, links as tag 42 over 0x00 ‖ CID."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        raise TypeError("no format here has a boolean")
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, Link):
        letters = value.cid[1:].upper()
        return _head(6, 42) + encode(b"\0" + b32decode(letters + "=" * (-len(letters) % 8)))
    keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
    return _head(5, len(keys)) + b"".join(encode(key) + encode(value[key]) for key in keys)


def build(study_token: bytes, seq: int, key_id: bytes, records: list[dict[str, Value]]) -> Manifest:
    """The manifest of a batch. A record's values are as in `docs/manifest.md`; `object` is a Link."""
    encoded = sorted((record["instance"], encode(record)) for record in records)
    whole = [block for _, block in encoded]
    shards = [whole[at : at + SHARD] for at in range(0, len(whole), SHARD)]
    blocks = {cid.of_block(shard): shard for shard in (_head(4, len(part)) + b"".join(part) for part in shards)}
    links: list[Value] = [Link(name) for name in blocks]
    head: dict[str, Value] = {"v": 1, "study": study_token, "seq": seq, "key_id": key_id}
    root = encode(head | {"count": len(records), "shards": links})
    return Manifest(cid.of_block(root), merkle.root(whole), blocks | {cid.of_block(root): root})


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for width, info in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if argument < 1 << (8 * width):
            return bytes([major << 5 | info]) + argument.to_bytes(width, "big")
    raise ValueError(f"{argument} does not fit 64 bits")
