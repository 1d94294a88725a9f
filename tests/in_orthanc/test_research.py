"""Research retrieval through Orthanc, with the whole node: nothing leaves but what the node releases, whoever asks."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until

from tests.in_orthanc.house import House, open_house, uid, uids
from tests.in_orthanc.live import VERSIONS
from tests.in_orthanc.moving import WAIT_S

SUCCESS, WARNING, REFUSED, CANCELLED = 0x0000, 0xB000, 0xC000, 0xFE00


@pytest.fixture(scope="module", params=VERSIONS)
def house(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    samples_dir: Path,
) -> Iterator[House]:
    approved = sorted((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))[6:]
    others = sorted((samples_dir / "siemens-skyra").rglob("*.dcm"))
    with open_house(request.param, tmp_path_factory.mktemp("house"), free_port, approved, others) as opened:
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
