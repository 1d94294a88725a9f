"""Datasets: chosen by query, registered without telling a study, opened by approvals of exactly the registered list."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_line import Command, runner
from gate_world import FOREIGN, MR, RESEARCH, SIBLING, VIEWER, World, exits, make_world
from live_node import LiveNode, dcmtk_environment, encoded, make_live_node
from node_make import drain, make_node, open_node, store, variant
from pydicom import dcmread

from orthanc_ledger import cli, merkle
from orthanc_ledger.assemble import DATASETS, Node
from orthanc_ledger.datasets import Datasets, StudyList, encode_descriptor, read_descriptor
from orthanc_ledger.errors import ConfigError, IntegrityError, LedgerAway, NotHeld
from orthanc_ledger.find import Catalogue
from orthanc_ledger.gate import Refused
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.reasons import Reason
from orthanc_ledger.retrieve import Query
from orthanc_ledger.selection import Counts, Criteria, DateRange, select
from orthanc_ledger.setup_node import CONFIG_NAME

ROOT = "1.2.826.0.1.3680043.10.5"
CT = "1.2.840.10008.5.1.4.1.1.2"


# Choosing


def put(node: Node, study: int, number: int = 1, origin: str = "addressed-ae", **attributes: Any) -> None:
    """Store an object of series `number` of a study."""
    uids = {
        "StudyInstanceUID": f"{ROOT}.{study}",
        "SeriesInstanceUID": f"{ROOT}.{study}.{number}",
        "SOPInstanceUID": f"{ROOT}.{study}.{number}.1",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the odd values that are meant
        store(node, variant(**uids, **attributes), origin=origin)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Four anchored studies, one that still waits, as a second object of the fourth does, one from a REST client."""
    node = make_node(tmp_path_factory.mktemp("archive"))
    put(node, 1, Modality="MR", BodyPartExamined="HEAD", StudyDate="20260101", StudyDescription="T1 weighted")
    put(node, 1, 2, Modality="CT", BodyPartExamined="HEAD", StudyDate="20260101", StudyDescription="T1 weighted")
    put(node, 2, Modality="MR", BodyPartExamined="KNEE", StudyDate="20261231", StudyDescription="T2 weighted [2]")
    put(node, 3, Modality="MR", BodyPartExamined="HEAD", StudyDate="20270101", StudyDescription="T1")
    put(node, 4, Modality="DOE^JANE", BodyPartExamined="", StudyDate="1997.04.24", StudyDescription="")
    put(node, 6, Modality="MR", origin="rest-user")
    drain(node)
    put(node, 5, Modality="MR", BodyPartExamined="HEAD", StudyDate="20260101")
    put(node, 4, 2, Modality="MR")
    node.anchorer().take_in()
    return node


def chosen(node: Node, **criteria: tuple[Any, ...]) -> set[int]:
    """Numbers of the studies that criteria choose."""
    studies, counts = select(node.index, Criteria(**criteria), {"rest-user"})
    assert counts.studies == len(studies)
    uids = [node.index.study_of_token(token) for token in studies]
    return {int(str(uid).rpartition(".")[2]) for uid in uids}


def test_without_criteria_all_that_is_anchored_and_may_leave_is_chosen(archive: Node) -> None:
    assert chosen(archive) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("criteria", "studies"),
    [
        ({"modalities": ("MR",)}, {1, 2, 3}),
        ({"modalities": ("CT", "MR")}, {1, 2, 3}),
        ({"modalities": ("CT",)}, {1}),
        ({"modalities": ("MR",), "body_parts": ("HEAD",)}, {1, 3}),
        ({"modalities": ("CT",), "body_parts": ("KNEE",)}, set()),
        ({"sop_classes": (MR,)}, {1, 2, 3, 4}),
        ({"sop_classes": (CT,)}, set()),
        ({"studies": (f"{ROOT}.2", f"{ROOT}.3")}, {2, 3}),
        ({"studies": (f"{ROOT}.2", f"{ROOT}.3"), "body_parts": ("HEAD",)}, {3}),
        ({"descriptions": ("T1*",)}, {1, 3}),
        ({"descriptions": ("T? weighted*",)}, {1, 2}),
        ({"descriptions": ("T1", "T2*[2]")}, {2, 3}),
        ({"descriptions": ("t1",)}, set()),
    ],
)
def test_values_of_a_key_are_alternatives_and_several_keys_must_all_fit(
    archive: Node, criteria: dict[str, tuple[str, ...]], studies: set[int]
) -> None:
    assert chosen(archive, **criteria) == studies


