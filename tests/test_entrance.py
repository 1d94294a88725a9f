"""How the node gets into its Orthanc: kept for nobody else, and shown to no other server."""

import contextlib
import re
import ssl
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orthanc_ledger.entrance import Entrance, keep, read
from orthanc_ledger.errors import ConfigError, ServiceAway
from orthanc_ledger.ledger.identity import create_organisation, issue_server

ENTRANCE = Entrance("http://127.0.0.1:1", "ledger", "pässword", "0f" * 32)


def test_what_is_kept_is_read_again_and_takes_the_place_of_an_earlier_runs(tmp_path: Path) -> None:
    path = tmp_path / "orthanc.json"
    keep(path, replace(ENTRANCE, secret="another"))
    keep(path, ENTRANCE)
    assert read(path) == ENTRANCE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_is_not_there_or_not_the_plugins_is_told(tmp_path: Path) -> None:
    path = tmp_path / "orthanc.json"
    with pytest.raises(ServiceAway, match="not started with the plugin"):
        read(path)
    for wrong in ("{", "[]", '{"url": 1}'):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match="not as the plugin writes it"):
            read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)


def test_password_and_secret_stand_in_no_text() -> None:
    assert not re.search("pässword|0f0f", repr(ENTRANCE))


class _Ok(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Certificate and key of a server, for a name that nobody asks for."""
    create_organisation(tmp_path / "organisation", "HospitalMSP")
    return issue_server(tmp_path / "organisation", "pacs.example", tmp_path / "server")


@pytest.fixture
def url(pair: tuple[Path, Path]) -> Iterator[str]:
    """Of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    with HTTPServer(("127.0.0.1", 0), _Ok) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def status(entrance: Entrance) -> int:
    with contextlib.closing(entrance.connection(10)) as connection:
        connection.request("GET", "/system", headers=entrance.headers)
        return connection.getresponse().status


def test_over_tls_the_certificate_counts_and_not_its_name(url: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"  # as Orthanc has them: key and certificate in one file
    both.write_bytes(pair[1].read_bytes() + pair[0].read_bytes())
    assert status(replace(ENTRANCE, url=url, certificate=str(both))) == 200


def test_another_certificate_is_shown_no_password(url: str, tmp_path: Path) -> None:
    create_organisation(tmp_path / "another", "HospitalMSP")
    another, _ = issue_server(tmp_path / "another", "127.0.0.1", tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        status(replace(ENTRANCE, url=url, certificate=str(another)))


def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(ConfigError, match="SslCertificate"):
            replace(ENTRANCE, url="https://127.0.0.1:1", certificate=str(path)).connection(1)
