"""Which encapsulated fragments make up which frame (PS3.5 A.4)."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from orthanc_ledger.elements import Element, Fragments, Reader
from orthanc_ledger.instance import Instance
from orthanc_ledger.values import swap_bytes

EXTENDED_OFFSET_TABLE: Final = 0x7FE00001

_JPEG_FAMILY: Final = "1.2.840.10008.1.2.4."
_END_OF_IMAGE: Final = b"\xff\xd9"
_TAIL: Final = 1 << 10


class EncodedFrames:
    """The encoded frames of an instance, in order; fewer than ``frames`` when the fragments cannot be told apart."""

    def __init__(self, instance: Instance, element: Element, frames: int) -> None:
        self._reader = instance.reader
        self._fragments = instance.fragments(element)
        self._starts = _frame_starts(instance, self._fragments, frames)

    def __len__(self) -> int:
        return len(self._starts)

    def length(self, index: int) -> int:
        """Bytes of frame ``index``."""
        return sum(self._fragments.lengths[self._slice(index)])

    def chunks(self, index: int) -> Iterator[bytes]:
        """Fragments of frame ``index`` joined, in pieces."""
        part = self._slice(index)
        for offset, length in zip(self._fragments.offsets[part], self._fragments.lengths[part], strict=True):
            yield from self._reader.chunks(offset, length)

    def _slice(self, index: int) -> slice:
        stop = self._starts[index + 1] if index + 1 < len(self._starts) else None
        return slice(self._starts[index], stop)


def _frame_starts(instance: Instance, fragments: Fragments, frames: int) -> Sequence[int]:
    """Index of each frame's first fragment, by the first rule of docs/fingerprint.md ("Encoded") that works."""
    count = len(fragments.offsets)
    if frames == 1:
        return (0,)
    if count == frames:
        return range(count)
    extended = instance.top_level(EXTENDED_OFFSET_TABLE)
    tables = [(extended.offset, extended.length, "Q")] if extended else []
    for offset, length, code in [*tables, (*fragments.offset_table, "I")]:
        if starts := _by_table(instance, fragments, frames, offset, length, code):
            return starts
    return _by_end_of_image(instance, fragments, frames) or (0,)


def _by_table(
    instance: Instance, fragments: Fragments, frames: int, offset: int, length: int, code: str
) -> Sequence[int]:
    table = array(code)
    if length != frames * table.itemsize or frames > len(fragments.offsets):
        return ()
    value = instance.reader.read(offset, length)
    table.frombytes(swap_bytes(value, table.itemsize) if instance.encoding.big_endian else value)
    starts = array("I")
    for index, at in enumerate(fragments.offsets):
        if len(starts) < frames and at - fragments.offsets[0] == table[len(starts)]:
            starts.append(index)
    # Fragments before the first frame's would be in no leaf.
    return starts if len(starts) == frames and starts[0] == 0 else ()


def _by_end_of_image(instance: Instance, fragments: Fragments, frames: int) -> Sequence[int]:
    if not instance.transfer_syntax_uid.startswith(_JPEG_FAMILY):
        return ()
    starts = array("I", (0,))
    last = len(fragments.offsets) - 1
    for i, (offset, length) in enumerate(zip(fragments.offsets, fragments.lengths, strict=True)):
        ended = _ends_image(instance.reader, offset, length)
        if i == last:
            return starts if ended and len(starts) == frames else ()
        if ended:
            starts.append(i + 1)
    return ()


def _ends_image(reader: Reader, offset: int, length: int) -> bool:
    """Whether a fragment ends in the end-of-image marker, zeros behind it aside."""
    while length:
        size = min(length, _TAIL)
        tail = reader.read(offset + length - size, size).rstrip(b"\0")
        length -= size - len(tail)
        if tail:
            return length >= 2 and reader.read(offset + length - 2, 2) == _END_OF_IMAGE
    return False
