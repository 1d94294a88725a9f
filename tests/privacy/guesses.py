"""What an attacker looks for who has scans in the clear: all that somebody might have published of one by mistake.

Nothing of the product is imported. What docs/fingerprint.md and docs/manifest.md publish is computed by the second
reading (`tests/second`).
"""

import hashlib
import re
import struct
from base64 import b32decode
from collections.abc import Collection, Iterable, Iterator, Mapping
from io import BytesIO
from itertools import product
from typing import Any, NamedTuple

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement

from tests.second import cid, fingerprint, keys, merkle, pixels
from tests.second.dataset import Element, read_file

SHORTEST = 6
"""Bytes: fewer are found by chance in some megabytes that mean nothing."""

RUN, STRIDE = 64, 4096
_DIGEST = 16  # bytes of a digest that are looked for: a truncated one is found, too
_LABELS = ("instance/v1", "content/v1", "digest/v1", "seen/v1", "study", "sop", "erased")
_WORDS = [
    word.encode() for word in ("orthanc-ledger", "instance", "study", "content", "salt", "key", "secret", *_LABELS)
]
_CHUNKERS = ((1 << 18, 174), (1 << 18, 1024), (1 << 20, 174), (1 << 20, 1024))
_TEXTS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
_NAMES = {"PN": "name", "UI": "UID", "DA": "date", "DT": "date", "TM": "time"}
_PUBLIC_UID = "1.2.840.10008."  # DICOM's own, as of SOP classes: they say nothing of one scan


class Scan(NamedTuple):
    """A file of the archive."""

    name: str
    data: bytes
    dataset: Dataset
    elements: list[Element]
    frames: list[bytes]  # canonical or encoded, as fp/v1 has them, with what lies behind

    @property
    def body(self) -> bytes:
        """Its data set, without preamble and file meta (PS3.10 7.1)."""
        return self.data[144 + struct.unpack_from("<I", self.data, 140)[0] :]

    @property
    def uids(self) -> list[str]:
        named = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
        return [str(self.dataset[name].value) for name in named if name in self.dataset]


def scan(name: str, data: bytes) -> Scan:
    """A Part 10 file, read."""
    syntax, elements = read_file(data)
    return Scan(name, data, dcmread(BytesIO(data)), elements, [leaf[2] for leaf in pixels.leaves(elements, syntax)[1]])


class Guess(NamedTuple):
    """Of what kind it is, and of which file."""

    kind: str
    of: str


def guesses(scans: Iterable[Scan]) -> dict[bytes, Guess]:
    """Everything to look for that needs no key."""
    found: dict[bytes, Guess] = {}
    with disable_value_validation():  # of real scans some have wrong ones
        for each in scans:
            for kind, content in _all(each):
                if len(content) >= SHORTEST:
                    found.setdefault(content, Guess(kind, each.name))
    return found


def under(
    scans: Iterable[Scan], tokens: Collection[bytes], batches: Iterable[tuple[bytes, bytes]]
) -> dict[bytes, Guess]:
    """What would be there if one of these, which everybody can see, were a key; ``batches``: pairs of a token that
    might be a batch's key and an instance token.
    """
    found: dict[bytes, Guess] = {}
    public = [b"", bytes(16), bytes(32), *_WORDS, *tokens, *map(longer, tokens)]
    salts = [*public[1:]]
    for key, token in batches:
        salts += [keys.salt_key(key, token), hashlib.sha256(keys.text("salt/v1") + token + b"\1").digest()]
    for each in scans:
        payloads = [keys.uid(uid) for uid in each.uids] + [uid.encode() for uid in each.uids]
        payloads += [hashlib.sha256(each.body).digest(), hashlib.sha256(each.data).digest(), _unsalted(each)]
        messages = [keys.text(label) + payload for label, payload in product(_LABELS, payloads)] + payloads
        for key, message in product(public, messages):
            for digest in (keys.mac(key, message), hashlib.sha256(key + message).digest()):
                found.setdefault(digest[:_DIGEST], Guess("under a guessable key", each.name))
        for key in salts if each.frames else ():
            found.setdefault(_salted_pixels(each, key)[:_DIGEST], Guess("under a guessable salt key", each.name))
    return found


