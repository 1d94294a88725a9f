"""Owner and custodian decide about requests, each in its own console; what is signed is what was shown, once, by a
person who gives the password again.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gate_world import World, make_world
from node_make import ledger_of

from orthanc_ledger.asked import description_digest
from orthanc_ledger.config import Console
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.identity import issue
from orthanc_ledger.web.console.pages import approval
from orthanc_ledger.web.console.server import WRONG_AT_SIGNING
from orthanc_ledger.web.console.sessions import OFFER_S
from orthanc_ledger.words import moment
from tests.console.world import PASSWORD, Answer, Client, Desk, key_of, opened, party_of

PASSPHRASE = "four words that nobody guesses"


@dataclass
class Consoles:
    """The consoles of hospital and custodian on one ledger, each with an approver: `own` has a key, `named` none."""

    world: World
    owner: Desk
    custodian: Desk

    def organisation(self, who: str) -> Path:
        return self.world.folder / "node" / "organisations" / who

    def asked(self, **changes: Any) -> str:
        """An open request, in hex."""
        return self.world.request(**changes).hex()

    def state(self, request: str) -> dict[str, Any]:
        found: dict[str, Any] = self.world.ledger("owner").query("GetRequest", {"id": bytes.fromhex(request)})
        return found


@pytest.fixture(scope="module")
def consoles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consoles]:
    folder = tmp_path_factory.mktemp("consoles")
    world = make_world(folder / "hospital")
    party = party_of(world.node.config, "custodian", folder / "custodian")
    with (
        opened(world.node.config, Console(folder / "owner.accounts")) as owner,
        opened(party, Console(folder / "custodian.accounts")) as custodian,
    ):
        made = Consoles(world, owner, custodian)
        for who, desk in (("owner", owner), ("custodian", custodian)):
            desk.account("own", "approver", identity=key_of(made.organisation(who), "approver-1", PASSPHRASE))
            desk.account("named", "approver", "staff")
        yield made


def show(client: Client, request: str, action: str = "approve", **query: str) -> Answer:
    """The page that shows what is signed."""
    default = {"approve": {"days": "30"}, "deny": {"deny_reason": "ethics"}, "revoke": {"revoke_reason": "breach"}}
    return client.get(f"/requests/{request}/{action}", **{**default[action], **query})


def sign(client: Client, shown: Answer, request: str, **fields: str) -> Answer:
    """Send its form."""
    given = {"offer": shown.hidden("offer"), "password": PASSWORD, "passphrase": PASSPHRASE}
    return client.post(f"/requests/{request}/sign", **{**given, **fields})


def test_both_approve_each_in_its_own_console_and_research_gets_it(consoles: Consoles) -> None:
    request = consoles.asked()
    told = []
    for desk in (consoles.custodian, consoles.owner):
        assert consoles.world.seen() == set()
        client = desk.client("own")
        shown = show(client, request)
        assert request in shown.text
        assert "Until" in shown.text
        told.append(client.follow(sign(client, shown, request)).text)
    assert consoles.state(request)["state"] == "approved"
    assert consoles.world.seen() == {consoles.world.study_uid}
    assert all("signed with person-key" in each for each in told)
    assert "HospitalMSP person-key" in told[1]


def test_the_record_says_whether_it_was_a_persons_key(consoles: Consoles) -> None:
    request = consoles.asked()
    for name, assurance, word in (("own", "person", "person-key"), ("named", "node", "node-asserted")):
        desk = consoles.owner if name == "own" else consoles.custodian
        client = desk.client(name)
        shown = show(client, request)
        assert f"The record will say {word}" in shown.text
        assert ("Passphrase of your key" in shown.text) == (name == "own")
        sign(client, shown, request)
        role = "owner" if name == "own" else "custodian"
        assert consoles.state(request)["approvals"][role]["by"]["assurance"] == assurance


def test_what_is_signed_is_what_was_shown(consoles: Consoles) -> None:
    request = consoles.asked()
    client = consoles.owner.client("own")
    shown = show(client, request, days="7")
    sign(client, shown, request, days="30", until="9999999999", function="Revoke", release="deidentified")
    rows = all_rows(consoles.world.ledger("owner"), "Audit", {})
    assert [row["function"] for row in rows if row["args"].get("id") == bytes.fromhex(request)] == ["Approve"]
    until = re.search(r'Until</dt><dd><time datetime="([^"]+)"', shown.html)
    assert until is not None
    recorded = consoles.state(request)["approvals"]["owner"]["until"]
    assert until[1] == moment(recorded)


@pytest.mark.parametrize(("action", "state"), [("deny", "denied"), ("revoke", "revoked")])
def test_a_request_is_ended_with_a_reason(consoles: Consoles, action: str, state: str) -> None:
    request = consoles.asked()
    if action == "revoke":
        consoles.world.approve(bytes.fromhex(request), "owner", "custodian")
    client = consoles.custodian.client("own")
    assert "for good" in client.follow(sign(client, show(client, request, action), request)).text
    assert consoles.state(request)["state"] == state


def test_a_form_that_is_sent_again_signs_nothing_more(consoles: Consoles) -> None:
    request = consoles.asked()
    client = consoles.owner.client("own")
    shown = show(client, request)
    assert sign(client, shown, request).status == 303
    entries = len(list(all_rows(consoles.world.ledger("owner"), "Audit", {})))
    assert "counts no more" in sign(client, shown, request).text
    assert len(list(all_rows(consoles.world.ledger("owner"), "Audit", {}))) == entries


def test_a_digest_that_was_swapped_signs_nothing(consoles: Consoles) -> None:
    shown_one, other = consoles.asked(), consoles.asked(days=10)
    client = consoles.owner.client("own")
    answer = sign(client, show(client, shown_one), other)
    assert (answer.status, "counts no more" in answer.text) == (409, True)
    assert consoles.state(other)["approvals"] == consoles.state(shown_one)["approvals"] == {}


def test_what_was_shown_to_somebody_else_signs_nothing(consoles: Consoles) -> None:
    request = consoles.asked()
    client, other = consoles.owner.client("own"), consoles.owner.client("own")
    shown = show(client, request)
    show(other, request)
    assert sign(other, shown, request).status == 409
    assert consoles.state(request)["approvals"] == {}


def test_a_request_that_changed_since_it_was_shown_is_looked_at_again(consoles: Consoles) -> None:
    request = consoles.asked()
    client = consoles.owner.client("own")
    shown = show(client, request)
    consoles.world.approve(bytes.fromhex(request), "custodian", days=3)
    answer = sign(client, shown, request)
    assert (answer.status, "has changed since it was shown" in answer.text) == (409, True)
    assert "owner" not in consoles.state(request)["approvals"]


def test_what_was_shown_long_ago_signs_nothing(consoles: Consoles) -> None:
    request = consoles.asked()
    client = consoles.owner.client("own")
    shown = show(client, request)
    consoles.owner.later_s += OFFER_S + 1
    assert sign(client, shown, request).status == 409


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"password": "not the password"}, "password is wrong"), ({"passphrase": "not it"}, "passphrase does not open")],
)
def test_who_is_logged_in_signs_nothing_without_password_and_passphrase(
    consoles: Consoles, wrong: dict[str, str], said: str
) -> None:
    request = consoles.asked()
    client = consoles.owner.client("own")
    shown = show(client, request)
    answer = sign(client, shown, request, **wrong)
    assert (answer.status, said in answer.text) == (403, True)
    assert consoles.state(request)["approvals"] == {}
    assert sign(client, answer, request).status == 303, "what was shown may be signed still"


def test_guessing_the_password_of_who_is_logged_in_ends_soon(consoles: Consoles) -> None:
    request = consoles.asked()
    consoles.owner.account("guessed", "approver")
    client = consoles.owner.client("guessed")
    shown = show(client, request)
    statuses = [sign(client, shown, request, password=f"guess {number}").status for number in range(WRONG_AT_SIGNING)]
    assert statuses == [403] * WRONG_AT_SIGNING
    assert sign(client, shown, request).status == 429
    assert consoles.state(request)["approvals"] == {}


def test_guesses_at_once_are_not_more_than_one_after_the_other(consoles: Consoles) -> None:
    request = consoles.asked()
    consoles.owner.account("guessed-at-once", "approver")
    client = consoles.owner.client("guessed-at-once")
    shown = show(client, request)

    def guess(number: int) -> int:
        browser = Client(client.port, cookie=client.cookie, token=client.token)
        return sign(browser, shown, request, password=f"guess {number}").status

    with ThreadPoolExecutor(24) as pool:
        statuses = list(pool.map(guess, range(24)))
    assert statuses.count(403) <= WRONG_AT_SIGNING
    assert set(statuses) <= {403, 409, 429}


@pytest.mark.parametrize("days", ["00000199999", "000001" + "9" * 5000, "-1", "²"])
def test_days_beyond_the_request_are_refused(consoles: Consoles, days: str) -> None:
    assert show(consoles.owner.client("named"), consoles.asked(), days=days).status == 409


@pytest.mark.parametrize("who", ["custodian", "research"])
def test_nobody_signs_for_another_organisation(consoles: Consoles, who: str) -> None:
    key = key_of(consoles.organisation(who), "lent-to-the-hospital", PASSPHRASE)
    consoles.owner.account(f"of-{who}", "approver", identity=key)
    request = consoles.asked()
    client = consoles.owner.client(f"of-{who}")
    answer = show(client, request)
    assert (answer.status, "signs for HospitalMSP only" in answer.text) == (409, True)
    assert 'name="password"' not in answer.html


def test_a_nodes_key_is_no_persons(consoles: Consoles) -> None:
    consoles.owner.account("borrows", "approver", identity=consoles.organisation("owner") / "identities" / "node")
    answer = show(consoles.owner.client("borrows"), consoles.asked())
    assert (answer.status, "expected a person's identity" in answer.text) == (409, True)


def test_a_revoked_certificate_signs_nothing(consoles: Consoles) -> None:
    key = issue(consoles.organisation("owner"), "approver-2", "person", passphrase=PASSPHRASE.encode())
    consoles.owner.account("left", "approver", identity=key)
    client, request = consoles.owner.client("left"), consoles.asked()
    serial = re.search(r"serial ([0-9a-f]+)", show(client, request).text)
    assert serial is not None
    consoles.world.ledger("owner").submit("RevokeCertificate", {"serial": serial[1]})
    answer = show(client, request)
    assert (answer.status, "revoked" in answer.text) == (409, True)


@pytest.mark.parametrize(
    ("action", "query"),
    [
        ("approve", {"days": "31"}),
        ("approve", {"days": "0"}),
        ("approve", {"days": "-1"}),
        ("approve", {"days": "²"}),
        ("approve", {"days": "1e9"}),
        ("deny", {"deny_reason": "because"}),
        ("revoke", {}),
    ],
)
def test_what_the_contract_would_refuse_is_not_offered(consoles: Consoles, action: str, query: dict[str, str]) -> None:
    answer = show(consoles.owner.client("own"), consoles.asked(), action, **query)
    assert (answer.status, "Not signed" in answer.text) == (409, True)


def test_the_hospital_sees_its_studies_and_the_custodian_their_tokens(consoles: Consoles) -> None:
    request = consoles.asked()
    token = consoles.world.node.keyring.ensure_study(consoles.world.study_uid).token.hex()
    owner, custodian = (
        desk.client("named").get(f"/requests/{request}").text for desk in (consoles.owner, consoles.custodian)
    )
    assert consoles.world.study_uid in owner
    assert token in owner
    assert token in custodian
    assert consoles.world.study_uid not in custodian
    for told in (
        "ResearchMSP, its node RESEARCH1",
        "DUO:0000042 general research use",
        "30 days at most",
        "identified",
    ):
        assert told in owner, told
        assert told in custodian, told


@pytest.mark.parametrize(
    ("text", "salt", "fits"),
    [
        ("Stroke study\nof ours", b"s" * 32, True),
        ("Stroke study\r\nof ours", b"s" * 32, True),
        ("Stroke study of ours", b"s" * 32, False),
        ("Stroke study\nof ours", b"t" * 32, False),
    ],
)
def test_a_description_is_checked_against_its_digest(consoles: Consoles, text: str, salt: bytes, fits: bool) -> None:
    digest = description_digest(b"s" * 32, "Stroke study\nof ours")
    assert digest == hashlib.sha256(b"s" * 32 + b"Stroke study\nof ours").digest()
    request = consoles.asked(descriptionDigest=digest)
    client = consoles.custodian.client("own")
    client.get(f"/requests/{request}")
    answer = client.post(f"/requests/{request}/description", text=text, salt=salt.hex())
    assert ("It fits" in answer.text, answer.status) == (fits, 200 if fits else 422)


def test_lists_of_requests_by_state(consoles: Consoles) -> None:
    request = consoles.asked()
    client = consoles.custodian.client("own")
    assert request[:12] in client.get("/requests", state="open").text
    assert request[:12] not in client.get("/requests", state="revoked").text
    assert client.get("/requests", state="nonsense", after="zz").status == 200
    assert client.get("/requests/" + "00" * 32).status == 404
    assert client.get("/requests/00").status == 404


def test_who_has_another_role_sees_and_signs_nothing(consoles: Consoles) -> None:
    request = consoles.asked()
    consoles.owner.account("staff-only", "staff", "auditor")
    client = consoles.owner.client("staff-only")
    shown = show(consoles.owner.client("own"), request)
    assert show(client, request).status == 404
    client.get("/")
    assert client.post(f"/requests/{request}/sign", offer=shown.hidden("offer"), password=PASSWORD).status == 404


def test_research_revokes_its_own_request_in_its_own_console(consoles: Consoles, tmp_path: Path) -> None:
    party = party_of(consoles.world.node.config, "research", tmp_path / "research")
    request = consoles.asked()
    with opened(party, Console(tmp_path / "accounts")) as desk:
        desk.account("asker", "approver")
        client = desk.client("asker")
        page = client.get(f"/requests/{request}").text
        assert ("Approve…" in page, "Deny…" in page, "Revoke…" in page) == (False, False, True)
        assert sign(client, show(client, request, "revoke", revoke_reason="completed"), request).status == 303
    assert consoles.state(request)["state"] == "revoked"


def test_who_had_no_answer_is_told_that_it_may_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path / "hospital")
    request = world.request().hex()
    ledger = Path(world.node.config.ledger.partition(":")[2])

    def unanswered(*_: object) -> None:
        ledger.rename(ledger.with_suffix(".away"))
        raise LedgerAway("no answer")

    monkeypatch.setattr(approval, "sign", unanswered)
    with opened(world.node.config, Console(tmp_path / "accounts")) as desk:
        desk.account("named", "approver")
        client = desk.client("named")
        answer = sign(client, show(client, request), request)
        assert (answer.status, "it may count all the same" in answer.text) == (503, True)


def test_a_ledger_that_is_away_is_said_and_signs_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path / "hospital")
    request = world.request().hex()
    ledger = Path(world.node.config.ledger.partition(":")[2])
    with opened(world.node.config, Console(tmp_path / "accounts")) as desk:
        desk.account("named", "approver", "staff")
        client = desk.client("named")
        shown = show(client, request)
        away = ledger.rename(ledger.with_suffix(".away"))
        assert sign(client, shown, request).status == 503
        assert client.get("/requests").status == 503
        assert "not known now" in client.get("/").text
        assert client.get(f"/studies/{world.study_uid}").status == 200, "what lies here is shown"
        away.rename(ledger)
        assert sign(client, shown, request).status == 303
    with closing(ledger_of(world.node, "owner")) as found:
        assert set(found.query("GetRequest", {"id": bytes.fromhex(request)})["approvals"]) == {"owner"}
