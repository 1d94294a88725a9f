"""Content of any size from a seed, so that vectors need not carry it."""

from collections.abc import Iterator
from hashlib import sha256


def blocks(seed: str) -> Iterator[bytes]:
    """SHA-256(seed ‖ u64 counter), counter from 0, for ever."""
    counter = 0
    while True:
        yield sha256(seed.encode() + counter.to_bytes(8, "big")).digest()
        counter += 1


def stream(seed: str, size: int) -> bytes:
    """The first `size` bytes of the blocks joined."""
    source = blocks(seed)
    return b"".join(next(source) for _ in range(-(-size // 32)))[:size]
