"""Forwarding: every destination has its own thread, which sends it what it lacks and never gives up.

One that is away holds up no other. Each object is opened verified and sent as stored where its transfer syntax is
taken, as a C-MOVE would send it; only a C-STORE response with success or a warning takes it from the queue.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import closing

from pynetdicom.presentation import PresentationContext, build_context

from dicom_scp import status
from dicom_scp.association import application_entity
from dicom_scp.contexts import MOST_PROPOSED, VERIFICATION, proposals
from dicom_scp.pdu_socket import AssociationLost
from dicom_scp.ports import Item, Peer
from dicom_scp.route import NotAssociated, Requestor
from dicom_scp.sub_operations import Channel
from orthanc_ledger.errors import DataError, ServiceAway
from orthanc_ledger.forwarding import Forwarding, Run

LOGGER = logging.getLogger(__name__)

_LOOK_S = 1.0  # seconds between two looks at the queue, and until the first try again
_LONGEST_PAUSE_S = 60.0
_STOP_S = 5.0  # for the object that is just being sent
_ANSWER_TIMEOUT_S = 300  # a PACS may take minutes over an object of 1 GB


class Forwarder:
    """Sends one destination what it lacks."""

    def __init__(self, destination: Peer, forwarding: Forwarding, requestor: Requestor) -> None:
        self._destination = destination
        self._forwarding = forwarding
        self._requestor = requestor

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, less and less often while the destination is away or something here fails."""
        pause_s = 0.0
        with closing(self._forwarding):
            while not stop.wait(pause_s):
                pause_s = _LOOK_S if self._went(stop) else min(max(2 * pause_s, _LOOK_S), _LONGEST_PAUSE_S)

    def _went(self, stop: threading.Event) -> bool:
        """As `forward`; False also at a fault nobody foresaw, or of this node (a full disk): it must not end a process
        that forwards to others, too. What lasts is an alarm, as with a destination that is away.
        """
        try:
            try:
                return self.forward(stop)
            finally:
                self._forwarding.tell_lateness(self._destination.ae_title)
        except Exception as error:
            # By type only, as its text may quote a patient's data.
            LOGGER.error("%s: forwarding failed: %s", self._destination.ae_title, type(error).__name__)
            LOGGER.debug("the fault", exc_info=True)
            return False

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
        except Exception as error:  # a fault that may be this object's: the others go before it next time
            self._forwarding.put_off(forward, type(error).__name__)
            raise
        if status.is_stored(answered):
            self._forwarding.sent(forward)
        elif status.is_out_of_resources(answered):
            self._forwarding.put_off(forward, f"status 0x{answered:04X}, out of resources")
            return False
        else:
            self._forwarding.refused(forward, f"status 0x{answered:04X}")
        return True


def serve(forwarding: Forwarding, ae_title: str, destinations: Sequence[Peer], stop: threading.Event) -> None:
    """Forward to every destination until ``stop`` is set."""
    requestor = Requestor(application_entity(ae_title, _ANSWER_TIMEOUT_S, _ANSWER_TIMEOUT_S))
    forwarders = [Forwarder(each, forwarding, requestor) for each in destinations]
    threads = [threading.Thread(target=forwarder.run, args=(stop,), daemon=True) for forwarder in forwarders]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(_STOP_S)


def _verification(contexts: Sequence[PresentationContext]) -> list[PresentationContext]:
    """A context that every destination accepts, where there is room for it (PS3.8 9.3.2.2).

    With that one, an object it takes in no form is told apart from a destination that takes nothing.
    """
    if len(contexts) == MOST_PROPOSED:
        return []
    verification = build_context(VERIFICATION)
    verification.context_id = 2 * len(contexts) + 1
    return [verification]
