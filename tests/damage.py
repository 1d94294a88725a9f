"""What decay and intruders do to a file."""

import os
from pathlib import Path


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit, ``at`` of the way through a file: whatever its byte was, it is another."""
    os.chmod(path, 0o600)
    raw = bytearray(path.read_bytes())
    raw[int(at * len(raw))] ^= 1
    path.write_bytes(raw)
