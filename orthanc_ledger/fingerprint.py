"""Fingerprint ``fp/v1``: what docs/fingerprint.md says, and nothing else decides what it covers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from orthanc_ledger.decoders import DECODERS
from orthanc_ledger.elements import PIXEL_DATA, UNDEFINED, Element, Reader
from orthanc_ledger.instance import Instance
from orthanc_ledger.leaves import FRAME, ITEM_COUNT, METADATA_TREE, PIXEL_TREE, VALUE, Leaf, LeafHasher
from orthanc_ledger.merkle import Tree
from orthanc_ledger.pixel_layout import DOUBLE_FLOAT_PIXEL_DATA, FLOAT_PIXEL_DATA, NotDecoded
from orthanc_ledger.pixels import (
    PixelForm,
    canonical_attributes,
    decoded_leaves,
    encoded_leaves,
    pixel_element,
)
from orthanc_ledger.values import is_text, strip_padding, swap_bytes, swap_unit

LEFT_OUT: Final = {
    0x00080001: 4,  # Length to End
    0x00080054: 1024,  # Retrieve AE Title
    0x00080056: 16,  # Instance Availability
    0x00880130: 16,  # Storage Media File-set ID
    0x00880140: 64,  # Storage Media File-set UID
    0x7FE00003: 8,  # Encapsulated Pixel Data Value Total Length
}
"""Values of the top level that the metadata tree leaves out, and the bytes they have at most: a longer one holds
something else. So do group lengths everywhere and the extended offset tables; Data Set Trailing Padding is left out
when it is all zero."""

PIXELS: Final = frozenset((PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA))
OFFSET_TABLES: Final = frozenset((0x7FE00001, 0x7FE00002))
GROUP_LENGTH_BYTES: Final = 4
TRAILING_PADDING: Final = 0xFFFCFFFC

LEAVES_AT_ONCE: Final = 1024
"""Leaves of which the hashes are held before they go into the trees; never their values."""

_TOP_LEVEL_PATH: Final = 4
_Hashed = TypeVar("_Hashed")


@dataclass(frozen=True)
class Fingerprint:
    """The two trees of one object under one salt key. Digests are 32 bytes; ``frames`` counts the frame leaves.

    ``decoder`` is the one pinned for the transfer syntax, None when there is none; ``decode_error`` is the reason when
    it failed and ``pixel_form`` is *encoded* for that.
    """

    fingerprint: bytes
    pixel_root: bytes
    pixel_leaves: int
    metadata_root: bytes
    metadata_leaves: int
    pixel_form: PixelForm
    frames: int
    decoder: str | None
    decode_error: str | None


class Pixels(NamedTuple):
    """How an object's pixels enter its fingerprint."""

    form: PixelForm
    decoder: str | None
    decode_error: str | None


def fingerprints(instance: Instance, salt_keys: Sequence[bytes | None]) -> tuple[Fingerprint, ...]:
    """One fingerprint per salt key (32 bytes, or None for the unsalted form), decoding each frame once.

    Raises ``Unreadable`` when the data set has two kinds of pixel data, ``ConfigError`` when a pinned decoder is not
    installed.
    """
    uid = instance.sop_instance_uid
    pixel_hasher = LeafHasher(PIXEL_TREE, uid, salt_keys)
    metadata_hasher = LeafHasher(METADATA_TREE, uid, salt_keys)
    pixels, (pixel_trees, frames) = read_pixels(instance, lambda leaves: _trees(pixel_hasher, leaves, salt_keys))
    metadata_trees, _ = _trees(metadata_hasher, metadata_leaves(instance, pixels.form), salt_keys)
    return tuple(
        Fingerprint(
            fingerprint=combined(
                pixels.form, pixel_tree.size, pixel_tree.root(), metadata_tree.size, metadata_tree.root()
            ),
            pixel_root=pixel_tree.root(),
            pixel_leaves=pixel_tree.size,
            metadata_root=metadata_tree.root(),
            metadata_leaves=metadata_tree.size,
            pixel_form=pixels.form,
            frames=frames,
            decoder=pixels.decoder,
            decode_error=pixels.decode_error,
        )
        for pixel_tree, metadata_tree in zip(pixel_trees, metadata_trees, strict=True)
    )


