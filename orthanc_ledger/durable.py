"""What makes a file or a name outlive a power loss, beyond what a file's own `fsync` does."""

import contextlib
import os
from pathlib import Path

_LATEST = 16 << 20  # bytes; of a larger file the kernel has begun with the rest by itself


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Make a new file, durable with its name. Raises OSError, FileExistsError when there is one."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def write_over(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Make a file or replace it, wholly or not at all, durable. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    write_new(new, content, mode)
    os.replace(new, path)
    sync(path.parent)


def write_early(descriptor: int) -> None:
    """Have the end of a file go to the disk from now on, so that an `fsync` to come has less to wait for.

    Nothing is promised, and nothing raised. To be told that its pages are not needed (POSIX_FADV_DONTNEED) makes Linux
    write those that are not on the disk, and forget those that are: hence only the latest, as it will soon be read.
    """
    with contextlib.suppress(OSError):
        size = os.fstat(descriptor).st_size
        os.posix_fadvise(descriptor, max(size - _LATEST, 0), _LATEST, os.POSIX_FADV_DONTNEED)
