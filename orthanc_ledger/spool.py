"""The durable inbox: what a receiver accepted and the anchorer has not yet anchored; beside it, quarantine and conflict queue.

A unit is written to a file without a name (O_TMPFILE) on the spool's own file system and gets its name by linkat(2) when it is complete and
synced: a process killed before that leaves nothing behind. The name is the claim on the SOP Instance UID (docs/manifest.md), and linkat
fails if it exists, so two receivers cannot both win it.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Protocol

from orthanc_ledger.arrival import Arrival, encode_head, read_head
from orthanc_ledger.clock import MicrosecondClock
from orthanc_ledger.errors import ConfigError, NotHeld, SpoolFull, UidMismatch
from orthanc_ledger.instance import read_identifiers

INBOX = "inbox"
CONFLICTS = "conflicts"
QUARANTINE = "quarantine"


class Receipt(Enum):
    """What became of an accepted object; in each case it is durable."""

    STORED = "stored"
    SAME_AGAIN = "same again"
    CONFLICT = "conflict"


class Claims(Protocol):
    """Who already holds a claim: the index, for what left the inbox."""

    def claimed(self, claim: str) -> bytes | None:
        """SHA-256 of the data set that holds the claim, or None."""


@dataclass(frozen=True)
class ArrivalHead:
    """What is known of an object before its first byte. Addresses are URIs, ``dicom://host:port``."""

    calling_ae: str
    called_ae: str
    peer_address: str
    called_address: str
    association: bytes
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    origin: str


