"""What the node asks its Orthanc over REST (Orthanc Book, "REST API"): what came, what is there, and its bytes.

Ids are Orthanc's own, of patients, studies, series and instances alike. For one thread.
"""

import contextlib
import http.client
import json
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import strptime
from typing import Any, BinaryIO, NamedTuple

from orthanc_ledger import entrance
from orthanc_ledger.errors import DataError, OrthancAway

TIMEOUT_S = 60.0
"""Without a byte from Orthanc for so long, it counts as away."""

_REFUSED = (http.client.UNAUTHORIZED, http.client.FORBIDDEN)
_COPIED_AT_ONCE = 1 << 20


class Change(NamedTuple):
    """One of Orthanc's changes. ``kind``: as `NewInstance`; ``time``: seconds of UTC."""

    sequence: int
    kind: str
    id: str
    time: int

    @property
    def name(self) -> str:
        """What it was: another one has another name."""
        return f"{self.kind} {self.id}"


class Changes(NamedTuple):
    """Changes in their order. ``last``: number of the last of these, or without any the last that Orthanc gave."""

    rows: Sequence[Change]
    last: int


class Series(NamedTuple):
    """Ids of a series, its study and its instances. ``updated``: when the last of these came, seconds of UTC."""

    id: str
    study: str
    instances: Sequence[str]
    updated: int


def read_changes(answer: Mapping[str, Any]) -> Changes:
    """The answer of /changes."""
    rows = [
        Change(row["Seq"], row["ChangeType"], row.get("ID", ""), _seconds(row["Date"])) for row in answer["Changes"]
    ]
    return Changes(rows, answer["Last"])


