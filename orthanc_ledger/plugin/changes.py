"""Which of Orthanc's changes are noted: what it deletes, and where its changes began."""

import json

import orthanc

from orthanc_ledger.assemble import Node
from orthanc_ledger.orthanc_rest import read_changes
from orthanc_ledger.outbox import MISSED
from orthanc_ledger.plugin import events
from orthanc_ledger.plugin.notes import Notes

_TEXT = "Orthanc stored what could not be kept here: see that data_dir has room; then it is fetched from Orthanc"


def register(node: Node) -> Notes:
    """Note what Orthanc deletes; the hook that stores tells what it stored, and what it could not."""
    notes = Notes(lambda: node.pacs, lambda: node.outbox.alarm(MISSED, MISSED, _TEXT))

    def deleted(level: int, id: str) -> None:
        if level == orthanc.ResourceType.INSTANCE:
            notes.deleted(id)

    events.listen(orthanc.ChangeType.DELETED, deleted)
    events.listen(orthanc.ChangeType.ORTHANC_STARTED, lambda *_: notes.began(*_last_change()))
    events.listen(orthanc.ChangeType.ORTHANC_STOPPED, lambda *_: notes.stop())
    notes.start()
    return notes


def _last_change() -> tuple[int, str | None]:
    changes = read_changes(json.loads(orthanc.RestApiGet("/changes?last")))
    return changes.last, changes.rows[0].name if changes.rows else None
