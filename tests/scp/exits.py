"""All the ways out of a node, on real sockets, and what reaches whom through them."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import cast

from gate_world import MR
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context, build_role

from dicom_scp.__main__ import NodeArchive
from dicom_scp.contexts import FIND_MODELS, GET_MODELS, MOVE_MODELS
from dicom_scp.ports import ArrivalHead, Inbox, ListenerConfig
from dicom_scp.server import Listener
from orthanc_ledger.assemble import Node
from orthanc_ledger.find import Catalogue
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import Retrieval

from .attacked import PEERS, Attacked
from .book import CT
from .client import EXPLICIT, WAIT_S
from .world import LOCAL, NODE, config


@dataclass(frozen=True)
class Came:
    """An object that reached a recipient."""

    title: str
    sop_uid: str
    data_set: bytes


@dataclass(frozen=True)
class Answered:
    """The responses to a C-GET or C-MOVE, what came of it, and the UIDs said to have failed."""

    status: int
    comment: str | None
    responses: Sequence[Dataset]
    failed: Sequence[str]
    came: Sequence[Came]


class Exits:
    """Both ports of a node whose world can be changed, every peer as a move destination, every peer's associations.

    ``on_object`` is called with the number of objects that came, the last one unanswered.
    """

    world: Attacked

    def __init__(self, stack: ExitStack) -> None:
        self.came: list[Came] = []
        self.on_object: Callable[[int], None] = lambda number: None
        self._stack = stack
        self._associations: dict[str, Association] = {}
        node = (Peer(NODE, "modality"),)
        places = {
            peer.ae_title: self._listen(config(peers=node, ae_title=peer.ae_title), _Destination(self, peer.ae_title))
            for peer in PEERS
        }
        self.peers = {peer.ae_title: replace(peer, port=places[peer.ae_title]) for peer in PEERS}
        self._ports = {
            serves: self._listen(config(serves, tuple(self.peers.values())), None)
            for serves in ("clinical", "research")
        }

    @property
    def retrieval(self) -> Retrieval:
        return self.world.kept

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.world.node.index, self.world.node.gate)

    def get(self, asker: str, model: str, identifier: Dataset) -> Answered:
        return self._retrieve(self._association(asker).send_c_get(identifier, model))

    def move(self, asker: str, destination: str, model: str, identifier: Dataset) -> Answered:
        return self._retrieve(self._association(asker).send_c_move(identifier, destination, model))

    def find(self, asker: str, model: str, identifier: Dataset) -> tuple[Dataset, list[Dataset]]:
        """The final status and the matches of a C-FIND."""
        *matches, (final, _) = self._association(asker).send_c_find(identifier, model)
        return final, [match for _, match in matches if match is not None]

    def take(self, title: str, sop_uid: str, data_set: bytes) -> None:
        """An object is with a recipient."""
        self.came.append(Came(title, sop_uid, data_set))
        self.on_object(len(self.came))

    def _retrieve(self, answers: Iterator[tuple[Dataset, Dataset | None]]) -> Answered:
        self.came.clear()
        responses = list(answers)
        final, identifier = responses[-1]
        failed = [] if identifier is None else identifier.get("FailedSOPInstanceUIDList", [])
        uids = [failed] if isinstance(failed, str) else list(failed)
        statuses = [status for status, _ in responses]
        return Answered(final.Status, final.get("ErrorComment"), statuses, uids, list(self.came))

    def _get_stored(self, event: evt.Event, title: str) -> int:
        request = event.request
        self.take(title, str(request.AffectedSOPInstanceUID), request.DataSet.getvalue())
        return 0x0000

    def _listen(self, settings: ListenerConfig, inbox: "_Destination | None") -> int:
        listener = Listener(settings, cast(Inbox, inbox), NodeArchive(cast(Node, self)))
        listener.start()
        self._stack.callback(listener.shutdown)
        return listener.port

    def _association(self, asker: str) -> Association:
        """The asker's association with its port, opened once."""
        if asker not in self._associations:
            ae = AE(asker)
            ae.dimse_timeout, ae.network_timeout = WAIT_S, None
            models = sorted({*FIND_MODELS, *GET_MODELS, *MOVE_MODELS})
            self._associations[asker] = ae.associate(
                LOCAL,
                self._ports["research" if self.peers[asker].role == "research" else "clinical"],
                contexts=[build_context(uid, [EXPLICIT]) for uid in (*models, MR, CT)],
                ae_title=NODE,
                ext_neg=[build_role(uid, scp_role=True) for uid in (MR, CT)],
                evt_handlers=[(evt.EVT_C_STORE, self._get_stored, [asker])],
            )
            self._associations[asker].dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_responses(self._associations[asker])
            self._stack.callback(self._associations[asker].release)
        assert self._associations[asker].is_established, f"{asker}'s association was ended by the node"
        return self._associations[asker]


def _keep_responses(assoc: Association) -> None:
    """Leave all messages to who waits for them: pynetdicom's own loop, which does not wait, now and then takes a
    response before it is really paused, and drops it.
    """
    take = assoc.dimse.get_msg
    assoc.dimse.get_msg = lambda block=False: take(block) if block else (None, None)


@dataclass(frozen=True)
class _Destination:
    """Where a move destination puts what it receives."""

    exits: Exits
    title: str

    def begin(self, arrival: ArrivalHead) -> "_Arriving":
        return _Arriving(self, arrival.sop_instance)


@dataclass
class _Arriving:
    destination: _Destination
    sop_uid: str
    data_set: bytes = b""

    def write(self, data: bytes) -> None:
        self.data_set += data

    def accept(self) -> Receipt:
        self.destination.exits.take(self.destination.title, self.sop_uid, self.data_set)
        return Receipt.STORED

    def discard(self) -> None:
        """Nothing is kept of it."""
