"""The attacker: who has all bytes of ledger and IPFS and an archive's files in the clear, and looks for the same scans.

Nothing of the product is imported.
"""

import hashlib
import re
import shutil
import sqlite3
import tempfile
from base64 import b32decode, b64decode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import dag_cbor
import numpy as np
from dag_cbor.decoding import CBORDecodingError

from tests.privacy.guesses import SHORTEST, Guess, archive, guesses, longer, under
from tests.second import cid, keys, merkle, sealed

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_SHORT = 8  # bytes: a date, a time
_SQLITE = b"SQLite format 3\0"


class Match(NamedTuple):
    """A file of the archive, and how it was recognised."""

    kind: str
    of: str
    written: str  # raw, or as which text
    found: bytes = b""


@dataclass
class Published:
    """All that can be seen: bytes, and what they say where they are records."""

    views: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))  # by how they were written
    tokens: set[bytes] = field(default_factory=set)  # values of 16 or 32 bytes: what might be a key
    roots: list[dict[str, Any]] = field(default_factory=list)  # of manifests
    records: dict[bytes, list[dict[str, Any]]] = field(default_factory=dict)  # by the CID of their shard
    blocks: dict[str, bytes] = field(default_factory=dict)  # by the CID of the file that they are

    def add(self, data: bytes) -> None:
        self.views["raw"].append(data)
        for written, read in _written(data):
            self.views[written].append(read)
        self.blocks[cid.of_bytes(data)] = data
        self._understand(data)

    def _understand(self, data: bytes) -> None:
        try:
            value = dag_cbor.decode(data)
        except (CBORDecodingError, ArithmeticError, LookupError, ValueError, RecursionError):
            return
        if isinstance(value, dict) and {"study", "shards", "key_id"} <= value.keys():
            self.roots.append(value)
        if isinstance(value, list) and value and isinstance(value[0], dict) and "pixel_root" in value[0]:
            self.records[cid.binary(cid.DAG_CBOR, data)] = value
        for octets in _octets(value):
            if len(octets) in (16, 32):
                self.tokens.add(octets)
            elif len(octets) > 32:
                self._understand(octets)

    def of_studies(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every record, with its manifest's root."""
        for root in self.roots:
            for shard in root["shards"]:
                yield from ((root, record) for record in self.records.get(bytes(shard), ()))


def look_at(places: Iterable[Path]) -> Published:
    """All files under these, and the rows of those that are databases."""
    seen = Published()
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            seen.views["raw"].append(str(path.relative_to(place.parent)).encode())
            for written, read in _written(path.name.encode()):
                seen.views[written].append(read)
            if path.is_file():
                data = path.read_bytes()
                seen.add(data)
                if data.startswith(_SQLITE):
                    for value in _rows(path):
                        seen.add(value)
    return seen


def attack(places: Iterable[Path], files: Mapping[str, bytes], elsewhere: Iterable[Path]) -> set[Match]:
    """What is recognised, in what was published, of the files in an archive.

    ``elsewhere``: what was published of other scans. What stands there, too, as a word of the protocol that a scan
    happens to have, tells of no scan.
    """
    seen, scans = look_at(places), archive(files)
    hidden = {root["key_id"] for root in seen.roots} | {root["study"] for root in seen.roots}
    instances = {record["instance"] for _, record in seen.of_studies()}
    batch_keys = {*hidden, *map(longer, hidden)}
    looked_for = guesses(scans) | under(scans, seen.tokens, product(batch_keys, instances))
    found = search(seen.views, looked_for)
    common = search(look_at(elsewhere).views, {match.found: looked_for[match.found] for match in found})
    meaningless = {match.found for match in common}
    return {match for match in found if match.found not in meaningless} | linked(seen) | opened(seen)


def search(views: Mapping[str, Sequence[bytes]], looked_for: Mapping[bytes, Guess]) -> set[Match]:
    """Which of these bytes occur."""
    needles = list(looked_for)
    heads = np.frombuffer(b"".join(needle[:SHORTEST].ljust(8, b"\0") for needle in needles), dtype="<u8")
    found = set()
    for written, pieces in views.items():
        hay = b"\0\0\0\0\0\0\0\0".join(pieces)
        legible = re.sub(rb"[0-9A-Za-z+/_-]{24,}", b"\0", hay)  # a digest as text has times and dates by chance
        for place in np.flatnonzero(np.isin(heads, _windows(hay))):
            if needles[place] in (hay if len(needles[place]) > _SHORT else legible):
                found.add(Match(*looked_for[needles[place]], written, needles[place]))
    return found


def linked(seen: Published) -> set[Match]:
    """Records of different objects that share a value: they hold the same."""
    owners: dict[tuple[str, bytes], set[tuple[bytes, bytes]]] = defaultdict(set)
    for root, record in seen.of_studies():
        for name, value in record.items():
            if isinstance(value, bytes) and value != merkle.root([]):  # an object without pixels
                owners[name, value].add((root["study"], record["instance"]))
    return {Match("equal values", name, "raw") for (name, _), objects in owners.items() if len(objects) > 1}


def opened(seen: Published) -> set[Match]:
    """Sealed objects that open with what everybody can see."""
    found = set()
    for root, record in seen.of_studies():
        study, instance = root["study"], record["instance"]
        name = cid.text(bytes(record["object"]))
        content = seen.blocks.get(name, b"")
        keyless = hashlib.sha256(keys.text("object/v1") + instance + b"\1").digest()
        for key in {bytes(32), keyless, *seen.tokens, *map(longer, seen.tokens)}:
            for tried in (key, keys.seal_key(key, instance)):
                try:
                    sealed.unseal(content, tried, sealed.associated_data(study, instance))
                except sealed.Refused:
                    continue
                found.add(Match("opened by a guessable key", name, "raw"))
    return found


def _written(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What texts in it say, wherever they begin."""
    for run in re.findall(rb"[0-9a-fA-F]{12,}", data):
        yield from (("hex", bytes.fromhex(run[at : at + (len(run) - at & ~1)].decode())) for at in (0, 1))
    for run in re.findall(rb"[A-Za-z2-7]{10,}", data):
        for at in range(8):
            whole = run[at:].upper()
            yield "base32", b32decode(whole[: len(whole) & ~7])
    for run in re.findall(rb"[A-Za-z0-9+/_-]{8,}", data):
        for at in range(4):
            whole = run[at:].replace(b"-", b"+").replace(b"_", b"/")
            yield "base64", b64decode(whole[: len(whole) & ~3])
    for run in re.findall(rb"(?<![A-Za-z0-9])z?([1-9A-HJ-NP-Za-km-z]{22,60})(?![A-Za-z0-9])", data):
        number = 0
        for sign in run.decode():
            number = number * 58 + _BASE58.index(sign)
        yield "base58", number.to_bytes((number.bit_length() + 7) // 8, "big")


def _windows(hay: bytes) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Every stretch of SHORTEST bytes, as a number."""
    octets = np.frombuffer(hay, dtype=np.uint8)
    count = max(len(octets) - SHORTEST + 1, 0)
    windows = np.zeros(count, dtype=np.uint64)
    for at in range(SHORTEST):
        windows |= octets[at : at + count].astype(np.uint64) << np.uint64(8 * at)
    return windows


def _octets(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _octets(each)


def _rows(path: Path) -> Iterator[bytes]:
    """Every value of a SQLite file, with what its write-ahead log holds."""
    with tempfile.TemporaryDirectory() as folder:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, folder)
        with closing(sqlite3.connect(Path(folder) / path.name)) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    values = (value for value in row if isinstance(value, (str, bytes)))
                    yield from (value.encode() if isinstance(value, str) else value for value in values)
