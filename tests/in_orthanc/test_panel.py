"""What radiology staff see in a browser: the panel in Orthanc's Explorer, and on its own page."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT
from damage import flip
from gate_world import World
from playwright.sync_api import Locator, Page, expect
from sweep_make import place

from tests.browser import Pages, screenshot
from tests.in_orthanc.conftest import Hospital, Hospitals, Site, new_hospital
from tests.in_orthanc.kept import Kept, Scan, instances, scan, store, study
from tests.in_orthanc.live import STAFF, STUDENT, USERS, LiveOrthanc

SEEN_MS = 30_000
HOSTILE_AE = '<img/src="x">'
HOSTILE_NAME = "<img src=x onerror=alert(1)>^\"'&lt;"
MODALITIES = {
    "MRI1": {"AET": "MRI1", "Host": "127.0.0.1", "Port": 104},
    "odd": {"AET": HOSTILE_AE, "Host": "127.0.0.1", "Port": 104},
}
RESEARCH1 = {"ae_title": "RESEARCH1", "role": "research", "organisation": "ResearchMSP", "hosts": ["127.0.0.1"]}


@dataclass
class House:
    """A hospital that runs, with a study in Orthanc from before the plugin."""

    hospital: Hospital
    kept: Kept
    earlier: Scan

    @property
    def orthanc(self) -> LiveOrthanc:
        return self.hospital.orthanc

    def anchored(self, scans: list[Scan], aet: str = "MRI1") -> list[Scan]:
        """C-STORE them, and wait until they are anchored."""
        assert store(self.orthanc, scans, aet) == [0] * len(scans)
        self.kept.anchored(scans)
        return scans

    def world(self, each: Scan) -> World:
        """Parties that ask for a scan's study and approve."""
        return World(self.kept.node, self.kept.node.config.data_dir, each.study_uid, [])

    def id_of(self, each: Scan, level: str = "study") -> str:
        """Orthanc's id of a scan, its series or its study."""
        found = self.orthanc.call("POST", "/tools/lookup", each.sop_uid).json()
        [instance] = (row["ID"] for row in found if row["Type"] == "Instance")
        return str(
            instance if level == "instance" else self.orthanc.call("GET", f"/instances/{instance}/{level}").json()["ID"]
        )

    def open(self, pages: Pages, level: str, id: str, user: str = STAFF) -> Page:
        """The Explorer's page of something, as a user."""
        page = self._page(pages, user)
        page.goto(f"http://127.0.0.1:{self.orthanc.http_port}/app/explorer.html#{level}?uuid={id}")
        return page

    def open_alone(self, pages: Pages, id: str) -> Page:
        """The page of a study that is the panel's own."""
        page = self._page(pages, STAFF)
        page.goto(f"http://127.0.0.1:{self.orthanc.http_port}/ledger/studies/{id}")
        return page

    def _page(self, pages: Pages, user: str) -> Page:
        return pages(http_credentials={"username": user, "password": USERS[user]})


@pytest.fixture(scope="module")
def house(site: Site, samples_dir: Path) -> Iterator[House]:
    made = new_hospital(*site, settings={"DicomModalities": MODALITIES}, node={"peers": [RESEARCH1]})
    section, made.orthanc.ledger = made.orthanc.ledger, None
    earlier = scan(next(samples_dir.rglob("*.dcm")))
    try:
        made.orthanc.start()
        assert store(made.orthanc, [earlier]) == [0]
        made.orthanc.stop()
        made.orthanc.ledger = section
        yield House(made.start(), Kept(made.node), earlier)
    finally:
        made.orthanc.stop()


@pytest.fixture
def sources(samples_dir: Path) -> list[Path]:
    return sorted(samples_dir.rglob("*.dcm"))


def panel(page: Page, level: str = "study") -> Locator:
    """The panel on one of the Explorer's pages."""
    return page.locator(f"#{level} .ledger-panel")


def says(place: Locator, *texts: str | re.Pattern[str]) -> None:
    for text in texts:
        expect(place).to_contain_text(text, timeout=SEEN_MS)


def is_shown_as(place: Locator, tone: str) -> None:
    expect(place.locator(".ledger-state")).to_have_class(f"ledger-state ledger-{tone}")


@contextmanager
def ledger_away(house: House) -> Iterator[None]:
    ledger = house.kept.node.config.data_dir / "ledger.db"
    elsewhere = ledger.with_suffix(".elsewhere")
    ledger.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(ledger)


