"""Research retrieval through Orthanc, with the whole node: nothing leaves but what the node releases, whoever asks."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from orthanc_ledger.assemble import BESIDE
from tests.in_orthanc.conftest import Site
from tests.in_orthanc.house import House, open_house, uid, uids
from tests.in_orthanc.kept import store_files
from tests.in_orthanc.live import Answer
from tests.in_orthanc.moving import WAIT_S, move
from tests.test_outage import away

SUCCESS, WARNING, REFUSED, CANCELLED = 0x0000, 0xB000, 0xC000, 0xFE00


@pytest.fixture(scope="module")
def house(site: Site, samples_dir: Path) -> Iterator[House]:
    approved = sorted((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))[6:]
    others = sorted((samples_dir / "siemens-skyra").rglob("*.dcm"))
    with open_house(*site, approved, others) as opened:
        yield opened


def counts(house: House) -> bool:
    """Whether this Orthanc lets the plugin count and refuse."""
    return house.hospital.orthanc.version != "1.10.1"


def assert_refused(house: House, responses: list[tuple[int, ...]]) -> None:
    """As far as the version can say it: 0xC000, or 0xB000 in 4.0; and nothing has left for anywhere."""
    assert responses[-1][0] == (REFUSED if counts(house) else WARNING)
    assert house.left == set()
    assert not any(each.callers for each in (house.ward, *house.research.values()))


@pytest.mark.parametrize(("caller", "named"), [("RESEARCH1", "RESEARCH1"), ("WARD", "research1")])
def test_what_is_approved_is_released_and_sent_by_the_node(house: House, caller: str, named: str) -> None:
    before = len(house.rows("LogRelease"))
    responses = house.move(caller, named, uid(house.approved[0]))
    lab, count = house.research["RESEARCH1"], len(house.approved)
    assert responses[-1][0] == SUCCESS
    if counts(house):
        assert responses[-1] == (SUCCESS, None, count, 0, 0)
        assert [row[:3] for row in responses[:-1]] == [(0xFF00, count - n, n) for n in range(1, count)]
    assert set(lab.arrived) == house.left == uids(house.approved)
    assert lab.callers == ["NODE"]
    assert lab.originators == [(caller, 7)] * count
    assert len(house.rows("LogRelease")) == before + 1
    wait_until(lambda: len(house.rows("LogOutcome")) == before + 1, WAIT_S, "the outcome is on the ledger")
    outcome = house.rows("LogOutcome")[-1]["args"]
    assert (outcome["sent"], outcome["withheld"]) == (count, 0)


def test_what_is_not_approved_is_refused_and_counted(house: House) -> None:
    before, releases = house.denials(), len(house.rows("LogRelease"))
    for caller in ("RESEARCH1", "research1", "WARD"):
        assert_refused(house, house.move(caller, "RESEARCH1", uid(house.others[0])))
    wait_until(lambda: house.denials() == before + 3, WAIT_S, "all three refusals are on the ledger")
    assert len(house.rows("LogRelease")) == releases


@pytest.mark.parametrize("named", ["RESEARCH2", "FOREIGN1", "WARD", "WS", "NOBODY"])
def test_research_moves_to_nobody_but_itself(house: House, named: str) -> None:
    assert_refused(house, house.move("RESEARCH1", named, uid(house.approved[0])))


@pytest.mark.parametrize("caller", ["STRANGER", "LOOKER"])
@pytest.mark.parametrize("named", ["RESEARCH1", "WARD"])
def test_who_is_in_no_list_or_may_not_move_is_refused(house: House, caller: str, named: str) -> None:
    assert_refused(house, house.move(caller, named, uid(house.approved[0])))


def test_clinical_moves_go_on_beside_it(house: House) -> None:
    assert house.move("WARD", "WARD", uid(house.others[0]))[-1][0] == SUCCESS
    assert set(house.ward.arrived) == house.left == uids(house.others)
    assert house.ward.callers == ["PACS"]


def test_a_cancelled_move_ends_the_nodes_sending(house: House) -> None:
    if not counts(house):
        assert house.move("RESEARCH1", "RESEARCH1", uid(house.approved[0]))[-1][0] == SUCCESS  # it has no answer before
        return
    cancelled, over, lab = threading.Event(), threading.Event(), house.research["RESEARCH1"]

    def hold(number: int) -> None:
        if number == 1:
            assert cancelled.wait(WAIT_S)
        if number == 5:
            over.wait(WAIT_S)

    responses = house.move("RESEARCH1", "RESEARCH1", uid(house.approved[0]), hold, cancelled=cancelled)
    over.set()
    assert responses[-1][0] == CANCELLED
    assert len(lab.arrived) < len(house.approved)


def test_research_that_takes_its_time_keeps_no_modality_waiting(house: House) -> None:
    go_on, lab, orthanc = threading.Event(), house.research["RESEARCH1"], house.hospital.orthanc
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uid(house.approved[0])}
    house.fresh()
    lab.each = lambda number: go_on.wait(WAIT_S)
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(move, orthanc, "RESEARCH1", "RESEARCH1", keys) for _ in range(3)]
        try:
            wait_until(lambda: len(lab.originators) == 2, WAIT_S, "two wait for it")
            wait_until(lambda: sum(each.done() for each in slow) == 1, WAIT_S, "the third is refused")
            store_files(orthanc, house.others[:1])
        finally:
            go_on.set()
        ends = sorted(each.result()[-1][0] for each in slow)
    assert ends == [SUCCESS, SUCCESS, REFUSED if counts(house) else WARNING]
    assert house.move("RESEARCH1", "RESEARCH1", uid(house.approved[0]))[-1][0] == SUCCESS


def sent(house: House, asked: Any, title: str = "RESEARCH1") -> Answer:
    """What staff are answered who send something from Orthanc to research, with nothing arrived before."""
    house.fresh()
    return house.hospital.orthanc.call("POST", f"/modalities/{title}/store", asked)


def ids(house: House, kind: str, *paths: Path) -> list[str]:
    """Orthanc's ids of what files belong to."""
    keyword = {
        "Patient": "PatientID",
        "Study": "StudyInstanceUID",
        "Series": "SeriesInstanceUID",
        "Instance": "SOPInstanceUID",
    }
    values = dict.fromkeys(uid(path, keyword[kind]) for path in paths)
    rows = [house.hospital.orthanc.call("POST", "/tools/lookup", value).json() for value in values]
    return [row["ID"] for found in rows for row in found if row["Type"] == kind]


