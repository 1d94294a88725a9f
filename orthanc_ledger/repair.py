"""Which copy of a sealed object or a manifest's block is read first, and what becomes of a bad one.

It is replaced by a healthy one, of whatever place, before the object counts as damaged; the log and the ledger
(ReportRepair) are told, once for each repair. Whether there is a healthy copy cannot always be said: a store that is
away is no damage.
"""

import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from orthanc_ledger.content import ContentStore, Objects
from orthanc_ledger.content.cid import LARGEST
from orthanc_ledger.errors import ConfigError, ContentAway, IntegrityError, NotHeld
from orthanc_ledger.manifest import Record
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.sole import sole

LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

DAMAGED = "integrity"
UNDECIDED = "not verified"
"""Kinds of alarms: nobody has a healthy copy; one is bad, and not all who may have another can be asked."""

_PATIENCE_S = 60.0
_OTHER = "another process of this node repairs copies: wait for its end"


class Sealed(Objects, Protocol):
    """Where sealed objects and manifest blocks are read: a content store, or one that is read slowly (paced.py)."""

    def get_block(self, cid: str) -> bytes: ...


def check_readable(content: ContentStore) -> None:
    """Raises ContentAway when no place of a store answers, or one that does was set so that it must not be used: that
    ends no process that has begun.
    """
    try:
        content.check(to_read=True)
    except ConfigError as error:
        raise ContentAway(str(error)) from error


class Nearest:
    """A store's copies on this machine, and what is not here by its other places: dropped when it was old enough, or
    lost, which the sweep finds. Raises as the store does.
    """

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._near = content.near

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """Open an object, here if it is here."""
        try:
            return self._near.open(cid, size)
        except NotHeld:
            return self._content.open(cid, size)

    def get_block(self, cid: str) -> bytes:
        """Read a block, here if it is here."""
        try:
            return self._near.get_block(cid)
        except NotHeld:
            return self._content.get_block(cid)


class Repairs:
    """Repairs of a node's or a keeper's content store, one at a time: no two tell the same one."""

    def __init__(
        self,
        content: ContentStore,
        outbox: Outbox,
        node: Mapping[str, str],
        lock: Path,
        pay: Callable[[int], object] = lambda _: None,
        is_erased: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """``node`` is who repairs, as the ledger names it: organisation and aeTitle. ``pay`` is told how many bytes all
        copies of an object have before they are read (paced.py). ``is_erased``: whether a study (token) is being
        erased; asked while no erasure is carried out, as what was just deleted is missing, and others may have it.
        """
        self._content = content
        self._places = len(content.places)
        self._pay = pay
        self._is_erased = is_erased
        self._outbox = outbox
        self._node = node
        self._lock = lock

    def check(self) -> None:
        """Raises ContentAway when copies elsewhere cannot be asked for."""
        check_readable(self._content)

    def mend(self, cid: str, manifest: str, study_token: bytes, size: int = LARGEST) -> list[str]:
        """Replace bad and missing copies of an object, of at most so many bytes, or block of a manifest; the names of
        those replaced.

        Raises as `ContentStore.repair`; NotHeld also once the study is erased; ContentAway also while another repair
        takes too long.
        """
        with sole(self._lock, ContentAway(_OTHER), _PATIENCE_S):
            if self._is_erased(study_token):
                raise NotHeld(f"{cid}: of a study that is erased")
            return list(self._content.repair(cid, manifest, size))

    def tell(self, study_token: bytes, instance: bytes, cid: str, replaced: list[str]) -> None:
        """Tell of a repair of an instance's object; of a manifest's block, under one instance of that manifest."""
        if replaced:
            LOGGER.info("repaired %s: %s", cid, ", ".join(replaced))
            args = {"study": study_token, "instance": instance, "node": dict(self._node)}
            self._outbox.post("ReportRepair", args, secrets.token_bytes(16))

    def repair(self, record: Record, manifest: str, study_token: bytes) -> None:
        """Verify all copies of an object; replace what is bad or missing, and tell of it. Raises as ``mend``."""
        self._pay(record.sealed_size * self._places)
        replaced = self.mend(record.object, manifest, study_token, record.sealed_size)
        self.tell(study_token, record.instance, record.object, replaced)

    def tend(self, manifest: str, objects: Collection[str], now_us: int, is_erased: Callable[[], bool]) -> None:
        """Once all objects of a manifest are verified: pin it where it is not pinned any more, and drop what near
        copies are old enough; what cannot be done now is the next round's. ``is_erased`` is asked right before, while
        no erasure is being carried out: nobody is to fetch from others what has just been deleted.
        """
        if self._places > 1:
            with contextlib.suppress(ContentAway), sole(self._lock, ContentAway(_OTHER), _PATIENCE_S):
                if is_erased():
                    return
                self._content.keep(manifest)
                self._content.expire(manifest, objects, now_us)

    @contextlib.contextmanager
    def opened(
        self,
        record: Record,
        manifest: str,
        study_token: bytes,
        open_verified: Callable[[], AbstractContextManager[T]],
        every_copy: bool = False,
    ) -> Iterator[T]:
        """What ``open_verified`` gives of a manifest's object, whose copies are mended first when it fails, or in any
        case (``every_copy``).

        Raises IntegrityError and NotHeld when no copy is healthy; ContentAway when that cannot be said now.
        """
        opened: T | None = None
        with contextlib.ExitStack() as stack:
            if not every_copy or self._places == 1:
                with contextlib.suppress(IntegrityError, NotHeld):
                    opened = stack.enter_context(open_verified())
            if opened is None:
                self.repair(record, manifest, study_token)
                opened = stack.enter_context(open_verified())
            yield opened
