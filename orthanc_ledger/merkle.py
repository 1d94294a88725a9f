"""Merkle trees as Certificate Transparency defines them (RFC 6962 section 2.1, with the algorithms of RFC 9162).

Every digest here is 32 bytes of SHA-256. Leaves are hashed with a 0x00 prefix and nodes with 0x01, so that no node can
be passed off as a leaf.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from orthanc_ledger.errors import IntegrityError

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of a tree without leaves."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf whose input is ``data``."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of the node over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """An append-only tree that keeps one digest for each perfect subtree: O(log n) memory."""

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []

    def add(self, leaf_hash: bytes) -> list[bytes]:
        """Append a leaf by its hash (:func:`leaf_hash` of its input).

        Gives the roots of the perfect subtrees that it completes, by level: the leaf's hash first.
        """
        completed = [leaf_hash]
        merges = self.size
        while merges & 1:  # each trailing one bit of the old size is a perfect subtree as large as the new one
            completed.append(node_hash(self._subtrees.pop(), completed[-1]))
            merges >>= 1
        self._subtrees.append(completed[-1])
        self.size += 1
        return completed

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append many leaves by their hashes: as :meth:`add`, without the subtrees."""
        sha256, subtrees, size = hashlib.sha256, self._subtrees, self.size  # local names: this loop is hot
        for digest in leaf_hashes:
            merges = size
            while merges & 1:
                digest = sha256(b"\x01" + subtrees.pop() + digest).digest()
                merges >>= 1
            subtrees.append(digest)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """Root over all leaves so far; leaves may be added afterwards."""
        if not self._subtrees:
            return EMPTY_ROOT
        digest = self._subtrees[-1]
        for left in reversed(self._subtrees[:-1]):
            digest = node_hash(left, digest)
        return digest


def root(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf inputs (not hashes): MTH(D[n])."""
    tree = Tree()
    tree.extend(map(leaf_hash, leaves))
    return tree.root()


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """PATH(index, D[n]): the sibling digests from the leaf up to the root (RFC 6962 section 2.1.1).

    Raises ``IndexError`` when ``index`` is no leaf of the tree.
    """
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(f"no leaf {index} in a tree of {len(leaf_hashes)}")
    proof = []
    level, position = list(leaf_hashes), index
    while len(level) > 1:
        sibling = position ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        # A last digest without a sibling goes up as it is: the same tree as RFC 6962's split at a power of two.
        parents = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level, position = parents + level[len(parents) * 2 :], position // 2
    return proof


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is number ``index`` of the ``size`` leaves under ``root`` (RFC 9162 section 2.1.3.2).

    Raises ``IntegrityError`` when the index is outside the tree, the proof has another length than the tree asks for,
    or the digests lead to another root.
    """
    if not 0 <= index < size:
        raise IntegrityError(f"inclusion proof: leaf index {index} is outside a tree of {size} leaves")
    digest, position, last = leaf_hash, index, size - 1
    siblings = iter(proof)
    used = 0
    while last:
        if position & 1 or position < last:
            sibling = next(siblings, None)
            if sibling is None:
                raise IntegrityError(
                    f"inclusion proof for leaf {index} of {size} is too short: got {len(proof)} digests"
                )
            digest = node_hash(sibling, digest) if position & 1 else node_hash(digest, sibling)
            used += 1
        position, last = position >> 1, last >> 1
    if used != len(proof):
        raise IntegrityError(f"inclusion proof for leaf {index} of {size}: expected {used} digests, got {len(proof)}")
    if digest != root:
        raise IntegrityError(
            f"inclusion proof for leaf {index} of {size}: expected root {root.hex()}, got {digest.hex()}"
        )


def consistency_proof(old_size: int, new_size: int, root: Callable[[int, int], bytes]) -> list[bytes]:
    """PROOF(old_size, D[new_size]): what shows that a tree was only appended to (RFC 9162 section 2.1.4.1).

    `root(start, end)` gives MTH(D[start:end]); it is asked for O(log n) of them. Raises ``IndexError`` unless 0 ≤ old
    size ≤ new size.
    """
    if not 0 <= old_size <= new_size:
        raise IndexError(f"no tree of {old_size} leaves in a tree of {new_size}")
    start, end, known = 0, new_size, True  # known: whoever checks has the root of this part, it is the old tree's
    siblings: list[bytes] = []
    while 0 < old_size < end:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if old_size <= middle:
            siblings.append(root(middle, end))
            end = middle
        else:
            siblings.append(root(start, middle))
            start, known = middle, False
    return siblings[::-1] if known else [root(start, end), *reversed(siblings)]


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the first leaves of the new tree are those of the old one (RFC 9162 section 2.1.4.2).

    Every tree continues the empty one. Raises ``IntegrityError`` when the new tree is the smaller one, the proof has
    another length than the sizes ask for, or its digests lead to other roots.
    """
    what = f"consistency of {old_size} entries with {new_size}"
    if not 0 <= old_size <= new_size:
        raise IntegrityError(f"{what}: a tree only grows")
    if old_size in (0, new_size):
        if proof:
            raise IntegrityError(f"{what}: expected an empty proof, got {len(proof)} digests")
        if old_root != (new_root if old_size else EMPTY_ROOT):
            raise IntegrityError(f"{what}: expected the root {new_root.hex()}, got {old_root.hex()}")
        return
    path = iter(proof if old_size & (old_size - 1) else [old_root, *proof])  # a perfect old tree is left out of it
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = next(path, b"")
    used = 1
    while last:
        if position & 1 or position < last:
            sibling = next(path, b"")
            used += 1
            if position & 1:
                old = node_hash(sibling, old)
                new = node_hash(sibling, new)
            else:
                new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    expected = used - (old_size & (old_size - 1) == 0)
    if len(proof) != expected:
        raise IntegrityError(f"{what}: expected {expected} digests, got {len(proof)}")
    if (old, new) != (old_root, new_root):
        raise IntegrityError(
            f"{what}: expected the roots {old_root.hex()} and {new_root.hex()}, got {old.hex()} and {new.hex()}"
        )
