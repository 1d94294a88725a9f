"""Who gets in: by password only, slowly, into a session that nobody chose and that ends."""

import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import wait_until
from gate_world import World

from orthanc_ledger import decisions
from orthanc_ledger.config import Console
from orthanc_ledger.ledger.identity import ca_certificate, issue_server
from orthanc_ledger.web.console import accounts, login, pages
from orthanc_ledger.web.console.sessions import IDLE_S, LONGEST_S
from orthanc_ledger.web.console.throttle import WINDOW_S
from tests.console.world import PASSWORD, Client, Desk, opened


@pytest.fixture
def secure(world: World, tmp_path: Path) -> Iterator[Desk]:
    """The console over TLS, with a certificate of the hospital's CA."""
    organisation = world.folder / "node" / "organisations" / "owner"
    certificate, key = issue_server(organisation, "console.example", tmp_path / "tls")
    trust = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(ca_certificate(organisation)))
    trust.check_hostname = False
    console = Console(tmp_path / "console.accounts", certificate=certificate, key=key)
    with opened(world.node.config, console, trust) as made:
        made.account("staff", "staff")
        yield made


def test_nobody_sees_a_page_without_a_session(desk: Desk) -> None:
    for path in ("/", "/studies", "/studies/1.2.3", "/conflicts", "/requests", "/audit", "/audit.csv", "/none"):
        answer = desk.client().get(path)
        assert (answer.status, answer.headers["Location"].partition("?")[0]) == (303, "/login"), path
        assert "Hospital" not in answer.html


def test_the_page_to_log_in_names_no_house(desk: Desk) -> None:
    assert "Hospital" not in desk.client().get("/login").html


def test_after_the_login_comes_the_page_that_was_asked_for(desk: Desk) -> None:
    client = desk.client()
    asked = client.get("/studies?patient_id=4711")
    to = client.follow(asked).hidden("to")
    arrived = client.post("/login", name="staff", password=PASSWORD, to=to)
    assert arrived.headers["Location"] == "/studies?patient_id=4711"


@pytest.mark.parametrize(
    "to",
    ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/a\r\nX: y", "", "/\t/x"],
)
def test_a_login_leads_nowhere_else(desk: Desk, to: str) -> None:
    answer = desk.client().post("/login", name="staff", password=PASSWORD, to=to)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


def test_a_cookie_that_somebody_chose_becomes_no_session(desk: Desk) -> None:
    client = desk.client()
    client.cookie = chosen = "console=chosen-by-an-attacker-before-the-login-"
    client.log_in("staff")
    assert client.cookie != chosen
    fixed = desk.client()
    fixed.cookie = chosen
    assert fixed.get("/").status == 303


def test_a_new_login_ends_the_session_before(desk: Desk) -> None:
    client = desk.client("staff")
    before = client.cookie
    client.log_in("staff")
    old = desk.client()
    old.cookie = before
    assert (old.get("/").status, client.get("/").status) == (303, 200)


def test_two_cookies_of_the_name_are_nobody(desk: Desk) -> None:
    client = desk.client("staff")
    client.cookie = f"console=tossed; {client.cookie}"
    assert client.get("/").status == 303


@pytest.mark.parametrize("foreign", ['settings={"a":1}', 'x="unfinished', "a b=c d", "a=b,c", "=", ";"])
def test_other_applications_cookies_for_this_host_keep_nobody_out(desk: Desk, foreign: str) -> None:
    client = desk.client("staff")
    for cookies in (f"{foreign}; {client.cookie}", f"{client.cookie}; {foreign}"):
        assert client.send("GET", "/", headers={"Cookie": cookies}).status == 200


def test_whoever_logs_out_is_out(desk: Desk) -> None:
    client = desk.client("staff")
    kept = client.cookie
    assert client.post("/logout").status == 303
    client.cookie = kept
    assert client.get("/").status == 303


def test_a_session_ends_when_it_is_not_used(own: Desk) -> None:
    own.account("staff", "staff")
    client = own.client("staff")
    own.later_s = IDLE_S - 1
    assert client.get("/").status == 200
    own.later_s = 2 * IDLE_S
    assert client.get("/").status == 303


def test_a_session_ends_although_it_is_used(own: Desk) -> None:
    own.account("staff", "staff")
    client = own.client("staff")
    for later_s in range(0, int(LONGEST_S), int(IDLE_S) - 60):
        own.later_s = later_s
        assert client.get("/").status == 200
    own.later_s = LONGEST_S
    assert client.get("/").status == 303


def test_another_password_ends_all_sessions_of_the_account(own: Desk) -> None:
    own.account("staff", "staff")
    own.account("other", "staff")
    sessions, other = [own.client("staff"), own.client("staff")], own.client("other")
    own.accounts.set_password("staff", "another word, and another")
    assert [client.get("/").status for client in sessions] == [303, 303]
    assert other.get("/").status == 200
    assert own.client().post("/login", name="staff", password=PASSWORD).status == 403
    assert own.client().log_in("staff", "another word, and another").status == 200


