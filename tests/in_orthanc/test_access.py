"""Over HTTP, Orthanc with the plugin answers staff and the node's own calls, whatever others try."""

import base64
import contextlib
import re
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until

from orthanc_ledger.assemble import ENTRANCE
from orthanc_ledger.entrance import SECRET_HEADER, Entrance, read
from orthanc_ledger.ledger.identity import create_organisation, issue_server
from orthanc_ledger.plugin.access import Access
from tests.in_orthanc.conftest import Hospital, Hospitals, Site, new_hospital
from tests.in_orthanc.live import LEDGER, STAFF, STUDENT, USERS, LiveOrthanc, basic

SECRET = "0f" * 32
ANSWER_S = 20.0


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


ACCESS = Access(
    {user: basic(user, password) for user, password in {**USERS, "Jürgen": "ü"}.items()},
    frozenset({STAFF}),
    LEDGER,
    SECRET,
)


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        (f"Basic {encoded('staff:of the house')}", "staff"),
        (f"Basic {encoded('student:is research')}", "student"),
        (f"Basic {encoded('Jürgen:ü')}", "Jürgen"),
        (f"Basic {encoded('Jürgen:ü'.encode('latin-1'))}", None),
        (f"Basic {encoded('staff:is research')}", None),
        (f"Basic {encoded('staff:')}", None),
        (f"Basic {encoded('staff')}", None),
        (f"Basic {encoded(':of the house')}", None),
        (f"Basic {encoded('nobody:of the house')}", None),
        (f"Basic {encoded('Staff:of the house')}", None),
        (f"Basic {encoded('')}", None),
        (f"Basic !{encoded('staff:of the house')}", None),
        (f"Basic {encoded('staff:of the house')}=", None),
        (f"Basic {encoded('staff:of the house').rstrip('=')[:-1]}", None),
        (f"Basic  {encoded('staff:of the house')}", None),
        (f"basic {encoded('staff:of the house')}", None),
        (f"Bearer {encoded('staff:of the house')}", None),
        (f"Digest username={STAFF}", None),
        (encoded("staff:of the house"), None),
        ("Basic", None),
        ("Basic ÿ", None),
        ("", None),
    ],
)
def test_who_does_not_show_a_users_name_and_password_is_nobody(authorization: str, user: str | None) -> None:
    assert ACCESS.user(authorization) == user


@pytest.mark.parametrize(
    ("user", "address", "secret", "admitted"),
    [
        (STAFF, "127.0.0.1", "", True),
        (STAFF, "192.0.2.7", "", True),
        (STAFF, "192.0.2.7", "wrong", True),
        (LEDGER, "127.0.0.1", SECRET, True),
        (LEDGER, "127.200.3.4", SECRET, True),
        (LEDGER, "::1", SECRET, True),
        (LEDGER, "::ffff:127.0.0.1", SECRET, True),
        (LEDGER, "192.0.2.7", SECRET, False),
        (LEDGER, "::ffff:192.0.2.7", SECRET, False),
        (LEDGER, "2001:db8::1", SECRET, False),
        (LEDGER, "localhost", SECRET, False),
        (LEDGER, "", SECRET, False),
        (LEDGER, "127.0.0.1", "", False),
        (LEDGER, "127.0.0.1", SECRET[:-1], False),
        (LEDGER, "127.0.0.1", SECRET.upper(), False),
        (LEDGER, "127.0.0.1", "ÿ", False),
        (STUDENT, "127.0.0.1", SECRET, False),
        (STAFF.upper(), "127.0.0.1", "", False),
        ("", "127.0.0.1", "", False),
        (None, "127.0.0.1", SECRET, False),
    ],
)
def test_staff_and_the_node_on_this_machine_are_admitted_and_nobody_else(
    user: str | None, address: str, secret: str, admitted: bool
) -> None:
    assert ACCESS.admits(user, address, secret) is admitted


