"""A pull killed at any call: the next one comes to the same end, and the ledger is told of it once."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import pytest
from gate_world import make_world
from key_world import served
from pull_world import Centre

from orthanc_ledger.ledger import all_rows
from tests.crash import victim
from tests.crash.points import EVERY_CALL, KILL, KILLED, Call, Point, Victim, by_call, points

_STEP, _OF_WRITES = (1, 1) if EVERY_CALL else (2, 3)  # every so many

pytestmark = pytest.mark.timeout(0 if EVERY_CALL else 600)


@pytest.fixture(scope="module")
def centres(tmp_path_factory: pytest.TempPathFactory, strace: str) -> Iterator[Callable[[], tuple[Centre, bytes]]]:
    """Makes a research centre with a request of its own, all of the same hospital."""
    folder, numbers = tmp_path_factory.mktemp("pull"), count()
    with served(make_world(folder / "hospital")) as keys:

        def make() -> tuple[Centre, bytes]:
            centre, request = Centre(keys, folder / str(next(numbers))), keys.request()
            centre.folder.mkdir()
            options = {"config": centre.configure(), "hospital": keys.url, "key": centre.folder / "keys/private.key"}
            words = ["pull", request.hex(), "--study", keys.study.hex(), "--out", str(centre.out)]
            words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
            (centre.folder / victim.WORDS).write_text(json.dumps(words))
            return centre, request

        yield make


@pytest.fixture(scope="module")
def calls(centres: Callable[[], tuple[Centre, bytes]]) -> Sequence[Call]:
    """What a pull calls, from its start to its end."""
    centre, request = centres()
    watched = Victim("pull", centre.folder, watched=True)
    assert watched.wait() == 0, watched.log
    check(centre, request, Point(0, "none", 0, KILL))
    return watched.calls()


def check(centre: Centre, request: bytes, point: Point) -> int:
    """All is there, once, and told; the number of releases that it took."""
    (held,) = [row for row in centre.holdings.all() if row.outcome == "complete"]
    assert held.told, point
    assert {path.parent for path in centre.files} == {held.folder}, point
    assert len(centre.files) == 3, point
    assert list(centre.out.rglob(".*")) == [], point
    releases = [row["release"] for row in released(centre, request)]
    told = [row for row in centre.told("LogRetrieval") if row["release"] in releases]
    assert told == [{"release": held.release, "outcome": "complete"}], point
    return len(releases)


def released(centre: Centre, request: bytes) -> list[Mapping[str, Any]]:
    """Results of the releases under a request."""
    events = all_rows(centre.keys.world.ledger("owner"), "Audit", {"study": centre.keys.study})
    calls = [event for event in events if event["function"] == "LogRelease"]
    return [event["result"] for event in calls if event["args"]["request"] == request]


def test_killed_at_any_call(
    calls: Sequence[Call], centres: Callable[[], tuple[Centre, bytes]], figure: Callable[[str], None]
) -> None:
    own = [call for call in calls if not call.thread]  # the other thread only waits to end a call that takes too long
    writes = [call for call in own if call.name == "pwrite64"][::_OF_WRITES]
    struck = points([call for call in own if call.name != "pwrite64"], KILL, _STEP)
    struck += [Point(0, call.name, call.number, KILL) for call in writes]
    took = set()
    for point in struck:
        centre, request = centres()
        assert Victim("pull", centre.folder, point).wait() == KILLED, point
        again = Victim("pull", centre.folder)
        assert again.wait() == 0, f"{point}: {again.log}"
        took.add(check(centre, request, point))
    assert took == {1, 2}, "killed before its key file was kept, and after"
    figure(f"pull killed at {by_call(struck)}")