class OrthancRest:
    """Raises OrthancAway while Orthanc does not answer as it should, or does not let the node in; ConfigError and
    ServiceAway as `entrance.read`.
    """

    def __init__(self, place: Path, timeout_s: float = TIMEOUT_S) -> None:
        """``place``: the file that says how to get in (entrance.py); it is read again when Orthanc was restarted."""
        self._place = place
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._headers: Mapping[str, str] = {}

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def last_change(self) -> Changes:
        """The last change alone; none when Orthanc has forgotten it."""
        return self._changes("/changes?last")

    def changes(self, after: int, limit: int) -> Changes:
        """The next changes behind a number."""
        return self._changes(f"/changes?since={after}&limit={limit}")

    def count(self) -> int:
        """How many instances Orthanc holds."""
        with _as_expected():
            return int(self._get("/statistics")["CountInstances"])

    def series(self, offset: int, limit: int) -> list[Series]:
        """A page of all series, in an order of Orthanc's own: what is deleted meanwhile shifts it."""
        with _as_expected():
            return [_series(row) for row in self._get(f"/series?expand&since={offset}&limit={limit}") or []]

    def one_series(self, id: str) -> Series | None:
        """A series; None when it is gone."""
        with _as_expected():
            found = self._get(f"/series/{id}")
            return found and _series(found)

    def study_uid(self, id: str) -> str | None:
        """Study Instance UID of a study; None when it is gone."""
        return self._tag(f"/studies/{id}", "StudyInstanceUID")

    def study_uid_of(self, instance: str) -> str | None:
        """Study Instance UID of an instance's study; None when it is gone."""
        return self._tag(f"/instances/{instance}/study", "StudyInstanceUID")

    def sop_uid(self, id: str) -> str | None:
        """SOP Instance UID of an instance; None when it is gone."""
        return self._tag(f"/instances/{id}", "SOPInstanceUID")

    def metadata(self, id: str) -> Mapping[str, str] | None:
        """What Orthanc keeps about an instance, as `ReceptionDate` and `RemoteAET`; None when it is gone."""
        found: Mapping[str, str] | None = self._get(f"/instances/{id}/metadata?expand")
        return found

    def received(self, metadata: Mapping[str, str]) -> int:
        """When an instance with this metadata came, seconds of UTC."""
        with _as_expected():
            return _seconds(metadata["ReceptionDate"])

    def find(self, uid: str, kind: str) -> list[str]:
        """Ids of what has a UID: of kind `Study`, `Series` or `Instance`. Several, where patients differ."""
        with _as_expected():
            found = self._json("POST", "/tools/lookup", uid.encode())
            return [row["ID"] for row in found if row["Type"] == kind]

    def copy(self, id: str, sink: BinaryIO, check_size: Callable[[int], object]) -> bool:
        """Write an instance's Part 10 file; False when it is gone. Raises DataError when Orthanc itself cannot read it,
        what ``check_size`` raises, which is told the file's bytes first, and what the sink raises.
        """
        answer = self._ask("GET", f"/instances/{id}/file", None, http.client.INTERNAL_SERVER_ERROR)
        if answer.status == http.client.OK:
            try:
                check_size(answer.length or 0)
            except BaseException:
                self.close()  # it is not read to its end
                raise
        while data := self._read(answer, _COPIED_AT_ONCE):
            if answer.status == http.client.OK:
                sink.write(data)
        if answer.length:
            raise OrthancAway(f"Orthanc: instance {id} broke off, {answer.length} bytes are missing")
        if answer.status == http.client.INTERNAL_SERVER_ERROR:
            raise DataError("Orthanc cannot read it: its log says why")
        return answer.status == http.client.OK

    def _changes(self, path: str) -> Changes:
        with _as_expected():
            return read_changes(self._get(path))

    def _tag(self, path: str, keyword: str) -> str | None:
        with _as_expected():
            found = self._get(path)
            return found and str(found["MainDicomTags"][keyword])

    def _get(self, path: str) -> Any:
        """The answer to a question; None when there is no such thing."""
        return self._json("GET", path)

    def _json(self, method: str, path: str, body: bytes | None = None) -> Any:
        answer = self._ask(method, path, body)
        text = self._read(answer)
        with _as_expected():
            return json.loads(text) if answer.status == http.client.OK else None

    def _ask(self, method: str, path: str, body: bytes | None = None, *more: int) -> http.client.HTTPResponse:
        """An answer, 200, 404 or one of ``more``, to be read to its end. Asked a second time where a kept connection,
        or the way in, was of before a restart of Orthanc.
        """
        kept = self._connection is not None
        try:
            answer = self._sent(method, path, body)
        except OrthancAway:
            if not kept:
                raise
            answer = self._sent(method, path, body)
        if answer.status in _REFUSED and kept:
            self.close()
            answer = self._sent(method, path, body)
        if answer.status in (http.client.OK, http.client.NOT_FOUND, *more):
            return answer
        self.close()
        if answer.status in _REFUSED:
            raise OrthancAway(
                f'Orthanc does not let the node in (HTTP {answer.status}): restart Orthanc; "User" of its section '
                '"Ledger" has to be among "RegisteredUsers"'
            )
        raise OrthancAway(f"Orthanc: HTTP status {answer.status} for {method} {path.partition('?')[0]}")

    def _sent(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        with self._connected():
            if self._connection is None:
                way_in = entrance.read(self._place)
                self._connection, self._headers = way_in.connection(self._timeout_s), way_in.headers
            self._connection.request(method, path, body, dict(self._headers))
            return self._connection.getresponse()

    def _read(self, answer: http.client.HTTPResponse, size: int | None = None) -> bytes:
        with self._connected():
            return answer.read(size)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OrthancAway(f"Orthanc does not answer: {str(error)!a}") from error


def _series(row: Mapping[str, Any]) -> Series:
    return Series(row["ID"], row["ParentStudy"], row["Instances"], _seconds(row["LastUpdate"]))


def _seconds(text: str) -> int:
    """Orthanc's times are UTC, as `20240131T235959`."""
    return timegm(strptime(text, "%Y%m%dT%H%M%S"))


@contextlib.contextmanager
def _as_expected() -> Iterator[None]:
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise OrthancAway(f"an answer that is not as Orthanc's: {type(error).__name__}") from error
