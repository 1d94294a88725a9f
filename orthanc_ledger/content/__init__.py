"""Content stores: sealed objects and manifest blocks by CID. Backends are chosen here, by URL scheme."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from orthanc_ledger.content.cid import LARGEST, cid_of
from orthanc_ledger.errors import ConfigError, IntegrityError


@dataclass(frozen=True, slots=True)
class Stored:
    """An object written to a batch: its CID, and its size in bytes."""

    cid: str
    size: int


class Batch(Protocol):
    """A writer for one batch of objects and blocks. Leaving it without :meth:`commit` discards all of them.

    What was added is held by nobody until ``commit`` returns; from then on it survives the loss of power. When
    ``commit`` raises, any part of the batch may be held, each object whole or not at all; the same batch may be written
    again, and so may any content that is held already: the CID is the same, and a damaged copy is replaced.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add_object(self, write: Callable[[BinaryIO], None]) -> Stored:
        """Call ``write`` with a sink for the object's bytes and return the CID computed from them.

        What ``write`` raises comes through, and that object is discarded. Raises ``ContentAway`` when the store takes
        no more bytes.
        """
        ...

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """Return an object of this batch as it was written, before its commit. Raises ``NotHeld``, ``ContentAway``."""
        ...

    def add_block(self, block: bytes) -> str:
        """Add a dag-cbor block and return its CID. Raises ``ContentAway``."""
        ...

    def commit(self) -> None:
        """Make all that was added durable, then held. Raises ``ContentAway``."""
        ...


class Objects(Protocol):
    """Where an object can be opened: a store, or a batch before its commit."""

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO: ...


class ContentStore(Protocol):
    """Sealed objects and manifest blocks, held under their CIDs. Nothing is deleted by writing."""

    @property
    def near(self) -> "ContentStore":
        """The copies on this machine, which clinical retrieval reads; a store that has no others is its own."""
        ...

    @property
    def places(self) -> Sequence[str]:
        """The names of all places of the store that may have copies."""
        ...

    def check(self, to_read: bool = False) -> None:
        """Ask whether batches can be written now; ``to_read``: whether anybody can be asked for what is held.

        Raises ``ContentAway`` when not, ``ConfigError`` when this store must never be used, as it would not keep what
        it took or shows it to strangers; the message names the setting.
        """
        ...

    def begin(self) -> Batch:
        """Start a batch. Raises ``ContentAway``."""
        ...

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """Return an object's bytes, seekable and not yet verified: call :func:`verify_cid` before using any.

        ``size``: the bytes that it has at most; of a larger one no more need be read. Raises ``NotHeld``,
        ``ContentAway`` (here or while reading) when the store cannot be asked, and ``IntegrityError`` when ``cid`` is
        no CID of a file, or it is larger.
        """
        ...

    def get_block(self, cid: str) -> bytes:
        """Return a dag-cbor block, its CID checked. Raises ``NotHeld``, ``ContentAway``, ``IntegrityError``."""
        ...

    def recover(self) -> None:
        """Discard what batches of dead processes left. Only for the one process that writes, before its first batch."""
        ...

    def repair(self, cid: str, root: str, size: int = LARGEST) -> Sequence[str]:
        """Replace each bad or missing copy of an object or block by a healthy one; return the names of those replaced.

        ``root`` is the manifest that it lies under, or itself; ``size``: the bytes that an object has at most; a
        larger one is a bad copy, and not read. Places that are away stay as they are. Killed at any moment, nothing
        healthy is lost, and what was pinned is pinned. Raises ``NotHeld`` (there is no copy anywhere) or
        ``IntegrityError`` (only bad ones) when there is nothing to repair it from, and ``ContentAway`` when that cannot
        be said now, or no copy could be written.
        """
        ...

    def keep(self, root: str) -> None:
        """See to it that a manifest and all under it are pinned, fetching from others what is not here.

        A repeat goes on where the last one ended. Raises ``ContentAway`` when not all of it came in time, and
        ``ConfigError`` when this store has nobody to fetch from.
        """
        ...

    def release(self, root: str) -> None:
        """Unpin a manifest that is refused; the next ``forget`` deletes what nothing else holds. Raises
        ``ContentAway``.
        """
        ...

    def expire(self, root: str, cids: Collection[str], now_us: int) -> None:
        """Drop those near copies of a manifest's objects that are older than the store is told to keep them, once each
        is proved to be held, whole and pinned, by enough other places; others stay. Raises ``ContentAway``.
        """
        ...

    def forget(self, roots: Collection[str], cids: Collection[str]) -> None:
        """Delete manifests (``roots``) and all objects and blocks under them (``cids``), from every place of the store.

        Returns once no place holds any of them and that is durable; what is not held is passed over. Let be is what a
        pinned manifest that is to stay names, too; the log says of each place what that is. Raises ``ContentAway``
        when that cannot be said of a place, and ``IntegrityError`` for a text that is no CID; any part may be deleted
        then, and the same call may be repeated.
        """
        ...


def verify_cid(source: BinaryIO, cid: str) -> None:
    """Read ``source`` to its end and raise ``IntegrityError`` when its CID is not ``cid``."""
    got = cid_of(source)
    if got != cid:
        raise IntegrityError(f"object: expected {cid}, got {got}")


def _local(path: str) -> ContentStore:
    from orthanc_ledger.content.local import LocalStore

    return LocalStore(Path(path))


def _kubo(path: str) -> ContentStore:
    try:
        from orthanc_ledger.content.kubo.store import KuboStore  # here, because few need what it imports
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"content store kubo:{path}: {error.name} is not installed: pip install 'orthanc-ledger[consortium]'"
        ) from error
    return KuboStore(Path(path))


SCHEMES: dict[str, Callable[[str], ContentStore]] = {"local": _local, "kubo": _kubo}
"""What opens the rest of a store's URL, by its scheme."""


def open_store(url: str) -> ContentStore:
    """Open the store at a URL: ``local:PATH`` of its folder, ``kubo:PATH`` of its connection file.

    Raises ``ConfigError`` when the scheme is unknown or the place is not there.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or not rest or scheme not in SCHEMES:
        known = ", ".join(f"{known}:…" for known in SCHEMES)
        raise ConfigError(f"content store {url!r}: expected one of {known}")
    return SCHEMES[scheme](rest)
