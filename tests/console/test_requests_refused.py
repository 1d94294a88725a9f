"""What no page of the console sends: forged forms, foreign hosts, strange paths, too much, too slowly."""

import socket
from contextlib import closing
from functools import partial

import pytest
from conftest import wait_until

from orthanc_ledger.web.console import server
from orthanc_ledger.web.console.http import HEADERS, LARGEST_BODY
from tests.console.world import FORM, PASSWORD, Client, Desk


@pytest.fixture(scope="module")
def staff(desk: Desk) -> Client:
    """A browser that stays logged in."""
    return desk.client("staff")


@pytest.fixture(scope="module")
def chief(desk: Desk) -> Client:
    """One that may see every page."""
    return desk.client("chief")


def test_every_answer_tells_browsers_to_keep_to_it(desk: Desk) -> None:
    client = desk.client()
    answers = [
        client.get("/login"),
        client.get("/console.css"),
        client.get("/none"),
        client.send("PUT", "/"),
        client.send("GET", "/", headers={"Host": "evil.example"}),
        desk.client("staff").get("/"),
    ]
    for answer in answers:
        assert HEADERS.items() <= answer.headers.items()
        assert "Server" not in answer.headers
    assert "script-src" not in HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/logout", "/login", "/none"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null", "Sec-Fetch-Site": None},
        {"Origin": None, "Sec-Fetch-Site": None},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_a_form_of_another_page_changes_nothing(staff: Client, path: str, headers: dict[str, str | None]) -> None:
    answer = staff.post(path, headers, name="staff", password=PASSWORD)
    assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)
    assert staff.get("/").status == 200


@pytest.mark.parametrize("headers", [{}, {"Origin": "null"}, {"Sec-Fetch-Site": None}, {"Origin": None}], ids=str)
def test_a_form_of_our_own_page_is_taken_whatever_of_the_two_the_browser_sends(
    desk: Desk, headers: dict[str, str | None]
) -> None:
    assert desk.client("staff").post("/logout", headers).status == 303


@pytest.mark.parametrize("token", ["", "x", "\u00e9", "0" * 43])
def test_a_form_without_the_sessions_token_changes_nothing(staff: Client, token: str) -> None:
    assert staff.post("/logout", token=token).status == 403
    assert staff.get("/").status == 200


def test_another_sessions_token_is_none(staff: Client, chief: Client) -> None:
    assert staff.post("/logout", token=chief.token).status == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", "localhost", "console.example"])
def test_a_foreign_name_leads_nowhere(staff: Client, host: str) -> None:
    assert staff.send("GET", "/", headers={"Host": host}).status == 421
    assert staff.send("GET", "/login", headers={"Host": host}).status == 421


def test_this_machines_names_lead_here(desk: Desk) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert desk.client().send("GET", "/login", headers={"Host": f"{name}:{desk.port}"}).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../console.css",
        "/static/../../accounts.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/console.css/..%2f..%2faccounts.py",
        "/console.css%00.html",
        "//evil.example/",
        "/studies/..%2f..",
        "/studies/1.2.3%0d%0aX:y",
        "/\\console.css",
        "/CONSOLE.CSS",
        "/audit.csv/",
        "*",
    ],
)
def test_paths_that_are_no_pages_are_not_found(chief: Client, path: str) -> None:
    assert chief.send("GET", path).status == 404


def test_a_whole_address_in_the_request_line_is_no_page(desk: Desk, chief: Client) -> None:
    assert chief.send("GET", f"http://127.0.0.1:{desk.port}/").status == 404


@pytest.mark.parametrize(
    "address",
    [
        "/?path=x",
        f"/studies?patient_id=x&after={'%5B' * 5000}",
        "/studies?patient_name=x&after=%5B%22%5Cud800%22%5D",
    ],
)
@pytest.mark.parametrize("site", ["same-origin", "cross-site"])
def test_no_address_makes_it_fail(desk: Desk, address: str, site: str) -> None:
    for client in (desk.client(), desk.client("staff")):
        assert client.send("GET", address, headers={"Sec-Fetch-Site": site}).status in (200, 303)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_other_methods_do_nothing(chief: Client, method: str) -> None:
    assert chief.send(method, "/", headers={"X-HTTP-Method-Override": "GET"}).status in (400, 405)


def test_a_page_may_be_asked_for_without_its_body(chief: Client) -> None:
    answer = chief.send("HEAD", "/")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("size", [LARGEST_BODY + 1, 10 * LARGEST_BODY])
def test_a_form_that_is_too_large_is_not_read(staff: Client, size: int) -> None:
    assert staff.send("POST", "/logout", b"a" * size).status == 413


def test_a_form_or_head_without_an_end_is_cut_off(desk: Desk) -> None:
    form = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{desk.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    for head, more in ((form, b"4000\r\n" + b"a" * 0x4000 + b"\r\n"), ("GET / HTTP/1.1\r\nX-Long: ", b"a" * 0x4000)):
        with closing(socket.create_connection(("127.0.0.1", desk.port), 20)) as connection:
            connection.sendall(head.encode())
            wait_until(partial(is_cut_off, connection, more), 10, "it is cut off")


def is_cut_off(connection: socket.socket, more: bytes) -> bool:
    """Whether the other end is closed for somebody who sends on."""
    try:
        connection.sendall(more * 100)
    except OSError:
        return True
    return False


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"token=x", "application/json", 415),
        (b"token=x", "multipart/form-data; boundary=a", 415),
        (b"token=x", "", 415),
        (b"token=a&token=b", FORM, 400),
        (b"&".join(b"a%d=1" % n for n in range(50)), FORM, 400),
        (b"token=\xff", FORM, 400),
        (b"__class__=x", FORM, 400),
    ],
)
def test_a_form_that_no_page_sends_is_refused(staff: Client, body: bytes, media_type: str, status: int) -> None:
    assert staff.send("POST", "/logout", body, {"Content-Type": media_type}).status == status
    assert staff.get("/").status == 200


def test_who_is_slow_is_cut_off_and_holds_up_nobody(own: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    slow = [socket.create_connection(("127.0.0.1", own.port), 20) for _ in range(server.EACH // 2)]
    for connection in slow[::2]:
        connection.sendall(b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    assert own.client().get("/login").status == 200
    for connection in slow:
        with closing(connection):
            assert connection.recv(1) == b""


def test_many_addresses_that_ask_nothing_do_not_take_all_connections(own: Desk) -> None:
    patient, *held = [socket.create_connection(("127.0.0.1", own.port), 20)]
    assert own.client().get("/login").status == 200, "so that it is known to be there"
    for number in range(5):
        source = f"127.0.0.{number + 2}", 0
        held += [socket.create_connection(("127.0.0.1", own.port), 20, source) for _ in range(server.EACH)]
    try:
        patient.sendall(f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{own.port}\r\n\r\n".encode())
        assert patient.recv(12) == b"HTTP/1.1 200", "whose address has few connections loses none"
        assert own.client().get("/login").status == 200
        assert held[0].recv(1) == b"", "an address that has many loses its oldest"
    finally:
        for connection in (patient, *held):
            connection.close()


def test_one_address_does_not_take_all_connections(own: Desk) -> None:
    held = [socket.create_connection(("127.0.0.1", own.port), 20) for _ in range(server.EACH + 5)]
    try:
        assert [connection.recv(1) for connection in held[server.EACH :]] == [b""] * 5
        held[0].sendall(f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{own.port}\r\n\r\n".encode())
        assert held[0].recv(12) == b"HTTP/1.1 200", "who came first is served"
    finally:
        for connection in held:
            connection.close()
