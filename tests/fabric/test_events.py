"""Events: the places they come from, and the bookmark of who reads them."""

from pathlib import Path

import pytest

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger.fabric.events import Bookmark, Event, Place
from tests.fabric.world import World

FIRST, SECOND = Place(3, "a" * 64), Place(4, "b" * 64)


def test_events_have_place_name_and_record(world: World) -> None:
    double = world.doubles[0]
    double.events = [(3, "a" * 64, b'{"time":1}'), (4, "b" * 64, b'{"time":2}')]
    events = world.ledger().events()
    assert next(events) == Event(FIRST, "Anchor", {"time": 1})
    assert next(events) == Event(SECOND, "Anchor", {"time": 2})
    events.close()  # type: ignore[attr-defined]  # a generator
    assert double.calls == ["ChaincodeEvents 0"]


def test_who_goes_on_names_the_place_and_who_leaves_leaves_no_stream_behind(world: World) -> None:
    double = world.doubles[0]
    double.events = [(4, "b" * 64, b"null")]
    events = world.ledger().events(FIRST)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert double.streams_ended.acquire(timeout=30)
    assert double.calls == [f"ChaincodeEvents 3 {FIRST.transaction_id}"]


def test_an_event_that_is_not_the_contracts_is_told(world: World) -> None:
    world.doubles[0].events = [(3, "a" * 64, b"no JSON")]
    with pytest.raises(IntegrityError, match="DAG-JSON"):
        next(world.ledger().events())
    assert world.doubles[0].streams_ended.acquire(timeout=30)


def test_a_bookmark_holds_the_place_kept_last(tmp_path: Path) -> None:
    bookmark = Bookmark(tmp_path / "place")
    assert bookmark.place() is None
    for place in (FIRST, SECOND):
        bookmark.keep(place)
        assert Bookmark(tmp_path / "place").place() == place
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@pytest.mark.parametrize("content", [b"", b"3", b"x y", b"3 a b", b"\xff"])
def test_another_file_is_no_bookmark(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "place").write_bytes(content)
    with pytest.raises(IntegrityError, match="place: expected BLOCK TRANSACTION_ID"):
        Bookmark(tmp_path / "place").place()
