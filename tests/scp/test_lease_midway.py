"""A retrieve over sockets that loses its approval half way: nothing starts to leave once the lease has ended."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gate_world import RESEARCH, VIEWER
from node_make import drain
from pydicom.dataset import Dataset
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as StudyGet
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as StudyMove

from orthanc_ledger import tokens

from .attacked import Attacked, attacked
from .book import Approved, Scan
from .client import study_level
from .exits import Answered, Exits

LONG = [Scan(9, 1, number, "PAT-9") for number in range(1, 9)]
STUDY, UIDS = LONG[0].study_uid, [scan.sop_uid for scan in LONG]
LEASE_S = 60
TITLE = RESEARCH.ae_title

Retrieve = Callable[[Exits, Dataset], Answered]
RETRIEVES: dict[str, Retrieve] = {
    "C-GET": lambda exits, study: exits.get(TITLE, StudyGet, study),
    "C-MOVE to itself": lambda exits, study: exits.move(TITLE, TITLE, StudyMove, study),
    "C-MOVE by a clinical AE": lambda exits, study: exits.move(VIEWER.ae_title, TITLE, StudyMove, study),
}


def revoke(world: Attacked) -> None:
    world.revoke(approval(world))


def expire(world: Attacked) -> None:
    """Time alone does it: see `lease_end`."""


def revoke_node(world: Attacked) -> None:
    world.revoke_peer(RESEARCH)


def withdraw(world: Attacked) -> None:
    world.withdraw(STUDY)


def request_erasure(world: Attacked) -> None:
    world.ledger("owner").submit("RequestErase", {"study": world.node.keyring.ensure_study(STUDY).token})


def take_ledger_away(world: Attacked) -> None:
    path = Path(world.node.config.ledger.partition(":")[2])
    path.rename(path.with_suffix(".away"))


def bring_ledger_back(world: Attacked) -> None:
    path = Path(world.node.config.ledger.partition(":")[2])
    if not path.exists():
        path.with_suffix(".away").rename(path)


ENDINGS = {
    revoke: "no approval",
    expire: "approval expired",
    revoke_node: "no approval",
    withdraw: "withdrawn",
    request_erasure: "withdrawn",
    take_ledger_away: "ledger unavailable",
}


@pytest.fixture(scope="module")
def exits() -> Iterator[Exits]:
    with ExitStack() as stack:
        yield Exits(stack)


@pytest.fixture
def world(exits: Exits) -> Iterator[Attacked]:
    """The long study is approved for RESEARCH1 for a day."""
    with attacked() as world:
        for scan in LONG:
            world.arrive(scan)
        world.anchor()
        world.approve_for(RESEARCH, [STUDY], days=1)
        exits.world, exits.on_object = world, lambda number: None
        yield world


def approval(world: Attacked) -> Approved:
    (only,) = world.book.approved
    return only


def lease_end(world: Attacked, ending: Callable[[Attacked], None]) -> int:
    """When the lease of a retrieve that begins now will end; with the approval, where that is what ends it."""
    if ending is expire:
        world.now = approval(world).until - LEASE_S + 1
    return min(world.now + LEASE_S, approval(world).until)


@contextmanager
def after(exits: Exits, moments: dict[int, Callable[[], None]]) -> Iterator[None]:
    """Do something while the recipient has so many objects and has not answered the last of them."""
    exits.on_object = lambda number: moments.get(number, lambda: None)()
    yield
    exits.on_object = lambda number: None


def at(world: Attacked, now: int) -> Callable[[], None]:
    return lambda: setattr(world, "now", now)


def counts(response: Dataset) -> list[int | None]:
    names = ("Remaining", "Completed", "Warning", "Failed")
    return [response.get(f"NumberOf{name}Suboperations") for name in names]


def logged(world: Attacked) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Releases on the ledger with their outcomes, in their order."""
    drain(world.node)
    return world.logged()