def longer(token: bytes) -> bytes:
    """A key that somebody might make of a token."""
    return (token + token)[:32]


def _all(each: Scan) -> Iterator[tuple[str, bytes]]:
    for part, content in _parts(each):
        yield from ((f"digest of {part}", digest[:_DIGEST]) for digest in digests(content) if content)
    for part, content in (("the file", each.data), ("the data set", each.body), ("pixel data", _pixel_data(each))):
        yield from (("CID", digest) for digest in _cids(content))
        yield from ((f"run of {part}", run) for run in _runs(content))
    yield from (("fingerprint", digest) for digest in (_unsalted(each), *_trees(each)))
    yield from _texts(each)


def _parts(each: Scan) -> Iterator[tuple[str, bytes]]:
    """Stretches of a file that somebody might have hashed."""
    yield "the file", each.data
    yield "the file", each.data[128:]
    yield "the data set", each.body
    for implicit in (True, False):
        yield "the data set", _encoded(each.dataset, implicit)
    without = Dataset({tag: element for tag, element in each.dataset.items() if tag.group != 0x7FE0})
    yield "the data set without pixels", _encoded(without, implicit=False)
    native = _pixel_data(each)
    yield "pixel data", native
    frames = int(each.dataset.get("NumberOfFrames") or 1)
    size = len(native) // frames
    yield from (("a frame", native[at * size : (at + 1) * size]) for at in range(frames) if frames > 1)
    yield from (("a frame", frame) for frame in each.frames)
    for element in _walk(each.elements):
        for value in {element.value or b"", (element.value or b"").rstrip(b"\0 ")} - {b""}:
            yield "an element", value
        yield from (("a frame", fragment) for fragment in (element.fragments or [])[1:])
    for text in set(_words(each)) | set(each.uids):
        yield from (("a text", spelled) for spelled in spellings(text))


def digests(content: bytes) -> Iterator[bytes]:
    """Every digest that is usual, whole."""
    for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s"):
        yield hashlib.new(name, content).digest()
    yield hashlib.blake2b(content, digest_size=32).digest()
    yield hashlib.sha256(hashlib.sha256(content).digest()).digest()
    yield hashlib.sha256(b"\0" + content).digest()  # RFC 6962's leaf
    yield hashlib.sha1(b"blob %d\0" % len(content) + content).digest()  # git's


def _cids(content: bytes) -> Iterator[bytes]:
    """SHA-256 of a file's blocks, as IPFS cuts it: in leaves that are raw or dag-pb, and of the nodes over them."""
    for chunk in {chunk for chunk, _ in _CHUNKERS}:
        for piece in (content[at : at + chunk] for at in range(0, len(content), chunk)):
            yield hashlib.sha256(piece).digest()
            yield hashlib.sha256(_unixfs(piece)).digest()
    for chunk, links in _CHUNKERS:
        if len(content) > chunk:
            pieces = (content[at : at + chunk] for at in range(0, len(content), chunk))
            yield b32decode(cid.of_chunks(pieces, links)[1:].upper() + "=" * 6)[
                4:
            ]  # behind version, codec, hash's name


def _unixfs(piece: bytes) -> bytes:
    """A dag-pb leaf of a file (UnixFS: Type 2, Data, filesize)."""
    size = cid._varint(len(piece))
    node = b"\x08\x02\x12" + size + piece + b"\x18" + size
    return b"\x0a" + cid._varint(len(node)) + node


