"""The plugin's notes of what Orthanc stores and deletes: none is lost or written in another order, no hook waits."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import wait_until

from orthanc_ledger.pacs import Pacs
from orthanc_ledger.plugin import notes as plugin_notes
from orthanc_ledger.plugin.notes import Notes

NOW, WAIT_S = 1_800_000_000, 20.0
STUDY = "1.2.3"


@pytest.fixture
def pacs(tmp_path: Path) -> Pacs:
    return Pacs(tmp_path / "pacs.db", lambda: NOW)


@contextmanager
def running(notes: Notes) -> Iterator[Notes]:
    notes.start()
    try:
        yield notes
    finally:
        notes.stop()


def faulty(pacs: Pacs, faults: int) -> Callable[[], Pacs]:
    """The database, which cannot be written so many times."""
    left = [faults]

    def found() -> Pacs:
        left[0] -= 1
        if left[0] >= 0:
            raise sqlite3.OperationalError("disk full")
        return pacs

    return found


def test_what_is_stored_and_deleted_is_noted_in_its_order(pacs: Pacs) -> None:
    with running(Notes(lambda: pacs, lambda: None)) as notes:
        for number in range(2500):
            notes.stored(f"id {number}", STUDY, f"{STUDY}.{number}")
        notes.deleted("id 7")
        notes.stored("id 8", STUDY, f"{STUDY}.8")
        notes.deleted("never stored")
    assert pacs.held(STUDY) == 2500
    assert [each.id for each in pacs.to_look_after(NOW)] == ["id 7"]


def test_the_plugin_s_start_is_kept_and_its_first_stays(pacs: Pacs) -> None:
    for sequence in (41, 99):
        with running(Notes(lambda: pacs, lambda: None)) as notes:
            notes.began(sequence, f"NewInstance {sequence}")
    place = pacs.place()
    assert (place.installed, place.sequence, place.change) == (NOW, 41, "NewInstance 41")


def test_what_cannot_be_written_now_is_written_later(pacs: Pacs) -> None:
    with running(Notes(faulty(pacs, 2), lambda: None, retry_s=0.0)) as notes:
        notes.stored("first", STUDY, f"{STUDY}.1")
        wait_until(lambda: pacs.object("first"), WAIT_S, "it is noted")
        notes.deleted("first")
    assert [each.id for each in pacs.to_look_after(NOW)] == ["first"]


def test_an_alarm_that_cannot_be_raised_now_is_raised_later(pacs: Pacs) -> None:
    faults, told = iter([sqlite3.OperationalError("disk full")]), []

    def tell() -> None:
        for fault in faults:
            raise fault
        told.append("missed")

    with running(Notes(lambda: pacs, tell, retry_s=0.0)) as notes:
        notes.missed()
        wait_until(lambda: told, WAIT_S, "it is raised")
    assert told == ["missed"]


def test_what_failed_is_written_before_what_came_behind_it(pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    note, faults = pacs.note, iter([sqlite3.OperationalError("disk full")])

    def failing(seen: Iterable[tuple[str, str, str]]) -> None:
        for fault in faults:
            raise fault
        note(seen)

    monkeypatch.setattr(pacs, "note", failing)
    monkeypatch.setattr(plugin_notes, "_AT_ONCE", 1)
    notes = Notes(lambda: pacs, lambda: None, retry_s=0.0)
    notes.stored("first", STUDY, f"{STUDY}.1")
    notes.deleted("first")
    with running(notes):
        wait_until(lambda: pacs.to_look_after(NOW), WAIT_S, "all is noted")
    assert [each.id for each in pacs.to_look_after(NOW)] == ["first"]


def test_what_is_too_much_to_remember_has_all_be_compared(pacs: Pacs) -> None:
    notes = Notes(lambda: pacs, lambda: None, most=2)
    for number in range(3):
        notes.stored(f"id {number}", STUDY, f"{STUDY}.{number}")
    with running(notes):
        pass
    assert pacs.held(STUDY) == 2
    assert pacs.place().doubted
