"""`fp/v1`: the metadata tree, and the fingerprint of both trees."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from tests.second import keys, merkle, pixels
from tests.second.dataset import PIXEL_DATA, Element, read_file
from tests.second.pixels import DOUBLE, FLOAT
from tests.second.values import canonical

# With the most bytes each may have: longer ones stay in.
LEFT_OUT_AT_TOP = {
    (0x0008, 0x0001): 4,
    (0x0008, 0x0054): 1024,
    (0x0008, 0x0056): 16,
    (0x0088, 0x0130): 16,
    (0x0088, 0x0140): 64,
    (0x7FE0, 0x0003): 8,
}
OFFSET_TABLES = (0x7FE0, 0x0001), (0x7FE0, 0x0002)
PHOTOMETRIC, PLANAR, SOP_INSTANCE = (0x0028, 0x0004), (0x0028, 0x0006), (0x0008, 0x0018)
AS_DECODED = {b"YBR_RCT": b"RGB", b"YBR_ICT": b"RGB", b"YBR_FULL_422": b"YBR_FULL"}

Leaf = tuple[bytes, int, bytes]
"""Path, kind, value."""


@dataclass(frozen=True)
class Fingerprint:
    """Every field of one form (unsalted, or under one salt key)."""

    fingerprint: bytes
    pixel_form: str
    frames: int
    pixel_leaves: int
    pixel_root: bytes
    metadata_leaves: int
    metadata_root: bytes


def of_file(data: bytes, salt_key: bytes | None = None) -> Fingerprint:
    """The fingerprint of a Part 10 file; unsalted without a salt key. Raises Refused."""
    syntax, elements = read_file(data)
    form, pixel_leaves = pixels.leaves(elements, syntax)
    metadata_leaves = list(_metadata(elements, b"", decoded=form == "decoded"))
    uid = _instance_uid(elements)
    pixel_root = _root(pixel_leaves, 1, salt_key, uid)
    metadata_root = _root(metadata_leaves, 2, salt_key, uid)
    counts = [len(leaves).to_bytes(8, "big") for leaves in (pixel_leaves, metadata_leaves)]
    whole = keys.text("fp/v1") + keys.text(form) + counts[0] + pixel_root + counts[1] + metadata_root
    frames = sum(kind == 3 for _, kind, _ in pixel_leaves)
    return Fingerprint(
        sha256(whole).digest(), form, frames, len(pixel_leaves), pixel_root, len(metadata_leaves), metadata_root
    )


def _root(leaves: list[Leaf], tree: int, salt_key: bytes | None, uid: str) -> bytes:
    inputs = []
    for path, kind, value in leaves:
        sized = len(path).to_bytes(4, "big") + path
        salt = keys.mac(salt_key, keys.text("leaf/v1"), bytes([tree]), keys.uid(uid), sized) if salt_key else bytes(32)
        inputs.append(salt + sized + bytes([kind]) + len(value).to_bytes(8, "big") + value)
    return merkle.root(inputs)


def _instance_uid(elements: list[Element]) -> str:
    found = [element.value for element in elements if element.tag == SOP_INSTANCE]
    return (found[0] or b"").decode("ascii") if found else ""


def _metadata(elements: list[Element], above: bytes, decoded: bool = False) -> Iterator[Leaf]:
    parts = [len(element.fragments) - 1 for element in elements if element.fragments and not above]
    for element in elements:
        if _left_out(element, top=not above, fragments=sum(parts)):
            continue
        path = above + _u16(*element.tag)
        if element.items is not None:
            yield path, 2, len(element.items).to_bytes(4, "big")
            for number, item in enumerate(element.items):
                yield from _metadata(item, path + number.to_bytes(4, "big"))
        else:
            value = canonical(element)
            yield path, 1, _as_decoded(element.tag, value) if decoded else value


def _left_out(element: Element, top: bool, fragments: int) -> bool:
    if element.items is not None:  # a sequence could carry anything
        return False
    size = len(element.value or b"")
    if element.tag[1] == 0:
        return size <= 4
    if not top:
        return False
    if element.tag == (0xFFFC, 0xFFFC):
        return not any(element.value or b"")
    if element.tag in OFFSET_TABLES:
        return size <= 8 * fragments
    return element.tag in (PIXEL_DATA, FLOAT, DOUBLE) or size <= LEFT_OUT_AT_TOP.get(element.tag, -1)


def _as_decoded(tag: tuple[int, int], value: bytes) -> bytes:
    if tag == PHOTOMETRIC:
        return AS_DECODED.get(value, value)
    return b"\0\0" if tag == PLANAR else value


def _u16(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)