def read_pixels(instance: Instance, consume: Callable[[Iterable[Leaf]], _Hashed]) -> tuple[Pixels, _Hashed]:
    """Give ``consume`` the leaves of the pixel tree: decoded or, after a failed decode, encoded from the start."""
    element = pixel_element(instance)
    if element is None:
        return Pixels("none", None, None), consume(())
    decoder = DECODERS.get(instance.transfer_syntax_uid)
    reason = None
    if decoder is not None:
        try:
            return Pixels("decoded", decoder, None), consume(decoded_leaves(instance, element))
        except NotDecoded as error:
            reason = error.reason
    return Pixels("encoded", decoder, reason), consume(encoded_leaves(instance, element))


def metadata_leaves(instance: Instance, pixel_form: PixelForm) -> Iterator[Leaf]:
    """Leaves of the metadata tree, in the order of the data set."""
    canonical = canonical_attributes(instance) if pixel_form == "decoded" else {}
    for element in instance.elements():
        if element.items is not None:
            yield Leaf(element.path, ITEM_COUNT, 4, element.items.to_bytes(4, "big"))
        elif not _left_out(instance, element):
            yield _value_leaf(instance, element, canonical)


def _left_out(instance: Instance, element: Element) -> bool:
    if element.tag & 0xFFFF == 0:
        return element.length <= GROUP_LENGTH_BYTES
    if len(element.path) > _TOP_LEVEL_PATH:
        return False
    if element.tag == TRAILING_PADDING:
        return not any(any(chunk) for chunk in instance.reader.chunks(element.offset, element.length))
    if element.tag in OFFSET_TABLES:
        return element.length <= 8 * _count_fragments(instance)
    return element.tag in PIXELS or element.length <= LEFT_OUT.get(element.tag, -1)


def _count_fragments(instance: Instance) -> int:
    pixel_data = instance.top_level(PIXEL_DATA)
    if pixel_data is None or pixel_data.length != UNDEFINED:
        return 0
    return len(instance.fragments(pixel_data).offsets)


def _value_leaf(instance: Instance, element: Element, canonical: Mapping[int, bytes]) -> Leaf:
    """docs/fingerprint.md, "Values"."""
    if len(element.path) == _TOP_LEVEL_PATH and element.tag in canonical:
        value = canonical[element.tag]
        return Leaf(element.path, VALUE, len(value), value)
    if element.length == UNDEFINED:
        return _joined_fragments(instance, element)
    unit = swap_unit(element.tag, element.vr) if element.big_endian else 1
    length = element.length
    if length <= Reader.CHUNK:
        value = instance.reader.read(element.offset, length)
        value = strip_padding(value) if is_text(element.tag) else swap_bytes(value, unit)
        return Leaf(element.path, VALUE, len(value), value)
    if is_text(element.tag):
        length = _length_without_padding(instance.reader, element.offset, length)
    chunks = instance.reader.chunks(element.offset, length)
    return Leaf(element.path, VALUE, length, (swap_bytes(chunk, unit) for chunk in chunks))


def _joined_fragments(instance: Instance, element: Element) -> Leaf:
    fragments = instance.fragments(element)
    parts = zip(fragments.offsets, fragments.lengths, strict=True)
    chunks = (chunk for offset, length in parts for chunk in instance.reader.chunks(offset, length))
    return Leaf(element.path, VALUE, sum(fragments.lengths), chunks)


def _length_without_padding(reader: Reader, offset: int, length: int) -> int:
    while length:
        tail = min(length, Reader.CHUNK)
        kept = len(strip_padding(reader.read(offset + length - tail, tail)))
        length -= tail - kept
        if kept:
            break
    return length


def _trees(
    hasher: LeafHasher, leaves: Iterable[Leaf], salt_keys: Sequence[bytes | None]
) -> tuple[tuple[Tree, ...], int]:
    """The tree under each salt key, and how many leaves are frames."""
    trees = tuple(Tree() for _ in salt_keys)
    frames = 0
    rest = iter(leaves)
    while rows := [(leaf.kind, *hasher.hashes(leaf)) for leaf in islice(rest, LEAVES_AT_ONCE)]:
        kinds, *digests = zip(*rows, strict=True)
        frames += kinds.count(FRAME)
        for tree, column in zip(trees, digests, strict=True):
            tree.extend(column)
    return trees, frames


def combined(form: str, pixel_leaves: int, pixel_root: bytes, metadata_leaves: int, metadata_root: bytes) -> bytes:
    """The fingerprint of two trees, by their number of leaves and roots."""
    parts = (
        _label("fp/v1"),
        _label(form),
        pixel_leaves.to_bytes(8, "big") + pixel_root,
        metadata_leaves.to_bytes(8, "big") + metadata_root,
    )
    return hashlib.sha256(b"".join(parts)).digest()


def _label(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode("ascii")
