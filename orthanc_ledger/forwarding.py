"""What goes to clinical destinations by itself, unchanged and verified: what is due now, and what became of it.

Nothing here knows how an object is sent; the leaf takes runs from here and reports on each object.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orthanc_ledger.clock import Clock
from orthanc_ledger.forwards import Forward, Forwards
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.library import Library
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.retrieve import ClinicalPlan, Plan

LATE_S = 3600
"""Seconds after which it is an alarm that an object still waits."""

_REFUSED_RETRY_S = 3600  # for what the destination answered and will answer again, unless a person does something
_LONGEST_PAUSE_S = 60
_AT_ONCE = 200  # objects of a run


@dataclass(frozen=True, slots=True)
class Run:
    """Objects to send over one association. ``forwards``: their rows, by SOP Instance UID."""

    plan: Plan
    forwards: Mapping[str, Forward]


class Forwarding:
    """The queue of forwards, with its alarms; a thread for each destination may use it."""

    def __init__(self, forwards: Forwards, index: Index, library: Library, outbox: Outbox, clock: Clock) -> None:
        self._forwards = forwards
        self._index = index
        self._library = library
        self._outbox = outbox
        self._clock = clock
        self._late: dict[str, bool] = {}  # destination → whether its alarm stands; unknown at start

    def close(self) -> None:
        """Close this thread's connections."""
        for database in (self._forwards, self._index, self._outbox):
            database.close()

    def run(self, destination: str) -> Run | None:
        """The oldest objects a destination lacks and may be sent now; None when there are none."""
        found: list[Instance] = []
        forwards = {}
        due = self._forwards.due(destination, _AT_ONCE)
        for forward in due:
            instance = self._index.instance(forward.claim)
            if instance is None:  # just queued and about to be entered, or lost: the anchorer has its alarm
                self.put_off(forward, "not held here")
            else:
                found.append(instance)
                forwards[instance.sop_uid] = forward
        return Run(ClinicalPlan(self._library, found), forwards) if due else None

    def sent(self, forward: Forward) -> None:
        """The destination confirmed it."""
        self._outbox.settle(forward.claim, kind=refused_kind(forward.destination))
        self._forwards.done(forward)

    def away(self, forward: Forward, trouble: str) -> None:
        """The destination accepts no association: what was to go first goes first once it does."""
        self._forwards.failed(forward, trouble)

    def put_off(self, forward: Forward, trouble: str) -> None:
        """It did not go this time: others go before it, it follows soon, the less soon the longer it waits."""
        age_s = self._clock() - forward.queued
        self._forwards.failed(forward, trouble, min(max(age_s, 1), _LONGEST_PAUSE_S))

    def refused(self, forward: Forward, trouble: str) -> None:
        """The destination does not take it, or it may not leave as it is: a person has to look."""
        text = f"{forward.destination} does not have {forward.claim}: {trouble}: `orthanc-ledger forwards`"
        self._outbox.alarm(refused_kind(forward.destination), forward.claim, text)
        if not self._forwards.failed(forward, trouble, _REFUSED_RETRY_S):  # its study was erased meanwhile
            self._outbox.forget({forward.claim})

    def tell_lateness(self, destination: str) -> None:
        """Raise the alarm of a destination that lacks something for too long, or take it back."""
        late = self._forwards.waits_since(destination, self._clock() - LATE_S)
        if self._late.get(destination) is late:
            return
        if late:
            text = f"{destination} lacks what waits for an hour and more; `orthanc-ledger status` says why"
            self._outbox.alarm(late_kind(destination), destination, text)
        else:
            self._outbox.settle(destination, kind=late_kind(destination))
        self._late[destination] = late


def refused_kind(destination: str) -> str:
    """The kind of alarm that one object is not forwarded; its claim is the object's."""
    return f"not forwarded to {destination}"


def late_kind(destination: str) -> str:
    """The kind of alarm that a destination lacks something for too long; its claim is the destination."""
    return f"forwarding to {destination} is late"