def _runs(content: bytes) -> Iterator[bytes]:
    """Stretches that do not repeat themselves."""
    runs = (content[at : at + RUN] for at in range(0, len(content) - RUN, STRIDE))
    yield from (run for run in runs if len(set(run)) >= RUN // 4)


def _leaves(each: Scan) -> Iterator[bytes]:
    """Leaf inputs of fp/v1, without salt."""
    for path, kind, value in fingerprint._metadata(each.elements, b"", decoded=True):
        sized = len(path).to_bytes(4, "big") + path
        yield bytes(32) + sized + bytes([kind]) + len(value).to_bytes(8, "big") + value


def _trees(each: Scan) -> Iterator[bytes]:
    found = fingerprint.of_file(each.data)
    yield from (root for root in (found.pixel_root, found.metadata_root) if root != merkle.root([]))
    yield from map(merkle.leaf_hash, _leaves(each))


def _unsalted(each: Scan) -> bytes:
    return fingerprint.of_file(each.data).fingerprint


def _salted_pixels(each: Scan, salt_key: bytes) -> bytes:
    """The pixel root of fp/v1 under a salt key."""
    inputs = []
    for number, frame in enumerate(each.frames):
        sized = (4).to_bytes(4, "big") + number.to_bytes(4, "big")
        salt = keys.mac(salt_key, keys.text("leaf/v1"), b"\1", keys.uid(each.uids[0]), sized)
        inputs.append(salt + sized + b"\3" + len(frame).to_bytes(8, "big") + frame)
    return merkle.root(inputs)


def _texts(each: Scan) -> Iterator[tuple[str, bytes]]:
    """UIDs, names, dates and other texts in the clear."""
    said: dict[str, str] = {}

    def collect(_: Dataset, element: DataElement) -> None:
        values = element.value if isinstance(element.value, (list, tuple)) else [element.value]
        if element.VR in _TEXTS and element.value:
            for value in map(str, [*values, "\\".join(map(str, values))]):
                said.setdefault(value, _NAMES.get(element.VR, "text"))

    each.dataset.walk(collect)
    for value, kind in said.items():
        if not value.startswith(_PUBLIC_UID):
            yield from ((f"{kind} in the clear", spelled) for spelled in spellings(value))


def _words(each: Scan) -> Iterator[str]:
    for element in _walk(each.elements):
        value = (element.value or b"").rstrip(b"\0 ")
        if value.isascii() and SHORTEST <= len(value) <= 256:
            yield value.decode()


def spellings(text: str) -> set[bytes]:
    """How a text may be written."""
    found = {text, text.strip(), text.lower(), text.upper()}
    if re.fullmatch(r"[0-9]{8}", text):
        found |= {sign.join((text[:4], text[4:6], text[6:])) for sign in "-./"}
    if "^" in text:
        parts = [part for part in text.split("^") if part]
        found |= {" ".join(parts), ", ".join(parts), " ".join(reversed(parts))}
    encoded = {
        each.encode(form, "replace") for each in found for form in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
    }
    if re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", text):
        encoded.add(_object_identifier(text))
        if text.startswith("2.25."):
            encoded.add((int(text[5:]) % (1 << 128)).to_bytes(16, "big"))
    return encoded


def _object_identifier(uid: str) -> bytes:
    """As ASN.1 writes one (X.690 8.19), without its head."""
    first, second, *rest = map(int, uid.split("."))
    encoded = b""
    for number in (40 * first + second, *rest):
        octets = [number & 0x7F]
        while number := number >> 7:
            octets.append(number & 0x7F | 0x80)
        encoded += bytes(reversed(octets))
    return encoded


def _pixel_data(each: Scan) -> bytes:
    value: Any = each.dataset.get("PixelData", b"")
    return bytes(value)


def _encoded(dataset: Dataset, implicit: bool) -> bytes:
    sink = BytesIO()
    copy = Dataset(dataset)
    try:
        copy.save_as(sink, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    except (ValueError, TypeError, KeyError, AttributeError):  # what cannot be written so nobody hashed so
        return b""
    return sink.getvalue()


def _walk(elements: Iterable[Element]) -> Iterator[Element]:
    for element in elements:
        yield element
        for item in element.items or ():
            yield from _walk(item)


def archive(files: Mapping[str, bytes]) -> list[Scan]:
    """The files, read."""
    return [scan(name, data) for name, data in files.items()]
