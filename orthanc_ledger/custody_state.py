"""What index, alarms and ledger say of some objects, put together: their state, their way here, their last check."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from orthanc_ledger.index import Batch, Instance
from orthanc_ledger.outbox import BAD_MANIFEST, CONFLICT, QUARANTINED, Alarm
from orthanc_ledger.provenance import TONES, Advice, Anchored, Check, Counts, Origin, State, Tone
from orthanc_ledger.repair import DAMAGED
from orthanc_ledger.sweep import Round
from orthanc_ledger.trail import Trail

_LONG_S = 600  # of waiting: worth a look
_KINDS = {
    State.DAMAGED: (DAMAGED, BAD_MANIFEST),
    State.CONFLICT: (CONFLICT,),
    State.QUARANTINED: (QUARANTINED,),
}
_FUNCTIONS = {
    State.ERASED: "ConfirmErase",
    State.DAMAGED: "FlagTampered",
    State.CONFLICT: "ReportConflict",
    State.ERASURE_REQUESTED: "RequestErase",
    State.WITHDRAWN: "Withdraw",
}


def state_of(counts: Counts, erasure: str = "none") -> State:
    """The state of objects that are held. ``erasure``: as the query StandingOf has it."""
    states = {
        State.ERASED: erasure == "erased",
        State.DAMAGED: counts.damaged,
        State.CONFLICT: counts.conflicts,
        State.QUARANTINED: counts.quarantined,
        State.ERASURE_REQUESTED: erasure == "requested",
        State.WITHDRAWN: counts.withdrawn == counts.held,
        State.WAITING: counts.waiting,
    }
    return next((state for state, is_so in states.items() if is_so), State.UNDER_CUSTODY)


def since(
    state: State, held: Iterable[Instance], alarms: Iterable[Alarm], trail: Trail | None, anchors: Iterable[Anchored]
) -> int | None:
    """From when on a state is so, seconds of UTC; None: not known."""
    if state is State.WAITING:
        return min(instance.received_us for instance in held if instance.state == "spooled") // 1_000_000
    if state is State.UNDER_CUSTODY:
        times = [anchor.time for anchor in anchors]
        return None if None in times else max(filter(None, times), default=None)
    told = [alarm.time for alarm in alarms if alarm.kind in _KINDS.get(state, ())]
    if told:
        return min(told)
    return trail.last(_FUNCTIONS[state]) if trail is not None and state in _FUNCTIONS else None


def tone_of(state: State, since: int | None, now: int, advice: Iterable[Advice]) -> Tone:
    """How loudly a state is shown: what waits for long, or has alarms, is worth a look."""
    has_alarms = any(each.tone is not Tone.NEUTRAL for each in advice)
    waits_long = state is State.WAITING and since is not None and now - since > _LONG_S
    is_quiet = TONES[state] in (Tone.GOOD, Tone.NEUTRAL)
    return Tone.ATTENTION if is_quiet and (waits_long or has_alarms) else TONES[state]


def anchored(batches: Iterable[Batch], trail: Trail | None) -> tuple[Anchored, ...]:
    """Those of the batches that are on the ledger, in its order."""
    found = []
    for batch in batches:
        if batch.position is not None:
            row = {} if trail is None else trail.anchors.get(batch.manifest, {})
            found.append(Anchored(batch.manifest, batch.position, batch.count, row.get("time"), row.get("stored")))
    return tuple(sorted(found, key=lambda anchor: anchor.position))


def origins_of(held: Iterable[Instance]) -> tuple[Origin, ...]:
    """How objects came, and from whom; the first first."""
    received: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for instance in held:
        received[instance.origin, instance.sender].append(instance.received_us // 1_000_000)
    found = [Origin(*how, len(times), min(times), max(times)) for how, times in received.items()]
    return tuple(sorted(found, key=lambda origin: origin.first))


def checked(anchors: Sequence[Anchored], rounds: Iterable[Round | None], now: int) -> Check | None:
    """The older of the last sweeps that verified each of these anchors; None: one was not, or may not have been.

    ``rounds``: the latest first. A round verifies what was anchored before it began, as far as its place.
    """
    latest = [round_ for round_ in rounds if round_ is not None]
    found = []
    for anchor in anchors:
        covering = (round_ for round_ in latest if _covers(round_, anchor))
        found.append(next(covering, None))
    checks = [Check(round_.started, round_.finished or now) for round_ in found if round_ is not None]
    return min(checks, key=lambda check: check.begun, default=None) if len(checks) == len(anchors) else None


def _covers(round_: Round, anchor: Anchored) -> bool:
    is_before = anchor.time is not None and anchor.time < round_.started
    return is_before and (round_.finished is not None or anchor.manifest <= round_.place)