def test_a_study_under_custody_shows_its_place_on_the_ledger_its_origin_and_its_content(
    house: House, pages: Pages, sources: list[Path]
) -> None:
    scans = house.anchored(study(sources[:3]))
    row = house.kept.row(scans[0].sop_uid)
    [batch] = house.kept.node.index.batches_of(scans[0].study_uid)
    page = house.open(pages, "study", house.id_of(scans[0]))
    says(panel(page), "under custody, since", "3 anchored", f"position {batch.position}, ", str(row.manifest))
    says(panel(page), "C-STORE from MRI1 at 127.0.0.1, 3 objects", "Nothing of it was released to research.")
    says(panel(page), "Last checkby no sweep yet")
    is_shown_as(panel(page), "good")
    screenshot(page, f"panel-{house.orthanc.version}-under-custody")
    page.goto(f"{page.url.partition('#')[0]}#series?uuid={house.id_of(scans[0], 'series')}")
    says(panel(page, "series"), "under custody", "anchored")
    page.goto(f"{page.url.partition('#')[0]}#instance?uuid={house.id_of(scans[0], 'instance')}")
    says(panel(page, "instance"), "under custody", f"Content (CID){row.object}")
    expect(panel(page, "instance")).not_to_contain_text("3 anchored")


def test_the_page_of_the_next_study_shows_that_study(house: House, pages: Pages, sources: list[Path]) -> None:
    first, second = (house.anchored(study(sources[:count])) for count in (1, 2))
    page = house.open(pages, "study", house.id_of(first[0]))
    says(panel(page), "1 anchored")
    page.evaluate("id => { location.hash = `#study?uuid=${id}`; }", house.id_of(second[0]))
    says(panel(page), "2 anchored")
    expect(panel(page)).to_have_count(1)
    page.go_back()
    says(panel(page), "1 anchored")


def test_a_study_waits_while_the_ledger_is_away_and_is_shown_anchored_by_itself(
    house: House, pages: Pages, sources: list[Path]
) -> None:
    scans = study(sources[:2])
    with ledger_away(house):
        assert store(house.orthanc, scans) == [0, 0]
        page = house.open(pages, "study", house.id_of(scans[0]))
        says(
            panel(page),
            "waiting, since",
            "2 waiting",
            "it will be anchored on the ledger by itself",
            "does not answer now",
        )
        is_shown_as(panel(page), "neutral")
        screenshot(page, f"panel-{house.orthanc.version}-waiting")
    house.kept.anchored(scans)
    says(panel(page), "under custody, since", "2 anchored")


def test_other_content_is_shown_as_a_conflict_with_what_to_do(house: House, pages: Pages, sources: list[Path]) -> None:
    [first] = house.anchored(study(sources[:1]))
    other = scan(sources[0], SOPInstanceUID=first.sop_uid, StudyInstanceUID=first.study_uid, PatientComments="other")
    assert store(house.orthanc, [other]) == [0]
    page = house.open(pages, "study", house.id_of(first))
    says(panel(page), "conflict, since", "1 in conflict", "Compare both contents in the console, under Conflicts")
    is_shown_as(panel(page), "attention")
    expect(panel(page).locator(".ledger-danger")).to_have_count(0)
    screenshot(page, f"panel-{house.orthanc.version}-conflict")


def test_a_withdrawn_study_is_shown_as_withdrawn(house: House, pages: Pages, sources: list[Path]) -> None:
    [first] = house.anchored(study(sources[:1]))
    world = house.world(first)
    whole = {"study": world.node.keyring.ensure_study(first.study_uid).token, "reason": "113037"}
    world.ledger("owner").submit("Withdraw", whole, bytes(16))
    page = house.open(pages, "study", house.id_of(first))
    says(panel(page), "withdrawn, since", "Withdrawn from research. Clinical use is unchanged.")
    is_shown_as(panel(page), "neutral")


def test_only_what_differs_from_its_anchor_is_shown_in_red(house: House, pages: Pages, sources: list[Path]) -> None:
    [first] = house.anchored(study(sources[:1]))
    flip(place(house.kept.node, house.kept.row(first.sop_uid).object))
    house.kept.node.sweep(0.0).study(first.study_uid, lambda _: True)
    page = house.open(pages, "study", house.id_of(first))
    says(panel(page), "withheld: differs from its anchor", "Restore it from a backup of the content store")
    is_shown_as(panel(page), "danger")
    screenshot(page, f"panel-{house.orthanc.version}-withheld")


def test_a_study_from_before_the_plugin_is_shown_as_such(house: House, pages: Pages) -> None:
    page = house.open(pages, "study", house.id_of(house.earlier))
    says(panel(page), "not under custody (before installation)", "`orthanc-ledger backfill` takes it in")
    is_shown_as(panel(page), "neutral")
    page.goto(f"{page.url.partition('#')[0]}#instance?uuid={house.id_of(house.earlier, 'instance')}")
    says(panel(page, "instance"), "not under custody (before installation)")


