"""The content store on Kubo nodes, with a local store beside them for the near copies (docs/ipfs.md)."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

from orthanc_ledger.content.cid import LARGEST, check_block_cid, check_file_cid, cid_bytes
from orthanc_ledger.content.kubo.batch import KuboBatch, Unfinished
from orthanc_ledger.content.kubo.cluster import Cluster, ClusterPins
from orthanc_ledger.content.kubo.connection import read_connection
from orthanc_ledger.content.kubo.http import STALL_S, Refused
from orthanc_ledger.content.kubo.pins import NodePins, Pins, by_health
from orthanc_ledger.content.kubo.places import KuboPlace
from orthanc_ledger.content.kubo.privacy import check_node, identify, owner_of
from orthanc_ledger.content.kubo.repair import NearCopy, NodeCopy, repair, worst
from orthanc_ledger.content.local import NEAR, LocalStore
from orthanc_ledger.errors import ConfigError, ContentAway, CustodyError, IntegrityError, NotHeld

LOGGER = logging.getLogger(__name__)

_CHECK_EVERY_S = 60.0
_DAY_US = 86_400_000_000
_MOST_REPAIRS = 100  # before blocks can be collected
_UNREAD = re.compile(r"could not retrieve links for (b[a-z2-7]{58})")


class KuboStore:
    """A content store (:class:`orthanc_ledger.content.ContentStore`) on Kubo nodes."""

    def __init__(self, file: Path, stall_s: float = STALL_S) -> None:
        """``file`` is the connection file; ``stall_s``: see http.py. Raises ConfigError."""
        self._connection = connection = read_connection(file)
        if connection.keep_days == 0 and not connection.local.exists():  # a party's, of which nothing can be lost
            LocalStore.create(connection.local)
        self._local = LocalStore(connection.local)
        self._places = [KuboPlace(node, connection.local / "staging", stall_s) for node in connection.nodes]
        self._pins: Pins = NodePins(self._places, connection.replicas)
        if connection.cluster is not None:
            users = {user for node in connection.nodes for user in owner_of(node.repo)}
            self._pins = ClusterPins(Cluster(connection.cluster, stall_s, users), self._places, connection.replicas)
        self._unfinished = Unfinished(connection.local / "unfinished")
        self._checked_s = {place.name: float("-inf") for place in self._places}

    @property
    def near(self) -> LocalStore:
        """The local store."""
        return self._local

    @property
    def places(self) -> Sequence[str]:
        """The local store, and the nodes."""
        return (NEAR, *(place.name for place in self._places))

    def check(self, to_read: bool = False) -> None:
        """Every node that answers is private and durable, and they are as many as must pin a batch; ``to_read``: the
        first that answers is.
        """
        self._local.check()
        faults = []
        for place in by_health(self._places):
            try:
                peer_id = identify(place.node, place.kubo)
                if time.monotonic() > self._checked_s[place.name] + _CHECK_EVERY_S:
                    check_node(place.node, place.kubo, peer_id)
                    self._checked_s[place.name] = time.monotonic()
                if to_read:
                    return
            except ContentAway as fault:
                self._checked_s[place.name] = float("-inf")
                faults.append(str(fault))
        self._pins.check()
        if to_read or len(self._places) - len(faults) < self._connection.replicas:
            raise ContentAway("; ".join(faults))

    def begin(self) -> KuboBatch:
        """Start a batch, if Kubo can take it. A node that must not be used, since its settings were changed, is away
        to who writes: scans go on to be received.
        """
        try:
            self.check()
        except ConfigError as error:
            raise ContentAway(str(error)) from error
        return KuboBatch(self._local.begin(), self._pins, self._unfinished)

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """Fetch an object from the first node that has it whole. What none has is ``repair``'s to fetch; while one is
        away, the others ask their peers.
        """
        check_file_cid(cid)
        return self._fetch(cid, min(size, LARGEST))  # whoever says so

    def get_block(self, cid: str) -> bytes:
        """Fetch a block, as ``open``."""
        check_block_cid(cid)
        with self._fetch(cid) as block:
            return block.read()

    def recover(self) -> None:
        """Empty the staging folder, and unpin what dead processes had pinned for batches nobody knows of; what cannot
        be unpinned now is the next start's.
        """
        self._local.recover()
        if roots := self._unfinished.roots():
            with contextlib.suppress(ContentAway):
                self._pins.drop(roots)
                self._unfinished.settle(roots)

    def repair(self, cid: str, root: str, size: int = LARGEST) -> Sequence[str]:
        """Compare the local copy, if there is to be one, with those of all nodes, and replace what is bad."""
        most = min(size, LARGEST)  # whoever says so
        return repair(cid, [self._near_copy(), *(NodeCopy(place, root, most) for place in self._places)])

    def keep(self, root: str) -> None:
        """Pin it on as many nodes as must, which fetch what they lack."""
        self._pins.keep(root)

    def release(self, root: str) -> None:
        """Unpin it on all nodes."""
        self._pins.drop([root])

    def expire(self, root: str, cids: Collection[str], now_us: int) -> None:
        """Drop what is older than ``keep_days`` and read back whole from enough nodes."""
        if self._connection.keep_days is None:
            return
        before_us = now_us - self._connection.keep_days * _DAY_US
        old = [cid for cid in cids if (self._local.written_us(cid) or now_us) < before_us]
        holders = self._pins.holders(root) if old else ()
        for cid in old:
            if sum(_is_whole(place, cid) for place in holders) >= self._connection.replicas:
                self._local.drop(cid)

    def forget(self, roots: Collection[str], cids: Collection[str]) -> None:
        """Unpin, have each node collect, see that nothing is left but what other roots hold, then delete the local
        copies.
        """
        self._local.check()
        names = {_digest(cid): cid for cid in {*roots, *cids}}
        self._pins.drop(list(roots))
        kept = set[str]()
        for place in self._places:
            self._collect(place)
            if held := {names[digest] for digest in _left(place, names.keys())}:
                kept |= held
                first = min(held)
                LOGGER.warning(
                    "forgotten, but for what another manifest names: %s: %d blocks stay: %s is %s",
                    *(place.name, len(held), first, place.kubo.how_pinned(first)),
                )
        os.sync()  # Kubo does not say when what it has deleted is gone from its disk
        self._local.forget((), {*roots, *cids} - kept)
        self._unfinished.settle(list(roots))

    def _fetch(self, cid: str, most: int = LARGEST) -> BinaryIO:
        faults: list[CustodyError] = []
        lacking = []
        for place in by_health(self._places):
            try:
                return place.fetch(cid, most=most)
            except (IntegrityError, ContentAway, NotHeld) as fault:
                faults.append(fault)
                if isinstance(fault, NotHeld):
                    lacking.append(place)
        for place in lacking if any(isinstance(fault, ContentAway) for fault in faults) else ():
            try:
                return place.fetch(cid, offline=False, most=most)
            except (NotHeld, IntegrityError, ContentAway) as fault:
                faults.append(fault)
        raise worst(faults)

    def _near_copy(self) -> NearCopy:
        return NearCopy(self._local, keeps=self._connection.keep_days != 0)

    def _collect(self, place: KuboPlace) -> None:
        """Have a node delete what is not pinned. It does not while it cannot read which blocks others pins hold: those
        are repaired.
        """
        for _ in range(_MOST_REPAIRS):
            try:
                return place.kubo.collect()
            except Refused as fault:
                unread = _UNREAD.search(fault.said)
                if unread is None:
                    raise
                others = [NodeCopy(each, unread[1]) for each in self._places if each is not place]
                try:
                    repair(unread[1], [NodeCopy(place, None), self._near_copy(), *others])
                except (NotHeld, IntegrityError) as lost:
                    raise ContentAway(f"{fault}; which cannot be repaired: {lost}") from lost
        raise ContentAway(f"{place.name}: more than {_MOST_REPAIRS} blocks had to be repaired: run the sweep first")


def _is_whole(place: KuboPlace, cid: str) -> bool:
    try:
        place.fetch(cid).close()
    except (NotHeld, IntegrityError, ContentAway):
        return False
    return True


def _left(place: KuboPlace, digests: Collection[bytes]) -> set[bytes]:
    """Of some blocks those that a node still has, as another root is pinned over them. Raises ContentAway when it has
    one for another reason.
    """
    left = {digest for digest in map(_digest, place.kubo.held()) if digest in digests}
    if not left:
        return left
    below = {digest for digest in map(_digest, place.kubo.pinned_below()) if digest in left}
    if left != below:
        raise ContentAway(f"{place.name}: {len(left - below)} blocks are still there: are they pinned themselves?")
    return below


def _digest(cid: str) -> bytes:
    """What names a block on a node's disk: as lists of blocks say nothing of the codec."""
    return cid_bytes(cid)[2:]