def test_secret_and_passwords_stand_in_no_text() -> None:
    assert SECRET not in repr(ACCESS)
    assert basic(STAFF) not in repr(ACCESS)


@pytest.fixture(scope="module")
def house(site: Site, samples_dir: Path) -> Iterator[Hospital]:
    """An Orthanc with the plugin and a scan."""
    made = new_hospital(*site, ledger={"Serve": False})
    try:
        made.orthanc.start()
        assert made.orthanc.call("POST", "/instances", scan(samples_dir)).status == 200
        yield made
    finally:
        made.orthanc.stop()


def scan(samples_dir: Path) -> bytes:
    return next(iter(sorted(samples_dir.rglob("*.dcm")))).read_bytes()


def entrance(house: Hospital) -> Entrance:
    return read(house.node.config.parent / "data" / ENTRANCE)


def asked(house: Hospital, text: str | bytes) -> list[tuple[int, bytes]]:
    """Status and what follows it of each answer to raw bytes, until Orthanc closes or has said nothing for a while."""
    found = b""
    with contextlib.closing(socket.create_connection(("127.0.0.1", house.orthanc.http_port), ANSWER_S)) as plain:
        plain.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
        with contextlib.suppress(ConnectionResetError):
            while received := plain.recv(1 << 16):
                found += received
    parts = re.split(rb"HTTP/1\.[01] (\d{3}) ", found)[1:]
    return [(int(status), rest) for status, rest in zip(parts[::2], parts[1::2], strict=True)]