@pytest.mark.parametrize(
    ("text", "studies"),
    [
        ("20260101", {1}),
        ("20260101-20261231", {1, 2}),
        ("20260102-20261230", set()),
        ("20260102-", {2, 3}),
        ("-20261231", {1, 2, 4}),  # 1997.04.24 is ACR-NEMA's way to write a date
    ],
)
def test_dates_match_as_ranges_with_both_ends(archive: Node, text: str, studies: set[int]) -> None:
    assert chosen(archive, study_dates=(DateRange.parse(text),)) == studies


@pytest.mark.parametrize("text", ["", "-", "2026", "2026-2027", "20260101-20260102-20260103", "2026010a", "2026*"])
def test_what_is_no_date_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected YYYYMMDD"):
        DateRange.parse(text)


def test_a_study_that_is_not_held_is_named(archive: Node) -> None:
    with pytest.raises(NotHeld, match=f"not held here: {ROOT}.9;"):
        select(archive.index, Criteria(studies=(f"{ROOT}.1", f"{ROOT}.9")), ())


def test_whole_studies_are_counted_and_nobody_is_named(archive: Node) -> None:
    _, counts = select(archive.index, Criteria(modalities=("CT", "DOE^JANE")), {"rest-user"})
    assert counts == Counts(2, 3, 2, {"MR": 1, "CT": 1, "OT": 1}, {MR: 3})


def test_what_is_told_of_the_criteria_are_codes(archive: Node) -> None:
    criteria = Criteria(("MR", "CT"), ("HEAD",), (), (DateRange.parse("20260101"),), ("Jane*",), (f"{ROOT}.1",))
    assert criteria.told() == {"modality": ["CT", "MR"], "body_part": ["HEAD"]}


# The list


TOKENS = [bytes([number]) * 16 for number in (7, 1, 3, 9, 5)]


def test_the_root_is_over_the_sorted_tokens_and_every_study_has_its_proof() -> None:
    studies = StudyList.of([*TOKENS, TOKENS[0]])
    assert (list(studies), studies.root) == (sorted(TOKENS), merkle.root(sorted(TOKENS)))
    for token in TOKENS:
        proof = studies.proof(token)
        merkle.verify_inclusion(merkle.leaf_hash(token), proof["index"], len(studies), proof["path"], studies.root)


@pytest.mark.parametrize("token", [bytes(16), b"\x04" * 16, b"\xff" * 16])
def test_a_study_outside_the_list_has_no_proof(token: bytes) -> None:
    studies = StudyList.of(TOKENS)
    assert token not in studies
    with pytest.raises(NotHeld):
        studies.proof(token)


class Kept(NamedTuple):
    path: Path
    outbox: Outbox
    digest: bytes

    def open(self) -> Datasets:
        """As a process started now sees it."""
        return Datasets(self.path, self.outbox)

    def change(self, sql: str, *values: bytes) -> None:
        with sqlite3.connect(self.path) as db:
            db.execute(sql, values)
        db.close()

    @property
    def alarms(self) -> list[tuple[str, str]]:
        return [(alarm.kind, alarm.claim) for alarm in self.outbox.alarms()]


DESCRIPTOR = encode_descriptor(id=b"d" * 16, version=1, salt=bytes(32), counts={}, duo=[], criteria={})


