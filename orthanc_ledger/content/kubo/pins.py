"""Who holds a batch: pinned as a whole, by its root, on so many Kubo nodes."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from orthanc_ledger.content.cid import Block
from orthanc_ledger.content.kubo.places import KuboPlace
from orthanc_ledger.errors import ContentAway

Blocks = Callable[[], Iterator[Block]]
"""Gives all blocks of a batch, each time anew."""

PATIENCE_S = 30.0  # with a node to which nobody sends the next block
_SHUNNED_S = 30.0


class Pins(Protocol):
    """All methods raise ContentAway."""

    def check(self) -> None:
        """Whether who pins, besides the nodes, can be asked. Raises ConfigError, too."""
        ...

    def put(self, roots: Sequence[str], blocks: Blocks, size: int) -> None:
        """Write the blocks, in the time that ``size`` bytes may take, and pin the roots on as many nodes as are asked
        for; durable.
        """
        ...

    def keep(self, root: str) -> None:
        """Pin a root on as many nodes as are asked for, fetching what is missing."""
        ...

    def holders(self, root: str) -> Sequence[KuboPlace]:
        """The nodes on which a root is pinned, when they are as many as are asked for; else none."""
        ...

    def drop(self, roots: Sequence[str]) -> None:
        """Unpin the roots on all nodes."""
        ...


def by_health(places: Sequence[KuboPlace]) -> list[KuboPlace]:
    """In order, but last those that were away a moment ago: nobody is to wait for them again and again."""
    now = time.monotonic()
    return sorted(places, key=lambda place: place.kubo.failed_s > now - _SHUNNED_S)


class NodePins:
    """Pins on the nodes themselves, on ``replicas`` of them."""

    def __init__(self, places: Sequence[KuboPlace], replicas: int) -> None:
        self._places = places
        self._replicas = replicas

    def check(self) -> None:
        pass

    def put(self, roots: Sequence[str], blocks: Blocks, size: int) -> None:
        self._on_enough(lambda place: place.kubo.add(roots, blocks(), size, pin=True))

    def keep(self, root: str) -> None:
        if not self.holders(root):
            self._on_enough(lambda place: place.kubo.pin(root, PATIENCE_S))

    def holders(self, root: str) -> Sequence[KuboPlace]:
        holding = []
        for place in by_health(self._places):
            try:
                if place.kubo.pinned(root):
                    holding.append(place)
            except ContentAway:
                continue
        return holding if len(holding) >= self._replicas else []

    def drop(self, roots: Sequence[str]) -> None:
        faults = []
        for place in by_health(self._places):
            try:
                for root in roots:
                    place.kubo.unpin(root)
            except ContentAway as fault:
                faults.append(str(fault))
        if faults:
            raise ContentAway("; ".join(faults))

    def _on_enough(self, call: Callable[[KuboPlace], object], replicas: int | None = None) -> list[KuboPlace]:
        """Ask one node after the other until so many have done it, and return these."""
        needed = self._replicas if replicas is None else replicas
        done, faults = [], []
        for place in by_health(self._places):
            try:
                call(place)
            except ContentAway as fault:
                faults.append(str(fault))
            else:
                done.append(place)
            if len(done) == needed:
                return done
        raise ContentAway(f"{len(done)} of {needed} Kubo nodes took it; {'; '.join(faults)}")
