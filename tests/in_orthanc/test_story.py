"""The whole story in real browsers, nothing of it played: a scan comes into Orthanc, research asks for it, owner and
custodian approve, each in its own console, and only then the node serves it; what staff see at each step.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import wait_until
from playwright.sync_api import Locator, Page, expect

from orthanc_ledger.ledger.identity import issue
from orthanc_ledger.web.console.accounts import Accounts
from tests.browser import Pages, screenshot
from tests.console.test_in_a_browser import PASSPHRASE, answers, log_in, start_console
from tests.console.world import PASSWORD, party_of
from tests.in_orthanc.conftest import Hospital, Hospitals
from tests.in_orthanc.kept import Kept, Scan, data_set_of, store, study
from tests.in_orthanc.live import STAFF, USERS

ACCESSION = "A2026-0042"
DESCRIPTION = "Small-vessel disease in MRI of the brain"
PATIENT = {
    "PatientName": "Example^Ada",
    "PatientID": "P-0042",
    "PatientBirthDate": "19700101",
    "InstitutionName": "Example Hospital",
    "StudyDescription": "MRI of the brain",
    "AccessionNumber": ACCESSION,
    "StudyDate": "20260131",
}
PEER = {"ae_title": "RESEARCH1", "role": "research", "organisation": "ResearchMSP", "hosts": ["127.0.0.1"]}
SETTINGS = {"Name": "Example Hospital", "DicomModalities": {"MRI1": ["MRI1", "127.0.0.1", 104]}}
SUCCESS, REFUSED = 0x0000, 0x0124
SEEN_MS = 30_000
PICTURE = {"width": 1024, "height": 720}


@dataclass
class Deployment:
    """Hospital and custodian, all that either has running; ``scans``: what the hospital's scanner made."""

    hospital: Hospital
    kept: Kept
    owner: str
    custodian: str
    scans: list[Scan]

    def ask(self) -> tuple[str, str]:
        """Research asks for the study: the request's digest, and the salt of its description."""
        node, tokens = self.hospital.node, self.hospital.node.folder / "tokens.json"
        node.command("nodes", "register", "RESEARCH1", "--as", "research")
        node.command("nodes", "confirm", "ResearchMSP", "RESEARCH1", "--as", "custodian")
        node.command("studies", "--study", self.scans[0].study_uid, "--tokens", tokens, "--for", "ResearchMSP")
        words = ["--studies", tokens, "--node", "RESEARCH1", "--duo", "DUO:0000042", "--description", DESCRIPTION]
        [row] = node.rows("request", *words, "--as", "research")
        return row["id"], row["description_salt"]

    def research_gets(self) -> tuple[int, dict[str, bytes]]:
        """C-GET of the study on the node's port: the final status, and the data sets that came."""
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": self.scans[0].study_uid}
        status, _, received = self.hospital.node.get("RESEARCH1", "research", **keys)
        return status.Status, received

    def told(self, function: str) -> bool:
        """Whether the ledger has a record of a function."""
        return any(row["function"] == function for row in self.hospital.node.audit())

    def explorer(self, pages: Pages) -> tuple[Page, Locator]:
        """Orthanc's page of the study as its staff have it, and the panel on it."""
        orthanc = self.hospital.orthanc
        page = pages(http_credentials={"username": STAFF, "password": USERS[STAFF]}, viewport=PICTURE)
        [found] = orthanc.call("POST", "/tools/lookup", self.scans[0].study_uid).json()
        page.goto(f"http://127.0.0.1:{orthanc.http_port}/app/explorer.html#study?uuid={found['ID']}")
        return page, page.locator("#study .ledger-panel")


@pytest.fixture
def deployment(
    hospital: Hospitals, tmp_path: Path, free_port: Callable[[], int], samples_dir: Path
) -> Iterator[Deployment]:
    ports = free_port(), free_port()
    consoles = [{"console": {"accounts": "console.accounts", "port": port}} for port in ports]
    made = hospital({}, SETTINGS, node={"peers": [PEER], **consoles[0]})
    kept = Kept(made.node)
    home, party = made.node.config.parent, party_of(kept.node.config, "custodian", tmp_path / "custodian")
    path = party.data_dir.parent / "party.yaml"
    path.write_text(path.read_text() + yaml.safe_dump(consoles[1]))
    of_owner = Accounts(home / "console.accounts")
    key = issue(home / "organisations" / "owner", "approver-1", "person", passphrase=PASSPHRASE.encode())
    of_owner.add("approver", ["approver"], PASSWORD, key)
    of_owner.add("staff", ["staff"], PASSWORD)
    of_owner.add("auditor", ["auditor"], PASSWORD)
    Accounts(path.parent / "console.accounts").add("keeper", ["approver"], PASSWORD)
    scans = study(sorted((samples_dir / "ge-discovery-mr750" / "mr_0004").glob("*.dcm"))[:3], **PATIENT)
    with contextlib.ExitStack() as stack:
        stack.enter_context(start_console(path))
        made.start()
        for port in ports:
            wait_until(lambda port=port: answers(port), 60, "the console answers")
        yield Deployment(made, kept, *(f"http://127.0.0.1:{port}" for port in ports), scans)


