"""The durable inbox: what receivers accepted and the anchorer has not yet anchored; also quarantine and conflict queue.
How a unit gets in is `incoming.py`.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orthanc_ledger.arrival import Arrival, read_head
from orthanc_ledger.clock import MicrosecondClock
from orthanc_ledger.durable import sync
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld, SpoolFull, Unreadable
from orthanc_ledger.incoming import CONFLICTS as CONFLICTS
from orthanc_ledger.incoming import INBOX as INBOX
from orthanc_ledger.incoming import Claims, Incoming, Receipt, aside_name, holder_in, unnamed_file

QUARANTINE = "quarantine"
TEMPORARY = "temporary"  # where the node's processes have their temporary files, which have no names

_UID = re.compile(r"[0-9.]{1,64}")
_DISK_FAILS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_YOUNG_NS = 100_000_000  # folder times are as coarse as the kernel's tick: at most 10 ms


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
            os.close(unnamed_file(folder / INBOX))
        except OSError as error:
            if error.errno in _DISK_FAILS:  # a node must not end for it, as it does for a wrong configuration
                raise SpoolFull(f"spool {folder}: cannot be written now: {error.strerror}") from error
            raise ConfigError(
                f"{folder}: the spool needs a file system with O_TMPFILE (ext4, xfs, btrfs, tmpfs), "
                f"got: {error.strerror}; choose another data_dir"
            ) from error

    def begin(self, head: ArrivalHead) -> Incoming:
        """Open room for one object.

        Raises SpoolFull when less than the reserve is free; Unreadable when the command's UIDs are none (PS3.5 9.1).
        """
        for name, uid in (("Class", head.sop_class), ("Instance", head.sop_instance)):
            if not _UID.fullmatch(uid):
                raise Unreadable(f"Affected SOP {name} UID: expected 1 to 64 digits and points, got {uid[:64]!r}")
        self._check_free(self._reserve_bytes)
        return self._incoming(head, self._claim_name(head.sop_instance), self._reserve_bytes)

    def keep(self, head: ArrivalHead, data_set: bytes | memoryview) -> Receipt:
        """Make a whole object durable that is stored elsewhere already, whatever its data set is: what cannot be parsed
        goes to quarantine once it is taken in. Half of the reserve is for what was on its way when it was reached.

        ``head``: the UIDs are the data set's, and empty where it cannot be read so far. Raises SpoolFull.
        """
        incoming = self.write_down(head, data_set)
        return incoming.give_name(incoming.holder())

    def write_down(self, head: ArrivalHead, data_set: bytes | memoryview) -> Incoming:
        """The same but for the name: the caller gives it, or discards what was written. Raises SpoolFull."""
        reserve_bytes = self._reserve_bytes // 2
        self._check_free(reserve_bytes)
        named = head.sop_instance or f"sha256:{hashlib.sha256(data_set).hexdigest()}"
        incoming = self._incoming(head, self._claim_name(named), reserve_bytes)
        try:
            incoming.write(data_set)
            incoming.write_down()
        except BaseException:
            incoming.discard()
            raise
        return incoming

    def check_room(self, size: int = 0, copies: int = 0) -> None:
        """Raises SpoolFull when less than the reserve is free, or would be with so many copies of an object of ``size``
        bytes, or these are more than an object may have.
        """
        self._check_free(self._reserve_bytes, size * copies)
        if size > self._largest_bytes:
            raise SpoolFull(f"spool: an object of {size} bytes is not accepted: raise largest_object_mb")

    def holder(self, sop_uid: str) -> bytes | None:
        """SHA-256 of the data set that holds the claim on a SOP Instance UID, or None."""
        claim = self._claim_name(sop_uid)
        return self._claims.claimed(claim) or holder_in(self.folder / INBOX, claim, self._claims)

    def has_conflict(self, sop_uid: str) -> bool:
        """Whether other content under a SOP Instance UID waits for a person."""
        claim = self._claim_name(sop_uid)
        return any(claim_of(name) == claim for name in self.names(CONFLICTS))

    def _incoming(self, head: ArrivalHead, claim: str, reserve_bytes: int) -> Incoming:
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
        return Incoming(
            self.folder,
            arrival,
            head.called_address,
            claim,
            self._claims,
            self._largest_bytes,
            lambda: self._check_free(reserve_bytes),
            self._now_us,
        )

    def _check_free(self, reserve_bytes: int, size: int = 0) -> None:
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        if free - size < reserve_bytes:
            wanted = f", {size} are wanted" if size else ""
            raise SpoolFull(
                f"spool {self.folder}: {free} bytes free{wanted}, reserve is {reserve_bytes}: free space or add a disk"
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


def claim_of(name: str) -> str:
    """The claim in a unit's name: the name itself in the inbox, its beginning in the other queues."""
    return name.partition(".")[0]
