"""What the node asks Orthanc over REST, where Orthanc is restarted, keeps it out, breaks off, or is something else."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orthanc_ledger.entrance import SECRET_HEADER, Entrance, keep
from orthanc_ledger.errors import DataError, OrthancAway, ServiceAway, SpoolFull
from orthanc_ledger.orthanc_rest import OrthancRest

ID = "0fe7a8d7-9c3b6a7b-1d0cf3c4-6d8f7f3c-1d0cf3c4"


@dataclass
class Stub:
    """Answers each path with a status and a body to whom knows the secret. ``cut``: bytes that it leaves out."""

    port: int = 0
    secret: str = "first"
    cut: int = 0
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def any_size(size: int) -> None:
    """Takes a file of any size."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.asked.append(self.path)
            status, body = made.answers.get(self.path, (404, b"{}"))
            if self.headers[SECRET_HEADER] != made.secret:
                status, body = 403, b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - made.cut])
            self.close_connection = bool(made.cut)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def place(stub: Stub, tmp_path: Path) -> Path:
    path = tmp_path / "orthanc.json"
    keep(path, Entrance(f"http://127.0.0.1:{stub.port}", "ledger", "password", "first"))
    return path


@pytest.fixture
def orthanc(place: Path) -> Iterator[OrthancRest]:
    made = OrthancRest(place, timeout_s=10.0)
    yield made
    made.close()


def test_a_restarted_orthanc_is_asked_with_its_new_secret(stub: Stub, place: Path, orthanc: OrthancRest) -> None:
    stub.answers[f"/instances/{ID}"] = 200, json.dumps({"MainDicomTags": {"SOPInstanceUID": "1.2.3"}}).encode()
    assert orthanc.sop_uid(ID) == "1.2.3"
    stub.secret = "second"
    keep(place, Entrance(f"http://127.0.0.1:{stub.port}", "ledger", "password", "second"))
    assert orthanc.sop_uid(ID) == "1.2.3", "without having been away"
    stub.secret = "third"
    with pytest.raises(OrthancAway, match="does not let the node in"):
        orthanc.sop_uid(ID)
    keep(place, Entrance(f"http://127.0.0.1:{stub.port}", "ledger", "password", "third"))
    assert orthanc.sop_uid(ID) == "1.2.3"


def test_what_is_not_there_is_none(stub: Stub, orthanc: OrthancRest) -> None:
    assert orthanc.sop_uid(ID) is None
    assert orthanc.study_uid(ID) is None
    assert orthanc.one_series(ID) is None
    assert orthanc.metadata(ID) is None
    assert not orthanc.copy(ID, io.BytesIO(), any_size)


def test_a_file_that_orthanc_cannot_read_is_told_from_an_orthanc_that_is_away(stub: Stub, orthanc: OrthancRest) -> None:
    stub.answers[f"/instances/{ID}/file"] = 500, b"{}"
    with pytest.raises(DataError, match="cannot read it"):
        orthanc.copy(ID, io.BytesIO(), any_size)


def test_a_file_that_is_too_large_is_not_read(stub: Stub, orthanc: OrthancRest) -> None:
    stub.answers[f"/instances/{ID}/file"] = 200, bytes(3_000_000)
    sink, told = io.BytesIO(), []

    def refuse(size: int) -> None:
        told.append(size)
        raise SpoolFull("too large")

    with pytest.raises(SpoolFull):
        orthanc.copy(ID, sink, refuse)
    assert (told, sink.getvalue()) == ([3_000_000], b"")
    assert orthanc.copy(ID, sink, any_size)
    assert len(sink.getvalue()) == 3_000_000


def test_a_file_that_breaks_off_is_no_file(stub: Stub, orthanc: OrthancRest) -> None:
    stub.answers[f"/instances/{ID}/file"] = 200, bytes(3_000_000)
    whole, part = io.BytesIO(), io.BytesIO()
    assert orthanc.copy(ID, whole, any_size)
    assert len(whole.getvalue()) == 3_000_000
    stub.cut = 1
    with pytest.raises(OrthancAway, match="1 bytes are missing"):
        orthanc.copy(ID, part, any_size)
    stub.cut = 0
    assert orthanc.copy(ID, io.BytesIO(), any_size)


@pytest.mark.parametrize(
    "ask",
    [
        lambda orthanc: orthanc.last_change(),
        lambda orthanc: orthanc.changes(1, 10),
        lambda orthanc: orthanc.series(0, 10),
        lambda orthanc: orthanc.one_series(ID),
        lambda orthanc: orthanc.sop_uid(ID),
        lambda orthanc: orthanc.find("1.2.3", "Study"),
    ],
)
@pytest.mark.parametrize("body", [b"<html>a proxy</html>", b"[]", b'{"x": 1}', b"null", b'[{"ID": 1}]', b"\xff"])
def test_what_is_no_answer_of_orthanc_s_counts_as_away(
    stub: Stub, orthanc: OrthancRest, ask: Callable[[OrthancRest], object], body: bytes
) -> None:
    class All(dict[str, tuple[int, bytes]]):
        def get(self, *_: object) -> tuple[int, bytes]:  # type: ignore[override]
            return 200, body

    stub.answers = All()
    try:
        found = ask(orthanc)
    except OrthancAway:
        return
    assert not found, "what is empty means the same in all answers"


def test_an_orthanc_that_ended_or_was_never_started_is_away(stub: Stub, tmp_path: Path, place: Path) -> None:
    with pytest.raises(ServiceAway, match="was not started with the plugin"):
        OrthancRest(tmp_path / "missing.json").last_change()
    keep(place, replace(Entrance("http://127.0.0.1:1", "ledger", "password", "first")))
    with pytest.raises(OrthancAway, match="does not answer"):
        OrthancRest(place).last_change()


def test_another_status_is_said_without_what_was_asked_for(stub: Stub, orthanc: OrthancRest) -> None:
    stub.answers["/changes?since=1&limit=2"] = 500, b"{}"
    with pytest.raises(OrthancAway, match=r"HTTP status 500 for GET /changes$"):
        orthanc.changes(1, 2)