def words(target: str, *headers: str, method: str = "GET", end: str = "Connection: close\r\n\r\n") -> str:
    """A request, whose connection ends with its answer."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: pacs", *headers, end])


def authorization(user: str) -> str:
    return f"Authorization: {basic(user)}"


def test_the_nodes_own_calls_are_answered(house: Hospital) -> None:
    way = entrance(house)
    with contextlib.closing(way.connection(ANSWER_S)) as connection:
        connection.request("GET", "/instances", headers=way.headers)
        assert len(connection.getresponse().read()) > 40
    kept = house.node.config.parent / "data" / ENTRANCE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.glob(f"{ENTRANCE}*")] == [ENTRANCE]


def test_the_nodes_user_counts_with_this_boots_secret_only(house: Hospital) -> None:
    secret = entrance(house).secret
    for headers in (
        [],
        [f"{SECRET_HEADER}:"],
        [f"{SECRET_HEADER}: {secret[:-1]}"],
        [f"{SECRET_HEADER}: {secret}{secret}"],
        [f"{SECRET_HEADER}: {secret.upper()}"],
        [f"{SECRET_HEADER}: {'0' * len(secret)}", f"{SECRET_HEADER}: {secret}"],
        [f"{SECRET_HEADER.replace('-', '_')}: {secret}"],
        [f"Cookie: {SECRET_HEADER}={secret}"],
    ):
        [(status, _)] = asked(house, words("/instances", authorization(LEDGER), *headers))
        assert status == 403, headers
    [(status, _)] = asked(house, words(f"/instances?{SECRET_HEADER}={secret}", authorization(LEDGER)))
    assert status == 403
    [(status, _)] = asked(house, words("/instances", authorization(LEDGER), f"{SECRET_HEADER.lower()}: {secret}"))
    assert status == 200


def test_the_secret_helps_no_other_user(house: Hospital) -> None:
    header = f"{SECRET_HEADER}: {entrance(house).secret}"
    assert [status for status, _ in asked(house, words("/instances", authorization(STUDENT), header))] == [403]
    assert [status for status, _ in asked(house, words("/instances", header))] == [401]


def test_a_restart_makes_another_secret(house: Hospital) -> None:
    before = entrance(house)
    house.orthanc.stop()
    house.orthanc.start()
    assert entrance(house).secret != before.secret
    assert house.orthanc.call("GET", "/instances", user=None, headers=before.headers).status == 403
    assert house.orthanc.call("GET", "/instances", user=None, headers=entrance(house).headers).status == 200


def test_a_second_orthanc_on_the_same_node_does_not_start_and_takes_nothing_from_the_first(
    house: Hospital, orthancs: Callable[..., LiveOrthanc]
) -> None:
    kept, first = entrance(house), house.orthanc
    second = orthancs(first.version, ledger=first.ledger, shared=first.shared)
    assert "another Orthanc runs with this node" in second.refused()
    assert entrance(house) == kept


# The first of two headers counts, for Orthanc and for the filter: else a student could be taken for somebody else.
WHO = {
    "nobody": ([], {401}),
    "student": ([authorization(STUDENT)], {403}),
    "student, then staff": ([authorization(STUDENT), authorization(STAFF)], {403}),
    "student, then staff in other letters": ([authorization(STUDENT), authorization(STAFF).upper()], {403}),
    "staff without password": ([f"Authorization: Basic {encoded('staff:')}"], {401}),
    "staff with a student's password": ([f"Authorization: Basic {encoded(f'staff:{USERS[STUDENT]}')}"], {401}),
    "staff in capitals": ([f"Authorization: Basic {encoded(f'STAFF:{USERS[STAFF]}')}"], {401}),
    "staff after a NUL": ([f"Authorization: Basic {encoded(f'student{chr(0)}staff:{USERS[STAFF]}')}"], {401}),
    "bytes that are no text": ([f"Authorization: Basic {encoded(bytes([0xFF, 0xFE]))}"], {401}),
    "another scheme": ([f"Authorization: Bearer {encoded('staff:of the house')}"], {401}),
    "a folded header": ([f"Authorization:\r\n {basic(STAFF)}"], {401}),
    "said to be from elsewhere": (
        [authorization(STUDENT), "X-Forwarded-For: 127.0.0.1", "X-Remote-User: staff"],
        {403},
    ),
    "said to be asked for another host": (
        [authorization(STUDENT), "Host: localhost", "Forwarded: for=127.0.0.1"],
        {403},
    ),
    "an upgrade": ([authorization(STUDENT), "Upgrade: websocket", "Sec-WebSocket-Version: 13"], {403}),
    "another method in a header": ([authorization(STUDENT), "X-HTTP-Method-Override: DELETE"], {403}),
    "a header that is no text": ([authorization(STUDENT), f"{SECRET_HEADER}: \xff\xfe"], {500}),
}


@pytest.mark.parametrize("who", WHO)
def test_nobody_passes_for_staff(house: Hospital, who: str) -> None:
    headers, statuses = WHO[who]
    for target in ("/instances", "/app/explorer.html", "/dicom-web/studies"):
        [(status, rest)] = asked(house, words(target, *headers))
        assert status in statuses
        assert len(rest) < 600


TARGETS = [
    *(
        "/",
        "//",
        "/app",
        "/app/",
        "//app//explorer.html",
        "/app/../instances",
        "/app/..;/instances",
        "/app/..%2finstances",
    ),
    *(
        "/app/%2e%2e/instances",
        "/%69nstances",
        "/INSTANCES",
        "/instances/",
        "/instances//",
        "/instances;x",
        "/instances%00",
    ),
    *(
        "/instances%00.js",
        "/instances?expand",
        "/instances?",
        "/instances#x",
        "/instances?user=staff",
        "/.",
        "/..",
        "/%2f",
    ),
    *("/system", "/app/explorer.html?", "/app/images/orthanc-logo.png", "/plugins/explorer.js", "/ledger/", "/webdav/"),
    *("/dicom-web", "/dicom-web/", "/dicom-web//studies", "/wado?requestType=WADO", "/favicon.ico", "/tools/shutdown"),
    *(
        "http://pacs/instances",
        "*",
        "instances",
        "/\xff",
        "/%ff",
        f"/{'a' * 9000}",
        f"/{'a' * 20000}",
        f"/{'../' * 500}",
    ),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:30])
def test_no_spelling_of_a_path_is_open_to_a_student(house: Hospital, target: str) -> None:
    for method in ("GET", "HEAD", "POST"):
        length = ["Content-Length: 0"] if method == "POST" else []
        answers = asked(house, words(target, authorization(STUDENT), *length, method=method))
        assert {status for status, _ in answers} <= {400, 403, 500}
        assert sum(len(rest) for _, rest in answers) < 800


METHODS = "GET HEAD POST PUT DELETE OPTIONS PATCH TRACE CONNECT PROPFIND PROPPATCH MKCOL LOCK UNLOCK MOVE COPY FOO get"


@pytest.mark.parametrize("method", METHODS.split())
def test_no_method_is_open_to_a_student(house: Hospital, method: str) -> None:
    for target in ("/instances", "/webdav/", "/app/explorer.html"):
        answers = asked(house, words(target, authorization(STUDENT), "Content-Length: 0", method=method))
        assert [status for status, _ in answers] in ([403], [400])


def test_each_request_of_a_connection_is_looked_at(house: Hospital) -> None:
    go_on = "Connection: keep-alive\r\n\r\n"
    first = words("/instances", authorization(STAFF), end=go_on)
    assert [status for status, _ in asked(house, first + words("/instances", authorization(STUDENT)))] == [200, 403]
    own = words("/instances", *(f"{name}: {value}" for name, value in entrance(house).headers.items()), end=go_on)
    assert [status for status, _ in asked(house, own + words("/instances", authorization(LEDGER)))] == [200, 403]


def test_a_request_within_a_request_gets_nothing(house: Hospital) -> None:
    inner = words("/instances", authorization(STAFF)).replace(USERS[STAFF], "unknown")
    for length in (
        ["Content-Length: 0", f"Content-Length: {len(inner)}"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Transfer-Encoding: chunked"],
    ):
        text = words("/tools/find", authorization(STUDENT), *length, method="POST", end="\r\n") + "0\r\n\r\n" + inner
        answers = asked(house, text.replace(basic(STAFF), basic(STUDENT)))
        assert {status for status, _ in answers} <= {400, 403}


def test_http_1_0_is_no_way_in(house: Hospital) -> None:
    [(status, _)] = asked(house, f"GET /instances HTTP/1.0\r\n{authorization(STUDENT)}\r\n\r\n")
    assert status == 403


def test_a_refusal_is_told_without_what_may_name_a_patient(house: Hospital) -> None:
    house.orthanc.stop()
    house.orthanc.start()  # told once a minute for each user: from now on anew
    house.orthanc.call("GET", "/patients/DOE%5eJANE?name=DOE%5eJANE", user=STUDENT)
    house.orthanc.call("GET", "/DOE%5eJANE", user=LEDGER)
    house.orthanc.call("GET", "/studies", user=STUDENT)
    told = [line for line in house.orthanc.log.read_text(errors="replace").splitlines() if "ledger: denied" in line][
        -2:
    ]
    assert told[0].endswith("""user 'student', who is not among "Staff": GET /patients""")
    assert told[1].endswith("""user 'ledger', who is not among "Staff": GET /…""")


def test_where_orthanc_speaks_tls_the_node_is_told_its_certificate(hospital: Hospitals, tmp_path: Path) -> None:
    create_organisation(tmp_path / "organisation", "HospitalMSP")
    certificate, key = issue_server(tmp_path / "organisation", "127.0.0.1", tmp_path / "server")
    made = hospital(ledger={"Serve": False}, settings={"SslEnabled": True, "SslCertificate": "both.pem"})
    both = made.orthanc.folder / "both.pem"
    both.parent.mkdir()
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    made.orthanc.launch()  # Debian's Orthancs end at their first request over TLS, with or without a plugin
    wait_until(lambda: b"HTTPS encryption is enabled" in made.orthanc.log.read_bytes(), 30, "Orthanc listens")
    told = entrance(made)
    assert (told.url, told.certificate) == (f"https://127.0.0.1:{made.orthanc.http_port}", str(both))