@pytest.mark.parametrize("kind", ["Study", "Series", "Instance"])
def test_staff_send_what_is_approved_through_the_node(house: House, kind: str) -> None:
    named = ids(house, kind, *house.approved)
    answer = sent(house, {"Resources": named, "Synchronous": False})
    assert answer.status == 200
    count = len(house.approved)
    assert [answer.json()[f"{kind}InstancesCount"] for kind in ("", "Failed")] == [count, 0]
    assert (answer.json()["RemoteAet"], answer.json()["ParentResources"]) == ("RESEARCH1", named)
    lab = house.research["RESEARCH1"]
    assert set(lab.arrived) == house.left == uids(house.approved)
    assert set(lab.originators) == {(None, None)}
    assert set(lab.callers) == {"NODE"}


def test_what_staff_send_goes_to_research_as_far_as_it_is_approved(house: House) -> None:
    (patient,) = ids(house, "Patient", house.approved[0])
    answer = sent(house, patient)
    total = len(house.approved) + len(house.others)
    assert answer.status == 500
    assert f"{len(house.approved)} of {total} objects were sent" in answer.json()["Message"]
    answer = sent(house, {"Resources": [patient], "Permissive": True})
    assert (answer.status, answer.json()["FailedInstancesCount"]) == (200, len(house.others))
    assert house.left == uids(house.approved)


@pytest.mark.parametrize("kind", ["Study", "Series", "Instance"])
def test_what_is_not_approved_staff_cannot_send(house: House, kind: str) -> None:
    before = house.denials()
    named = ids(house, kind, *house.others)
    for asked in (named[0], {"Resources": named, "Permissive": True}):
        answer = sent(house, asked)
        assert (answer.status, "no approval" in answer.json()["Message"]) == (403, True)
    for title in ("RESEARCH2", "FOREIGN1"):
        assert sent(house, ids(house, "Study", house.approved[0])[0], title).status == 403
    assert house.left == set()
    assert not any(each.callers for each in house.research.values())
    wait_until(lambda: house.denials() == before + 4, WAIT_S, "each refusal is on the ledger")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("", 400),
        ("nonsense", 400),
        ({"Resources": [7]}, 400),
        ({}, 400),
        ("00000000-00000000-00000000-00000000-00000000", 404),
    ],
)
def test_what_staff_cannot_mean_is_told_as_orthanc_does(house: House, asked: Any, status: int) -> None:
    assert sent(house, asked).status == status


def test_a_changed_object_is_withheld_from_whoever_asks(house: House) -> None:
    node = house.hospital.node
    node.request_and_approve(uid(house.others[0]))
    stored = sorted((node.config.parent / "data" / "objects").rglob("*"), key=lambda path: path.stat().st_size)[-1]
    raw = bytearray(stored.read_bytes())
    raw[len(raw) // 2] ^= 1
    stored.chmod(0o600)
    stored.write_bytes(raw)
    assert house.move("RESEARCH1", "RESEARCH1", uid(house.others[0]))[-1][0] == WARNING
    assert len(house.left) == len(house.others) - 1
    answer = sent(house, ids(house, "Study", house.others[0])[0])
    assert (answer.status, "withheld: integrity" in answer.json()["Message"]) == (500, True)
    assert len(house.left) == len(house.others) - 1


def test_ledger_away_sends_nothing(house: House) -> None:
    with away(house.hospital.node.config.parent / "data" / "ledger.db"):
        assert_refused(house, house.move("RESEARCH1", "RESEARCH1", uid(house.approved[0])))
        assert house.move("WARD", "WARD", uid(house.others[0]))[-1][0] == SUCCESS


def test_without_the_nodes_processes_nothing_is_sent(house: House) -> None:
    (house.hospital.node.config.parent / "data" / BESIDE).unlink()  # the last test: nobody is heard any more
    assert_refused(house, house.move("RESEARCH1", "RESEARCH1", uid(house.approved[0])))
    assert sent(house, ids(house, "Study", house.approved[0])[0]).status == 503
    assert house.left == set()
    assert house.move("WARD", "WARD", uid(house.others[0]))[-1][0] == SUCCESS
