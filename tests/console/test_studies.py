"""Staff find studies and see all that is known of one; what scanners wrote is text, whatever it says."""

import json
import re
import sqlite3
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from gate_world import World, make_world
from node_make import drain, store, variant

from orthanc_ledger.assemble import INDEX
from orthanc_ledger.config import Console
from orthanc_ledger.web.console.search import PAGE
from tests.console.world import Answer, Client, Desk, opened

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '" onmouseover="alert(1)" x="',
    "entity": "&lt;b&gt;&amp;#60;",
    "comment": "--><!-- <style>*{display:none}</style>",
    "override": "Anna\u202egnissiM\u202c\u2066x\u2069",
    "control": "A\x07B\x1b[31mC\x7f\x85",
    "nul": "A\x00B",
    "zero width": "A\u200bB\ufeff",
    "long": "x" * 10_000,
    "lines": "A\r\nSet-Cookie: console=stolen",
}


OURS = (
    " html head meta title link body header nav ul ol li main h1 h2 div p footer a span strong code bdi time dl dt dd "
    "form input button label table caption thead tbody tr th td "
)
"""Elements that these pages are made of."""


class Markup(HTMLParser):
    """Counts what a browser would act on."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.foreign = self.handlers = 0
        self.feed(answer.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.foreign += f" {tag} " not in OURS
        self.handlers += any(name.startswith("on") or name == "style" for name, _ in attrs)


@pytest.fixture(scope="module")
def staff(desk: Desk) -> Client:
    return desk.client("staff")


def found(client: Client, **asked: str) -> Answer:
    answer = client.get("/studies", **asked)
    assert answer.status == 200
    return answer


def test_a_study_is_found_by_what_staff_know_of_it(staff: Client, world: World) -> None:
    [(_, _, attributes)] = world.node.index.studies([world.study_uid])
    name = attributes["PatientName"]
    for asked in (
        {"patient_id": attributes["PatientID"]},
        {"patient_name": name[1:-1].lower()},
        {"study": world.study_uid},
        {"first": "1990-01-01", "last": "2030-01-01"},
        {"patient_id": attributes["PatientID"], "patient_name": name},
    ):
        answer = found(staff, **asked)
        assert f'href="/studies/{world.study_uid}"' in answer.html, asked
        assert "under custody" in answer.text


def test_what_does_not_fit_is_not_shown(staff: Client, world: World) -> None:
    [(_, _, attributes)] = world.node.index.studies([world.study_uid])
    for asked in (
        {"patient_id": "nobody"},
        {"patient_id": attributes["PatientID"], "patient_name": "nobody"},
        {"accession": "none"},
        {"last": "1990-01-01"},
        {"study": "1.2.3"},
        {"patient_id": "a\\" + attributes["PatientID"]},
    ):
        assert "Nothing here fits" in found(staff, **asked).text, asked


def test_without_a_key_nothing_is_listed(staff: Client) -> None:
    assert "/studies/" not in found(staff).html


def test_a_study_tells_its_state_and_where_it_is_on_the_ledger(staff: Client, world: World) -> None:
    answer = staff.get(f"/studies/{world.study_uid}")
    [batch] = world.node.index.batches_of(world.study_uid)
    assert answer.status == 200
    for told in (
        "under custody",
        "3 held; 3 anchored",
        batch.manifest,
        str(batch.position),
        "from MRI1",
        "Timeline",
    ):
        assert told in answer.text, told


def test_a_series_tells_its_objects(staff: Client, world: World) -> None:
    [series, *_] = {each.series_uid for each in world.node.index.select()}
    answer = staff.get(f"/studies/{world.study_uid}/series/{series}")
    assert all(uid in answer.text for uid in world.sop_uids)
    assert staff.get(f"/studies/1.2.3/series/{series}").status == 404
    assert staff.get(f"/studies/{world.study_uid}/series/{series}?from=-1").status == 200


def test_a_study_that_is_not_held_is_said_not_to_be(staff: Client) -> None:
    assert "not under custody" in staff.get("/studies/1.2.3.4").text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, dict[str, str]]]:
    """A console whose node holds a study for each hostile text, in everything that a scanner writes; their UIDs."""
    world = make_world(tmp_path_factory.mktemp("hostile"))
    uids = {}
    for number, name in enumerate(HOSTILE):
        uids[name] = uid = f"1.2.826.0.1.3680043.10.5.{number}"
        ds = variant(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", SOPInstanceUID=f"{uid}.1.1")
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.PatientID, ds.PatientName = f"hostile {number}", f"harmless {number}"
        ds.StudyDescription = ds.SeriesDescription = f"harmless {number}"
        store(world.node, ds, calling_ae="<b>AE</b>")
    drain(world.node)
    keywords = (
        "PatientName",
        "StudyDescription",
        "AccessionNumber",
        "PatientSex",
        "StudyDate",
        "ReferringPhysicianName",
    )
    with sqlite3.connect(world.node.config.data_dir / INDEX) as index:  # what pydicom itself would not write
        for name, uid in uids.items():
            attributes = dict.fromkeys(keywords, HOSTILE[name]) | {"PatientID": f"hostile {list(uids).index(name)}"}
            index.execute("UPDATE studies SET attributes = ? WHERE study_uid = ?", (json.dumps(attributes), uid))
            series = json.dumps(dict.fromkeys(("SeriesDescription", "Modality", "SeriesNumber"), HOSTILE[name]))
            index.execute("UPDATE series SET attributes = ? WHERE study_uid = ?", (series, uid))
    index.close()
    accounts = tmp_path_factory.mktemp("console") / "console.accounts"
    with opened(world.node.config, Console(accounts)) as desk:
        desk.account("staff", "staff")
        yield desk.client("staff"), uids


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_scanner_wrote_is_text(hostile: tuple[Client, dict[str, str]], name: str) -> None:
    client, uids = hostile
    pages = [found(client, patient_id=f"hostile {list(uids).index(name)}"), client.get(f"/studies/{uids[name]}")]
    pages.append(found(client, patient_name=HOSTILE[name][:200]))
    for answer in pages:
        assert answer.status == 200
        markup = Markup(answer)
        assert (markup.foreign, markup.handlers) == (0, 0)
        assert not set(answer.html) & set("\u202e\u202c\u2066\u2069\u200b\ufeff\x00\x07\x1b\x7f\x85\r")
        assert len(answer.html) < 60_000
        assert "stolen" not in answer.headers.get("Set-Cookie", "")
    assert "State" in pages[0].text, "it is found"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A console whose node holds 100,000 studies of 20,000 patients."""
    world = make_world(tmp_path_factory.mktemp("many"))
    fill(world.node.config.data_dir / INDEX, 100_000)
    accounts = tmp_path_factory.mktemp("console") / "console.accounts"
    with opened(world.node.config, Console(accounts)) as desk:
        desk.account("staff", "staff")
        yield desk.client("staff")


