"""An organisation's ipfs-cluster: its peers see to it that a batch is pinned on several Kubo nodes
(ipfscluster.io/documentation/reference/api).
"""

import time
from base64 import b64encode
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from orthanc_ledger.content.kubo.connection import ClusterApi
from orthanc_ledger.content.kubo.http import LEAST_BYTES_S, STALL_S, Api, Refused
from orthanc_ledger.content.kubo.pins import Blocks, NodePins
from orthanc_ledger.content.kubo.places import KuboPlace
from orthanc_ledger.errors import ConfigError, ContentAway

PATIENCE_S = 60.0  # until the peers have agreed on a pin, besides the time that its bytes take
_POLL_S = 0.1

_PINNED = "pinned"
_UNPINNED = "unpinned"
_FAILED = ("pin_error", "unpin_error", "error", "cluster_error")


class Cluster(Api):
    """A peer of the cluster. All methods raise ContentAway."""

    def __init__(self, api: ClusterApi, stall_s: float = STALL_S, users: Collection[int] = ()) -> None:
        credentials = b64encode(api.credentials.encode()).decode("ascii")
        super().__init__("ipfs-cluster", api.api, f"Basic {credentials}", stall_s, users)

    def kubos(self) -> set[str]:
        """The peer ids of the Kubo nodes on which it pins, of those of its peers that answer. Raises ConfigError when
        it refuses the credentials.
        """
        try:
            peers = list(self.lines(self.ask("GET", "/peers"), "/peers"))
        except Refused as error:
            if error.status in (401, 403):
                raise ConfigError(f"cluster: token: expected USER:PASSWORD of its REST API: {error}") from error
            raise
        return {str(kubo) for peer in peers if (kubo := (peer.get("ipfs") or {}).get("id"))}

    def pin(self, root: str) -> None:
        """Have a root pinned; a repeat does nothing."""
        self._call("POST", f"/pins/{root}")

    def recover(self, root: str) -> None:
        """Have those try again that failed, or lost it."""
        self._call("POST", f"/pins/{root}/recover")

    def unpin(self, root: str) -> None:
        """Have a root unpinned; nothing when it is not pinned."""
        try:
            self._call("DELETE", f"/pins/{root}")
        except Refused as error:
            if error.status != 404:
                raise

    def status(self, root: str) -> dict[str, str]:
        """What becomes of a root on each Kubo node, by its peer id: pinned, pinning, pin_error, remote, …"""
        peers = self._call("GET", f"/pins/{root}").get("peer_map") or {}
        return {str(peer.get("ipfs_peer_id")): str(peer.get("status")) for peer in peers.values()}

    def _call(self, method: str, target: str) -> dict[str, Any]:
        return self.json(self.ask(method, target), target)


class ClusterPins(NodePins):
    """Pins that the cluster makes, on ``replicas`` nodes of its choice."""

    def __init__(self, cluster: Cluster, places: Sequence[KuboPlace], replicas: int) -> None:
        super().__init__(places, replicas)
        self._cluster = cluster

    def put(self, roots: Sequence[str], blocks: Blocks, size: int) -> None:
        """Add it to one node, where it is pinned at once, so that nothing is collected before the cluster holds it."""
        place = self._on_enough(lambda place: place.kubo.add(roots, blocks(), size, pin=True), replicas=1)[0]
        for root in roots:
            self._pin(root, size / LEAST_BYTES_S)
            if self._cluster.status(root).get(place.kubo.peer_id()) != _PINNED:  # the cluster has chosen others
                place.kubo.unpin(root)

    def keep(self, root: str) -> None:
        if not self.holders(root):
            self._pin(root)

    def drop(self, roots: Sequence[str]) -> None:
        """By the cluster first, which would pin it again."""
        for root in roots:
            self._cluster.unpin(root)
        for root in roots:
            _wait(f"{root} to be unpinned", partial(self._is_unpinned, root))
        super().drop(roots)

    def check(self) -> None:
        """What it pins where nobody looks no erasure would reach."""
        if strangers := self._cluster.kubos() - {place.peer_id for place in self._places}:
            raise ConfigError(f"cluster: pins on {len(strangers)} Kubo nodes that nodes: does not name (docs/ipfs.md)")

    def _is_unpinned(self, root: str) -> bool:
        return set(self._cluster.status(root).values()) <= {_UNPINNED}

    def _pin(self, root: str, more_s: float = 0.0) -> None:
        """Right after its start a peer has not heard of the others: it is asked again until it takes the pin."""

        def taken() -> bool:
            try:
                self._cluster.pin(root)
            except Refused as error:
                if "not enough peers" in error.said:
                    return False
                raise
            return True

        def pinned() -> bool:
            said = list(self._cluster.status(root).values())
            if any(each in _FAILED for each in said):
                self._cluster.recover(root)
            return said.count(_PINNED) >= self._replicas

        _wait(f"ipfs-cluster to take {root}: its peers have not met", taken)
        _wait(f"{root} to be pinned on {self._replicas} nodes", pinned, more_s)


def _wait(what: str, condition: Callable[[], bool], more_s: float = 0.0) -> None:
    until = time.monotonic() + PATIENCE_S + more_s
    while not condition():
        if time.monotonic() > until:
            raise ContentAway(f"waited {PATIENCE_S + more_s:.0f} s in vain for {what}")
        time.sleep(_POLL_S)
