"""What this node knows of a study, series or instance, gathered for people (provenance.py has the values).

What lies here is always told. What only the ledger knows is left out while it is away, and that is said.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from orthanc_ledger import tokens
from orthanc_ledger.alarm_advice import advice_on, gone_from_orthanc, not_taken
from orthanc_ledger.arrival import read_head
from orthanc_ledger.clock import Clock
from orthanc_ledger.courier import ROLLED_BACK
from orthanc_ledger.custody_state import anchored, checked, origins_of, since, state_of, tone_of
from orthanc_ledger.errors import IntegrityError, LedgerAway, NotHeld, Unreadable
from orthanc_ledger.index import Batch, Index, Instance
from orthanc_ledger.instance import read_identifiers
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.outage import ANCHORS_WAIT, CONTENT_AWAY
from orthanc_ledger.outbox import BAD_MANIFEST, Alarm, Outbox
from orthanc_ledger.pacs import Pacs
from orthanc_ledger.provenance import Advice, Anchored, Check, Counts, Event, Level, Provenance, State
from orthanc_ledger.repair import DAMAGED
from orthanc_ledger.spool import CONFLICTS, Spool, claim_of
from orthanc_ledger.sweep import Rounds
from orthanc_ledger.trail import Trail
from orthanc_ledger.words import counted

_NEWEST = 256  # units of the inbox that are looked at for a study of which the index knows nothing yet
_KEEPS_WAITING = (ANCHORS_WAIT, CONTENT_AWAY)


class Chronicle:
    """Raises what index, spool and keyring raise, never LedgerAway."""

    def __init__(
        self,
        spool: Spool,
        index: Index,
        keyring: Keyring,
        outbox: Outbox,
        rounds: Rounds,
        ledger: Ledger,
        clock: Clock,
        pacs: Pacs | None,
    ) -> None:
        """``ledger``: one that is soon away, as people wait; ``pacs``: None where this node is not Orthanc's plugin."""
        self._spool = spool
        self._index = index
        self._keyring = keyring
        self._outbox = outbox
        self._rounds = rounds
        self._ledger = ledger
        self._clock = clock
        self._pacs = pacs

    def of(self, level: Level, uid: str, study_uid: str = "", orthanc_id: str = "") -> Provenance:
        """What is known of the study, series or instance with this UID.

        For what is not held here: ``study_uid`` of the study that it is said to be of, ``orthanc_id`` of an object of
        it in Orthanc.
        """
        held = self._held(level, uid)
        study_uid = held[0].study_uid if held else uid if level == "study" else study_uid
        trail, away = self._trail(study_uid)
        if not held:
            return self._nothing_held(level, uid, study_uid, orthanc_id, away)
        batches = [
            batch
            for batch in self._index.batches_of(study_uid)
            if level == "study" or batch.manifest in {instance.manifest for instance in held}
        ]
        alarms = self._alarms(held, batches)
        counts = self._counts(held, alarms, trail)
        if level == "study":
            counts = replace(counts, earlier=self._pacs.earlier(study_uid) if self._pacs else 0)
        advice = (*advice_on(alarms), *self._in_orthanc(level, study_uid, orthanc_id))
        state = state_of(counts, "none" if trail is None else trail.erasure)
        anchors = anchored(batches, trail)
        begun = since(state, held, alarms, trail, anchors)
        return Provenance(
            level=level,
            uid=uid,
            study_uid=study_uid,
            state=state,
            tone=tone_of(state, begun, self._clock(), advice),
            since=begun,
            counts=counts,
            object=held[0].object if level == "instance" else None,
            anchors=anchors,
            origins=origins_of(held),
            checked=self._checked(anchors),
            releases=()
            if trail is None
            else trail.releases(None if level == "study" else {batch.manifest for batch in batches}),
            alarms=advice,
            ledger_away=away,
        )

    def events(self, study_uid: str) -> list[Event]:
        """What happened to a study, in the order of time; without what only the ledger knows while it is away."""
        trail, _ = self._trail(study_uid)
        told = [] if trail is None else trail.events()
        for origin in origins_of(self._held("study", study_uid)):
            detail = f"{counted(origin.count, 'object')}, {origin.way}, from {origin.sender}"
            told.append(Event(origin.first, "received", detail=detail))
        anchors = anchored(self._index.batches_of(study_uid), trail)
        if check := self._checked(anchors):
            told.append(Event(check.ended, "all anchored objects were verified"))
        for made in () if self._pacs is None else self._pacs.derived():
            if made.study_uid == study_uid:
                told.append(Event(made.since, f"Orthanc made it: {made.how}", detail=f"of study {made.source_uid}"))
            elif made.source_uid == study_uid:
                told.append(Event(made.since, f"Orthanc made another of it: {made.how}", detail=made.study_uid))
        return sorted(told, key=lambda event: (event.time, event.position or 0))

    def states(self, study_uids: Sequence[str]) -> dict[str, State]:
        """The state of each of these studies, without what only the ledger knows: for lists."""
        counts = self._index.listing.states(study_uids)
        conflicts = self._index.listing.studies_of([claim_of(name) for name in self._spool.names(CONFLICTS)])
        bad = self._index.listing.studies_of([alarm.claim for alarm in self._outbox.alarms() if alarm.kind == DAMAGED])
        return {
            uid: state_of(
                Counts(
                    held=sum(counts[uid].values()),
                    waiting=counts[uid].get("spooled", 0),
                    quarantined=counts[uid].get("quarantined", 0),
                    conflicts=uid in conflicts,
                    damaged=uid in bad,
                )
            )
            for uid in study_uids
            if uid in counts
        }

    def _held(self, level: Level, uid: str) -> list[Instance]:
        if level == "study":
            return self._index.select(studies=[uid])
        return self._index.select(series=[uid]) if level == "series" else self._index.select(instances=[uid])

    def _trail(self, study_uid: str) -> tuple[Trail | None, str | None]:
        """What the ledger says of a study, None where it has never heard of it; or why it cannot be asked."""
        study = self._keyring.study(study_uid)
        if study is None:
            return None, None
        try:
            return Trail(self._ledger, study.token), None
        except (LedgerAway, IntegrityError) as error:
            return None, str(error)

    def _nothing_held(self, level: Level, uid: str, study_uid: str, orthanc_id: str, away: str | None) -> Provenance:
        counts, since, state = Counts(), None, State.NOT_HELD
        if self._keyring.is_erased(study_uid):
            state = State.ERASED
        elif arrived := self._arriving(level, uid, study_uid):
            counts, since, state = Counts(held=len(arrived), waiting=len(arrived)), min(arrived), State.WAITING
        elif earlier := self._earlier(study_uid) if level == "study" else self._earlier(study_uid) & {orthanc_id}:
            counts, state = Counts(earlier=len(earlier)), State.BEFORE_INSTALLATION
        advice = () if state is State.ERASED else self._in_orthanc(level, study_uid, orthanc_id)
        tone = tone_of(state, since, self._clock(), advice)
        return Provenance(level, uid, study_uid, state, tone, since, counts, alarms=advice, ledger_away=away)

    def _earlier(self, study_uid: str) -> set[str]:
        """Orthanc's ids of what came before the plugin."""
        return set() if self._pacs is None else set(self._pacs.earlier_ids(study_uid))

    def _in_orthanc(self, level: Level, study_uid: str, orthanc_id: str) -> tuple[Advice, ...]:
        """What a person has to do as Orthanc has something no more, or has what cannot be taken from it."""
        if self._pacs is None:
            return ()
        untaken = [each for each in self._pacs.untaken() if each.study_uid == study_uid]
        if level != "study":
            untaken = [each for each in untaken if each.id == orthanc_id]
        gone = self._pacs.gone(study_uid) if level == "study" else []
        return (
            *(not_taken(each.since, len(untaken), each.reason) for each in untaken[:1]),
            *(gone_from_orthanc(each.since, each.count) for each in gone),
        )

    def _arriving(self, level: Level, uid: str, study_uid: str) -> list[int]:
        """When those objects arrived that are in the inbox and not yet in the index; of a series, its study's."""
        if level == "instance":
            names = [tokens.claim_name(self._keyring.k_lookup, uid)]
        else:
            names = [name for name in self._spool.names()[-_NEWEST:] if self._index.claimed(name) is None]
        found = []
        for name in names:
            with contextlib.suppress(NotHeld, IntegrityError, Unreadable), self._spool.open(name) as unit:
                arrival = read_head(unit).arrival
                said = read_identifiers(unit, arrival.transfer_syntax)
                if uid == said.sop_instance_uid or study_uid == said.study_instance_uid:
                    found.append(arrival.received_us // 1_000_000)
        return found

    def _alarms(self, held: Sequence[Instance], batches: Sequence[Batch]) -> list[Alarm]:
        """Those about these objects and batches; and about what keeps waiting ones waiting."""
        names = {name for instance in held for name in (instance.claim, instance.object)}
        names |= {name for batch in batches for name in (batch.manifest, str(batch.id))}
        wide = {ROLLED_BACK, *(_KEEPS_WAITING if any(instance.state == "spooled" for instance in held) else ())}
        return [alarm for alarm in self._outbox.alarms() if alarm.claim in names or alarm.kind in wide]

    def _counts(self, held: Sequence[Instance], alarms: Sequence[Alarm], trail: Trail | None) -> Counts:
        claims = {instance.claim for instance in held}
        states = [instance.state for instance in held]
        flagged, withdrawn = (set(), set()) if trail is None else self._blocked(held, trail)
        bad = {alarm.claim for alarm in alarms if alarm.kind in (DAMAGED, BAD_MANIFEST)}
        damaged = {each.claim for each in held if {each.claim, each.object, each.manifest} & bad}
        return Counts(
            held=len(held),
            anchored=states.count("anchored"),
            waiting=states.count("spooled"),
            quarantined=states.count("quarantined"),
            conflicts=len(claims & {claim_of(name) for name in self._spool.names(CONFLICTS)}),
            damaged=len(damaged | flagged),
            withdrawn=len(withdrawn),
            superseded=sum(row.claim in claims for row in self._index.supersessions("confirmed")),
        )

    def _blocked(self, held: Sequence[Instance], trail: Trail) -> tuple[set[str], set[str]]:
        """Claims of the objects that are flagged, and of those that are withdrawn."""
        all_withdrawn = {each.claim for each in held} if trail.is_withdrawn else set()
        study = self._keyring.study(held[0].study_uid)
        if study is None or not trail.flagged | trail.withdrawn:
            return set(), all_withdrawn
        by_token = {tokens.instance_token(study.k_study, each.sop_uid): each.claim for each in held}
        flagged, withdrawn = (
            {by_token[token] for token in by_token.keys() & taken} for taken in (trail.flagged, trail.withdrawn)
        )
        return flagged, withdrawn | all_withdrawn

    def _checked(self, anchors: Sequence[Anchored]) -> Check | None:
        return checked(anchors, (self._rounds.unfinished(), self._rounds.finished()), self._clock())
