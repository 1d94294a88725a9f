"""What makes a file or a name outlive a power loss, beyond what a file's own `fsync` does."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_early(descriptor: int) -> None:
    """Have what was written go to the disk from now on, so that an `fsync` to come has less to wait for.

    Nothing is promised: that an application is done with a file's pages (POSIX_FADV_DONTNEED) makes Linux write them.
    """
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
