"""The client of a Kubo node against a server that does what no healthy node does; and the file that names nodes."""

import hashlib
import http.server
import json
import os
import pwd
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from orthanc_ledger.content import open_store
from orthanc_ledger.content.cid import block_cid, cid_bytes, cid_text, varint
from orthanc_ledger.content.kubo.cluster import Cluster
from orthanc_ledger.content.kubo.connection import ClusterApi, read_connection
from orthanc_ledger.content.kubo.rpc import Kubo
from orthanc_ledger.errors import ConfigError, ContentAway, IntegrityError
from tests.conftest import ROOT

SECRET = "bearer-secret-that-nobody-may-read"
STALL_S = 1.0
BLOCK = b"\x81\x02"
CID = block_cid(BLOCK)
BLOCKS = [(cid_bytes(CID), BLOCK)]
FILE = "bafybeianeojn2fviwza7pjltyislgin5gbm6fg2nwb7iwsk7tupitt7s3m"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def do_POST(self) -> None:
        self.server.asked.append((self.path, dict(self.headers), self.client_address[1]))
        if self.server.reads_body and "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.server.answer(self)

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    reads_body = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], int]] = []
        self.answer: Callable[[Handler], None] = lambda handler: handler.say(b"{}")
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what is tested."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def kubo(server: Server) -> Kubo:
    return Kubo("kubo0.test", server.url, SECRET, STALL_S)


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def tree_block(size: int, *links: tuple[bytes, int]) -> tuple[bytes, bytes]:
    """A node of a file's tree (UnixFS) and its binary CID; ``links``: those below, and the sizes that it says."""

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    below = b"".join(field(2, field(1, cid) + field(2, b"") + field(3, said)) for cid, said in links)
    block = below + field(1, field(1, 2) + field(3, size) + b"".join(field(4, said) for _, said in links))
    return b"\1\x70\x12\x20" + hashlib.sha256(block).digest(), block


def root_line(cid: str, fault: str = "") -> dict[str, Any]:
    return {"Root": {"Cid": {"/": cid}, "PinErrorMsg": fault}}