def test_an_account_that_is_removed_is_out(own: Desk) -> None:
    own.account("staff", "staff")
    client = own.client("staff")
    own.accounts.remove("staff")
    assert client.get("/").status == 303


def test_an_accounts_file_that_others_may_read_lets_nobody_in(own: Desk) -> None:
    own.account("staff", "staff")
    client = own.client("staff")
    own.accounts.path.chmod(0o644)
    assert client.get("/").status == 303
    assert own.client().post("/login", name="staff", password=PASSWORD).status == 403


def guess(client: Client, name: str, times: int) -> list[tuple[int, str]]:
    answers = [client.post("/login", name=name, password=f"guess number {number}") for number in range(times)]
    return [(answer.status, answer.text) for answer in answers]


def test_guessing_ends_soon_and_tells_nothing_of_who_exists(own: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    own.account("staff", "staff")
    tried: list[bytes] = []
    real = accounts.stretched
    monkeypatch.setattr(accounts, "stretched", lambda *given: tried.append(given[0]) or real(*given))
    known, unknown = (guess(own.client(), name, login.WRONG_OF_PAIR + 1) for name in ("staff", "nobody"))
    assert known == unknown
    assert [status for status, _ in known] == [403] * login.WRONG_OF_PAIR + [429]
    assert len(tried) == 2 * login.WRONG_OF_PAIR, "as much is computed for a name that nobody has"
    assert own.client().post("/login", name="staff", password=PASSWORD).status == 429
    own.later_s = WINDOW_S
    assert own.client().post("/login", name="staff", password=PASSWORD).status == 303


def test_guessing_many_names_from_one_address_ends_too(own: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "stretched", lambda secret, salt: secret)
    client = own.client()
    statuses = [guess(client, f"name-{number}", 1)[0][0] for number in range(login.WRONG_OF_ADDRESS + 1)]
    assert statuses == [403] * login.WRONG_OF_ADDRESS + [429]


def test_guessing_from_many_addresses_keeps_nobody_out_who_has_been_in(
    own: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.account("staff", "staff")
    own.client("staff")
    with monkeypatch.context() as patched:
        patched.setattr(accounts, "stretched", lambda secret, salt: secret)
        for number in range(login.WRONG_OF_NAME // login.WRONG_OF_PAIR):
            assert guess(Client(own.port, address=f"127.0.0.{number + 2}"), "staff", 1 + login.WRONG_OF_PAIR)
    elsewhere = Client(own.port, address="127.0.0.100").post("/login", name="staff", password=PASSWORD)
    assert elsewhere.status == 429
    assert own.client().post("/login", name="staff", password=PASSWORD).status == 303


def test_who_waits_for_a_page_keeps_nobody_out(own: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    own.account("staff", "staff")
    staff, goes_on = own.client("staff"), threading.Event()
    monkeypatch.setattr(decisions, "waiting", lambda *_: goes_on.wait(60) and [])
    with ThreadPoolExecutor(12) as pool:
        pages_asked = [pool.submit(Client(own.port, cookie=staff.cookie).get, "/conflicts") for _ in range(12)]
        try:
            client = own.client()
            assert (client.get("/login").status, client.get("/console.css").status) == (200, 200)
            assert client.post("/login", name="staff", password=PASSWORD).status == 303
            assert not any(page.done() for page in pages_asked)
        finally:
            goes_on.set()
        assert [page.result().status for page in pages_asked] == [200] * 12


def test_many_logins_at_once_keep_nobody_from_working_who_is_in(own: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    own.account("staff", "staff")
    staff, goes_on = own.client("staff"), threading.Event()
    monkeypatch.setattr(accounts, "stretched", lambda secret, salt: goes_on.wait(60) and secret)
    addresses = [f"127.0.0.{number}" for number in range(2, 7)] * 10
    with ThreadPoolExecutor(len(addresses)) as pool:
        logins = [pool.submit(guess, Client(own.port, address=each), each, 1) for each in addresses]
        try:
            wait_until(lambda: sum(login.done() for login in logins) == 30, 60, "all but four of each are refused")
            assert staff.get("/").status == 200
        finally:
            goes_on.set()
        statuses = Counter(login.result()[0][0] for login in logins)
    assert statuses == {503: 30, 403: 20}


def test_the_cookie_is_for_this_host_over_tls_and_for_no_script(secure: Desk) -> None:
    client = Client(secure.port, secure.secure, host=f"console.example:{secure.port}")
    answer = client.post("/login", name="staff", password=PASSWORD)
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    assert name == "__Host-console"
    assert {part.strip() for part in rest.split(";")[1:]} == {"Path=/", "HttpOnly", "SameSite=Strict", "Secure"}
    assert client.get("/").status == 200


def test_each_role_sees_its_own_pages_only(desk: Desk) -> None:
    roles = {name: desk.client(name) for name in ("staff", "approver", "auditor")}
    for route in pages.ROUTES:
        path = route.path.pattern
        if route.method != "GET" or "(" in path or route.role is None:
            continue
        statuses = {name: client.get(path.replace("\\", "")).status for name, client in roles.items()}
        assert statuses.pop(route.role) == 200, path
        assert set(statuses.values()) == {404}, path
