"""The reconciler: what Orthanc's hooks missed comes under custody, exactly once; what staff did there is told."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from node_make import drain, open_node
from pacs_make import DAY_S, INSTALLED, OTHER, STUDY, World, make_world, slice_of

from orthanc_ledger import reconcile, tokens
from orthanc_ledger.errors import OrthancAway, SpoolFull
from orthanc_ledger.fetcher import Fetched
from orthanc_ledger.outbox import MISSED
from orthanc_ledger.pacs import Derived, Gone
from orthanc_ledger.reconcile import ORTHANC_AWAY, UNTAKEN
from orthanc_ledger.spool import CONFLICTS, QUARANTINE


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An Orthanc whose plugin has just been started for the first time."""
    made = make_world(tmp_path)
    made.install()
    return made


def held(world: World) -> dict[str, str]:
    """SOP Instance UID → origin of what is under custody, anchored."""
    drain(world.node)
    rows = world.node.index.select()
    assert {row.state for row in rows} <= {"anchored"}
    return {row.sop_uid: row.origin for row in rows}


class TestWhatTheHooksMissed:
    def test_it_is_taken_once_and_anchored(self, world: World) -> None:
        ids = [world.orthanc.store(slice_of(number)) for number in (1, 2, 3)]
        world.hooked(slice_of(4))
        assert world.step()[Fetched.TAKEN] == 3
        assert not world.step(whole=True)
        assert world.orthanc.fetched == dict.fromkeys(ids, 1)
        assert held(world) == {f"{STUDY}.1.{n}": "reconciled" for n in (1, 2, 3)} | {f"{STUDY}.1.4": "addressed-ae"}

    def test_what_came_over_http_keeps_the_origin_that_the_policy_knows(self, world: World) -> None:
        for number, origin in enumerate(("RestApi", "Plugins", "WebDav")):
            world.orthanc.store(slice_of(number), Origin=origin)
        world.step()
        assert set(held(world).values()) == {"rest-user"}

    def test_what_the_spool_has_and_nobody_noted_is_not_fetched(self, world: World) -> None:
        world.orthanc.store(slice_of(1))
        world.keep(slice_of(1))
        assert world.step() == {Fetched.HELD: 1}
        assert not world.orthanc.fetched

    def test_other_content_under_a_known_uid_is_in_the_conflict_queue(self, world: World) -> None:
        world.hooked(slice_of(1))
        world.orthanc.now += 10
        world.orthanc.store(slice_of(1, PatientComments="corrected"))
        world.orthanc.now += 10
        world.install()  # it was not there
        assert world.step() == {Fetched.TAKEN: 1}
        assert len(world.node.spool.names(CONFLICTS)) == 1
        assert not world.step()

    def test_what_its_hook_saw_and_is_still_to_be_noted_is_not_fetched_as_orthanc_made_it(self, world: World) -> None:
        world.hooked(slice_of(1))
        world.orthanc.now += 10
        world.orthanc.store(slice_of(1, PatientComments="as transcoded"))
        assert not world.step()
        assert not world.orthanc.fetched

    def test_a_known_uid_under_another_patient_is_in_the_conflict_queue(self, world: World) -> None:
        world.hooked(slice_of(1))
        world.step()
        world.orthanc.store(slice_of(1, PatientID="another"))
        assert world.step() == {Fetched.TAKEN: 1}
        assert len(world.node.spool.names(CONFLICTS)) == 1
        assert not world.step(whole=True)

    def test_of_what_a_hook_put_there_orthanc_s_file_is_no_second_conflict(self, world: World) -> None:
        world.hooked(slice_of(1))
        world.orthanc.store(slice_of(1, PatientID="another", PatientComments="as transcoded"))
        world.keep(slice_of(1, PatientID="another"))
        assert world.step() == {Fetched.HELD: 1}
        assert len(world.node.spool.names(CONFLICTS)) == 1

    def test_a_hook_that_took_long_has_kept_what_came(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        copy = world.orthanc.copy

        def hook_ends(*asked: Any) -> bool:
            world.keep(slice_of(1))
            return copy(*asked)

        world.orthanc.store(slice_of(1, PatientComments="as transcoded"))
        monkeypatch.setattr(world.orthanc, "copy", hook_ends)
        assert world.step() == {Fetched.HELD: 1}
        assert not world.node.spool.names(CONFLICTS)

    def test_other_content_that_could_not_be_taken_is_taken_later(self, world: World) -> None:
        world.hooked(slice_of(1))
        world.orthanc.now += 10
        id = world.orthanc.store(slice_of(1, PatientComments="corrected"))
        world.orthanc.lost.add(id)
        world.orthanc.now += 10
        world.install()
        assert world.step() == {Fetched.LEFT: 1}
        world.orthanc.lost.clear()
        assert world.step(whole=True) == {Fetched.TAKEN: 1}
        assert len(world.node.spool.names(CONFLICTS)) == 1
        assert not world.node.outbox.standing(UNTAKEN, UNTAKEN)

    def test_what_cannot_be_read_goes_to_quarantine(self, world: World) -> None:
        id = world.orthanc.store(slice_of(1))
        world.orthanc.instances[id] = replace(world.orthanc.instances[id], content=b"no DICOM at all")
        assert world.step()[Fetched.TAKEN] == 1
        drain(world.node)
        assert len(world.node.spool.names(QUARANTINE)) == 1
        assert not world.step(whole=True)

    def test_the_hook_s_alarm_is_taken_back_once_all_is_taken(self, world: World) -> None:
        world.orthanc.store(slice_of(1))
        world.node.outbox.alarm(MISSED, MISSED, "missed")
        world.orthanc.away = True
        with pytest.raises(OrthancAway):
            world.step()
        assert world.node.outbox.standing(MISSED, MISSED)
        world.orthanc.away = False
        world.step()
        assert not world.node.outbox.alarms()

    def test_the_alarm_of_a_hook_that_fails_meanwhile_stands_until_that_is_taken_too(self, world: World) -> None:
        world.node.outbox.alarm(MISSED, MISSED, "missed")

        def another_fails(_: float) -> None:
            world.orthanc.store(slice_of(1))
            world.node.outbox.alarm(MISSED, MISSED, "missed")

        assert not world.reconciler().step(another_fails)
        assert world.node.outbox.standing(MISSED, MISSED)
        assert world.step() == {Fetched.TAKEN: 1}
        assert not world.node.outbox.alarms()

    def test_what_is_on_its_way_to_the_spool_is_waited_for(self, world: World) -> None:
        world.orthanc.store(slice_of(1))
        waited = []

        def hook_ends(seconds: float) -> bool:
            waited.append(seconds)
            world.keep(slice_of(1))
            return False

        assert world.reconciler().step(hook_ends) == {Fetched.HELD: 1}
        assert len(waited) == 1

    def test_a_step_that_is_told_to_end_takes_nothing(self, world: World) -> None:
        world.orthanc.store(slice_of(1))
        assert not world.reconciler().step(lambda _: True)
        assert world.step()[Fetched.TAKEN] == 1


class TestChangesThatDoNotGoOn:
    def test_deleted_changes_are_made_up_for_by_comparing(self, world: World) -> None:
        world.hooked(slice_of(1))
        world.step()
        world.orthanc.now += 3601
        world.orthanc.store(slice_of(2))
        world.orthanc.log.clear()
        world.step()
        assert set(held(world)) == {f"{STUDY}.1.{n}" for n in (1, 2)}

    def test_forgotten_changes_are_not_compared_for_over_and_over(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.hooked(slice_of(1))
        world.step()
        world.orthanc.log.clear()
        world.orthanc.now += 3601
        world.step()
        monkeypatch.delattr(reconcile.Reconciler, "_compare")
        world.orthanc.now += 3601
        world.step()

    def test_a_comparison_counts_once_all_that_it_found_is_taken(self, world: World) -> None:
        world.step(whole=True)
        world.orthanc.store(slice_of(1))
        world.orthanc.log.clear()
        world.pacs.doubt()
        world.orthanc.now += 3601
        with pytest.raises(OrthancAway):
            world.reconciler().step(lambda _: setattr(world.orthanc, "away", True))
        world.orthanc.away = False
        assert world.step() == {Fetched.TAKEN: 1}

    def test_a_new_database_counts_anew(self, world: World) -> None:
        for number in range(5):
            world.hooked(slice_of(number))
        world.step()
        world.orthanc.instances.clear()
        world.orthanc.log.clear()
        world.orthanc.last = 0
        world.orthanc.now += 10
        world.orthanc.store(slice_of(9, OTHER))
        world.step()
        assert f"{OTHER}.1.9" in held(world)

    def test_what_could_not_be_noted_is_made_up_for(self, world: World) -> None:
        id = world.orthanc.store(slice_of(1))
        world.keep(slice_of(1))
        world.orthanc.log.clear()
        world.pacs.doubt()
        world.orthanc.now += 3601
        assert world.step() == {Fetched.HELD: 1}
        assert world.pacs.object(id)


class TestWhatCameBeforeThePlugin:
    def test_it_is_counted_and_left_where_it_is(self, tmp_path: Path) -> None:
        world = make_world(tmp_path)
        world.orthanc.now -= 100
        for number in (1, 2):
            world.orthanc.store(slice_of(number))
        world.orthanc.now = INSTALLED
        world.install()
        world.hooked(slice_of(3))
        world.step(whole=True)
        assert world.pacs.earlier() == world.pacs.earlier(STUDY) == 2
        assert set(held(world)) == {f"{STUDY}.1.3"}

    def test_it_is_known_without_the_changes(self, tmp_path: Path) -> None:
        world = make_world(tmp_path)
        world.orthanc.now -= 100
        world.orthanc.store(slice_of(1))
        world.orthanc.now = INSTALLED
        world.install()
        world.orthanc.store(slice_of(2))
        world.orthanc.last = 0  # a database put back, whose changes are all read again
        world.orthanc.log = [change._replace(sequence=n) for n, change in enumerate(world.orthanc.log, 1)]
        world.orthanc.last = len(world.orthanc.log)
        world.pacs.go_on(100, "NewInstance of another database")
        world.step()
        assert set(held(world)) == {f"{STUDY}.1.2"}
        assert world.pacs.earlier() == 1

    def test_what_a_page_was_shifted_past_is_still_to_be_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make_world(tmp_path)
        world.orthanc.now -= 100
        world.orthanc.store(slice_of(1))
        world.orthanc.now = INSTALLED
        world.install()
        world.step(whole=True)
        monkeypatch.setattr(world.orthanc, "series", lambda *_: [])
        world.step(whole=True)
        assert world.pacs.earlier() == 1

    def test_what_staff_delete_of_it_is_nobody_s_to_decide(self, tmp_path: Path) -> None:
        world = make_world(tmp_path)
        world.orthanc.now -= 100
        ids = [world.orthanc.store(slice_of(number)) for number in (1, 2)]
        world.orthanc.now = INSTALLED
        world.install()
        world.step()
        world.deleted(ids[0])
        world.step()
        assert world.pacs.earlier() == 1
        world.orthanc.delete(ids[1])  # unseen
        world.step(whole=True)
        assert world.pacs.earlier() == 0
        assert not world.studies_gone()


class TestWhatStaffDid:
    def test_a_deleted_study_waits_for_a_person(self, world: World) -> None:
        ids = [world.hooked(slice_of(number)) for number in (1, 2)]
        world.hooked(slice_of(1, OTHER))
        held(world)
        world.orthanc.now += 60
        world.deleted(*ids)
        world.step()
        assert world.pacs.gone() == [Gone(STUDY, 2, INSTALLED + 60, 0)]
        assert world.pacs.decided(STUDY) == 2
        world.step(whole=True)
        assert not world.pacs.gone()
        assert len(held(world)) == 3

    def test_of_a_study_that_lost_some_objects_the_rest_is_told(self, world: World) -> None:
        ids = [world.hooked(slice_of(number)) for number in (1, 2, 3)]
        world.deleted(ids[0])
        world.step()
        assert world.pacs.gone() == [Gone(STUDY, 1, INSTALLED, 2)]

    def test_what_was_deleted_unseen_is_found_by_comparing(self, world: World) -> None:
        ids = [world.hooked(slice_of(number)) for number in (1, 2)]
        world.step()
        world.orthanc.now += DAY_S + 1
        world.orthanc.delete(ids[0])
        world.step()
        assert world.studies_gone() == {STUDY: 1}

    def test_what_came_again_is_not_gone(self, world: World) -> None:
        id = world.hooked(slice_of(1))
        world.deleted(id)
        world.step()
        assert world.studies_gone() == {STUDY: 1}
        world.hooked(slice_of(1))
        world.step()
        assert not world.studies_gone()

    def test_what_is_overwritten_is_a_conflict_and_not_gone(self, world: World) -> None:
        world.hooked(slice_of(1))
        held(world)
        corrected = slice_of(1, PatientComments="corrected")
        id = world.hooked(corrected)  # "OverwriteInstances": Orthanc deletes, then stores
        world.pacs.deleted([id])
        world.step()
        assert not world.studies_gone()
        assert world.pacs.replaced(corrected.SOPInstanceUID) == INSTALLED
        assert len(world.node.spool.names(CONFLICTS)) == 1

    def test_another_patient_s_id_is_no_other_object(self, world: World) -> None:
        """Orthanc's ids are of patient and UIDs: modified under the same UIDs, an object has another id."""
        old, corrected = world.hooked(slice_of(1)), slice_of(1, PatientID="corrected")
        world.hooked(corrected)
        world.deleted(old)
        world.step()
        assert not world.studies_gone()
        assert world.pacs.replaced(corrected.SOPInstanceUID) == INSTALLED
        assert world.pacs.object(old) is None

    def test_what_a_page_was_shifted_past_is_neither_gone_nor_replaced(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.hooked(slice_of(1))
        world.orthanc.now += 1
        monkeypatch.setattr(world.orthanc, "series", lambda *_: [])
        world.step(whole=True)
        assert not world.studies_gone()
        assert world.pacs.replaced(f"{STUDY}.1.1") is None

    def test_a_study_that_orthanc_made_of_another_is_told_with_its_source(self, world: World) -> None:
        source = world.hooked(slice_of(1))
        world.step()
        world.orthanc.store(slice_of(1, OTHER), ModifiedFrom=source)
        world.keep(slice_of(1, OTHER))
        world.deleted(source)  # "KeepSource": false
        world.step()
        assert world.pacs.derived() == [Derived(OTHER, STUDY, "modified", INSTALLED)]
        assert world.studies_gone() == {STUDY: 1}

    def test_a_withdrawn_study_is_decided(self, world: World) -> None:
        world.deleted(world.hooked(slice_of(1)))
        world.step()
        world.withdrawn.add(STUDY)
        world.step(whole=True)
        assert not world.studies_gone()

    def test_what_the_node_gave_up_too_is_forgotten(self, world: World) -> None:
        id = world.orthanc.store(slice_of(1))
        world.pacs.note([(id, STUDY, f"{STUDY}.1.1")])
        world.deleted(id)
        world.step()
        assert not world.studies_gone()
        assert world.pacs.object(id) is None


class TestTrouble:
    def test_an_orthanc_that_stays_away_is_an_alarm_until_it_is_back(self, world: World) -> None:
        stop, now_us = threading.Event(), iter(range(0, 100 * 61_000_000, 61_000_000))
        world.orthanc.away = True
        seen = []

        def clock_us() -> int:
            seen.append({alarm.kind for alarm in world.node.outbox.alarms()})
            world.orthanc.away = len(seen) < 4
            if len(seen) == 4:
                stop.set()
            return next(now_us)

        world.reconciler().run(stop, 0.0, clock_us)
        assert seen == [set(), set(), {ORTHANC_AWAY}, {ORTHANC_AWAY}]
        stop.clear()
        found = world.reconciler()
        found.step = lambda *_, **__: stop.set()  # type: ignore[method-assign]
        found.run(stop, 0.0, clock_us)
        assert not world.node.outbox.alarms()

    def test_with_a_full_spool_it_waits_and_takes_all_later(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, spool_reserve_mb=1 << 40)
        world.install()
        world.orthanc.store(slice_of(1))
        with pytest.raises(SpoolFull):
            world.step()
        world.node = open_node(tmp_path)
        assert world.step()[Fetched.TAKEN] == 1

    def test_what_is_too_large_is_an_alarm_until_it_fits(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, largest_object_mb=0)
        world.install()
        world.orthanc.store(slice_of(1))
        assert world.step() == {Fetched.LEFT: 1}
        assert [alarm.kind for alarm in world.node.outbox.alarms()] == [UNTAKEN]
        [untaken] = world.pacs.untaken()
        assert "largest_object_mb" in untaken.reason
        world.node = open_node(tmp_path)
        assert world.step(whole=True)[Fetched.TAKEN] == 1
        assert not world.node.outbox.alarms()
        assert held(world) == {f"{STUDY}.1.1": "reconciled"}

    def test_what_would_take_the_room_of_the_others_is_left_and_they_are_taken(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.install()
        large, small = slice_of(1), slice_of(2)
        large.add_new(0x00091010, "OB", bytes(4 << 20))
        ids = [world.orthanc.store(each) for each in (large, small)]
        free = (4 << 20) + (world.node.config.spool_reserve_mb << 20)  # for one copy of it, not for two
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free, f_frsize=1))
        assert world.step() == {Fetched.LEFT: 1, Fetched.TAKEN: 1}
        assert world.orthanc.fetched == {ids[1]: 1}
        [untaken] = world.pacs.untaken()
        assert "are wanted" in untaken.reason

    def test_what_orthanc_cannot_read_keeps_nothing_else_from_being_taken(self, world: World) -> None:
        ids = [world.orthanc.store(slice_of(number)) for number in (1, 2)]
        world.orthanc.lost.add(ids[0])
        assert world.step() == {Fetched.LEFT: 1, Fetched.TAKEN: 1}
        assert [alarm.kind for alarm in world.node.outbox.alarms()] == [UNTAKEN]
        world.deleted(ids[0])
        world.step()
        assert not world.node.outbox.alarms()

    def test_an_erased_study_is_not_brought_back(self, world: World) -> None:
        world.node.keyring.mark_erased(STUDY)
        world.orthanc.store(slice_of(1))
        world.step()
        assert not world.orthanc.fetched
        assert not world.node.outbox.alarms()
        assert not world.node.spool.names(QUARANTINE)
        world.step(whole=True)
        assert not world.orthanc.fetched


class Struck:
    """Stands before one part and ends the process at one of its calls, before or after it is done."""

    def __init__(self, part: object, strikes: "Strikes") -> None:
        self._part = part
        self._strikes = strikes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._strikes.around(found) if callable(found) else found


class Strikes:
    """Ends the process at the N-th call, from 0; twice as many, as each may be done or not."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def done_or_not(*args: Any, **options: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number * 2 == self.at:
                raise Killed
            done = call(*args, **options)
            if number * 2 + 1 == self.at:
                raise Killed
            return done

        return done_or_not


class Killed(BaseException):
    """As by SIGKILL: what was not durable is gone with the process."""


def struck(world: World, strikes: Strikes) -> World:
    """The same world, seen by a process that will be struck."""
    spool, outbox = Struck(world.node.spool, strikes), Struck(world.node.outbox, strikes)
    node = SimpleNamespace(spool=spool, outbox=outbox, keyring=world.node.keyring, config=world.node.config)
    orthanc, pacs = Struck(world.orthanc, strikes), Struck(world.pacs, strikes)
    return replace(world, node=cast(Any, node), orthanc=cast(Any, orthanc), pacs=cast(Any, pacs))


def claims(world: World, *sop_uids: str) -> list[str]:
    """Names of units in the inbox."""
    return sorted(tokens.claim_name(world.node.keyring.k_lookup, uid) for uid in sop_uids)


def test_whoever_is_killed_between_any_two_calls_leaves_nothing_out_and_nothing_twice(tmp_path: Path) -> None:
    at, was_struck = 0, True
    while was_struck:
        folder = tmp_path / str(at)
        folder.mkdir()
        world = make_world(folder)
        world.install()
        gone = world.hooked(slice_of(1))
        world.orthanc.store(slice_of(2))
        world.orthanc.store(slice_of(3, OTHER))
        world.deleted(gone)
        try:
            struck(world, Strikes(at)).step(whole=True)
            was_struck = False
        except Killed:
            world.step(whole=True)
        assert sorted(world.node.spool.names()) == claims(world, f"{STUDY}.1.1", f"{STUDY}.1.2", f"{OTHER}.1.3")
        assert not world.node.spool.names(CONFLICTS)
        assert world.studies_gone() == {STUDY: 1}
        assert not world.step(whole=True)
        at += 1
    assert at > 60