class TestTransport:
    def test_connections_are_used_again_and_carry_the_token(self, server: Server, kubo: Kubo) -> None:
        server.answer = lambda handler: handler.say(b'{"ID": "peer"}')
        assert [kubo.peer_id() for _ in range(20)] == ["peer"] * 20
        assert len({port for _, _, port in server.asked}) == 1
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, headers, _ in server.asked)

    def test_a_connection_survives_what_the_node_refuses(self, server: Server, kubo: Kubo) -> None:
        server.answer = lambda handler: handler.say(b'{"Message": "is not pinned"}', 500)
        assert not any(kubo.pinned(CID) for _ in range(5))
        assert len({port for _, _, port in server.asked}) == 1

    def test_who_has_no_token_is_asked_for_none(self, server: Server, kubo: Kubo) -> None:
        server.answer = lambda handler: handler.say(b"{}", 200 if "Authorization" in handler.headers else 403)
        assert kubo.status_without_token() == 403

    def test_no_proxy_of_the_environment_is_obeyed(
        self, server: Server, kubo: Kubo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Server() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            assert Kubo("kubo0.test", server.url, SECRET, STALL_S).peer_id() == "None"
        assert len(server.asked) == 1

    def test_no_redirect_is_followed(self, server: Server, kubo: Kubo) -> None:
        with Server() as elsewhere:
            server.answer = lambda handler: handler.say(b"", 307, Location=elsewhere.url)
            with pytest.raises(ContentAway, match="307"):
                kubo.peer_id()
            assert elsewhere.asked == []

    @pytest.mark.parametrize(
        "body", [b"x" * (5 << 20), b'{"Message": "' + b"m" * 100_000 + b'"}', b"\0\xff\n\r\x1b[31m" * 1000]
    )
    def test_what_a_node_says_of_an_error_is_quoted_in_bounds(self, server: Server, kubo: Kubo, body: bytes) -> None:
        server.answer = lambda handler: handler.say(body, 500)
        with pytest.raises(ContentAway) as told:
            kubo.peer_id()
        assert len(str(told.value)) < 500
        assert "\n" not in str(told.value)

    def test_an_answer_without_end_is_cut(self, server: Server, kubo: Kubo) -> None:
        def endless(handler: Handler) -> None:
            handler.say(b"", Content_Length="99999999999")
            while True:
                handler.wfile.write(b"x" * (1 << 16))

        server.answer = endless
        for call in (kubo.peer_id, lambda: kubo.block(CID), lambda: list(kubo.held())):
            with pytest.raises(ContentAway, match=r"more than \d+ bytes"):
                call()

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[1", b"\xff"])
    def test_what_is_no_answer_of_kubo_s_is_away(self, server: Server, kubo: Kubo, body: bytes) -> None:
        server.answer = lambda handler: handler.say(body)
        with pytest.raises(ContentAway, match="JSON expected"):
            kubo.peer_id()

    def test_the_token_is_in_no_error(self, server: Server, kubo: Kubo, tmp_path: Path) -> None:
        server.answer = lambda handler: handler.say(handler.headers["Authorization"].encode()[:6], 500)
        with pytest.raises(ContentAway) as told:
            kubo.peer_id()
        assert SECRET not in str(told.value)
        assert SECRET not in repr(kubo)
        assert SECRET not in repr(read_connection(write(tmp_path, server.url)))


STRANGER = """
import os, socket, sys
family = socket.AF_INET if sys.argv[1] == "4" else socket.AF_INET6
with socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::", int(sys.argv[2])), family=family,
                          dualstack_ipv6=family == socket.AF_INET6) as server:
    print("listens", flush=True)
    if sys.argv[3] == "late":
        sys.stdin.readline()
    caller, _ = server.accept()
    print(caller.recv(10_000), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
class TestWhoIsAsked:
    @pytest.fixture
    def stranger(self, free_port: Callable[[], int]) -> Iterator[Callable[..., tuple[str, "subprocess.Popen[str]"]]]:
        """Another user of the machine, who listens where a node does when it is up."""
        started: list[subprocess.Popen[str]] = []

        def start(*how: str) -> tuple[str, "subprocess.Popen[str]"]:
            port, pipe = free_port(), subprocess.PIPE
            command = ["/usr/bin/python3", "-c", STRANGER, how[0], str(port), how[1]]
            started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, user="nobody", cwd="/"))
            assert started[-1].stdout is not None
            assert started[-1].stdout.readline() == "listens\n"
            return f"http://127.0.0.1:{port}", started[-1]

        yield start
        for process in started:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("family", ["4", "6"])
    @pytest.mark.parametrize("accepts", ["at once", "late"])
    def test_another_user_gets_no_secret(self, stranger: Callable[..., Any], family: str, accepts: str) -> None:
        url, process = stranger(family, accepts)
        cluster = Cluster(ClusterApi(url, f"user:{SECRET}"), STALL_S)
        calls = [cluster.kubos] if accepts == "late" else [Kubo("kubo0.test", url, SECRET, STALL_S).peer_id]
        for call in calls:
            with pytest.raises(ContentAway, match=r"user \d+ listens there"):
                call()
        assert process.communicate("go on\n", timeout=30)[0] == "b''\n"

    def test_the_node_s_own_user_is_asked(self, stranger: Callable[..., Any]) -> None:
        url, process = stranger("4", "at once")
        with pytest.raises(ContentAway):
            Kubo("kubo0.test", url, SECRET, STALL_S, {pwd.getpwnam("nobody").pw_uid}).peer_id()
        assert SECRET in process.communicate(timeout=30)[0]


class TestTime:
    def test_who_is_away_is_named_by_its_address(self, free_port: Callable[[], int]) -> None:
        port = free_port()
        with pytest.raises(ContentAway, match=rf"id: 127\.0\.0\.1:{port}: Failed to establish"):
            Kubo("kubo0", f"http://127.0.0.1:{port}", "token").peer_id()

    def test_a_node_that_says_nothing_is_away(self, server: Server, kubo: Kubo) -> None:
        server.answer = lambda handler: server.over.wait(30) and None
        for call in (kubo.peer_id, lambda: kubo.block(CID), lambda: list(kubo.read(FILE))):
            began = time.monotonic()
            with pytest.raises(ContentAway, match="timed out"):
                call()
            assert time.monotonic() - began < STALL_S + 1

    def test_a_body_that_stops_is_away(self, server: Server, kubo: Kubo) -> None:
        def stop(handler: Handler) -> None:
            handler.say(b"x" * 1000, Content_Length="2000", X_Content_Length="2000")
            server.over.wait(30)

        server.answer = stop
        with pytest.raises(ContentAway, match="timed out"):
            list(kubo.read(FILE))

    @pytest.mark.parametrize("headers", [{"Content_Length": "2000"}, {"Transfer_Encoding": "chunked"}])
    def test_a_body_that_is_cut_off_is_away(self, server: Server, kubo: Kubo, headers: dict[str, str]) -> None:
        def cut(handler: Handler) -> None:
            handler.say(b"3e8\r\n" + b"x" * 1000, **{"Content_Length": "", "X_Content_Length": "2000", **headers})
            handler.close_connection = True

        server.answer = cut
        with pytest.raises(ContentAway, match=r"broken|IncompleteRead"):
            list(kubo.read(FILE))

    def test_a_body_that_drips_is_away_in_the_end(self, server: Server, kubo: Kubo) -> None:
        def drip(handler: Handler) -> None:
            handler.say(b"", Content_Length="1000000", X_Content_Length="1000000")
            while not server.over.wait(0.1):
                handler.wfile.write(b"x" * 1000)

        server.answer = drip
        began = time.monotonic()
        with pytest.raises(ContentAway, match="slower than"):
            list(kubo.read(FILE))
        assert time.monotonic() - began < 2 * STALL_S + 2

    def test_a_node_that_takes_no_more_is_away(self, server: Server, kubo: Kubo) -> None:
        server.reads_body = False
        server.answer = lambda handler: server.over.wait(30) and None
        blocks = ((cid_bytes(CID), bytes(1 << 20)) for _ in range(100))
        began = time.monotonic()
        with pytest.raises(ContentAway, match="timed out"):
            kubo.add([CID], blocks, 100 << 20, pin=True)
        assert time.monotonic() - began < 2 * STALL_S + 1

    def test_progress_that_does_not_move_is_no_progress(self, server: Server, kubo: Kubo) -> None:
        def still(handler: Handler) -> None:
            handler.say(b"", Content_Length="1000000")
            while not server.over.wait(0.1):
                handler.wfile.write(lines({"Progress": 7}))

        server.answer = still
        with pytest.raises(ContentAway, match="nobody sent the rest"):
            kubo.pin(CID, 1.0)

    def test_who_sends_block_after_block_for_ever_is_left_in_the_end(self, server: Server, kubo: Kubo) -> None:
        def drip(handler: Handler) -> None:
            handler.say(b"", Content_Length="1000000")
            for number in range(10_000):
                handler.wfile.write(lines({"Progress": number}))
                if server.over.wait(0.05):
                    break

        server.answer = drip
        began = time.monotonic()
        with pytest.raises(ContentAway, match="not all of it came in 4 s"):
            kubo.pin(CID, 0.2)
        assert time.monotonic() - began < 10


class TestAnswers:
    def test_a_batch_counts_once_its_roots_are_pinned(self, server: Server, kubo: Kubo) -> None:
        server.answer = lambda handler: handler.say(lines(root_line(CID), {"Stats": {}}))
        kubo.add([CID], BLOCKS, 100, pin=True)
        assert "pin-roots=true" in server.asked[0][0]

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            (lines(root_line(CID, "disk full")), "disk full"),
            (lines(root_line(FILE)), "breaks off"),
            (b"", "breaks off"),
            (lines({"Root": None}), "breaks off"),
        ],
    )
    def test_one_that_is_not_does_not(self, server: Server, kubo: Kubo, told: bytes, said: str) -> None:
        server.answer = lambda handler: handler.say(told)
        with pytest.raises(ContentAway, match=f"{CID} is not pinned.*{said}"):
            kubo.add([CID], BLOCKS, 100, pin=True)

    def test_a_refusal_in_the_middle_of_a_batch_is_heard(self, server: Server, kubo: Kubo) -> None:
        server.reads_body = False

        def refuse(handler: Handler) -> None:
            handler.rfile.read(1 << 20)
            handler.say(b'{"Message": "no space left on device"}', 500, Connection="close")
            handler.close_connection = True

        server.answer = refuse
        blocks = ((cid_bytes(CID), bytes(1 << 20)) for _ in range(20))
        with pytest.raises(ContentAway):
            kubo.add([CID], blocks, 20 << 20, pin=True)

    @pytest.mark.parametrize("length", ["900", "1100", None])
    def test_a_file_of_another_length_than_told_is_refused(
        self, server: Server, kubo: Kubo, length: str | None
    ) -> None:
        headers = {"X_Content_Length": length} if length else {}
        server.answer = lambda handler: handler.say(b"x" * 1000, 200 if "/cat" in handler.path else 500, **headers)
        with pytest.raises(IntegrityError, match="bytes expected, got 1000"):
            list(kubo.read("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"))

    def test_a_file_larger_than_any_object_is_not_read(self, server: Server, kubo: Kubo) -> None:
        server.answer = lambda handler: handler.say(b"x" * 1000, X_Content_Length=str(1 << 50))
        with pytest.raises(IntegrityError, match=r"at most 18253611008 bytes expected, got 1125899906842624"):
            list(kubo.read(FILE))

    def test_a_file_that_goes_on_behind_its_end_is_not_read_on(self, server: Server, kubo: Kubo) -> None:
        def endless(handler: Handler) -> None:
            handler.say(b"", Content_Length=str(1 << 50), X_Content_Length="1000")
            while not server.over.is_set():
                handler.wfile.write(bytes(1 << 16))

        server.answer = lambda handler: endless(handler) if "/cat" in handler.path else handler.say(b"{}", 500)
        with pytest.raises(ContentAway, match="block/get"):  # why that is, is asked next
            list(kubo.read(FILE))

    def test_damage_is_looked_for_however_deep_a_file_is(self, server: Server, kubo: Kubo) -> None:
        cid, blocks = cid_bytes(FILE.replace("bafybei", "bafkrei")), dict[str, bytes]()
        for _ in range(1200):
            cid, block = tree_block(4, (cid, 4))
            blocks[cid_text(cid)] = block

        def block_of(handler: Handler) -> None:
            block = blocks.get(parse_qs(handler.path.partition("?")[2])["arg"][0])
            handler.say(block or b'{"Message": "different hash than requested"}', 200 if block else 500)

        server.answer = block_of
        assert kubo.damaged(cid_text(cid)) == [FILE.replace("bafybei", "bafkrei")]

    def test_collection_that_fails_says_so(self, server: Server, kubo: Kubo) -> None:
        server.answer = lambda handler: handler.say(lines({"Key": {"/": FILE}}, {"Error": "cannot delete"}))
        with pytest.raises(ContentAway, match="cannot delete"):
            kubo.collect()


def write(folder: Path, url: str, **changes: Any) -> Path:
    (folder / "token").write_text(SECRET + "\n")
    node = {"name": "kubo0.hospital", "api": url, "token": "token", "kubo_repo": "repo"}
    path = folder / "kubo.yaml"
    path.write_text(yaml.safe_dump({"nodes": [node], "local": "objects", **changes}))
    return path


NODE = {"name": "n", "api": "http://127.0.0.1:5001", "token": "token", "kubo_repo": "repo"}


WITHOUT_URLLIB3 = """
import sys
from orthanc_ledger.content import open_store
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.errors import ConfigError
from pathlib import Path
LocalStore.create(Path(sys.argv[1]))
open_store(f"local:{sys.argv[1]}").check()
assert not {name for name in sys.modules if name.startswith(("urllib3", "orthanc_ledger.content.kubo"))}
sys.modules["urllib3"] = None
try:
    open_store("kubo:kubo.yaml")
except ConfigError as error:
    print(error)
"""


def test_who_keeps_to_the_local_store_needs_no_client(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_URLLIB3, str(tmp_path / "objects")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "urllib3 is not installed: pip install 'orthanc-ledger[consortium]'" in done.stdout


class TestConnection:
    def test_what_it_says_is_read_from_its_folder(self, tmp_path: Path) -> None:
        both = [NODE, {**NODE, "name": "m", "api": "https://kubo.hospital:5001/", "kubo_repo": "other"}]
        connection = read_connection(write(tmp_path, "", nodes=both, keep_days=30, local="../objects"))
        assert [node.api for node in connection.nodes] == ["http://127.0.0.1:5001", "https://kubo.hospital:5001"]
        assert connection.nodes[0].repo == tmp_path / "repo"
        assert connection.nodes[0].token == SECRET
        assert connection.local == tmp_path / ".." / "objects"
        assert (connection.keep_days, connection.replicas) == (30.0, 2)

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_a_batch_is_on_two_nodes_where_there_are_two(self, tmp_path: Path, count: int) -> None:
        nodes = [
            {**NODE, "name": f"kubo{number}", "api": f"http://h:{number}", "kubo_repo": f"kubo{number}"}
            for number in range(count)
        ]
        assert read_connection(write(tmp_path, "", nodes=nodes)).replicas == min(count, 2)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"nodes": []}, "nodes: expected a list that is not empty"),
            ({"nodes": [{**NODE, "api": "127.0.0.1:5001"}]}, r"nodes\[0\]\.api: expected http://HOST:PORT"),
            ({"nodes": [{**NODE, "api": "http://h:1/api/v0"}]}, r"nodes\[0\]\.api: expected http://HOST:PORT"),
            ({"nodes": [{**NODE, "token": "none"}]}, r"nodes\[0\]\.token: .*none: cannot be read"),
            ({"nodes": [{**NODE, "token": "empty"}]}, r"nodes\[0\]\.token: .*empty: expected one line"),
            ({"nodes": [{**NODE, "secret": "x"}]}, r"nodes\[0\]\.secret: unknown key"),
            ({"nodes": [{"name": "n"}]}, r"nodes\[0\]\.api: missing"),
            ({"nodes": [NODE, NODE]}, "nodes: a name stands twice"),
            ({"nodes": [NODE, {**NODE, "name": "m", "kubo_repo": "other"}]}, "nodes: an api or kubo_repo stands twice"),
            ({"nodes": [NODE, {**NODE, "name": "m", "api": "http://h:1"}]}, "nodes: an api or kubo_repo stands twice"),
            ({"replicas": 2}, "replicas: 2 of 1 nodes"),
            (
                {"replicas": 2, "cluster": {"api": "http://h:2", "token": "token"}},
                "replicas: 2 of 1 nodes",
            ),
            ({"replicas": 0}, "replicas: expected a number above 0"),
            ({"keep_days": -1}, "keep_days: expected a number"),
            ({"keep_days": "long"}, "keep_days: expected a number"),
            ({"keep": 3}, "keep: unknown key"),
            ({"local": ""}, "local: expected a text"),
            ({"cluster": {"api": "x", "token": "token"}}, r"cluster\.api: expected http://HOST:PORT"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
        (tmp_path / "empty").write_text("\n")
        with pytest.raises(ConfigError, match=rf"kubo\.yaml: {said}"):
            read_connection(write(tmp_path, "http://127.0.0.1:5001", **changes))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read.*docs/ipfs\.md"):
            open_store(f"kubo:{tmp_path / 'none.yaml'}")

    def test_a_local_store_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="objects"):
            open_store(f"kubo:{write(tmp_path, 'http://127.0.0.1:5001')}")
