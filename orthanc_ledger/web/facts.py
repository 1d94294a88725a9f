"""``POST /provenance`` among the calls that are answered line by line: what Orthanc's panel shows."""

import json
from collections.abc import Callable

from orthanc_ledger.chronicle import Chronicle
from orthanc_ledger.provenance import as_json
from orthanc_ledger.web.lines import Call


class Facts:
    """What is known of one study, series or instance.

    The body is a JSON object: ``level`` and ``uid``; ``study_uid`` of its study; ``orthanc_id`` of an object of it in
    Orthanc; ``events``, whether what happened to the study is asked for, too. The answer is one line: a Provenance,
    with ``events`` a list of them.
    """

    def __init__(self, chronicle: Callable[[], Chronicle]) -> None:
        """``chronicle`` is called for each answer: what it needs may not be there yet."""
        self._chronicle = chronicle

    def answer(self, call: Call) -> None:
        asked, chronicle = json.loads(call.body), self._chronicle()
        found = chronicle.of(asked["level"], asked["uid"], asked["study_uid"], asked["orthanc_id"])
        events = chronicle.events(found.study_uid) if asked["events"] else []
        call.tell({**as_json(found), "events": [as_json(event) for event in events]})