def bitmap_digest(world: Attacked, released: list[str], left: set[str]) -> bytes:
    study = world.node.keyring.ensure_study(STUDY)
    order = sorted(released, key=lambda uid: tokens.instance_token(study.k_study, uid))
    bits = "".join("1" if uid in left else "0" for uid in order).ljust(8, "0")
    return hashlib.sha256(bytes([int(bits, 2)])).digest()


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
@pytest.mark.parametrize("retrieve", RETRIEVES.values(), ids=RETRIEVES.keys())
def test_what_is_under_the_lease_goes_and_the_rest_fails_with_its_uids(
    world: Attacked, exits: Exits, retrieve: Retrieve, ending: Callable[[Attacked], None]
) -> None:
    end = lease_end(world, ending)
    moments = {3: lambda: ending(world), 4: at(world, end - 1), 6: at(world, end)}
    with after(exits, moments):
        answered = retrieve(exits, study_level(STUDY))
    bring_ledger_back(world)
    left = {came.sop_uid for came in answered.came}
    assert (answered.status, answered.comment) == (0xB000, ENDINGS[ending])
    assert (len(left), {came.title for came in answered.came}) == (6, {TITLE})
    assert left | set(answered.failed) == set(UIDS)
    assert counts(answered.responses[-1]) == [None, 6, 0, 2]
    ((release, outcome),) = logged(world)
    assert (release["count"], release["leaseEnd"]) == (8, end)
    assert (outcome["sent"], outcome["withheld"]) == (6, 2)
    assert outcome["bitmapDigest"] == bitmap_digest(world, UIDS, left)


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
@pytest.mark.parametrize("retrieve", RETRIEVES.values(), ids=RETRIEVES.keys())
def test_lease_that_ends_while_the_first_object_is_verified_lets_none_go(
    world: Attacked,
    exits: Exits,
    retrieve: Retrieve,
    ending: Callable[[Attacked], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end, opening = lease_end(world, ending), world.node.library.open
    done: list[None] = []

    def slow(instance: Any) -> Any:
        if not done:
            done.append(ending(world))
            world.now = end
        return opening(instance)

    monkeypatch.setattr(world.node.library, "open", slow)
    answered = retrieve(exits, study_level(STUDY))
    bring_ledger_back(world)
    assert (answered.status, answered.comment) == (0xA702, ENDINGS[ending])
    assert (answered.came, sorted(answered.failed)) == ([], sorted(UIDS))
    assert counts(answered.responses[-1]) == [None, 0, 0, 8]
    ((_, outcome),) = logged(world)
    assert (outcome["sent"], outcome["withheld"]) == (0, 8)


@pytest.mark.parametrize("retrieve", RETRIEVES.values(), ids=RETRIEVES.keys())
def test_lease_that_ends_is_renewed_while_the_approval_stands(
    world: Attacked, exits: Exits, retrieve: Retrieve
) -> None:
    begun_s = world.now
    with after(exits, {3: at(world, begun_s + LEASE_S), 6: at(world, begun_s + 3 * LEASE_S)}):
        answered = retrieve(exits, study_level(STUDY))
    assert (answered.status, answered.comment, answered.failed) == (0x0000, None, [])
    assert sorted(came.sop_uid for came in answered.came) == sorted(UIDS)
    rows = logged(world)
    assert [(release["count"], outcome["sent"], outcome["withheld"]) for release, outcome in rows] == [
        (8, 3, 5),
        (5, 3, 2),
        (2, 2, 0),
    ]
    ended = [release["leaseEnd"] - begun_s for release, _ in rows]
    assert ended == [LEASE_S, 2 * LEASE_S, 4 * LEASE_S]


def test_one_instance_withdrawn_half_way_stays_and_the_rest_goes(world: Attacked, exits: Exits) -> None:
    begun_s, taken = world.now, []

    def withdraw_one() -> None:
        here = {came.sop_uid for came in exits.came}
        taken.append(next(uid for uid in UIDS if uid not in here))
        world.withdraw(STUDY, *taken)
        world.now = begun_s + LEASE_S

    with after(exits, {3: withdraw_one}):
        answered = exits.move(VIEWER.ae_title, TITLE, StudyMove, study_level(STUDY))
    assert (answered.status, answered.comment, answered.failed) == (0xB000, "withdrawn", taken)
    assert {came.sop_uid for came in answered.came} == set(UIDS) - set(taken)


@pytest.mark.parametrize("ending", [revoke, revoke_node, withdraw, request_erasure, take_ledger_away])
def test_clinical_destination_is_served_on_whatever_research_loses(
    world: Attacked, exits: Exits, ending: Callable[[Attacked], None]
) -> None:

    def lose() -> None:
        ending(world)
        world.now += LEASE_S

    with after(exits, {2: lose}):
        answered = exits.move(VIEWER.ae_title, VIEWER.ae_title, StudyMove, study_level(STUDY))
    assert (answered.status, len(answered.came)) == (0x0000, 8)


def test_clinical_asker_sends_to_research_only_what_the_destination_is_approved_for(
    world: Attacked, exits: Exits
) -> None:
    for destination in ("RESEARCH2", "FOREIGN1"):
        answered = exits.move(VIEWER.ae_title, destination, StudyMove, study_level(STUDY))
        assert (answered.status, answered.comment, answered.came) == (0x0124, "no approval", [])
    assert len(exits.move(VIEWER.ae_title, TITLE, StudyMove, study_level(STUDY)).came) == 8