OTHER_VERSION = encode_descriptor(v=2, id=b"d" * 16, version=1, salt=bytes(32), counts={}, duo=[], criteria={})


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A list of five studies, kept."""
    outbox = Outbox(tmp_path / "outbox.db", lambda: 0)
    kept = Kept(tmp_path / "datasets.db", outbox, hashlib.sha256(DESCRIPTOR).digest())
    assert kept.open().keep(DESCRIPTOR, StudyList.of(TOKENS)) == kept.digest
    return kept


def test_a_list_is_found_by_what_the_ledger_has_of_it_and_is_for_its_owner_alone(kept: Kept) -> None:
    studies = StudyList.of(TOKENS)
    assert kept.open().open(kept.digest, studies.root) == studies
    assert kept.open().naming(TOKENS[0]) == {kept.digest}
    assert kept.open().naming(bytes(16)) == set()
    assert (kept.path.stat().st_mode & 0o777, kept.alarms) == (0o600, [])


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO members VALUES (?, x'00000000000000000000000000000000')",
        "DELETE FROM members WHERE digest = ? AND study = x'05050505050505050505050505050505'",
        "UPDATE members SET study = x'0505' WHERE digest = ? AND study = x'05050505050505050505050505050505'",
    ],
)
def test_a_list_that_somebody_changed_opens_nothing_and_alarms(kept: Kept, sql: str) -> None:
    kept.change(sql, kept.digest)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="expected root"):
            kept.open().open(kept.digest, StudyList.of(TOKENS).root)
    assert kept.alarms == [("dataset", kept.digest.hex())]


def test_the_alarm_is_over_when_the_list_is_restored(kept: Kept) -> None:
    stranger = bytes(16)
    kept.change("INSERT INTO members VALUES (?, ?)", kept.digest, stranger)
    with pytest.raises(IntegrityError):
        kept.open().open(kept.digest, StudyList.of(TOKENS).root)
    kept.change("DELETE FROM members WHERE study = ?", stranger)
    assert kept.open().open(kept.digest, StudyList.of(TOKENS).root) == StudyList.of(TOKENS)
    assert kept.alarms == []


def test_a_list_that_is_not_here_is_not_held(kept: Kept) -> None:
    with pytest.raises(NotHeld):
        kept.open().open(bytes(32), StudyList.of(TOKENS).root)
    with pytest.raises(NotHeld):
        kept.open().descriptor(bytes(32))


def test_a_descriptor_is_believed_by_its_digest(kept: Kept) -> None:
    descriptor = kept.open().descriptor(kept.digest)
    assert read_descriptor(descriptor, kept.digest)["id"] == b"d" * 16
    with pytest.raises(IntegrityError, match="expected SHA-256"):
        read_descriptor(descriptor[:-1], kept.digest)


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"\xa0", b"\x01", encode_descriptor(id=b"d" * 16), OTHER_VERSION],
    ids=["not CBOR", "empty", "no map", "fields missing", "another version"],
)
def test_what_is_registered_and_is_no_descriptor_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="descriptor"):
        read_descriptor(content, hashlib.sha256(content).digest())


# The gate


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A study of three slices, and two of one."""
    world = make_world(tmp_path)
    world.add_study(2)
    world.add_study(3)
    return world


@pytest.fixture
def studies(world: World) -> list[str]:
    return [world.study_uid, *(f"1.2.826.0.1.3680043.10.2.{number}" for number in (2, 3))]


def ask(world: World, dataset: dict[str, Any], **changes: Any) -> bytes:
    """Ask for a dataset, and have it approved."""
    request = world.request(**dataset, **changes)
    world.approve(request, "owner", "custodian")
    return request


def test_an_approved_dataset_opens_exactly_its_studies_through_every_exit(world: World, studies: list[str]) -> None:
    ask(world, world.register(*studies[:2]))
    assert exits(world) == world.sop_uids_of(*studies[:2])
    assert world.seen() == set(studies[:2])
    for other in (SIBLING, FOREIGN):
        assert exits(world, other) == set()
        assert world.seen(other) == set()


@pytest.mark.parametrize("roles", [(), ("owner",), ("custodian",)])
def test_one_partys_approval_of_a_dataset_is_not_enough(
    world: World, studies: list[str], roles: tuple[str, ...]
) -> None:
    world.approve(world.request(**world.register(*studies)), *roles)
    assert exits(world) == set()
    assert world.seen() == set()


def test_a_later_version_widens_no_approval_and_takes_none_away(world: World, studies: list[str]) -> None:
    ask(world, world.register(*studies[:2]))
    later = world.register(*studies[1:], version=2)
    assert exits(world) == world.sop_uids_of(*studies[:2])
    ask(world, later)
    assert exits(world) == world.sop_uids_of(*studies)