def fill(path: Path, count: int) -> None:
    studies, instances = [], []
    for number in range(count):
        uid, patient = f"1.2.826.0.1.3680043.10.6.{number}", f"P{number % 20_000:05d}"
        date = f"20{number % 20:02d}0101"
        attributes = {"PatientID": patient, "PatientName": f"Smith{number % 20_000}^A", "StudyDate": date}
        studies.append(
            (uid, patient, json.dumps({**attributes, "StudyDescription": "MR", "AccessionNumber": f"A{number}"}))
        )
        row = (f"{number:064x}", f"{uid}.1.1", f"{uid}.1", uid, "1.2", "1.2", 1, b"", 1, "addressed-ae", "anchored", "")
        instances.append(row)
    columns = (
        "claim, sop_uid, series_uid, study_uid, sop_class, transfer_syntax, size, sha256, received_us, origin, state"
    )
    with sqlite3.connect(path) as index:
        index.executemany("INSERT INTO studies VALUES (?, NULL, ?, ?)", studies)
        places = ", ".join("?" * 12)
        sql = f"INSERT INTO instances ({columns}, spool_name, sender, attributes) VALUES ({places}, '', '{{}}')"
        index.executemany(sql, instances)
    index.close()


def test_pages_of_a_hundred_thousand_studies_follow_one_another(many: Client) -> None:
    answer, seen = found(many, first="2003-01-01", last="2003-12-31"), set[str]()
    for number in range(1, 4):
        seen |= set(re.findall(r'href="/studies/([0-9.]+)"', answer.html))
        assert len(seen) == number * PAGE, "each page has others"
        after = answer.html.split('">Go on</a>')[0].rpartition('href="')[2].replace("&amp;", "&")
        answer = many.get(after)


def test_of_a_hundred_thousand_studies_a_patients_are_found_by_name_and_id(many: Client) -> None:
    for asked in ({"patient_id": "P00777"}, {"patient_name": "smith777^"}, {"accession": "A60777"}):
        assert 'href="/studies/1.2.826.0.1.3680043.10.6.60777"' in found(many, **asked).html, asked