class Spool:
    """The inbox of one node. Safe for several processes at once."""

    def __init__(
        self,
        folder: Path,
        claim_name: Callable[[str], str],
        claims: Claims,
        reserve_bytes: int,
        now_us: MicrosecondClock,
    ) -> None:
        """Open the spool, making its folders. Raises ConfigError when the file system has no O_TMPFILE."""
        self.folder = folder
        self._claim_name = claim_name
        self._claims = claims
        self._reserve_bytes = reserve_bytes
        self._now_us = now_us
        for name in (INBOX, CONFLICTS, QUARANTINE):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.close(_unnamed_file(folder / INBOX))
        except OSError as error:
            raise ConfigError(
                f"{folder}: the spool needs a file system with O_TMPFILE (ext4, xfs, btrfs, tmpfs), got: {error.strerror}; choose another data_dir"
            ) from error

    def begin(self, head: ArrivalHead) -> "Incoming":
        """Open room for one object. Raises SpoolFull when less than the reserve is free."""
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve_bytes:
            raise SpoolFull(f"spool {self.folder}: {free} bytes free, reserve is {self._reserve_bytes}: free space or add a disk")
        arrival = Arrival(
            received_us=self._now_us(),
            calling_ae=head.calling_ae,
            called_ae=head.called_ae,
            peer=head.peer_address,
            association=head.association,
            tls=None,
            origin=head.origin,
            sop_class=head.sop_class,
            sop_instance=head.sop_instance,
            transfer_syntax=head.transfer_syntax,
        )
        return Incoming(self.folder, arrival, head.called_address, self._claim_name(head.sop_instance), self._claims)

    def names(self, queue: str = INBOX) -> list[str]:
        """Names of the units in a queue, oldest first."""
        with os.scandir(self.folder / queue) as entries:
            found = sorted((entry.stat().st_mtime_ns, entry.name) for entry in entries)
        return [name for _, name in found]

    def changed_ns(self, queue: str) -> int:
        """A number that changes whenever a unit enters or leaves a queue."""
        return (self.folder / queue).stat().st_mtime_ns

    @contextlib.contextmanager
    def open(self, name: str, queue: str = INBOX) -> Iterator[BinaryIO]:
        """A unit's bytes. Raises NotHeld when it is gone."""
        try:
            file = open(self.folder / queue / name, "rb")
        except FileNotFoundError as error:
            raise NotHeld(f"spool: no unit {name} in {queue}") from error
        with file:
            yield file

    def remove(self, name: str, queue: str = INBOX) -> None:
        """Forget a unit; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / queue / name)

    def put_aside(self, name: str, queue: str) -> str:
        """Move a unit from the inbox to the conflict queue or quarantine; returns its name there. Durable on return."""
        with self.open(name) as unit:
            aside = _aside_name(name, read_head(unit).arrival.sha256)
        os.replace(self.folder / INBOX / name, self.folder / queue / aside)
        _sync_folder(self.folder / queue)
        _sync_folder(self.folder / INBOX)
        return aside

    def take_back(self, name: str) -> str:
        """Move a unit from quarantine to the inbox again, to be tried anew; returns its claim."""
        claim = name.partition(".")[0]
        try:
            os.link(self.folder / QUARANTINE / name, self.folder / INBOX / claim)
        except FileNotFoundError as error:
            raise NotHeld(f"quarantine: no unit {name}; `orthanc-ledger quarantine list` shows what is there") from error
        _sync_folder(self.folder / INBOX)
        self.remove(name, QUARANTINE)
        return claim


class Incoming:
    """One object while it arrives: hashed and written, nothing decoded, no name."""

    def __init__(self, folder: Path, arrival: Arrival, called_address: str, claim: str, claims: Claims) -> None:
        self._folder = folder
        self._arrival = arrival
        self._called_address = called_address
        self._claim = claim
        self._claims = claims
        self._digest = hashlib.sha256()
        head = encode_head(arrival, called_address)
        self._data_set_offset = len(head)
        with _spool_errors():
            self._fd: int | None = _unnamed_file(folder / INBOX)
            _write_all(self._fd, head)

    def write(self, data: bytes) -> None:
        """Append encoded data set bytes. Raises SpoolFull when they cannot be kept."""
        if self._fd is None:
            raise ValueError("this object was already accepted or discarded")
        self._digest.update(data)
        with _spool_errors():
            _write_all(self._fd, data)

    def accept(self) -> Receipt:
        """Make the object durable; when this returns it survives ``kill -9`` and power loss.

        Raises Unreadable (no UIDs can be read), UidMismatch (they are unlike the command's), SpoolFull (not written).
        """
        if self._fd is None:
            raise ValueError("this object was already accepted or discarded")
        try:
            self._check_identifiers(self._fd)
            sha256 = self._digest.digest()
            holder = self._claims.claimed(self._claim)
            if holder == sha256:
                return Receipt.SAME_AGAIN
            with _spool_errors():
                os.pwrite(self._fd, encode_head(replace(self._arrival, sha256=sha256), self._called_address), 0)
                os.fsync(self._fd)
                if holder is not None:
                    return self._link_conflict(self._fd, sha256)
                return self._link(self._fd, sha256)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget what was written and has no name; harmless when called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

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
        if _link_unnamed(fd, inbox, self._claim):
            return Receipt.STORED
        try:
            with open(inbox / self._claim, "rb") as unit:
                holder = read_head(unit).arrival.sha256
        except FileNotFoundError:  # anchored and unlinked since: the index knows it now
            holder = self._claims.claimed(self._claim) or b""
        if holder == sha256:
            _sync_folder(inbox)  # the other receiver's name may not be on disk yet
            return Receipt.SAME_AGAIN
        return self._link_conflict(fd, sha256)

    def _link_conflict(self, fd: int, sha256: bytes) -> Receipt:
        _link_unnamed(fd, self._folder / CONFLICTS, _aside_name(self._claim, sha256))
        return Receipt.CONFLICT


def _aside_name(claim: str, sha256: bytes) -> str:
    return f"{claim}.{sha256.hex()[:16]}"


def _unnamed_file(folder: Path) -> int:
    return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)


def _link_unnamed(fd: int, folder: Path, name: str) -> bool:
    """Give the file a name, durably; False when the name is taken."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder_fd, follow_symlinks=True)
        os.fsync(folder_fd)
    except FileExistsError:
        os.fsync(folder_fd)
        return False
    finally:
        os.close(folder_fd)
    return True


def _sync_folder(folder: Path) -> None:
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _spool_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise SpoolFull(f"spool: cannot be written ({reason}); nothing of the object was kept") from error
