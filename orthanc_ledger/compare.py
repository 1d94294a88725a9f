"""What differs between two objects, by element path and frame: the leaves of their fingerprints, set side by side."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydicom.datadict import keyword_for_tag

from orthanc_ledger.fingerprint import metadata_leaves, read_pixels
from orthanc_ledger.instance import Instance
from orthanc_ledger.leaves import FRAME, METADATA_TREE, PIXEL_TREE, Leaf, LeafHasher, show_path
from orthanc_ledger.pixels import BYTES_BEHIND_LAST_FRAME

Change = Literal["added", "removed", "changed"]
_Leaves = dict[bytes, tuple[int, bytes]]


@dataclass(frozen=True)
class Difference:
    """One place where the second object differs from the first.

    ``where`` is an element path as ``(0040,0275)[0].(0008,0100) CodeValue`` (items count from 0), or ``frame 3``,
    ``unused bits of frame 3`` (frames count from 1), ``bytes behind the last frame``, ``pixel form``.
    """

    where: str
    change: Change

    def __str__(self) -> str:
        return f"{self.change} {self.where}"


def compare(a: Instance, b: Instance) -> list[Difference]:
    """Differences in the order of the data set, then of the frames; empty exactly when the fingerprints are equal.

    A sequence that is only in one of them is named without what it holds.
    """
    (pixels_a, frames_a), (pixels_b, frames_b) = (read_pixels(instance, _hashed_pixels) for instance in (a, b))
    metadata_a, metadata_b = (
        _hashed(METADATA_TREE, metadata_leaves(instance, pixels.form))
        for instance, pixels in ((a, pixels_a), (b, pixels_b))
    )
    differences = [
        Difference(_show_element(path), change) for path, change in _outermost(_changes(metadata_a, metadata_b))
    ]
    if pixels_a.form != pixels_b.form:
        differences.append(Difference("pixel form", "changed"))
    differences += [Difference(_show_frame(key), change) for key, change in _changes(frames_a, frames_b)]
    return differences


def _hashed(tree: int, leaves: Iterable[Leaf]) -> _Leaves:
    # The UID enters salts only, and these leaves are unsalted: objects with different UIDs stay comparable.
    hasher = LeafHasher(tree, "", [None])
    return {leaf.path: (leaf.kind, hasher.hashes(leaf)[0]) for leaf in leaves}


def _hashed_pixels(leaves: Iterable[Leaf]) -> _Leaves:
    hasher = LeafHasher(PIXEL_TREE, "", [None])
    # A frame's two leaves have the same path.
    return {leaf.path + bytes([leaf.kind]): (leaf.kind, hasher.hashes(leaf)[0]) for leaf in leaves}


def _changes(a: _Leaves, b: _Leaves) -> Iterator[tuple[bytes, Change]]:
    for key in sorted(a.keys() | b.keys()):
        if key not in a:
            yield key, "added"
        elif key not in b:
            yield key, "removed"
        elif a[key] != b[key]:
            yield key, "changed"


def _outermost(changes: Iterable[tuple[bytes, Change]]) -> Iterator[tuple[bytes, Change]]:
    """Without what lies in a sequence that was itself added or removed."""
    whole: bytes | None = None
    for path, change in changes:
        if whole is not None and path.startswith(whole):
            continue
        whole = path if change != "changed" else None
        yield path, change


def _show_element(path: bytes) -> str:
    return f"{show_path(path)} {keyword_for_tag(int.from_bytes(path[-4:], 'big'))}".rstrip()


def _show_frame(key: bytes) -> str:
    path, kind = key[:-1], key[-1]
    if path == BYTES_BEHIND_LAST_FRAME:
        return "bytes behind the last frame"
    frame = f"frame {int.from_bytes(path, 'big') + 1}"
    return frame if kind == FRAME else f"unused bits of {frame}"
