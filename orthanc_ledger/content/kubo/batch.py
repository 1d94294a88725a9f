"""One batch on its way into Kubo: staged beside it, sent as one CAR, then committed to the local store."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from orthanc_ledger.content import Stored
from orthanc_ledger.content.cbor import CID, decode
from orthanc_ledger.content.cid import LARGEST, Block, blocks_of, cid_bytes, cid_text
from orthanc_ledger.content.kubo.pins import Pins
from orthanc_ledger.content.local import LocalBatch, away
from orthanc_ledger.durable import sync
from orthanc_ledger.errors import ContentAway, IntegrityError

_SYNC = 1 << 17  # bytes for whose transfer there is as much time as for a node to sync a block


class Unfinished:
    """The roots that may be pinned for batches nobody knows of: empty files in a folder. Raises ContentAway."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, roots: list[str]) -> None:
        """Before they are pinned; durable."""
        with away(f"content store {self._folder}"):
            self._folder.mkdir(exist_ok=True)
            for root in roots:
                (self._folder / root).touch()
            sync(self._folder)
            sync(self._folder.parent)

    def settle(self, roots: list[str]) -> None:
        """Once somebody knows of them, or they are unpinned; durable."""
        if not self._folder.is_dir():  # no batch was ever begun here
            return
        with away(f"content store {self._folder}"):
            for root in roots:
                (self._folder / root).unlink(missing_ok=True)
            sync(self._folder)

    def roots(self) -> list[str]:
        """All of them."""
        with away(f"content store {self._folder}"):
            return os.listdir(self._folder) if self._folder.is_dir() else []


class KuboBatch:
    """A batch (:class:`orthanc_ledger.content.Batch`): Kubo has it, durable and pinned, before the local store has."""

    def __init__(self, staged: LocalBatch, pins: Pins, unfinished: Unfinished) -> None:
        self._staged = staged
        self._pins = pins
        self._unfinished = unfinished
        self._objects: dict[str, int] = {}  # by CID, their sizes
        self._blocks: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._staged.__exit__(kind, error, trace)

    def add_object(self, write: Callable[[BinaryIO], None]) -> Stored:
        """Stage an object beside Kubo."""
        stored = self._staged.add_object(write)
        self._objects[stored.cid] = stored.size
        return stored

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """Open a staged object."""
        return self._staged.open(cid)

    def add_block(self, block: bytes) -> str:
        """Stage a block."""
        cid = self._staged.add_block(block)
        self._blocks[cid] = block
        return cid

    def commit(self) -> None:
        """Send all to Kubo, then commit it beside; what was pinned for a batch that failed is unpinned, if need be by
        ``recover``.
        """
        roots = self._roots()
        if not roots:
            return
        self._unfinished.add(roots)
        try:
            sizes = [*self._objects.values(), *map(len, self._blocks.values())]
            self._pins.put(roots, self._all_blocks, sum(size + _SYNC for size in sizes))
            self._staged.commit()
        except Exception:
            with contextlib.suppress(ContentAway):
                self._pins.drop(roots)
                self._unfinished.settle(roots)
            raise
        self._unfinished.settle(roots)

    def _roots(self) -> list[str]:
        """What nothing else in it links to: of a study's batch the manifest."""
        linked = {cid_text(link) for block in self._blocks.values() for link in _links(decode(block))}
        return [cid for cid in (*self._blocks, *self._objects) if cid not in linked]

    def _all_blocks(self) -> Iterator[Block]:
        for cid in self._objects:
            last = b""
            with self._staged.open(cid) as source:
                for last, block in blocks_of(source):
                    yield last, block
            if last != cid_bytes(cid):
                raise IntegrityError(f"staged object: expected {cid}, got {cid_text(last)}: is the disk sound?")
        for cid, block in self._blocks.items():
            yield cid_bytes(cid), block


def _links(value: Any) -> Iterator[CID]:
    if isinstance(value, CID):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _links(item)
    elif isinstance(value, list):
        for item in value:
            yield from _links(item)