def look_at(page: Page, request: str) -> Locator:
    """Go to a request as a person does; what its page says."""
    page.get_by_role("link", name="Requests", exact=True).click()
    page.get_by_role("link", name=request[:12]).click()
    expect(page.get_by_role("main")).to_contain_text(request)
    return page.get_by_role("main")


def sign(page: Page, button: str, passphrase: str | None) -> Locator:
    """Sign what the page shows; what is said then."""
    page.get_by_label("Your password again").fill(PASSWORD)
    asked = page.get_by_label("Passphrase of your key")
    expect(asked).to_have_count(0 if passphrase is None else 1)
    if passphrase is not None:
        asked.fill(passphrase)
    page.get_by_role("button", name=button).click()
    return page.get_by_role("status")


def says(place: Locator, *texts: Any) -> None:
    for text in texts:
        expect(place).to_contain_text(text, timeout=SEEN_MS)


def test_research_gets_a_scan_of_orthancs_once_both_have_approved_in_their_consoles_and_until_one_revokes(
    deployment: Deployment, pages: Pages
) -> None:
    version, scans = deployment.hospital.orthanc.version, deployment.scans

    def picture(page: Page, name: str, whole: bool = True) -> None:
        screenshot(page, f"story-{version}-{name}", whole)

    assert store(deployment.hospital.orthanc, scans) == [SUCCESS] * len(scans)
    deployment.kept.anchored(scans)
    explorer, panel = deployment.explorer(pages)
    says(panel, "under custody, since", "3 anchored", "Nothing of it was released to research.")

    request, salt = deployment.ask()
    assert deployment.research_gets() == (REFUSED, {})

    owner = pages(viewport=PICTURE)
    log_in(owner, deployment.owner, "approver")
    says(look_at(owner, request), "ResearchMSP, its node RESEARCH1", "DUO:0000042 general research use", "30 days")
    owner.get_by_label("Description").fill(DESCRIPTION)
    owner.get_by_label("Salt").fill(salt)
    owner.get_by_role("button", name="Check").click()
    says(owner.get_by_role("status"), "It fits")
    picture(owner, "request")
    owner.get_by_role("button", name="Approve…").click()
    says(owner.get_by_role("main"), request, "MRI of the brain", "The record will sayperson-key")
    owner.get_by_role("link", name="Do not sign").scroll_into_view_if_needed()
    picture(owner, "sign", whole=False)
    says(sign(owner, "Sign and approve", PASSPHRASE), "signed with person-key")
    assert deployment.research_gets() == (REFUSED, {})

    custodian = pages(viewport=PICTURE)
    log_in(custodian, deployment.custodian, "keeper")
    expect(look_at(custodian, request)).not_to_contain_text("MRI of the brain")
    custodian.get_by_role("button", name="Approve…").click()
    says(custodian.get_by_role("main"), request, "CustodianMSP, custodian", "The record will saynode-asserted")
    says(sign(custodian, "Sign and approve", None), "signed with node-asserted")
    assert deployment.research_gets() == (SUCCESS, {each.sop_uid: data_set_of(each.content) for each in scans})

    wait_until(lambda: deployment.told("LogOutcome"), 60, "the outcome of the release is on the ledger")
    explorer.reload()
    says(panel, "ResearchMSP, RESEARCH1", "general research use (DUO:0000042)", "3 of 3", "approved, until")
    picture(explorer, "panel", whole=False)

    staff = pages(viewport=PICTURE)
    address = panel.get_by_role("link", name="Open in the console").get_attribute("href")
    assert address == f"{deployment.owner}/studies/{scans[0].study_uid}"
    log_in(staff, address, "staff")
    says(staff.get_by_role("main"), "MRI of the brain", "released to research", "access was approved")
    staff.get_by_role("link", name="Studies").click()
    staff.get_by_label("Accession number").fill(ACCESSION)
    staff.get_by_role("button", name="Search").click()
    says(staff.get_by_role("table"), "Example^Ada", "under custody")
    staff.get_by_role("link", name="MRI of the brain").click()
    says(staff.get_by_role("list").last, "received", "anchored on the ledger", "released to research", "3 sent, 0 not")
    picture(staff, "study")

    auditor = pages(viewport=PICTURE)
    log_in(auditor, deployment.owner, "auditor")
    auditor.get_by_role("link", name="Audit").click()
    for who, with_what in (("HospitalMSP (owner)", "person-key"), ("CustodianMSP (custodian)", "node-asserted")):
        expect(
            auditor.get_by_role("row").filter(has_text=re.compile("Approve.*id=")).filter(has_text=who)
        ).to_contain_text(with_what)
    picture(auditor, "audit")

    owner.reload()
    owner.get_by_label("Why revoke").select_option("completed")
    owner.get_by_role("button", name="Revoke…").click()
    says(sign(owner, "Sign and revoke", PASSPHRASE), "revoked, for good")
    assert deployment.research_gets() == (REFUSED, {})
    explorer.reload()
    says(panel, "ResearchMSP, RESEARCH1", "revoked")
