"""What waits in quarantine and conflict queue, and what people may decide about it: for commands and console."""

from dataclasses import dataclass

from orthanc_ledger.arrival import Arrival, read_head
from orthanc_ledger.assemble import Node
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld
from orthanc_ledger.index import Supersession
from orthanc_ledger.spool import CONFLICTS, QUARANTINE, claim_of

TO_DECIDE, DAMAGED = "to decide", "damaged"


@dataclass(frozen=True)
class Waiting:
    """A unit: its name, how far its decision is, how it came. ``arrival`` None: the disk damaged it, and it can only be
    discarded.
    """

    name: str
    state: str
    arrival: Arrival | None

    @property
    def is_undecided(self) -> bool:
        """Whether a person has to decide: also when what was decided could not be carried out."""
        return self.state in (TO_DECIDE, DAMAGED) or self.state.startswith("refused")


def waiting(node: Node, queue: str, first: int = 0, count: int | None = None) -> list[Waiting]:
    """``count`` units of a queue from the ``first`` on, oldest first; None: all."""
    names = node.spool.names(queue)
    end = len(names) if count is None else first + count
    states = {row.conflict: row.state for row in node.index.supersessions()}
    return [_waiting(node, queue, name, states.get(name, TO_DECIDE)) for name in names[first:end]]


def look(node: Node, queue: str, name: str) -> Waiting:
    """One unit of a queue. Raises NotHeld."""
    _must_wait(node, name, queue)
    states = {row.conflict: row.state for row in node.index.supersessions()}
    return _waiting(node, queue, name, states.get(name, TO_DECIDE))


def retry(node: Node, name: str) -> None:
    """Put a unit of the quarantine back into the inbox. Raises NotHeld, ConfigError."""
    _must_wait(node, name, QUARANTINE)
    _forget_quarantined(node, name)
    node.spool.take_back(name)


def discard_quarantined(node: Node, name: str) -> None:
    """Delete a unit of the quarantine for good: nothing of it was anchored. Raises NotHeld."""
    _must_wait(node, name, QUARANTINE)
    _forget_quarantined(node, name)
    node.spool.remove(name, QUARANTINE)


def discard_conflict(node: Node, name: str) -> None:
    """Delete a unit of the conflict queue for good: the first content stays. Raises NotHeld, ConfigError."""
    _must_be_undecided(node, name)
    node.spool.remove(name, CONFLICTS)
    node.outbox.settle(claim_of(name), name)


def supersede(node: Node, name: str, reason: str) -> None:
    """Have a unit of the conflict queue proposed as the current content, which the custodian confirms.

    Raises NotHeld, ConfigError when it is decided already, or the first content is not anchored yet.
    """
    _must_be_undecided(node, name)
    claim = claim_of(name)
    holder = node.index.instance(claim)
    if holder is None or holder.state != "anchored" or holder.manifest is None:
        raise ConfigError(f"{name}: the first content is not anchored yet; try again when `status` shows no backlog")
    node.index.keep_supersession(Supersession(name, claim, reason, "decided", holder.manifest))


def _waiting(node: Node, queue: str, name: str, state: str) -> Waiting:
    try:
        with node.spool.open(name, queue) as unit:
            return Waiting(name, state, read_head(unit).arrival)
    except (IntegrityError, NotHeld):
        return Waiting(name, DAMAGED, None)


def _forget_quarantined(node: Node, name: str) -> None:
    """Drop a unit's index row, what waits to be forwarded, its alarms. The row may be another's by now: its UID came
    again.
    """
    claim = claim_of(name)
    holder = node.index.instance(claim)
    if holder is not None and holder.spool_name == name:
        node.index.forget(claim)
        node.forwards.forget(claim)
    node.outbox.settle(claim, name)


def _must_wait(node: Node, name: str, queue: str) -> None:
    if name not in node.spool.names(queue):
        raise NotHeld(f"{name}: not in {queue}; `orthanc-ledger {queue}` lists what is there")


def _must_be_undecided(node: Node, name: str) -> None:
    _must_wait(node, name, CONFLICTS)
    if any(row.conflict == name and not row.state.startswith("refused") for row in node.index.supersessions()):
        raise ConfigError(f"{name}: is proposed as the current content already; the custodian decides that now")