def test_a_release_is_shown_with_who_got_it_and_why(house: House, pages: Pages, sources: list[Path]) -> None:
    scans = house.anchored(study(sources[:2]))
    world = house.world(scans[0])
    world.approve(world.request(), "owner", "custodian")
    _, _, received = house.hospital.node.get(
        "RESEARCH1", "research", QueryRetrieveLevel="STUDY", StudyInstanceUID=scans[0].study_uid
    )
    assert received.keys() == {each.sop_uid for each in scans}
    page = house.open(pages, "study", house.id_of(scans[0]))
    says(panel(page), "ResearchMSP, RESEARCH1", "general research use (DUO:0000042)", "approved, until")
    screenshot(page, f"panel-{house.orthanc.version}-released")
    alone = house.open_alone(pages, house.id_of(scans[0]))
    says(
        alone.locator("main"),
        "2 of 2",
        "released to research",
        "access was approved",
        "HospitalMSP (owner, person-key)",
    )
    screenshot(alone, f"page-{house.orthanc.version}-released")


def test_the_page_of_its_own_is_for_keyboard_and_screen_reader_and_asks_nobody_else(
    house: House, pages: Pages, sources: list[Path]
) -> None:
    [first] = house.anchored(study(sources[:1], PatientName="Doe^Jane"))
    page = house.open_alone(pages, house.id_of(first))
    says(page.locator("main"), "under custody", "What happened")
    expect(page).to_have_title(re.compile("^Chain of custody: Doe\\^Jane, "))
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("typeof jQuery") == "undefined"
    expect(page.get_by_role("heading", level=1)).to_contain_text("Doe^Jane")
    expect(page.get_by_role("heading", level=2, name="Chain of custody")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("under custody")
    table = page.get_by_role("region", name="What happened").get_by_role("table")
    expect(table.get_by_role("columnheader")).to_have_text(["When", "What", "Detail", "Who", "Ledger position"])
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="What happened")).to_be_focused()
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    answer = house.orthanc.call("GET", f"/ledger/studies/{house.id_of(first)}")
    assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]


def test_hostile_texts_are_text(house: House, pages: Pages, sources: list[Path]) -> None:
    [first] = house.anchored(study(sources[:1], PatientName=HOSTILE_NAME, StudyDescription=HOSTILE_NAME), HOSTILE_AE)
    page = house.open_alone(pages, house.id_of(first))
    says(page.locator("main"), f"C-STORE from {HOSTILE_AE} at 127.0.0.1")
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE_NAME)
    assert page.locator("img").count() == 0
    assert page.title().startswith("Chain of custody: ")
    [shown] = [panel(house.open(pages, "instance", house.id_of(first, "instance")), "instance")]
    says(shown, f"C-STORE from {HOSTILE_AE} at 127.0.0.1")
    assert shown.locator("img").count() == 0


def test_others_than_staff_see_nothing(house: House, pages: Pages, sources: list[Path]) -> None:
    id = house.id_of(house.earlier)
    for path in (f"/ledger/studies/{id}", f"/ledger/studies/{id}/facts", "/ledger/panel.js", "/plugins/explorer.js"):
        answers = [house.orthanc.call("GET", path, user=user) for user in (STUDENT, None)]
        assert [answer.status for answer in answers] == [403, 401]
        assert not any(b"custody" in answer.body for answer in answers)


def test_other_calls_than_get_and_what_orthanc_does_not_have_are_refused(house: House) -> None:
    call, id = house.orthanc.call, house.id_of(house.earlier)
    for path in (f"/ledger/studies/{id}", f"/ledger/studies/{id}/facts", "/ledger/panel.css"):
        assert [call(method, path, b"").status for method in ("POST", "PUT", "DELETE")] == [405] * 3
    unknown = "-".join(["0" * 8] * 5)
    assert [call("GET", f"/ledger/{kind}/{unknown}/facts").status for kind in ("studies", "series", "instances")] == [
        404
    ] * 3
    for path in (
        f"/ledger/patients/{id}/facts",
        "/ledger/panel.py",
        "/ledger/../static/panel.js",
        "/ledger/explorer.js",
    ):
        assert call("GET", path).status in (400, 404)


def test_with_the_node_away_the_panel_says_so_and_orthanc_is_as_ever(
    hospital: Hospitals, pages: Pages, sources: list[Path]
) -> None:
    made = hospital({"Serve": False}, {"DicomModalities": MODALITIES}, {"console": {"accounts": "a", "port": 8444}})
    house = House(made.start(), Kept(made.node), scan(sources[0]))
    assert store(house.orthanc, [house.earlier]) == [0]
    page = house.open(pages, "study", house.id_of(house.earlier))
    says(panel(page), "The node's processes do not answer now. Orthanc works as ever")
    is_shown_as(panel(page), "neutral")
    expect(page.locator("#list-series li").first).to_be_visible()
    assert instances(house.orthanc) == 1
    words = [sys.executable, "-m", "dicom_scp", "--config", str(made.node.config), "beside"]
    with subprocess.Popen(words, cwd=ROOT) as process:
        try:
            says(panel(page), "waiting, since")  # for the anchorer, which does not run
            link = panel(page).get_by_role("link", name="Open in the console")
            expect(link).to_have_attribute("href", f"http://127.0.0.1:8444/studies/{house.earlier.study_uid}")
        finally:
            process.terminate()
