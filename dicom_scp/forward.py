"""Forwarding: every destination has its own thread, which sends it what it lacks and never gives up.

One that is away holds up no other. Each object is opened verified and sent as stored where its transfer syntax is
taken, as a C-MOVE would send it; only a C-STORE response with success or a warning takes it from the queue.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import closing

from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext, build_context

from dicom_scp import status
from dicom_scp.contexts import MOST_PROPOSED, VERIFICATION, proposals
from dicom_scp.pdu_socket import AssociationLost
from dicom_scp.ports import Item, Peer
from dicom_scp.retrieve_loop import Channel
from dicom_scp.route import NotAssociated, Requestor
from orthanc_ledger.arrival import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from orthanc_ledger.errors import DataError, ServiceAway
from orthanc_ledger.forwarding import Forwarding, Run

LOGGER = logging.getLogger(__name__)

_LOOK_S = 1.0  # seconds between two looks at the queue, and until the first try again
_LONGEST_PAUSE_S = 60.0
_STOP_S = 5.0  # for the object that is just being sent
_CONNECTION_TIMEOUT_S = 10
_ACSE_TIMEOUT_S = 30
_ANSWER_TIMEOUT_S = 300  # a PACS may take minutes over an object of 1 GB


class Forwarder:
    """Sends one destination what it lacks."""

    def __init__(self, destination: Peer, forwarding: Forwarding, requestor: Requestor) -> None:
        self._destination = destination
        self._forwarding = forwarding
        self._requestor = requestor

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, less and less often while the destination is away."""
        pause_s = 0.0
        with closing(self._forwarding):
            while not stop.wait(pause_s):
                pause_s = _LOOK_S if self.forward(stop) else min(max(2 * pause_s, _LOOK_S), _LONGEST_PAUSE_S)
                self._forwarding.tell_lateness(self._destination.ae_title)

    def forward(self, stop: threading.Event) -> bool:
        """Send what is due, until nothing is or an association breaks; False when there is no association to be had."""
        while not stop.is_set() and (run := self._forwarding.run(self._destination.ae_title)):
            for contexts, items in proposals(run.plan.items):
                try:
                    with self._requestor.associate(self._destination, [*contexts, *_verification(contexts)]) as assoc:
                        if not self._send(Channel(assoc), run, items, stop):
                            return True
                except NotAssociated as error:
                    LOGGER.warning("forwarding waits: %s", error)
                    self._forwarding.away(run.forwards[items[0].sop_instance], str(error))
                    return False
        return True

    def _send(self, channel: Channel, run: Run, items: Sequence[Item], stop: threading.Event) -> bool:
        """Send objects over one association; False when it broke, or the destination has no room for more."""
        for message_id, item in enumerate(items, 1):
            if stop.is_set() or channel.assoc.is_lost or not self._send_one(channel, run, item, message_id):
                return False
        return True

    def _send_one(self, channel: Channel, run: Run, item: Item, message_id: int) -> bool:
        """Send one object and enter what became of it; False when no other is to be tried at once."""
        forward = run.forwards[item.sop_instance]
        try:
            context = channel.context_for(item)
            with run.plan.open(item) as data_set:
                answered = channel.store(item, data_set, context, message_id, run.plan.leave)
        except (ServiceAway, OSError) as error:
            LOGGER.info("%s: an object is put off: %s", self._destination.ae_title, type(error).__name__)
            self._forwarding.put_off(forward, str(error))
            return not isinstance(error, AssociationLost)
        except DataError as error:  # it differs from its anchor, or the destination takes no form it can be sent in
            self._forwarding.refused(forward, str(error))
            return True
        if status.is_stored(answered):
            self._forwarding.sent(forward)
        elif status.is_out_of_resources(answered):
            self._forwarding.put_off(forward, f"status 0x{answered:04X}, out of resources")
            return False
        else:
            self._forwarding.refused(forward, f"status 0x{answered:04X}")
        return True


def serve(forwarding: Forwarding, ae_title: str, destinations: Sequence[Peer], stop: threading.Event) -> None:
    """Forward to every destination until ``stop`` is set.

    Raises ServiceAway when a thread ended, on what the node's own files raise (a full disk): the supervisor starts
    everything again.
    """
    requestor = Requestor(_application_entity(ae_title))
    forwarders = [Forwarder(each, forwarding, requestor) for each in destinations]
    threads = [threading.Thread(target=forwarder.run, args=(stop,), daemon=True) for forwarder in forwarders]
    for thread in threads:
        thread.start()
    while not stop.wait(_LOOK_S):
        if not all(thread.is_alive() for thread in threads):
            raise ServiceAway("forwarding to a destination ended; its error stands above")
    for thread in threads:
        thread.join(_STOP_S)


def _application_entity(ae_title: str) -> ApplicationEntity:
    ae = ApplicationEntity(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.connection_timeout, ae.acse_timeout = _CONNECTION_TIMEOUT_S, _ACSE_TIMEOUT_S
    ae.dimse_timeout = ae.network_timeout = _ANSWER_TIMEOUT_S
    return ae


def _verification(contexts: Sequence[PresentationContext]) -> list[PresentationContext]:
    """A context that every destination accepts, where there is room for it (PS3.8 9.3.2.2).

    With that one, an object it takes in no form is told apart from a destination that takes nothing.
    """
    if len(contexts) == MOST_PROPOSED:
        return []
    verification = build_context(VERIFICATION)
    verification.context_id = 2 * len(contexts) + 1
    return [verification]
