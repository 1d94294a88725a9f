"""What Orthanc's plugin asks of the node, over HTTP on a Unix socket in data_dir: moves to research peers, decided and
sent as on the node's own port; what its panel shows.
"""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import time from tables
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_scp.association import Cancelled, application_entity
from dicom_scp.identifier import unique_keys
from dicom_scp.ports import Archive, Level, Peer, Query
from dicom_scp.retrieve_loop import Retriever
from dicom_scp.route import Requestor
from dicom_scp.status import Answer
from dicom_scp.sub_operations import Originator, Tally
from orthanc_ledger.assemble import BESIDE
from orthanc_ledger.config import Config
from orthanc_ledger.reasons import Problem
from orthanc_ledger.web.facts import Facts
from orthanc_ledger.web.lines import Call, Lines, Route
from orthanc_ledger.web.local import serve as serve_locally

_MOVES_AT_ONCE = 16  # others wait; Orthanc itself serves some few associations at once
_LOOKS_AT_ONCE = 4
_NETWORK_TIMEOUT_S, _ANSWER_TIMEOUT_S = 900.0, 60.0


def serve(config: Config, archive: Archive, facts: Facts, stop: threading.Event) -> None:
    """Answer the plugin until ``stop`` is set. Raises ServiceAway when the socket cannot be listened on now."""
    listen(config.data_dir / BESIDE, Moves(config.ae_title, config.peers, archive), facts, stop)


def listen(socket: Path, moves: "Moves", facts: Facts, stop: threading.Event) -> None:
    """As `serve`."""
    moving, looking = ThreadPoolExecutor(_MOVES_AT_ONCE, "move"), ThreadPoolExecutor(_LOOKS_AT_ONCE, "look")
    routes = [
        Route("POST", re.compile("/moves"), moves.answer, moving),
        Route("POST", re.compile("/provenance"), facts.answer, looking),
    ]
    serve_locally(Lines(routes), socket, stop)


class Moves:
    """``POST /moves``: carries out a C-MOVE to a research peer that Orthanc was asked for.

    The body is a JSON object: ``asker``, the AE title of who asks, None for hospital staff; ``message_id`` of its
    request; ``destination``, an AE title; ``keys``, the identifier's elements as keyword → text. The answer is
    {"refused": reason}, or {"count": sub-operations} and then, for each, {"sent": true} or {"sent": false, "reason":
    reason or None}. It breaks off where this node does: what is missing was not sent.
    """

    def __init__(self, ae_title: str, peers: Sequence[Peer], archive: Archive) -> None:
        self._peers = {peer.ae_title: peer for peer in peers}
        research = [peer for peer in peers if peer.role == "research"]
        requestor = Requestor(application_entity(ae_title, _NETWORK_TIMEOUT_S, _ANSWER_TIMEOUT_S))
        self._retriever = Retriever(archive, research, requestor)

    def answer(self, call: Call) -> None:
        """Carry out one move."""
        asked = json.loads(call.body)
        title: str | None = asked["asker"]
        asker = self._peers.get(title or "") or Peer(title or "staff", "clinical")
        originator = None if title is None else Originator(title, int(asked["message_id"]))
        self._retriever.move(_Move(call, asked["keys"]), asker, asked["destination"], originator)


class _Move:
    """One move, and the plugin that waits for it."""

    def __init__(self, call: Call, keys: Mapping[str, Any]) -> None:
        self._call = call
        self._keys = keys
        self._sent: int | None = None
        self._failed = 0

    def query(self) -> tuple[Level, Query]:
        # Orthanc does not tell the information models apart.
        by_patient = bool(self._keys.get("PatientID"))
        model = (
            PatientRootQueryRetrieveInformationModelMove if by_patient else StudyRootQueryRetrieveInformationModelMove
        )
        return unique_keys(self._keys, model)

    @property
    def cancelled(self) -> bool:
        return self._call.left.is_set()

    def check_awaited(self) -> None:
        if self.cancelled:
            raise Cancelled("the plugin does not wait any more")

    def respond(self, answer: Answer) -> None:
        self._call.tell({"refused": answer.comment or Problem.AWAY})

    def pending(self, tally: Tally) -> None:
        self._tell(tally)

    def conclude(self, tally: Tally, cancelled: bool) -> None:
        self._tell(tally)  # nothing of it was pending when all was withheld

    def _tell(self, tally: Tally) -> None:
        if self._sent is None:
            self._sent = 0
            self._call.tell({"count": tally.total})
        for _, reason in tally.failed[self._failed :]:
            self._call.tell({"sent": False, "reason": reason})
        for _ in tally.sent[self._sent :]:
            self._call.tell({"sent": True})
        self._sent, self._failed = len(tally.sent), len(tally.failed)
