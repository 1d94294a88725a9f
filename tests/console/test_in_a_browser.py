"""The consoles in a real browser: owner and custodian approve, each in its own, and only then research is served; by
keyboard alone; in the dark; on a phone; followed from elsewhere.
"""

import contextlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import free_ports, wait_until
from live_node import LiveNode, make_live_node
from node_make import real_file
from playwright.sync_api import Page, expect
from pydicom import dcmread

from orthanc_ledger.config import load
from orthanc_ledger.ledger.identity import issue
from orthanc_ledger.web.console.accounts import Accounts
from tests.browser import Pages, screenshot
from tests.console.world import PASSWORD, Client, party_of

PASSPHRASE = "four words that nobody guesses"
DESCRIPTION = "Lesions of the knee"


@dataclass
class Trial:
    """A node that runs with its console, and the custodian's console on the same ledger."""

    node: LiveNode
    owner: str
    custodian: str
    study_uid: str

    def ask(self) -> tuple[str, str]:
        """A request of research for the study: its digest, and the salt of its description."""
        tokens, research = self.node.folder / "tokens.json", ("--as", "research")
        self.node.command("nodes", "register", "RESEARCH1", *research)
        self.node.command("nodes", "confirm", "ResearchMSP", "RESEARCH1", "--as", "custodian")
        self.node.command("studies", "--study", self.study_uid, "--tokens", tokens, "--for", "ResearchMSP")
        words = ["--studies", tokens, "--node", "RESEARCH1", "--duo", "DUO:0000042", "--description", DESCRIPTION]
        [row] = self.node.rows("request", *words, *research)
        return row["id"], row["description_salt"]

    def served(self) -> int:
        """How many objects of the study research gets."""
        return len(
            self.node.get("RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=self.study_uid)[2]
        )


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("trial")
    with contextlib.closing(free_ports()) as ports, contextlib.ExitStack() as stack:
        of_owner, of_custodian = next(ports), next(ports)
        node = make_live_node(folder, ports.__next__, console={"accounts": "console.accounts", "port": of_owner})
        organisations = node.config.parent / "organisations"
        party = party_of(load(node.config), "custodian", folder / "custodian")
        path = party.data_dir.parent / "party.yaml"
        console = {"console": {"accounts": "console.accounts", "port": of_custodian}}
        path.write_text(path.read_text() + yaml.safe_dump(console))
        for who, accounts in (("owner", node.config.parent), ("custodian", path.parent)):
            key = issue(organisations / who, "approver-1", "person", passphrase=PASSPHRASE.encode())
            made = Accounts(accounts / "console.accounts")
            made.add("approver", ["approver"], PASSWORD, key)
            made.add("staff", ["staff", "approver", "auditor"], PASSWORD)
        node.start()
        stack.callback(node.stop)
        own = stack.enter_context(start_console(path))
        assert own.poll() is None
        for port in (of_owner, of_custodian):
            wait_until(lambda port=port: answers(port), 60, "the console answers")
        node.store(real_file())
        node.wait_anchored(1)
        study_uid = str(dcmread(real_file()).StudyInstanceUID)
        yield Trial(node, f"http://127.0.0.1:{of_owner}", f"http://127.0.0.1:{of_custodian}", study_uid)


@contextlib.contextmanager
def start_console(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The console of a party, as a process of its own."""
    command = [sys.executable, "-m", "orthanc_ledger", "console", "--config", str(path)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.terminate()


def answers(port: int) -> bool:
    try:
        return Client(port).get("/login").status == 200
    except OSError:
        return False


def log_in(page: Page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Log in")


def approve(page: Page, request: str) -> None:
    """As a person does who has logged in."""
    page.get_by_role("link", name="Requests", exact=True).click()
    page.get_by_role("link", name=request[:12]).click()
    page.get_by_role("button", name="Approve…").click()
    expect(page.get_by_role("main")).to_contain_text(request)
    page.get_by_label("Your password again").fill(PASSWORD)
    page.get_by_label("Passphrase of your key").fill(PASSPHRASE)


def test_owner_and_custodian_approve_and_only_then_research_is_served(trial: Trial, pages: Pages) -> None:
    request, salt = trial.ask()
    custodian, owner = pages(), pages()
    log_in(custodian, trial.custodian, "approver")
    approve(custodian, request)
    screenshot(custodian, "console-sign")
    custodian.get_by_role("button", name="Sign and approve").click()
    expect(custodian.get_by_role("status")).to_contain_text("signed with person-key")
    custodian.get_by_label("Description").fill(DESCRIPTION)
    custodian.get_by_label("Salt").fill(salt)
    custodian.get_by_role("button", name="Check").click()
    expect(custodian.get_by_role("status")).to_contain_text("It fits")
    assert trial.served() == 0
    log_in(owner, trial.owner, "approver")
    approve(owner, request)
    assert trial.served() == 0
    owner.get_by_role("button", name="Sign and approve").click()
    expect(owner.get_by_role("status")).to_contain_text("signed with person-key")
    screenshot(owner, "console-request")
    assert trial.served() == 1
    staff = pages()
    log_in(staff, f"{trial.owner}/studies/{trial.study_uid}", "staff")
    expect(staff.get_by_role("region", name="Who was given something of it")).to_contain_text("ResearchMSP, RESEARCH1")
    expect(staff.get_by_role("region", name="Who was given something of it")).to_contain_text("general research use")
    screenshot(staff, "console-study")
    staff.get_by_role("link", name="Audit").click()
    expect(staff.get_by_role("table")).to_contain_text("LogRelease")
    screenshot(staff, "console-audit")


def test_a_study_is_found_by_keyboard_alone(trial: Trial, pages: Pages) -> None:
    page = pages()
    page.goto(trial.owner)
    for label, text in (("Name", "staff"), ("Password", PASSWORD)):
        tab_to(page, label)
        page.keyboard.insert_text(text)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    go(page, "Studies")
    expect(page.get_by_role("heading", level=1)).to_have_text("Studies")
    tab_to(page, "Patient ID")
    page.keyboard.insert_text(str(dcmread(real_file()).PatientID))
    page.keyboard.press("Enter")
    expect(page.get_by_role("table")).to_contain_text("under custody")
    screenshot(page, "console-studies")
    go(page, trial.study_uid)
    expect(page.get_by_role("main")).to_contain_text("Timeline")


def go(page: Page, name: str) -> None:
    """Follow a link by Tab and Enter."""
    tab_to(page, name)
    page.keyboard.press("Enter")


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has the focus is named so, and is seen to have it."""
    script = "() => [document.activeElement.textContent || document.activeElement.labels?.[0].textContent, "
    script += "getComputedStyle(document.activeElement).outlineStyle]"
    for _ in range(40):
        text, outline = page.evaluate(script)
        if text == name:
            assert outline == "solid"
            return
        page.keyboard.press("Tab")
    pytest.fail(f"Tab does not lead to {name}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(trial: Trial, pages: Pages, scheme: str) -> None:
    page = pages(color_scheme=scheme)
    log_in(page, f"{trial.owner}/studies/{trial.study_uid}", "staff")
    for path in ("/", f"/studies/{trial.study_uid}", "/requests", "/audit", "/alarms"):
        page.goto(trial.owner + path)
        assert page.evaluate(_CONTRASTS) == [], path
    page.goto(f"{trial.owner}/studies/{trial.study_uid}")
    screenshot(page, f"console-{scheme}")


def test_every_page_has_its_names_and_landmarks(trial: Trial, pages: Pages) -> None:
    page = pages()
    log_in(page, trial.owner, "staff")
    for path in ("/", "/studies?patient_id=x", f"/studies/{trial.study_uid}", "/conflicts", "/requests", "/audit"):
        page.goto(trial.owner + path)
        assert page.evaluate(_UNNAMED) == [], path
        for landmark in ("banner", "navigation", "main", "contentinfo"):
            expect(page.get_by_role(landmark)).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert page.locator("html").get_attribute("lang") == "en"
        ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids)), path


def test_it_fits_a_phone(trial: Trial, pages: Pages) -> None:
    page = pages(viewport={"width": 360, "height": 740})
    log_in(page, trial.owner, "staff")
    for path in ("/", "/studies", f"/studies/{trial.study_uid}", "/requests", "/audit"):
        page.goto(trial.owner + path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360, path
    page.goto(f"{trial.owner}/studies/{trial.study_uid}")
    screenshot(page, "console-phone")


def test_who_is_logged_in_and_follows_a_link_from_elsewhere_sees_the_page(trial: Trial, pages: Pages) -> None:
    page = pages()
    log_in(page, trial.owner, "staff")
    with elsewhere(f"{trial.owner}/studies/{trial.study_uid}") as address:
        other = page.context.new_page()
        other.goto(address)
        other.get_by_role("link", name="Provenance").click()
        expect(other.get_by_role("main")).to_contain_text("Timeline")


def test_a_form_on_another_site_does_nothing(trial: Trial, pages: Pages) -> None:
    page = pages()
    log_in(page, trial.owner, "staff")
    with elsewhere(f"{trial.owner}/logout") as address:
        other = page.context.new_page()
        other.goto(address)
        other.get_by_role("button", name="Send").click()
        expect(other.get_by_role("main")).to_contain_text("not sent by a page of this console")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


@contextlib.contextmanager
def elsewhere(target: str) -> Iterator[str]:
    """A page of another site, with a link and a form that lead to ``target``."""
    html = f'<a href="{target}">Provenance</a><form method="post" action="{target}"><button>Send</button></form>'

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"  # another site than 127.0.0.1
        finally:
            server.shutdown()
            thread.join()


# Of each text, its contrast with its ground (WCAG 2.2, 1.4.3): 4.5, of large text 3.
_CONTRASTS = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const found = rgb(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll('body *')) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(rgb(style.color)), luminance(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) low.push(element.outerHTML + ' ' + ratio);
  }
  return low;
}"""

# Inputs without a label, buttons and links without a text, tables without caption or headings.
_UNNAMED = """() => [
  ...[...document.querySelectorAll('input:not([type=hidden]), select, textarea')].filter(e => !e.labels.length),
  ...[...document.querySelectorAll('a, button')].filter(e => !e.textContent.trim()),
  ...[...document.querySelectorAll('table')].filter(e => !e.caption || !e.querySelector('th[scope=col]')),
].map(e => e.outerHTML)"""
