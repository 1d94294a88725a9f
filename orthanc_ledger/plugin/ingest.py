"""Every object that Orthanc stores is in the spool before Orthanc answers for it.

Of one object Orthanc calls, one after the other and in one thread: ReceivedInstance with the bytes as they came, for
C-STORE the filter that may refuse it, and OnStoredInstance once it is stored, which knows who sent it; there the unit
gets its name. What fails there is stored all the same: an alarm says so, and the reconciler fetches it.
"""

import hashlib
import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orthanc

from orthanc_ledger.assemble import Node
from orthanc_ledger.errors import CustodyError, SpoolFull
from orthanc_ledger.gate import Refused
from orthanc_ledger.incoming import Receipt
from orthanc_ledger.part10 import Head, read_part10
from orthanc_ledger.peer import Peer
from orthanc_ledger.plugin import request
from orthanc_ledger.plugin.notes import Notes
from orthanc_ledger.plugin.pending import Inbox, Pending
from orthanc_ledger.plugin.research import Research
from orthanc_ledger.plugin.sender import Here, asked_by, sender_of
from orthanc_ledger.plugin.settings import Settings
from orthanc_ledger.reasons import Reason
from orthanc_ledger.sender import Sender
from orthanc_ledger.store_status import STORE_DUPLICATE, STORE_FAULT, STORED, Answer, store_refusal

LOGGER = logging.getLogger(__name__)

StoredAs = Callable[[str, str, str], object]
"""Takes Orthanc's id, Study and SOP Instance UID of an object that is in the spool. Must not wait."""

_WORKERS = 4
_FORGOTTEN_AFTER_S = 3600.0  # Orthanc stores what it received within less, or not at all


def register(whole: Mapping[str, Any], settings: Settings, node: Node, research: Research, notes: Notes) -> None:
    """Have Orthanc call the hooks. ``whole``: its configuration."""
    here, outbox = Here.of(whole, socket.gethostname()), node.outbox
    ingest = Ingest(
        node.spool,
        here,
        research,
        settings.duplicate == "refuse",
        notes.stored,
        notes.missed,
        denied=lambda peer, reason: outbox.deny(peer.organisation, peer.ae_title, reason),
    )
    orthanc.RegisterReceivedInstanceCallback(ingest.received)
    orthanc.RegisterIncomingCStoreInstanceFilter(ingest.admits)
    orthanc.RegisterOnStoredInstanceCallback(ingest.stored)


class Ingest:
    """The hooks.

    ``refuse``: whether a C-STORE of other content under a known UID is refused. ``missed`` is called when an object
    could not be kept, and must not wait. ``denied`` counts a refusal to a research peer.
    """

    def __init__(
        self,
        spool: Inbox,
        here: Here,
        research: Research,
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
        # By thread, as in request.py: what Orthanc did not store is replaced by the thread's next, or dropped.
        self._pending: dict[int, Pending] = {}
        self._last: dict[str, Sender] = {}  # by AE title: the next object is most probably from there, too
        self._workers = ThreadPoolExecutor(_WORKERS, "ingest")

    def received(self, content: bytes, origin: int) -> tuple[int, bytes | None]:
        """Keep the bytes at hand, as they are before Orthanc transcodes them."""
        thread, asked = threading.get_ident(), request.current()
        self._drop(thread)
        for other, pending in list(self._pending.items()):
            if time.monotonic() - pending.begun_s > _FORGOTTEN_AFTER_S:
                self._drop(other)
        self._pending[thread] = Pending(content, self._spool, self._workers)
        if asked is not None:
            self._pending[thread].begin(asked_by(asked, origin, self._here))
        return orthanc.ReceivedInstanceAction.KEEP_AS_IS, None

    def admits(self, instance: orthanc.DicomInstance) -> int:
        """The status of a C-STORE: 0 has Orthanc store it, any other is answered and nothing stored."""
        try:
            answer = self._answer(instance)
        except CustodyError as error:
            if isinstance(error, SpoolFull):
                LOGGER.error("a C-STORE is refused: %s", error)
            answer = store_refusal(error)
        except Exception as error:  # by type only: foreign texts quote values
            LOGGER.error("whether an object may be stored cannot be told: %s", type(error).__name__)
            answer = STORE_FAULT
        if answer is not STORED:
            self._drop(threading.get_ident())
        return answer.status

    def stored(self, instance: orthanc.DicomInstance, identity: str) -> None:
        """Put the object into the spool. Whatever happens, Orthanc has stored it and will say so."""
        thread = threading.get_ident()
        try:
            pending = self._of(instance)
            del self._pending[thread]
            sender = sender_of(instance, request.current(), pending.since_s, self._here)
            if instance.GetInstanceOrigin() == orthanc.InstanceOrigin.DICOM_PROTOCOL:
                self._last[instance.GetInstanceRemoteAet()] = sender
            head, _ = pending.keep(sender)
            if head.identifiers is not None:
                self._stored_as(identity, head.identifiers.study_instance_uid, head.identifiers.sop_instance_uid)
        except Exception as error:  # Orthanc would only write it to its log
            self._tell_missed(error)

    def _answer(self, instance: orthanc.DicomInstance) -> Answer:
        pending = self._of(instance)
        ae_title = instance.GetInstanceRemoteAet()
        if peer := self._research.peer(ae_title):
            self._workers.submit(self._denied, peer, Reason.NO_APPROVAL).result()
            raise Refused(Reason.NO_APPROVAL)
        self._spool.check_room(len(pending.content))
        if self._refuse:
            head = read_part10(io.BytesIO(pending.content))
            if self._workers.submit(self._differs, head, pending.content).result():
                _, receipt = pending.keep(sender_of(instance, None, pending.since_s, self._here))
                if receipt is Receipt.CONFLICT:
                    return STORE_DUPLICATE
        if expected := self._last.get(ae_title):
            pending.begin(expected)
        return STORED

    def _differs(self, head: Head, content: bytes) -> bool:
        """Whether there is other content under its UID."""
        if head.identifiers is None:
            return False
        holder = self._spool.holder(head.identifiers.sop_instance_uid)
        return holder not in (None, hashlib.sha256(memoryview(content)[head.data_set_offset :]).digest())

    def _of(self, instance: orthanc.DicomInstance) -> Pending:
        """This thread's object; one of which the first hook kept nothing is as Orthanc stores it."""
        thread = threading.get_ident()
        if thread not in self._pending:
            self._pending[thread] = Pending(instance.GetInstanceData(), self._spool, self._workers)
        return self._pending[thread]

    def _drop(self, thread: int) -> None:
        if pending := self._pending.pop(thread, None):
            pending.drop()

    def _tell_missed(self, error: Exception) -> None:
        why = str(error) if isinstance(error, CustodyError) else type(error).__name__  # foreign texts quote values
        LOGGER.error("Orthanc stored an object that could not be kept here: %s", why)
        self._missed()
