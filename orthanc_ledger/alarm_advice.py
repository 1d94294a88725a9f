"""What a person does about each kind of alarm, and about what staff did in Orthanc; shown beside its own words."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orthanc_ledger.courier import ROLLED_BACK
from orthanc_ledger.outage import ANCHORS_WAIT, CONTENT_AWAY
from orthanc_ledger.outbox import BAD_MANIFEST, CONFLICT, LOST, MISSED, QUARANTINED, SUPERSESSION, Alarm
from orthanc_ledger.provenance import Advice, Tone
from orthanc_ledger.reconcile import ORTHANC_AWAY, UNTAKEN
from orthanc_ledger.repair import DAMAGED, UNDECIDED
from orthanc_ledger.words import counted

_NOTHING = "Nothing now: it goes on by itself once that is back."
_WHOEVER_RUNS_IT = "Tell whoever runs the node; `orthanc-ledger status` shows it."

_WHAT_TO_DO: Mapping[str, str] = {
    CONFLICT: "Compare both contents in the console, under Conflicts: keep the first, or propose the new one.",
    SUPERSESSION: "Decide anew in the console, under Conflicts.",
    QUARANTINED: "Look at it in the console, under Quarantine: try it again after an update, or discard it.",
    LOST: "Have it sent again by its sender, or restore the spool's disk.",
    DAMAGED: "Restore it from a backup of the content store; then owner and custodian lift the flag (`resolve`).",
    BAD_MANIFEST: "Restore it from a backup of the content store; then owner and custodian lift the flags (`resolve`).",
    UNDECIDED: "Nothing now: the next sweep looks again once all copies can be asked for.",
    ANCHORS_WAIT: _NOTHING,
    CONTENT_AWAY: _NOTHING,
    ORTHANC_AWAY: _NOTHING,
    MISSED: "See that data_dir has room; then the next comparison with Orthanc takes it (`orthanc-ledger reconcile`).",
    ROLLED_BACK: "Tell whoever runs the node at once: research gets nothing until the ledger is restored.",
}
_LOUD = frozenset({DAMAGED, BAD_MANIFEST, ROLLED_BACK})


def advice_on(alarms: Iterable[Alarm]) -> tuple[Advice, ...]:
    """A piece of advice for each kind of alarm, with the words of its oldest; the loudest, then the oldest first."""
    found: dict[str, Advice] = {}
    for alarm in sorted(alarms, key=lambda alarm: alarm.time):
        if alarm.kind in found:
            found[alarm.kind] = replace(found[alarm.kind], count=found[alarm.kind].count + 1)
        else:
            tone = Tone.DANGER if alarm.kind in _LOUD else Tone.ATTENTION
            what_to_do = _WHAT_TO_DO.get(alarm.kind, _WHOEVER_RUNS_IT)
            found[alarm.kind] = Advice(alarm.time, alarm.kind, alarm.text, what_to_do, tone)
    return tuple(sorted(found.values(), key=lambda advice: (advice.tone is not Tone.DANGER, advice.since)))


def gone_from_orthanc(since: int, count: int) -> Advice:
    """About objects that Orthanc has no more. No alarm: anchored is what the node keeps."""
    return Advice(
        since=since,
        kind="deleted in Orthanc",
        text=f"{counted(count, 'object')} kept here and not in Orthanc any more",
        what_to_do="Decide: take it from research (`orthanc-ledger withdraw`), or not (`orthanc-ledger pacs keep`).",
        tone=Tone.NEUTRAL,
        count=count,
    )


def not_taken(since: int, count: int, reason: str) -> Advice:
    """About objects that Orthanc has and the node cannot take from it; ``reason``: of the first."""
    return Advice(
        since=since,
        kind=UNTAKEN,
        text=f"{counted(count, 'object')} cannot be taken: {reason}",
        what_to_do="Have it sent again by its sender; `orthanc-ledger pacs untaken` lists all.",
        tone=Tone.ATTENTION,
        count=count,
    )
