"""Sinks: what counts as kept, what is never overwritten, and how each says that it is away."""

import os
import shlex
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from orthanc_ledger.errors import ConfigError, IntegrityError, SinkAway
from orthanc_ledger.sinks import CommandSink, HttpSink, PathSink, kept, open_sink

NAME = f"{7:020d}"


def note(size: int = 7, root: str = "root", signature: str = "signature") -> str:
    return f"origin\n{size}\n{root}\ntime 1\n\n\N{EM DASH} origin {signature}\n"


class TestPath:
    @pytest.fixture
    def sink(self, tmp_path: Path) -> PathSink:
        return PathSink(tmp_path)

    def test_a_checkpoint_is_a_file_of_its_name(self, sink: PathSink, tmp_path: Path) -> None:
        sink.deliver(NAME, note())
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {NAME: note()}

    def test_it_is_synced_with_its_folder_before_it_counts_also_the_second_time(
        self, sink: PathSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
        for _ in range(2):
            sink.deliver(NAME, note())
        assert synced == [str(tmp_path / NAME), str(tmp_path)] * 2

    @pytest.mark.parametrize("again", [note(), note(signature="made anew")])
    def test_the_same_checkpoint_again_is_fine_and_changes_nothing(self, tmp_path: Path, again: str) -> None:
        asked = []
        sink = PathSink(tmp_path, same=lambda held, text: asked.append((held, text)) is None)
        sink.deliver(NAME, note())
        (tmp_path / NAME).chmod(0o444)
        sink.deliver(NAME, again)
        assert (tmp_path / NAME).read_text() == note()
        assert asked == ([] if again == note() else [(note(), again)])

    def test_a_note_that_nobody_vouches_for_is_another_one(self, sink: PathSink, tmp_path: Path) -> None:
        (tmp_path / NAME).write_text(note(signature="junk"))
        with pytest.raises(IntegrityError, match="or others write there"):
            sink.deliver(NAME, note())

    @pytest.mark.parametrize("trap", ["link", "dangling link", "pipe", "folder", "endless file"])
    def test_what_others_put_in_the_way_is_neither_written_nor_read(
        self, sink: PathSink, tmp_path: Path, trap: str
    ) -> None:
        victim, path = tmp_path / "victim", tmp_path / NAME
        if trap == "endless file":
            path.touch()
            os.truncate(path, 1 << 40)
        elif trap == "pipe":
            os.mkfifo(path)
        elif trap == "folder":
            path.mkdir()
        else:
            path.symlink_to(victim)
        if trap == "link":
            victim.write_bytes(b"")
        with pytest.raises(IntegrityError, match="or none"):
            sink.deliver(NAME, note())
        assert not victim.exists() or victim.read_bytes() == b""
        if trap == "link":
            victim.write_text(note())
        assert list(kept(f"path:{tmp_path}")) == []

    def test_another_checkpoint_of_that_size_is_told_and_not_written(self, sink: PathSink, tmp_path: Path) -> None:
        sink.deliver(NAME, note())
        with pytest.raises(IntegrityError, match=f"{NAME}: holds another checkpoint of this size"):
            sink.deliver(NAME, note(root="other"))
        assert (tmp_path / NAME).read_text() == note()

    @pytest.mark.parametrize("written", [0, 1, 20, -1])
    def test_a_delivery_that_broke_off_is_finished_and_does_not_count_before(
        self, sink: PathSink, tmp_path: Path, written: int
    ) -> None:
        (tmp_path / NAME).write_bytes(note().encode()[:written])
        assert list(kept(f"path:{tmp_path}")) == []
        sink.deliver(NAME, note())
        assert list(kept(f"path:{tmp_path}")) == [note()]

    def test_a_folder_that_is_not_there_is_away_and_is_not_made(self, tmp_path: Path) -> None:
        sink = PathSink(tmp_path / "not mounted")
        with pytest.raises(SinkAway, match="No such file"):
            sink.deliver(NAME, note())
        with pytest.raises(SinkAway, match="cannot be read"):
            list(kept(f"path:{sink.folder}"))
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_is_away(self, sink: PathSink, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SinkAway, match="No space left"):
            sink.deliver(NAME, note())

    def test_what_is_kept_is_listed_the_largest_first_and_nothing_else(self, sink: PathSink, tmp_path: Path) -> None:
        for size in (2, 10, 9):
            sink.deliver(f"{size:020d}", note(size))
        (tmp_path / "README").write_text(note(99))
        assert [text.split("\n")[1] for text in kept(f"path:{tmp_path}")] == ["10", "9", "2"]

    def test_bytes_that_are_no_text_are_listed_for_others_to_judge(self, tmp_path: Path) -> None:
        (tmp_path / NAME).write_bytes(b"\xff\n\n\xff\n")
        assert list(kept(f"path:{tmp_path}")) == ["\ufffd\n\n\ufffd\n"]


def python(code: str, *arguments: object) -> str:
    return "command:" + shlex.join([sys.executable, "-c", code, *map(str, arguments)])


def at_end(pipe: int) -> bool:
    """Whether nobody holds a pipe's other end, to which nothing is written."""
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


class TestCommand:
    def test_it_gets_the_text_on_standard_input_and_its_arguments_as_they_are(self, tmp_path: Path) -> None:
        target = tmp_path / "a name; with $HOME and spaces"
        code = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
        open_sink(python(code, target)).deliver(NAME, note())
        assert target.read_text() == note()

    @pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.stdin.close(); raise SystemExit(3)"])
    def test_an_exit_code_other_than_0_is_away(self, code: str) -> None:
        with pytest.raises(SinkAway, match="expected exit code 0, got 3"):
            open_sink(python(code)).deliver(NAME, note() * 100_000)

    def test_a_program_that_is_not_there_is_away(self) -> None:
        with pytest.raises(SinkAway, match="/no/such/program: cannot be started"):
            open_sink("command:/no/such/program").deliver(NAME, note())

    def test_one_that_hangs_is_ended_with_what_it_started(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        code = (
            "import os, sys; os.fork(); f = open(sys.argv[1], 'wb'); sys.stdin.buffer.read(); os.kill(os.getpid(), 19)"
        )
        sink = open_sink(python(code, pipe))
        assert isinstance(sink, CommandSink)
        with pytest.raises(SinkAway, match="not done within 1"):
            CommandSink(sink.argv, deadline_s=1).deliver(NAME, note())
        wait_until(lambda: at_end(reader), 10, "nobody holds the pipe any more")
        os.close(reader)


class Receiver(HTTPServer):
    """Answers every POST as told, and keeps what came."""

    answer = 200
    location = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.came: list[tuple[str, str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/checkpoints?node=1"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.came.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.answer)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestHttp:
    @pytest.mark.parametrize("status", [200, 201, 204])
    def test_it_posts_the_text_and_2xx_means_kept(self, receiver: Receiver, status: int) -> None:
        receiver.answer = status
        open_sink(receiver.url).deliver(NAME, note())
        assert receiver.came == [("/checkpoints?node=1", "text/plain; charset=utf-8", note())]

    @pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 503])
    def test_any_other_status_is_away_and_no_redirect_is_followed(self, receiver: Receiver, status: int) -> None:
        receiver.answer, receiver.location = status, receiver.url
        with pytest.raises(SinkAway, match=f"expected HTTP status 2xx, got {status}"):
            open_sink(receiver.url).deliver(NAME, note())
        assert len(receiver.came) == 1

    def test_nobody_listening_is_away(self, free_port: Callable[[], int]) -> None:
        with pytest.raises(SinkAway, match=r"cannot be reached: '.* refused'$"):
            open_sink(f"http://127.0.0.1:{free_port()}").deliver(NAME, note())

    @pytest.mark.parametrize("speaks", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 \xff\r\n\r\n", b"\x1b[2J\x9b\r\n"])
    def test_what_is_no_http_is_away(self, speaks: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer() -> None:
                peer, _ = listening.accept()
                with peer:
                    peer.recv(65_536)
                    peer.sendall(speaks)

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(SinkAway) as refused:
                open_sink(f"http://127.0.0.1:{listening.getsockname()[1]}").deliver(NAME, note())
            thread.join()
            assert str(refused.value).isprintable(), "it goes to a terminal"

    def test_one_that_answers_a_byte_now_and_then_is_ended_at_the_deadline(self) -> None:
        over = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def drip() -> None:
                peer, _ = listening.accept()
                with peer:
                    while not over.wait(0.1):
                        try:
                            peer.sendall(b"H")
                        except OSError:
                            return

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                with pytest.raises(SinkAway):
                    HttpSink(f"http://127.0.0.1:{listening.getsockname()[1]}", deadline_s=1).deliver(NAME, note())
            finally:
                over.set()
                thread.join()

    @pytest.mark.parametrize("vouched_for", [False, True])
    def test_https_asks_for_a_certificate_that_somebody_vouches_for(
        self, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vouched_for: bool
    ) -> None:
        certificate = self_signed(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
        url = receiver.url.replace("http://127.0.0.1", "https://localhost")
        if vouched_for:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            open_sink(url).deliver(NAME, note())
        else:
            with pytest.raises(SinkAway, match="certificate verify failed"):
                open_sink(url).deliver(NAME, note())
        assert len(receiver.came) == int(vouched_for)


def self_signed(folder: Path) -> Path:
    """A certificate for localhost with its key, PEM."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return pem


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/", "expected path:FOLDER, command:PROGRAM ARGUMENTS, or an http: or https: address"),
        ("checkpoints", "expected path:FOLDER"),
        ("path:", "expected path:FOLDER"),
        ("command: ", "expected path:FOLDER"),
        ("command:logger 'unclosed", "No closing quotation"),
        ("http://", "expected an address of a host"),
        ("http:path", "expected an address of a host"),
        ("http://host:0/", "expected an address of a host"),
        ("http://host:99999/", "Port out of range"),
        ("http://host/a b", "without spaces"),
        ("http://host/ä", "in ASCII"),
        (f"http://{'a' * 64}/", "label"),
        ("https://user:secret@host/", "a user or password does not belong here"),
    ],
)
def test_a_url_that_names_no_sink_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_sink(url)


@pytest.mark.parametrize("url", ["command:true", "http://127.0.0.1:1/"])
def test_only_a_folder_can_be_asked_what_it_keeps(url: str) -> None:
    assert list(kept(url)) == []


def test_a_command_that_was_stopped_by_a_signal_is_away() -> None:
    with pytest.raises(SinkAway, match=f"got -{signal.SIGTERM:d}"):
        open_sink(python("import os; os.kill(os.getpid(), 15)")).deliver(NAME, note())
