"""Merkle trees as Certificate Transparency defines them (RFC 6962 section 2.1).

Every digest here is 32 bytes of SHA-256. Leaves are hashed with a 0x00 prefix and nodes with 0x01, so that no node can
be passed off as a leaf.
"""

import hashlib
from collections.abc import Iterable, Sequence

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

    def add(self, leaf_hash: bytes) -> None:
        """Append a leaf by its hash (:func:`leaf_hash` of its input)."""
        digest = leaf_hash
        merges = self.size
        while merges & 1:  # each trailing one bit of the old size is a perfect subtree as large as the new one
            digest = node_hash(self._subtrees.pop(), digest)
            merges >>= 1
        self._subtrees.append(digest)
        self.size += 1

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
    for leaf in leaves:
        tree.add(leaf_hash(leaf))
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
