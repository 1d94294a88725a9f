"""One object on its way into the spool.

It is written to a file without a name (O_TMPFILE) on the spool's own file system and gets its name by linkat(2) when it
is complete and synced: a process killed before that leaves nothing behind. The name is the claim on the SOP Instance
UID (docs/manifest.md), and linkat fails if it exists, so two receivers cannot both win it.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Protocol

from orthanc_ledger.arrival import Arrival, encode_head, read_head
from orthanc_ledger.clock import MicrosecondClock
from orthanc_ledger.durable import write_early
from orthanc_ledger.errors import SpoolFull, UidMismatch
from orthanc_ledger.instance import read_identifiers

INBOX = "inbox"
CONFLICTS = "conflicts"

_RESERVE_STEP = 16 << 20  # bytes of an object between two looks at the free space


class Receipt(Enum):
    """What became of an accepted object; in each case it is durable."""

    STORED = "stored"
    SAME_AGAIN = "same again"
    CONFLICT = "conflict"


class Claims(Protocol):
    """Who already holds a claim: the index, for what left the inbox."""

    def claimed(self, claim: str) -> bytes | None:
        """SHA-256 of the data set that holds the claim, or None."""


class Incoming:
    """One object while it arrives: hashed and written, nothing decoded, no name."""

    def __init__(
        self,
        folder: Path,
        arrival: Arrival,
        called_address: str,
        claim: str,
        claims: Claims,
        largest_bytes: int,
        check_reserve: Callable[[], None],
        now_us: MicrosecondClock,
    ) -> None:
        self._folder = folder
        self._arrival = arrival
        self._called_address = called_address
        self._claim = claim
        self._claims = claims
        self._largest_bytes = largest_bytes
        self._check_reserve = check_reserve
        self._now_us = now_us
        self._size = 0
        self._digest = hashlib.sha256()
        head = encode_head(arrival, called_address)
        self._data_set_offset = len(head)
        self._fd: int | None = None
        with _spool_errors():
            self._fd = unnamed_file(folder / INBOX)
            try:
                _write_all(self._fd, head)
            except OSError:
                self.discard()
                raise

    def write(self, data: bytes | memoryview) -> None:
        """Append encoded data set bytes. Raises SpoolFull when they cannot be kept, or are too many."""
        fd = self._open_fd()
        before, self._size = self._size, self._size + len(data)
        if self._size > self._largest_bytes:
            raise SpoolFull(
                f"spool: a data set of more than {self._largest_bytes} bytes is not accepted: raise largest_object_mb"
            )
        if self._size // _RESERVE_STEP > before // _RESERVE_STEP:
            self._check_reserve()
        self._digest.update(data)
        with _spool_errors():
            _write_all(fd, data)

    def accept(self) -> Receipt:
        """Make the object durable; when this returns it survives ``kill -9`` and power loss.

        Raises Unreadable (no UIDs can be read), UidMismatch (they are unlike the command's), SpoolFull (not written).
        """
        fd = self._open_fd()
        try:
            write_early(fd)
            self._check_identifiers(fd)
            holder = self.holder()
            if holder == self._digest.digest():  # the anchorer syncs the inbox before it enters a unit: it is durable
                return Receipt.SAME_AGAIN
            self.write_down()
            return self.give_name(holder)
        finally:
            self.discard()

    def write_down(self) -> None:
        """Make all of it durable but its name, which `give_name` or `discard` decides about. Raises SpoolFull."""
        fd = self._open_fd()
        arrival = replace(self._arrival, received_us=self._now_us(), sha256=self._digest.digest())
        head = encode_head(arrival, self._called_address)
        if len(head) != self._data_set_offset:  # microseconds have the same length from 1970-01-01T01:12 on
            raise SpoolFull("spool: this machine's clock jumped from or to 1970; set it, then send the object again")
        with _spool_errors():
            os.pwrite(fd, head, 0)
            os.fsync(fd)

    def give_name(self, holder: bytes | None) -> Receipt:
        """Make durable what was written down. ``holder``: who had the claim a moment ago. Raises SpoolFull."""
        fd, sha256 = self._open_fd(), self._digest.digest()
        try:
            if holder == sha256:
                return Receipt.SAME_AGAIN
            with _spool_errors():
                return self._link(fd, sha256) if holder is None else self._link_conflict(fd, sha256)
        finally:
            self.discard()

    def holder(self) -> bytes | None:
        """SHA-256 of the data set that holds the claim, as far as the index knows, or None. What was written is
        discarded when it cannot be told.
        """
        try:
            return self._claims.claimed(self._claim)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Forget what was written and has no name; harmless when called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError("this object was already accepted or discarded")
        return self._fd

    def _check_identifiers(self, fd: int) -> None:
        with open(fd, "rb", closefd=False) as file:
            file.seek(self._data_set_offset)
            found = read_identifiers(file, self._arrival.transfer_syntax)
        for name, expected, got in (
            ("SOP Class UID", self._arrival.sop_class, found.sop_class_uid),
            ("SOP Instance UID", self._arrival.sop_instance, found.sop_instance_uid),
        ):
            if expected != got:
                raise UidMismatch(f"{name}: the command says {expected}, the data set {got}")

    def _link(self, fd: int, sha256: bytes) -> Receipt:
        inbox = self._folder / INBOX
        while not _link_unnamed(fd, inbox, self._claim):
            holder = holder_in(inbox, self._claim, self._claims)
            if holder == sha256:
                return Receipt.SAME_AGAIN
            if holder is not None:
                return self._link_conflict(fd, sha256)
        return Receipt.STORED

    def _link_conflict(self, fd: int, sha256: bytes) -> Receipt:
        _link_unnamed(fd, self._folder / CONFLICTS, aside_name(self._claim, sha256))
        return Receipt.CONFLICT


def holder_in(inbox: Path, claim: str, claims: Claims) -> bytes | None:
    """SHA-256 of what has a claim's name in the inbox, or had it; None when it was put aside and is not in the index
    yet: its name is free.
    """
    try:
        with open(inbox / claim, "rb") as unit:
            return read_head(unit).arrival.sha256
    except FileNotFoundError:  # anchored and unlinked since: the index knows it now
        return claims.claimed(claim)


def aside_name(claim: str, sha256: bytes) -> str:
    """A unit's name in conflict queue and quarantine."""
    return f"{claim}.{sha256.hex()[:16]}"


def unnamed_file(folder: Path) -> int:
    """A descriptor of a new file without a name on a folder's file system. Raises OSError."""
    return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)


def _link_unnamed(fd: int, folder: Path, name: str) -> bool:
    """Give the file a name; False when the name is taken. What has the name is durable in both cases."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder_fd, follow_symlinks=True)
    except FileExistsError:
        return False
    else:
        return True
    finally:
        os.fsync(folder_fd)
        os.close(folder_fd)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _spool_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise SpoolFull(f"spool: cannot be written ({reason}); the object is not accepted, send it again") from error
