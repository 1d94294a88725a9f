"""Replacing bad copies. A healthy one is written over a bad one, which a node's settings make Kubo do
(``Datastore.BlockKeyCacheSize`` 0); so nothing is unpinned, and a repair may be killed at any moment.
"""

import contextlib
import io
import shutil
from collections.abc import Sequence
from typing import BinaryIO, Protocol

from orthanc_ledger.content import verify_cid
from orthanc_ledger.content.cid import LARGEST, is_block_cid
from orthanc_ledger.content.kubo.places import KuboPlace
from orthanc_ledger.content.local import NEAR, LocalStore
from orthanc_ledger.errors import ContentAway, CustodyError, IntegrityError, NotHeld


class Copy(Protocol):
    """One copy of what a CID names. Raises NotHeld, IntegrityError, ContentAway."""

    name: str

    def fetch(self, cid: str) -> BinaryIO:
        """Its bytes, verified."""
        ...

    def write(self, cid: str, source: BinaryIO) -> None:
        """Replace it."""
        ...

    def is_due(self, cid: str) -> bool:
        """Whether it is missed when it is not there."""
        ...


class NearCopy:
    """In the local store."""

    name = NEAR

    def __init__(self, local: LocalStore, keeps: bool) -> None:
        self._local = local
        self._keeps = keeps

    def fetch(self, cid: str) -> BinaryIO:
        if is_block_cid(cid):
            return io.BytesIO(self._local.get_block(cid))
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._local.open(cid))
            verify_cid(file, cid)
            file.seek(0)
            stack.pop_all()
        return file

    def write(self, cid: str, source: BinaryIO) -> None:
        source.seek(0)
        with self._local.begin() as batch:
            if is_block_cid(cid):
                batch.add_block(source.read())
            else:
                batch.add_object(lambda sink: shutil.copyfileobj(source, sink, 1 << 18))
            batch.commit()

    def is_due(self, cid: str) -> bool:
        return self._keeps and (is_block_cid(cid) or not self._local.is_dropped(cid))


class NodeCopy:
    """On a Kubo node, which is to have it when it has pinned its manifest, or in any case (``root`` None); of at most
    so many bytes.
    """

    def __init__(self, place: KuboPlace, root: str | None, most: int = LARGEST) -> None:
        self.place = place
        self.name = place.name
        self._root = root
        self._most = most

    def fetch(self, cid: str) -> BinaryIO:
        return self.place.fetch(cid, most=self._most)

    def refetch(self, cid: str) -> BinaryIO:
        """``fetch`` from others what is missing or corrupt."""
        return self.place.refetch(cid, self._most)

    def write(self, cid: str, source: BinaryIO) -> None:
        self.place.write(cid, source)

    def is_due(self, cid: str) -> bool:
        return self._root is None or self.place.kubo.pinned(self._root)


def repair(cid: str, copies: Sequence[Copy]) -> list[str]:
    """Replace the bad copies, and the missing ones that are due; their names. Others than those who have these copies
    are asked, through the nodes, only when none of them is healthy.

    Raises as ``ContentStore.repair``.
    """
    faults: dict[Copy, CustodyError] = {}
    with contextlib.ExitStack() as files:
        healthy: BinaryIO | None = None
        for copy in copies:
            try:
                file = files.enter_context(copy.fetch(cid))
                healthy = healthy or file
            except (NotHeld, IntegrityError, ContentAway) as fault:
                faults[copy] = fault
        replaced = []
        if healthy is None:
            copy, healthy = _fetched_anew(cid, faults)
            files.enter_context(healthy)
            replaced.append(copy.name)
            del faults[copy]
        unwritten = []
        for copy, found in faults.items():
            try:
                if isinstance(found, IntegrityError) or (isinstance(found, NotHeld) and copy.is_due(cid)):
                    copy.write(cid, healthy)
                    copy.fetch(cid).close()
                    replaced.append(copy.name)
            except (NotHeld, IntegrityError, ContentAway) as again:
                unwritten.append(again)
        if unwritten and not replaced:
            raise ContentAway(f"{cid}: no copy could be replaced: {'; '.join(map(str, unwritten))}")
        return replaced


def worst(faults: Sequence[CustodyError]) -> CustodyError:
    """What all faults together say: what a place that is away has cannot be said; a bad copy is more than none."""
    for kind in (ContentAway, IntegrityError, NotHeld):
        if any(isinstance(fault, kind) for fault in faults):
            return kind("; ".join(dict.fromkeys(map(str, faults))))
    raise ValueError("no fault")


def _fetched_anew(cid: str, faults: dict[Copy, CustodyError]) -> tuple[NodeCopy, BinaryIO]:
    said = list(faults.values())
    for copy, fault in faults.items():
        if isinstance(copy, NodeCopy) and not isinstance(fault, ContentAway):
            try:
                return copy, copy.refetch(cid)
            except (NotHeld, IntegrityError, ContentAway) as again:
                said.append(again)
    raise worst(said)
