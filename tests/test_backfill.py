"""Backfill: what Orthanc held before the plugin, all of it, once, behind everything else."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from node_make import drain
from pacs_make import INSTALLED, OTHER, STUDY, World, make_world, slice_of

from orthanc_ledger import backfill
from orthanc_ledger.backfill import Backfill, GoOn, Progress
from orthanc_ledger.errors import ServiceAway
from orthanc_ledger.spool import INBOX


@dataclass
class Time:
    """A clock that goes on by what is waited, and by a second for each file that Orthanc gives."""

    world: World
    slept_s: float = 0.0
    on_sleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.slept_s + sum(self.world.orthanc.fetched.values())

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.on_sleep()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three objects of a study and two of another came before the plugin, one of the first study behind it."""
    made = make_world(tmp_path)
    made.orthanc.now -= 100
    for number in (1, 2, 3):
        made.orthanc.store(slice_of(number))
        if number < 3:
            made.orthanc.store(slice_of(number, OTHER))
    made.orthanc.now = INSTALLED
    made.install()
    made.hooked(slice_of(4))
    return made


def made(world: World, time: Time | None = None, rests: bool = True) -> Backfill:
    time = time or Time(world)
    parts = world.pacs, world.fetcher(), world.node.spool, world.reconciler().compare
    return Backfill(*parts, world.node.config.data_dir / "backfill.lock", rests, time.sleep, time.monotonic)


def run(world: World, study_uid: str | None = None, go_on: GoOn = lambda _: True) -> Progress:
    return made(world).run(study_uid, go_on)


def origins(world: World) -> dict[str, str]:
    drain(world.node)
    return {row.sop_uid: row.origin for row in world.node.index.select()}


def test_all_is_taken_and_anchored_with_its_own_origin(world: World) -> None:
    done = run(world)
    assert (done.total, done.taken, done.done) == (5, 5, 5)
    found = origins(world)
    assert len(found) == 6
    assert found.pop(f"{STUDY}.1.4") == "addressed-ae"
    assert set(found.values()) == {"backfill"}
    assert len(world.node.ledger.query("Anchors", {})) == 2, "a batch for each study"


def test_it_takes_nothing_a_second_time(world: World) -> None:
    run(world)
    origins(world)
    assert run(world).total == 0
    world.step(whole=True)
    assert run(world).total == 0
    assert set(world.orthanc.fetched.values()) == {1}


def test_one_study_alone(world: World) -> None:
    assert run(world, OTHER).taken == 2
    assert world.pacs.earlier() == 3


def test_interrupted_it_is_gone_on_with(world: World) -> None:
    first = run(world, go_on=lambda progress: progress.done < 2)
    assert first.taken == 2
    second = run(world)
    assert (second.total, second.taken) == (3, 3)
    assert set(world.orthanc.fetched.values()) == {1}
    assert len(origins(world)) == 6


def test_killed_between_spool_and_note_it_takes_nothing_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(world.pacs, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            run(world)
    done = run(world)
    assert (done.taken, done.held) == (4, 1)
    assert len(origins(world)) == 6


def test_its_progress_tells_rate_and_end(world: World) -> None:
    told: list[Progress] = []
    made(world, rests=False).run(None, lambda progress: not told.append(progress))
    assert [progress.done for progress in told] == [1, 2, 3, 4, 5]
    assert [progress.objects_s for progress in told] == [1.0] * 5
    assert [progress.remaining_s for progress in told] == [4.0, 3.0, 2.0, 1.0, 0.0]


def test_it_leaves_orthanc_alone_for_as_long_as_that_worked(world: World) -> None:
    time = Time(world)
    made(world, time).run(None, lambda _: True)
    assert time.slept_s == 5.0


def test_while_orthanc_is_away_it_waits_and_goes_on(world: World) -> None:
    world.reconciler().compare()
    time = Time(world)
    time.on_sleep = lambda: setattr(world.orthanc, "away", False)
    world.orthanc.away = True
    told: list[Progress] = []
    done = made(world, time).run(None, lambda progress: not told.append(progress))
    assert told[0].waits == "Orthanc does not answer"
    assert done.taken == 5
    assert done.waits == ""


def test_it_waits_for_an_anchorer_that_is_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "_BACKLOG", 0)
    told: list[Progress] = []

    def go_on(progress: Progress) -> bool:
        told.append(progress)
        drain(world.node)
        return True

    assert run(world, go_on=go_on).taken == 5
    assert "still to be anchored" in told[0].waits


def test_it_ends_while_it_waits_when_it_is_told_to(world: World) -> None:
    world.reconciler().compare()
    world.orthanc.away = True
    assert run(world, go_on=lambda _: False).done == 0


def test_what_staff_delete_meanwhile_is_not_missed(world: World) -> None:
    world.reconciler().compare()
    id = world.pacs.earlier_ids(OTHER)[0]
    world.orthanc.delete(id)
    done = run(world)
    assert (done.taken, done.gone) == (4, 1)
    assert world.pacs.earlier() == 0
    assert not world.studies_gone()


def test_only_one_at_a_time(world: World) -> None:
    def another(_: Progress) -> bool:
        with pytest.raises(ServiceAway, match="another backfill"):
            run(world)
        return False

    run(world, go_on=another)


def test_a_unit_is_in_the_spool_before_its_object_is_noted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    note, units = world.pacs.note, []

    def noting(seen: list[tuple[str, str, str]]) -> None:
        units.append(len(world.node.spool.names(INBOX)))
        note(seen)

    monkeypatch.setattr(world.pacs, "note", noting)
    run(world)
    assert units == [2, 3, 4, 5, 6]
