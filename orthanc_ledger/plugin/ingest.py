"""Every object that Orthanc stores is in the spool before Orthanc answers for it.

Of one object Orthanc calls, one after the other and in one thread: ReceivedInstance with the bytes as they came, for
C-STORE the filter that may refuse it, and OnStoredInstance once it is stored, which knows who sent it; there the unit
is written. What fails there is stored all the same: an alarm says so, and the reconciler fetches it.
"""

import hashlib
import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import orthanc

from orthanc_ledger.assemble import Node
from orthanc_ledger.errors import CustodyError
from orthanc_ledger.gate import Refused
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.outbox import MISSED
from orthanc_ledger.part10 import read_part10
from orthanc_ledger.peer import Peer
from orthanc_ledger.plugin import request
from orthanc_ledger.plugin.sender import Here, sender_of
from orthanc_ledger.plugin.settings import Settings
from orthanc_ledger.reasons import Reason
from orthanc_ledger.sender import Sender
from orthanc_ledger.spool import ArrivalHead
from orthanc_ledger.store_status import STORE_DUPLICATE, STORED, store_refusal

LOGGER = logging.getLogger(__name__)

StoredAs = Callable[[str, str, str], object]
"""Takes Orthanc's id, Study and SOP Instance UID of an object that is in the spool. Must not wait."""

_WORKERS = 4
_FORGOTTEN_AFTER_S = 60.0  # Orthanc stores what it received within less, or not at all


def register(whole: Mapping[str, Any], settings: Settings, node: Node, stored_as: StoredAs) -> None:
    """Have Orthanc call the hooks. ``whole``: its configuration."""
    research = {peer.ae_title: peer for peer in node.config.peers if peer.role == "research"}
    here, outbox = Here.of(whole, socket.gethostname()), node.outbox
    text = "Orthanc stored what could not be kept here: see that data_dir has room; then it is fetched from Orthanc"
    ingest = Ingest(
        node.spool,
        here,
        research,
        settings.duplicate == "refuse",
        stored_as,
        missed=lambda: outbox.alarm(MISSED, MISSED, text),
        denied=lambda peer, reason: outbox.deny(peer.organisation, peer.ae_title, reason),
    )
    orthanc.RegisterReceivedInstanceCallback(ingest.received)
    orthanc.RegisterIncomingCStoreInstanceFilter(ingest.admits)
    orthanc.RegisterOnStoredInstanceCallback(ingest.stored)


class Inbox(Protocol):
    """What is needed of the spool."""

    def check_room(self, size: int = 0) -> None:
        """Raises SpoolFull when there is none."""

    def holder(self, sop_uid: str) -> bytes | None:
        """SHA-256 of the data set that holds the claim on a SOP Instance UID, or None."""

    def keep(self, head: ArrivalHead, data_set: bytes | memoryview) -> Receipt:
        """Make an object durable, whatever it is. Raises SpoolFull."""


@dataclass(frozen=True)
class _Received:
    """Bytes as they came, and when: seconds since 1970."""

    content: bytes
    since_s: float


class Ingest:
    """The hooks.

    ``research``: research peers by AE title. ``refuse``: whether a C-STORE of other content under a known UID is
    refused. ``missed`` is called when an object could not be kept. ``denied`` counts a refusal to a research peer.
    """

    def __init__(
        self,
        spool: Inbox,
        here: Here,
        research: Mapping[str, Peer],
        refuse: bool,
        stored_as: StoredAs,
        missed: Callable[[], object],
        denied: Callable[[Peer, Reason], object],
    ) -> None:
        self._spool = spool
        self._here = here
        self._research = research
        self._refuse = refuse
        self._stored_as = stored_as
        self._missed = missed
        self._denied = denied
        # By thread, as in request.py. Whoever Orthanc did not store is replaced by the thread's next, or let go of.
        self._received: dict[int, _Received] = {}
        # Orthanc's threads are new to Python at each hook, and so would be every connection to SQLite.
        self._workers = ThreadPoolExecutor(_WORKERS, "ingest")

    def received(self, content: bytes, _origin: int) -> tuple[int, bytes | None]:
        """Keep the bytes at hand, before Orthanc transcodes them."""
        now = time.time()
        for thread, other in list(self._received.items()):
            if now - other.since_s > _FORGOTTEN_AFTER_S:
                self._received.pop(thread, None)
        self._received[threading.get_ident()] = _Received(content, now)
        return orthanc.ReceivedInstanceAction.KEEP_AS_IS, None

    def admits(self, instance: orthanc.DicomInstance) -> int:
        """The status of a C-STORE: 0 has Orthanc store it, any other is answered and nothing stored."""
        received = self._received.get(threading.get_ident()) or _Received(instance.GetInstanceData(), time.time())
        try:
            peer = self._research.get(instance.GetInstanceRemoteAet())
            if peer is not None:
                self._workers.submit(self._denied, peer, Reason.NO_APPROVAL).result()
                raise Refused(Reason.NO_APPROVAL)
            self._spool.check_room(len(received.content))
            if self._refuse:
                sender = sender_of(instance, None, received.since_s, self._here)
                if self._workers.submit(self._is_conflict, received.content, sender).result():
                    return self._refused(STORE_DUPLICATE.status)
        except CustodyError as error:
            return self._refused(store_refusal(error).status)
        return STORED.status

    def stored(self, instance: orthanc.DicomInstance, identity: str) -> None:
        """Write the unit. Whatever happens, Orthanc has stored the object and will say so."""
        received = self._received.pop(threading.get_ident(), None)
        try:
            received = received or _Received(instance.GetInstanceData(), time.time())
            sender = sender_of(instance, request.current(), received.since_s, self._here)
            self._workers.submit(self._keep, received.content, sender, identity).result()
        except Exception as error:  # Orthanc would only write it to its log
            self._tell_missed(error)

    def _refused(self, status: int) -> int:
        self._received.pop(threading.get_ident(), None)
        return status

    def _keep(self, content: bytes, sender: Sender, identity: str) -> None:
        head = read_part10(io.BytesIO(content))
        self._spool.keep(sender.arrival(head), memoryview(content)[head.data_set_offset :])
        if head.identifiers is not None:
            self._stored_as(identity, head.identifiers.study_instance_uid, head.identifiers.sop_instance_uid)

    def _is_conflict(self, content: bytes, sender: Sender) -> bool:
        """Whether it is other content under a known UID, which then is in the conflict queue. Raises SpoolFull."""
        head = read_part10(io.BytesIO(content))
        if head.identifiers is None:
            return False
        holder, data_set = (
            self._spool.holder(head.identifiers.sop_instance_uid),
            memoryview(content)[head.data_set_offset :],
        )
        if holder is None or holder == hashlib.sha256(data_set).digest():
            return False
        return self._spool.keep(sender.arrival(head), data_set) is Receipt.CONFLICT

    def _tell_missed(self, error: Exception) -> None:
        why = str(error) if isinstance(error, CustodyError) else type(error).__name__  # foreign texts quote values
        LOGGER.error("Orthanc stored an object that could not be kept here: %s", why)
        try:
            self._workers.submit(self._missed).result()
        except Exception as fault:
            LOGGER.error("and its alarm could not be raised: %s", type(fault).__name__)
