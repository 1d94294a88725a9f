"""The plugin's side of ``beside.sock``: the node is asked, decides, and sends (`dicom_scp/beside.py` answers)."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthanc_ledger import local_socket
from orthanc_ledger.errors import DataError, ServiceAway

_SILENCE_S = 30.0  # the node says every few seconds that it is at work


class MoveRefused(DataError):
    """The node refuses a move; the message says why, in the fixed list's words."""


@dataclass(frozen=True)
class Outcome:
    """What became of one sub-operation; ``reason`` is None where the fixed list has no word for it."""

    sent: bool
    reason: str | None = None


class Beside:
    """The node, as the plugin asks it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def move(self, asker: str | None, message_id: int, destination: str, keys: Mapping[str, str]) -> "Move":
        """Begin a move to the AE title ``destination``, for the AE title ``asker``; None: for staff.

        ``keys``: the identifier's elements, keyword → text. Raises MoveRefused, and ServiceAway when the node cannot be
        asked, or does not say what may go.
        """
        asked = {"asker": asker, "message_id": message_id, "destination": destination, "keys": dict(keys)}
        connection = _Connection(self._socket)
        try:
            connection.request("POST", "/moves", json.dumps(asked))
            answer = connection.getresponse()
            lines = _lines(answer)
            first = next(lines, {}) if answer.status == 200 else {}
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ServiceAway(f"the node's processes cannot be asked: {type(error).__name__}") from error
        if "count" in first:
            return Move(first["count"], connection, lines)
        connection.close()
        if "refused" in first:
            raise MoveRefused(first["refused"])
        raise ServiceAway("the node's processes do not answer whole")

    def provenance(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is known of a study, series or instance, asked as `web/facts.py` takes it. Raises ServiceAway when the
        node cannot be asked, or does not say.
        """
        with closing(_Connection(self._socket)) as connection:
            try:
                connection.request("POST", "/provenance", json.dumps(asked))
                answer = connection.getresponse()
                found = next(_lines(answer), None) if answer.status == 200 else None
            except (OSError, http.client.HTTPException) as error:
                raise ServiceAway(f"the node's processes cannot be asked: {type(error).__name__}") from error
        if found is None:
            raise ServiceAway("the node's processes do not answer whole")
        return found


class Move:
    """A move that is going on; closing it ends it."""

    def __init__(self, count: int, connection: http.client.HTTPConnection, lines: Iterator[Mapping[str, Any]]) -> None:
        self.count = count
        self._connection = connection
        self._lines = lines

    def next(self) -> Outcome:
        """Wait for the next of ``count`` sub-operations. Without an answer of the node it counts as not sent."""
        try:
            line = next(self._lines, {})
        except (OSError, http.client.HTTPException):
            line = {}
        return Outcome(line.get("sent", False), line.get("reason"))

    def close(self) -> None:
        """End it: what has not begun to leave stays."""
        self._connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = local_socket.connect(self._path, _SILENCE_S)


def _lines(answer: http.client.HTTPResponse) -> Iterator[Mapping[str, Any]]:
    """The lines of an answer. Raises OSError, HTTPException."""
    with closing(answer):
        for line in answer:
            if not line.endswith(b"\n"):
                return  # it breaks off
            if line.strip():
                yield json.loads(line)