def test_withdrawn_it_opens_nothing_more(world: World, studies: list[str]) -> None:
    dataset = world.register(*studies)
    ask(world, dataset)
    plan = world.plan()
    world.ledger("custodian").submit("WithdrawDataset", {"id": dataset["dataset"], "version": 1})
    assert exits(world) == set()
    assert world.seen() == set()
    world.later_s = 61
    with pytest.raises(Refused), plan.open(plan.items[0]):
        pass
    plan.close()


def test_what_is_anchored_later_in_a_datasets_study_is_covered_only_with_future(
    world: World, studies: list[str]
) -> None:
    dataset = world.register(*studies)
    ask(world, dataset)
    before = world.sop_uids_of(*studies)
    store(world.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.9"))
    drain(world.node)
    assert exits(world) == before
    ask(world, dataset, future=True)
    assert exits(world) == before | {"1.2.826.0.1.3680043.10.1.9"}


def test_only_the_sop_classes_asked_for_leave(world: World, studies: list[str]) -> None:
    ask(world, world.register(*studies), sopClasses=[CT])
    assert exits(world) == set()


def test_a_withdrawn_study_of_a_dataset_stays_here_and_the_others_leave(world: World, studies: list[str]) -> None:
    ask(world, world.register(*studies))
    token = world.node.keyring.ensure_study(studies[1]).token
    world.ledger("owner").submit("Withdraw", {"study": token, "reason": "113037"})
    world.ledger("owner").submit("RequestErase", {"study": world.node.keyring.ensure_study(studies[2]).token})
    assert exits(world) == world.sop_uids_of(studies[0])
    assert world.seen() == {studies[0]}
    (refused, withheld) = (refusal(world, uid) for uid in (studies[2], studies[1]))
    assert (refused, withheld) == (Reason.WITHDRAWN, None)


def refusal(world: World, study_uid: str) -> Reason | None:
    plan = world.retrieval.plan(RESEARCH, RESEARCH, "STUDY", Query(studies=(study_uid,)))
    plan.close()
    return plan.refused


def test_a_refusal_says_that_the_datasets_approval_has_expired(world: World, studies: list[str]) -> None:
    request = world.request(**world.register(*studies[:2]))
    world.approve(request, "owner", "custodian", days=1)
    world.later_s = 86_401
    assert refusal(world, studies[1]) is Reason.APPROVAL_EXPIRED
    assert refusal(world, studies[2]) is Reason.NO_APPROVAL
    assert refusal(world, "1.2.3") is Reason.NO_APPROVAL


def test_a_damaged_file_opens_no_dataset_alarms_and_leaves_the_rest_as_it_was(world: World, studies: list[str]) -> None:
    ask(world, world.register(*studies[1:]))
    world.approve(world.request(), "owner", "custodian", days=10)  # by name
    (world.node.config.data_dir / f"{DATASETS}-wal").unlink()
    (world.node.config.data_dir / DATASETS).write_bytes(b"no database" * 1000)
    fresh = replace(world, node=Node(world.node.config))
    assert exits(fresh) == world.sop_uids_of(studies[0])
    assert refusal(fresh, studies[1]) is Reason.NO_APPROVAL
    assert [alarm.kind for alarm in fresh.node.outbox.alarms()] == ["dataset"]
    assert exits(fresh, VIEWER) == world.sop_uids_of(*studies)


@pytest.mark.parametrize("change", ["added", "gone"])
def test_a_changed_or_missing_list_opens_nothing(world: World, studies: list[str], change: str) -> None:
    ask(world, world.register(*studies[:2]))
    token = world.node.keyring.ensure_study(studies[2]).token
    with sqlite3.connect(world.node.config.data_dir / DATASETS) as db:
        if change == "added":
            db.execute("INSERT INTO members SELECT digest, ? FROM descriptors", (token,))
        else:
            db.execute("DELETE FROM members")
    db.close()
    fresh = replace(world, node=Node(world.node.config))
    assert exits(fresh) == set()
    assert fresh.seen() == set()
    assert {refusal(fresh, uid) for uid in studies} == {Reason.NO_APPROVAL}
    alarms = [alarm.kind for alarm in fresh.node.outbox.alarms()]
    assert alarms == (["dataset"] if change == "added" else [])
    world.approve(world.request(), "owner", "custodian", days=10)  # by name
    assert exits(fresh) == world.sop_uids_of(studies[0])


def test_a_list_kept_and_never_registered_opens_nothing(world: World, studies: list[str]) -> None:
    ask(world, world.register(studies[0]))
    everything = StudyList.of(world.node.keyring.ensure_study(uid).token for uid in studies)
    world.node.datasets.keep(DESCRIPTOR + b"\0", everything)
    assert exits(world) == world.sop_uids_of(studies[0])


def test_a_find_asks_the_ledger_of_the_studies_that_match_alone(world: World, studies: list[str]) -> None:
    ask(world, world.register(*studies))
    asked: list[str] = []

    class Counting:
        """The ledger, with what it is asked."""

        def __init__(self) -> None:
            self._ledger = world.ledger("owner", "node")
            self.submit = self._ledger.submit

        def query(self, function: str, args: Any) -> Any:
            asked.append(function)
            return self._ledger.query(function, args)

    catalogue = Catalogue(world.node.index, world.gate_by(Counting()))
    (found,) = catalogue.find(RESEARCH, "STUDY", Query(), {"StudyInstanceUID": studies[1]}, combined=False)
    assert (found["StudyInstanceUID"], asked.count("StandingOf"), asked.count("CheckAccess")) == (studies[1], 1, 0)


# The commands


@pytest.fixture
def on(archive_copy: Node, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `orthanc-ledger` on the archive."""
    return runner(capsys, "--config", archive_copy.config.data_dir.parent / CONFIG_NAME)


@pytest.fixture
def archive_copy(archive: Node, tmp_path: Path) -> Node:
    """The archive, to be changed."""
    shutil.copytree(archive.config.data_dir.parent, tmp_path / "node")
    return open_node(tmp_path)


def test_a_dry_run_counts_and_registers_nothing(on: Command) -> None:
    done = on("dataset", "create", "--body-part", "HEAD", "--dry-run")
    assert (done.code, on("datasets", "--json").out) == (0, "")
    counted = [line.rsplit(maxsplit=1) for line in done.out.splitlines()]
    assert ["studies", "2"] in counted
    assert ["modalities CT", "1"] in counted
    assert on("dataset", "create", "--body-part", "HEAD", "--dry-run", "--json").row == {
        "studies": 2,
        "instances": 3,
        "matching": 3,
        "modalities": {"CT": 1, "MR": 2},
        "sop_classes": {MR: 3},
    }


@pytest.mark.parametrize("who", ["owner", "custodian"])
def test_created_it_is_on_the_ledger_and_its_list_here(on: Command, archive_copy: Node, who: str) -> None:
    created = on("dataset", "create", "--modality", "CT", "--duo", "DUO:0000042", "--as", who, "--json").row
    (registered,) = archive_copy.ledger.query("Datasets", {})
    studies = archive_copy.datasets.open(registered["descriptorDigest"], registered["root"])
    assert [archive_copy.index.study_of_token(token) for token in studies] == [f"{ROOT}.1"]
    assert (registered["count"], registered["version"], registered["id"].hex()) == (1, 1, created["id"])
    (listed,) = on("datasets", "--json").out.splitlines()
    row = json.loads(listed)
    assert (row["state"], row["studies"], row["instances"], row["modalities"]) == ("registered", 1, 2, ["CT", "MR"])
    assert (row["duo"], row["purposes"]) == (["DUO:0000042"], ["general research use"])
    assert "general research use" in on("datasets").out


def test_nothing_that_names_a_study_is_shown_told_or_on_the_ledger(
    on: Command, archive_copy: Node, tmp_path: Path
) -> None:
    words = ("--study-date", "20260101", "--description", "T1 weight*", "--study", f"{ROOT}.1", "--body-part", "HEAD")
    shown = on("dataset", "create", *words).out
    dataset = archive_copy.ledger.query("Datasets", {})[0]["id"].hex()
    shown += on("datasets").out + on("datasets", "--json").out
    shown += on("dataset", "show", dataset, "--out", tmp_path / "descriptor").out
    shown += on("dataset", "show", dataset, "--json").out
    token = archive_copy.keyring.ensure_study(f"{ROOT}.1").token
    ds = variant()
    secret = [ROOT, "20260101", "T1 weight", ds.PatientID, str(ds.PatientName)]
    ledger = b"".join(path.read_bytes() for path in archive_copy.config.data_dir.glob("ledger.db*"))
    for place in (shown.encode(), (tmp_path / "descriptor").read_bytes(), ledger):
        assert [value for value in secret if value.encode() in place] == []
    assert token not in (tmp_path / "descriptor").read_bytes()
    assert token.hex() not in shown


def test_the_next_version_says_how_many_studies_came_and_left(on: Command, archive_copy: Node) -> None:
    first = on("dataset", "create", "--modality", "CT", "--json").row
    second = on("dataset", "create", "--body-part", "KNEE", "--id", first["id"], "--json").row
    assert (second["id"], second["version"], second["added"], second["left"]) == (first["id"], 2, 1, 1)
    shown = [on("dataset", "show", first["id"], *which, "--json").row["version"] for which in ((), (1,), (2,))]
    assert shown == [2, 1, 2]
    (archive_copy.config.data_dir / DATASETS).unlink()
    third = on("dataset", "create", "--body-part", "HEAD", "--id", first["id"], "--json").row
    assert (third["version"], "added" in third) == (3, False)
    versions = [json.loads(line) for line in on("datasets", "--json").out.splitlines()]
    assert [(row["version"], row["studies"], "instances" in row) for row in versions] == [
        (1, 1, False),
        (2, 1, False),
        (3, 2, True),
    ]


def test_when_the_ledger_is_away_the_list_is_kept_for_nothing_and_the_next_try_succeeds(
    on: Command, archive_copy: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise LedgerAway("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedLedger, "submit", away)
        assert on("dataset", "create", "--modality", "CT").code == 3
    token = archive_copy.keyring.ensure_study(f"{ROOT}.1").token
    assert len(archive_copy.datasets.naming(token)) == 1
    assert on("dataset", "create", "--modality", "CT").code == 0
    assert len(archive_copy.ledger.query("Datasets", {})) == 1


def test_research_reads_what_it_is_told_and_a_changed_file_is_found(on: Command, tmp_path: Path) -> None:
    created = on("dataset", "create", "--modality", "CT", "--duo", "DUO:0000042", "--json").row
    file = tmp_path / "descriptor"
    assert on("dataset", "show", created["id"], 1, "--out", file).code == 0
    read = on("dataset", "show", created["id"], "--from", file)
    assert (read.code, "modalities CT" in read.out, "general research use" in read.out) == (0, True, True)
    told = on("dataset", "show", created["id"], "--from", file, "--json").row
    assert (told["counts"]["instances"], told["criteria"]) == (2, {"modality": ["CT"]})
    file.write_bytes(file.read_bytes().replace(b"CT", b"MR"))
    changed = on("dataset", "show", created["id"], "--from", file)
    assert (changed.code, "expected SHA-256" in changed.err) == (2, True)
    missing = on("dataset", "show", created["id"], "--from", tmp_path / "none")
    assert (missing.code, f"{tmp_path / 'none'}: No such file" in missing.err) == (2, True)


def test_signed_elsewhere_it_counts_once_submitted_and_its_list_is_here_already(
    on: Command, archive_copy: Node, tmp_path: Path
) -> None:
    assert on("dataset", "create", "--modality", "CT", "--out", tmp_path / "signed").code == 0
    assert archive_copy.ledger.query("Datasets", {}) == []
    assert on("submit", tmp_path / "signed").code == 0
    (registered,) = archive_copy.ledger.query("Datasets", {})
    assert len(archive_copy.datasets.open(registered["descriptorDigest"], registered["root"])) == 1


def test_research_reads_datasets_from_a_copy_of_the_ledger_without_a_node(
    on: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    created = on("dataset", "create", "--modality", "CT", "--duo", "DUO:0000042", "--json").row
    on("dataset", "show", created["id"], "--out", tmp_path / "descriptor")
    on("ledger", "copy", tmp_path / "copy")
    for words in (("datasets",), ("dataset", "show", created["id"], "--from", tmp_path / "descriptor")):
        capsys.readouterr()
        command = ["--config", tmp_path / "none.yaml", *words, "--ledger", tmp_path / "copy"]
        assert cli.main([str(word) for word in command]) == 0
        assert "general research use" in capsys.readouterr().out


def test_a_version_is_withdrawn_for_good_and_the_other_stands(on: Command) -> None:
    created = on("dataset", "create", "--modality", "CT", "--json").row
    on("dataset", "create", "--modality", "MR", "--id", created["id"])
    for _ in range(2):
        assert on("dataset", "withdraw", created["id"], 1, "--as", "custodian", "--json").row["state"] == "withdrawn"
    versions = [json.loads(line) for line in on("datasets", "--json").out.splitlines()]
    assert [row["state"] for row in versions] == ["withdrawn", "registered"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "--modality", "US"), "no study with an anchored object fits"),
        (("create", "--study", "1.2.3"), "not held here: 1.2.3; `orthanc-ledger studies` lists what is"),
        (("create", "--study-date", "2026"), "'2026': expected YYYYMMDD"),
        (("create", "--id", "ab" * 16), "no such dataset, or version; `orthanc-ledger datasets` lists them"),
        (("create", "--id", "first"), "hexadecimal digits"),
        (("create", "--modality", "CT", "--as", "research"), "another organisation has to sign this"),
        (("show", "ab" * 16), "no such dataset, or version"),
        (("withdraw", "ab" * 16, "1"), "NOT_FOUND id"),
    ],
)
def test_wrong_input_is_named(on: Command, words: tuple[str, ...], says: str) -> None:
    done = on("dataset", *words)
    assert (done.code, says in done.err) == (2, True), done.err


# A whole node


@pytest.fixture
def live(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[LiveNode]:
    node = make_live_node(tmp_path, free_port)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def test_a_research_centre_asks_for_a_dataset_and_gets_its_studies_alone(
    live: LiveNode, samples_dir: Path, dcmtk: Callable[[str], str], tmp_path: Path
) -> None:
    inside = sorted((samples_dir / "siemens-skyra").rglob("*.dcm"))
    outside = sorted((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))[:1]
    assert set(live.store(*inside, *outside)) == {0}
    live.wait_anchored(len(inside) + len(outside))
    study, other = (str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID) for paths in (inside, outside))

    def get(study_uid: str) -> dict[str, bytes]:
        """What dcmtk's getscu gets for the research centre."""
        folder = tmp_path / f"got-{len(list(tmp_path.glob('got-*')))}"
        folder.mkdir()
        command = [dcmtk("getscu"), "-S", "+B", "-od", folder, "-aet", "RESEARCH1", "-aec", "NODE", "127.0.0.1"]
        command += [live.ports["research"], "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study_uid}"]
        subprocess.run([*map(str, command)], env=dcmtk_environment(), timeout=60, capture_output=True, check=False)
        return {str(dcmread(path).SOPInstanceUID): encoded(path) for path in folder.iterdir()}

    live.command("nodes", "register", "RESEARCH1")
    live.command("nodes", "confirm", "ResearchMSP", "RESEARCH1")
    (dataset,) = live.rows("dataset", "create", "--study", study, "--duo", "DUO:0000006")
    (request,) = live.rows("request", "--dataset", dataset["id"], "--node", "RESEARCH1", "--duo", "DUO:0000006")
    live.command("approve", request["id"], "--as", "custodian")
    assert get(study) == {}
    live.command("approve", request["id"], "--as", "owner")
    assert get(study) == {str(dcmread(path).SOPInstanceUID): encoded(path) for path in inside}
    assert get(other) == {}

    (later,) = live.rows("dataset", "create", "--modality", "MR", "--id", dataset["id"])
    assert (later["version"], later["added"], later["left"]) == (2, 1, 0)
    assert get(other) == {}
    assert [found.StudyInstanceUID for found in live.find("RESEARCH1", "research", StudyInstanceUID="")[1:]] == [study]

    level = {"QueryRetrieveLevel": "STUDY"}
    live.command("dataset", "withdraw", dataset["id"], "1")
    assert (get(study), get(other)) == ({}, {})
    assert live.move("RESEARCH1", "research", "RESEARCH1", StudyInstanceUID=study, **level)[0].Status == 0x0124
    assert len(live.find("RESEARCH1", "research", StudyInstanceUID="")) == 1  # no match, only the final status
    assert live.status()["alarms"] == []
