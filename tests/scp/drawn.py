"""What hypothesis draws for attacks on the gate: events on the ledger, and what peers put into identifiers."""

from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

from gate_world import DAY_S, FOREIGN, RESEARCH, SIBLING
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from orthanc_ledger.retrieve import LEVELS, UNIQUE_KEYS, Level

from .attacked import Attacked
from .book import FIRST, LATER, SCANS, STUDIES, Scan, unique_keys

LEASE_S = 60
RESEARCHERS = {peer.ae_title: peer for peer in (RESEARCH, SIBLING, FOREIGN)}
Event = Callable[[Attacked], None]
Drawn = TypeVar("Drawn")

TOLD = (
    "StudyDescription",
    "SeriesDescription",
    "ModalitiesInStudy",
    "SOPClassesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
)
SECRET = ("PatientName", "PatientBirthDate", "ImageComments", "NumberOfPatientRelatedInstances")
MATCHED = {
    "PatientName": ["Secret*", "secret^pat-1", "Nobody", "*", "Secret^PAT-2\\Nobody"],
    "PatientBirthDate": ["19010203", "19000101-19991231", "-19000101", "20200101-"],
    "StudyDate": ["19000101-20991231", "20991231-", "-"],
    "StudyDescription": ["Study*", "STUDY 1*", "S?udy 4*", FIRST[0].said, FIRST[2].said],
    "ModalitiesInStudy": ["CT", "MR", "CT\\MR", "*"],
    "SOPClassesInStudy": ["1.2.840.10008.5.1.4.1.1.2"],
    "Modality": ["CT", "M?"],
}


def weighted(*strategies: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    """One of them, as often as it stands here; `one_of` draws a strategy that stands twice no oftener."""
    return st.integers(0, len(strategies) - 1).flatmap(strategies.__getitem__)


# Most of what is drawn is about one peer and one object, so that much of it is approved and meets what happens to it.
researchers = st.sampled_from(["RESEARCH1"] * 3 + ["RESEARCH2", "FOREIGN1"])
scans = st.sampled_from([FIRST[0]] * 6 + [*FIRST, *LATER])
first = st.sampled_from([FIRST[0]] * 4 + [*FIRST])
studies = st.lists(st.sampled_from(sorted(STUDIES)), min_size=2, unique=True)


def revoke(world: Attacked, which: int, role: str) -> None:
    if world.book.approved:
        world.revoke(world.book.approved[which % len(world.book.approved)], role)


def revoke_all(world: Attacked, ae_title: str) -> None:
    for approved in world.book.approved:
        if approved.recipient.ae_title == ae_title:
            world.revoke(approved)


def revoke_node(world: Attacked, ae_title: str, again: bool) -> None:
    world.revoke_peer(RESEARCHERS[ae_title])
    if again:
        world.register_peer(RESEARCHERS[ae_title])


def pass_time(world: Attacked, seconds: int) -> None:
    world.now += seconds


def withdraw(world: Attacked, scan: Scan, whole: bool) -> None:
    world.withdraw(scan.study_uid, *(() if whole else (scan.sop_uid,)))


def reinstate(world: Attacked) -> None:
    for withdrawal in list(world.book.withdrawn):
        world.reinstate(withdrawal)


def flag_or_resolve(world: Attacked, scan: Scan) -> None:
    if scan.sop_uid in world.book.flagged:
        world.resolve(scan.sop_uid)
    else:
        world.flag(scan.sop_uid)


def arrive(world: Attacked, scan: Scan, anchored: bool) -> None:
    if scan.sop_uid not in world.book.contents:
        world.arrive(scan)
    if anchored:
        world.anchor()


def supersede(world: Attacked, scan: Scan, confirmed: bool) -> None:
    world.supersede(scan.sop_uid, confirmed=confirmed)


def event(what: Callable[..., None], **arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Event]:
    return st.builds(partial, st.just(what), **arguments)


def ends(recipients: st.SearchStrategy[str]) -> st.SearchStrategy[Event]:
    """What ends approvals, most of it those of certain recipients."""
    return st.one_of(
        event(revoke, which=st.integers(0, 9), role=st.sampled_from(["owner", "custodian", "research"])),
        event(revoke_all, ae_title=recipients),
        event(revoke_node, ae_title=recipients, again=st.booleans()),
        event(withdraw, scan=first, whole=st.sampled_from([False, False, True])),
    )


events = st.one_of(
    ends(researchers),
    event(pass_time, seconds=st.sampled_from([LEASE_S - 1, LEASE_S, LEASE_S + 1, 3 * LEASE_S, DAY_S])),
    event(reinstate),
    event(flag_or_resolve, scan=first),
    event(arrive, scan=st.just(LATER[0]), anchored=st.just(True)),
    event(arrive, scan=st.sampled_from(LATER), anchored=st.booleans()),
    event(supersede, scan=first, confirmed=st.booleans()),
)


def dressed(values: Collection[str]) -> st.SearchStrategy[str]:
    """Values as an attacker writes them: alone, listed, padded, cut, extended, with wildcards, as ranges, and none."""
    one = st.sampled_from([*sorted(values), "1.2.3", ""])
    tricks = st.sampled_from(["{}", "{} ", " {}", "{}\\1.2.3", "{}*", "*", "{}.1", "0{}", "{}-", "-{}", "{}\0", "%"])
    tricked = st.builds(lambda value, trick: trick.format(value), one, tricks)
    return st.one_of(one, st.lists(tricked | one, min_size=1, max_size=4).map("\\".join))


@st.composite
def identifiers(draw: st.DrawFn) -> Dataset:
    """An identifier of any level about one object: plain, or with any of its keys dressed up or left out."""
    scan, plain = draw(scans), draw(st.integers(0, 9)) < 6
    identifier = plain_identifier(scan, draw(st.sampled_from(LEVELS)))
    if not plain:
        identifier.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 192", "ISO_IR 100", "ISO_IR 144"]))
        for number, keyword in enumerate(UNIQUE_KEYS):
            change = draw(st.sampled_from(["", "", "dress", "leave out"]))
            if change == "dress":
                setattr(identifier, keyword, draw(dressed({unique_keys(each)[number] for each in SCANS.values()})))
            elif change and keyword in identifier:
                delattr(identifier, keyword)
    return identifier


def plain_identifier(scan: Scan, level: Level) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    depth = LEVELS.index(level) + 1
    for keyword, value in list(zip(UNIQUE_KEYS, unique_keys(scan), strict=True))[:depth]:
        setattr(identifier, keyword, value)
    return identifier


@st.composite
def queries(draw: st.DrawFn) -> Dataset:
    """An identifier of C-FIND: as those of retrieves, with keys to match and to be told of added."""
    identifier = draw(identifiers())
    for keyword in draw(st.lists(st.sampled_from(sorted(MATCHED)), max_size=3, unique=True)):
        setattr(identifier, keyword, draw(st.sampled_from(MATCHED[keyword])))
    return asking_for(identifier, *draw(st.lists(st.sampled_from([*TOLD, *SECRET]), unique=True)))


def asking_for(identifier: Dataset, *keywords: str) -> Dataset:
    """The identifier with keys that ask and match everything."""
    for keyword in keywords:
        if keyword not in identifier:
            setattr(identifier, keyword, "")
    return identifier
