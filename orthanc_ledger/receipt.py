"""The receipt's format: what proves, without any node, that an object was anchored (docs/receipt.md).

No I/O. ``receipt_issue.py`` makes receipts, ``receipt_check.py`` says what one proves.
"""

import json
import re
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from orthanc_ledger.errors import ConfigError, Unreadable


@dataclass(frozen=True, slots=True)
class SaltedLeaf:
    """A leaf without its value, which is in the file. Path and kind: docs/fingerprint.md; the salt has 32 bytes."""

    path: bytes
    kind: int
    salt: bytes


@dataclass(frozen=True)
class Leaves:
    """For who has the file: every leaf of both trees, in their order."""

    pixels: tuple[SaltedLeaf, ...]
    metadata: tuple[SaltedLeaf, ...]
    kind: Literal["file"] = "file"


@dataclass(frozen=True, slots=True)
class Element:
    """One disclosed leaf of the metadata tree, with its inclusion proof (RFC 6962 2.1.1)."""

    path: bytes
    kind: int
    value: bytes
    salt: bytes
    index: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Elements:
    """For who may see these elements and nothing else of the object; in the order of the data set."""

    elements: tuple[Element, ...]
    kind: Literal["elements"] = "elements"


@dataclass(frozen=True)
class EmbeddedEvidence:
    """The entry of the log with the Anchor, its inclusion proof, the signed checkpoint it leads to."""

    position: int
    entry: bytes
    proof: tuple[bytes, ...]
    checkpoint: str
    kind: Literal["embedded"] = "embedded"


@dataclass(frozen=True)
class FabricEvidence:
    """The answer of GetAnchor with the signatures of peers (`ledger/fabric/evidence.py`)."""

    answer: bytes
    kind: Literal["fabric"] = "fabric"


@dataclass(frozen=True)
class Receipt:
    """One receipt: the record (dag-cbor), its place under the anchored record root, the evidence, the contents."""

    record: bytes
    index: int
    proof: tuple[bytes, ...]
    evidence: EmbeddedEvidence | FabricEvidence
    content: Leaves | Elements
    v: Literal[1] = 1

    def encode(self) -> bytes:
        """As JSON in ASCII; bytes as lower-case hexadecimal digits."""
        return json.dumps(_plain(self)).encode("ascii") + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> "Receipt":
        """Raises Unreadable when the data is no receipt of version 1: every name once, known, and of its type."""
        try:
            node = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"receipt: not JSON that can be read: {error}") from error
        receipt: Receipt = _read(cls, node, "receipt")
        return receipt


_PART = r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?"
_PATH = re.compile(rf"(?:{_PART}\[[0-9]{{1,9}}\]\.)*{_PART}")
_STEP = re.compile(rf"{_PART}(?:\[([0-9]+)\])?")


def parse_path(text: str) -> bytes:
    """A path from tags as ``00080060``, ``0010,0010`` or ``00081140[0].00081150``, items counted from 0.

    Raises ConfigError.
    """
    if not _PATH.fullmatch(text):
        raise ConfigError(f"{text!r}: expected an element as 00080060, 0010,0010 or 00081140[0].00081150")
    return b"".join(
        bytes.fromhex(group + element) + (int(item).to_bytes(4, "big") if item else b"")
        for group, element, item in _STEP.findall(text)
    )


def _plain(value: Any) -> Any:
    """A value of the format as JSON has it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _read(kind: Any, node: Any, where: str) -> Any:
    """A value of the format from JSON, by its type alone."""
    if isinstance(kind, UnionType):
        return _read(_choice(kind, node, where), node, where)
    if get_origin(kind) is Literal:
        (expected,) = get_args(kind)
        if type(node) is not type(expected) or node != expected:
            raise Unreadable(f"{where}: expected {expected!r}, got {node!a:.80}")
        return expected
    if get_origin(kind) is tuple:
        _check_type(list, node, where)
        return tuple(_read(get_args(kind)[0], item, f"{where}[{n}]") for n, item in enumerate(node))
    if isinstance(kind, type) and is_dataclass(kind):
        _check_type(dict, node, where)
        types = _types(kind)
        if node.keys() != types.keys():
            raise Unreadable(f"{where}: expected the names {sorted(types)}, got {sorted(node)!a:.800}")
        return kind(**{name: _read(types[name], node[name], f"{where}.{name}") for name in types})
    _check_type(str if kind is bytes else kind, node, where)
    return _octets(node, where) if kind is bytes else node


def _choice(kind: UnionType, node: Any, where: str) -> Any:
    """The type that ``kind`` in the JSON names."""
    choices = {choice.kind: choice for choice in get_args(kind)}
    _check_type(dict, node, where)
    name = node.get("kind")
    if not isinstance(name, str) or name not in choices:
        raise Unreadable(f"{where}: expected a kind of {', '.join(choices)}, got {name!a:.80}")
    return choices[name]


def _check_type(expected: type, node: Any, where: str) -> None:
    if type(node) is not expected:  # not isinstance: true is no number
        raise Unreadable(f"{where}: expected {expected.__name__}, got {type(node).__name__}")


@lru_cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _octets(text: str, where: str) -> bytes:
    try:
        octets = bytes.fromhex(text)
    except ValueError as error:
        raise Unreadable(f"{where}: expected hexadecimal digits") from error
    if octets.hex() != text:
        raise Unreadable(f"{where}: expected lower-case hexadecimal digits without spaces")
    return octets


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    node = dict(pairs)
    if len(node) != len(pairs):
        raise ValueError("a name stands there twice")
    return node
