"""The durable inbox: what receivers accepted and the anchorer has not yet anchored; also quarantine and conflict queue.

A unit is written to a file without a name (O_TMPFILE) on the spool's own file system and gets its name by linkat(2)
when it is complete and synced: a process killed before that leaves nothing behind. The name is the claim on the SOP
Instance UID (docs/manifest.md), and linkat fails if it exists, so two receivers cannot both win it.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Protocol

from orthanc_ledger.arrival import Arrival, encode_head, read_head
from orthanc_ledger.clock import MicrosecondClock
from orthanc_ledger.durable import sync, write_early
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld, SpoolFull, UidMismatch, Unreadable
from orthanc_ledger.instance import read_identifiers

INBOX = "inbox"
CONFLICTS = "conflicts"
QUARANTINE = "quarantine"
TEMPORARY = "temporary"  # where the node's processes have their temporary files, which have no names

_UID = re.compile(r"[0-9.]{1,64}")
_RESERVE_STEP = 16 << 20  # bytes of an object between two looks at the free space
_DISK_FAILS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_YOUNG_NS = 100_000_000  # folder times are as coarse as the kernel's tick: at most 10 ms


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
        largest_bytes: int,
        now_us: MicrosecondClock,
    ) -> None:
        """Open the spool, making its folders. Raises ConfigError when the file system has no O_TMPFILE, SpoolFull when
        it is full or fails.

        ``reserve_bytes`` stay free on its file system; no data set of more than ``largest_bytes`` is accepted.
        """
        self.folder = folder
        self._claim_name = claim_name
        self._claims = claims
        self._reserve_bytes = reserve_bytes
        self._largest_bytes = largest_bytes
        self._now_us = now_us
        try:
            for name in (INBOX, CONFLICTS, QUARANTINE, TEMPORARY):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(_unnamed_file(folder / INBOX))
        except OSError as error:
            if error.errno in _DISK_FAILS:  # a node must not end for it, as it does for a wrong configuration
                raise SpoolFull(f"spool {folder}: cannot be written now: {error.strerror}") from error
            raise ConfigError(
                f"{folder}: the spool needs a file system with O_TMPFILE (ext4, xfs, btrfs, tmpfs), "
                f"got: {error.strerror}; choose another data_dir"
            ) from error

    def begin(self, head: ArrivalHead) -> "Incoming":
        """Open room for one object.

        Raises SpoolFull when less than the reserve is free; Unreadable when the command's UIDs are none (PS3.5 9.1).
        """
        for name, uid in (("Class", head.sop_class), ("Instance", head.sop_instance)):
            if not _UID.fullmatch(uid):
                raise Unreadable(f"Affected SOP {name} UID: expected 1 to 64 digits and points, got {uid[:64]!r}")
        self._check_reserve()
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
        claim = self._claim_name(head.sop_instance)
        return Incoming(
            self.folder,
            arrival,
            head.called_address,
            claim,
            self._claims,
            self._largest_bytes,
            self._check_reserve,
            self._now_us,
        )

    def _check_reserve(self) -> None:
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve_bytes:
            raise SpoolFull(
                f"spool {self.folder}: {free} bytes free, reserve is {self._reserve_bytes}: free space or add a disk"
            )

    def names(self, queue: str = INBOX, but: Container[str] = ()) -> list[str]:
        """Names of the units in a queue, oldest first, leaving out those in ``but``."""
        found = []
        with os.scandir(self.folder / queue) as entries:
            for entry in entries:
                if entry.name not in but:
                    with contextlib.suppress(FileNotFoundError):  # a person discarded it meanwhile
                        found.append((entry.stat().st_mtime_ns, entry.name))
        return [name for _, name in sorted(found)]

    def holds(self, name: str, queue: str = INBOX) -> bool:
        """Whether a queue has a unit of that name."""
        return (self.folder / queue / name).exists()

    def version(self, queue: str) -> int:
        """A number that is the same again only when no unit entered or left the queue in between."""
        changed_ns = (self.folder / queue).stat().st_mtime_ns
        now_ns = self._now_us() * 1000
        # A folder that changed a moment ago may change again without getting another time.
        return changed_ns if changed_ns < now_ns - _YOUNG_NS else -now_ns

    def sync(self, queue: str = INBOX) -> None:
        """Make the names that a queue shows now durable."""
        sync(self.folder / queue)

    @contextlib.contextmanager
    def open(self, name: str, queue: str = INBOX) -> Iterator[BinaryIO]:
        """A unit's bytes. Raises NotHeld when it is gone."""
        try:
            file = open(self.folder / queue / name, "rb")  # noqa: SIM115 - only opening may mean that it is gone
        except FileNotFoundError as error:
            raise NotHeld(f"spool: no unit {name} in {queue}") from error
        with file:
            yield file

    def remove(self, name: str, queue: str = INBOX) -> None:
        """Forget a unit; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / queue / name)

    def put_aside(self, name: str, queue: str, source: str = INBOX) -> str:
        """Move a unit to conflict queue or quarantine; returns its name there. Durable on return. Raises NotHeld."""
        claim = claim_of(name)
        try:
            with self.open(name, source) as unit:
                aside = aside_name(claim, read_head(unit).arrival.sha256)
        except IntegrityError:
            aside = f"{claim}.damaged"
        os.replace(self.folder / source / name, self.folder / queue / aside)
        sync(self.folder / queue)
        sync(self.folder / source)
        return aside

    def take_back(self, name: str, queue: str = QUARANTINE) -> str:
        """Move a unit to the inbox again, to be tried anew; returns its claim. Durable on return.

        Raises NotHeld when it is gone, ConfigError when another object came under its UID meanwhile.
        """
        claim = claim_of(name)
        try:
            os.link(self.folder / queue / name, self.folder / INBOX / claim)
        except FileNotFoundError as error:
            raise NotHeld(f"{queue}: no unit {name}; `orthanc-ledger {queue}` shows what is there") from error
        except FileExistsError as error:
            raise ConfigError(f"{name}: an object with its UID has just arrived; look again in a moment") from error
        sync(self.folder / INBOX)
        self.remove(name, queue)
        return claim


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
            self._fd = _unnamed_file(folder / INBOX)
            try:
                _write_all(self._fd, head)
            except OSError:
                self.discard()
                raise

    def write(self, data: bytes | memoryview) -> None:
        """Append encoded data set bytes. Raises SpoolFull when they cannot be kept, or are too many."""
        if self._fd is None:
            raise ValueError("this object was already accepted or discarded")
        before, self._size = self._size, self._size + len(data)
        if self._size > self._largest_bytes:
            raise SpoolFull(
                f"spool: a data set of more than {self._largest_bytes} bytes is not accepted: raise largest_object_mb"
            )
        if self._size // _RESERVE_STEP > before // _RESERVE_STEP:
            self._check_reserve()
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
            write_early(self._fd)
            self._check_identifiers(self._fd)
            sha256 = self._digest.digest()
            holder = self._claims.claimed(self._claim)
            if holder == sha256:  # the anchorer syncs the inbox before it enters a unit: this one is durable
                return Receipt.SAME_AGAIN
            arrival = replace(self._arrival, received_us=self._now_us(), sha256=sha256)
            head = encode_head(arrival, self._called_address)
            if len(head) != self._data_set_offset:  # microseconds have the same length from 1970-01-01T01:12 on
                raise SpoolFull(
                    "spool: this machine's clock jumped from or to 1970; set it, then send the object again"
                )
            with _spool_errors():
                os.pwrite(self._fd, head, 0)
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
        while not _link_unnamed(fd, inbox, self._claim):
            holder = self._holder(inbox)
            if holder == sha256:
                return Receipt.SAME_AGAIN
            if holder is not None:
                return self._link_conflict(fd, sha256)
        return Receipt.STORED

    def _holder(self, inbox: Path) -> bytes | None:
        """SHA-256 of what has the claim; None when it was put aside and is not in the index yet: its name is free."""
        try:
            with open(inbox / self._claim, "rb") as unit:
                return read_head(unit).arrival.sha256
        except FileNotFoundError:  # anchored and unlinked since: the index knows it now
            return self._claims.claimed(self._claim)

    def _link_conflict(self, fd: int, sha256: bytes) -> Receipt:
        _link_unnamed(fd, self._folder / CONFLICTS, aside_name(self._claim, sha256))
        return Receipt.CONFLICT


def claim_of(name: str) -> str:
    """The claim in a unit's name: the name itself in the inbox, its beginning in the other queues."""
    return name.partition(".")[0]


def aside_name(claim: str, sha256: bytes) -> str:
    """A unit's name in conflict queue and quarantine."""
    return f"{claim}.{sha256.hex()[:16]}"


def _unnamed_file(folder: Path) -> int:
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
