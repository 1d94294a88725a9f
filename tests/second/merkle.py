"""The definitions of RFC 6962 section 2.1, recursive as they stand there."""

from collections.abc import Sequence
from hashlib import sha256


def leaf_hash(leaf: bytes) -> bytes:
    """MTH of one leaf input."""
    return sha256(b"\x00" + leaf).digest()


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes (RFC 6962 2.1)."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = _split(len(hashes))
    return sha256(b"\x01" + tree_hash(hashes[:k]) + tree_hash(hashes[k:])).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """MTH over leaf inputs."""
    return tree_hash([leaf_hash(leaf) for leaf in leaves])


def path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]): the audit path of leaf m, lowest node first (RFC 6962 2.1.1)."""
    if len(hashes) == 1:
        return []
    k = _split(len(hashes))
    if m < k:
        return [*path(m, hashes[:k]), tree_hash(hashes[k:])]
    return [*path(m - k, hashes[k:]), tree_hash(hashes[:k])]


def _split(n: int) -> int:
    """The largest power of two smaller than n."""
    return 1 << ((n - 1).bit_length() - 1)
