"""What the node holds, as several processes see it."""

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import runner
from node_make import drain, make_node, real_file, store

from orthanc_ledger.assemble import INDEX
from orthanc_ledger.attributes import Attributes
from orthanc_ledger.database import Database
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.index import WAITING, Index, Instance, Supersession, Waiting
from orthanc_ledger.manifest import Manifest, build
from orthanc_ledger.setup_node import CONFIG_NAME

STUDY, SERIES = "1.2.1", "1.2.2"
ATTRIBUTES = Attributes({"PatientID": "P1", "PatientName": "Née^É"}, {"Modality": "MR"}, {"InstanceNumber": "1"})


def instance(number: int, study: str = STUDY, received_us: int = 0) -> Instance:
    return Instance(
        claim=f"claim{number}",
        sop_uid=f"1.9.{number}",
        series_uid=SERIES,
        study_uid=study,
        sop_class="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax="1.2.840.10008.1.2.1",
        size=10,
        sha256=bytes([number]) * 32,
        received_us=received_us or number,
        origin="addressed-ae",
        sender="MRI1 at 192.0.2.10",
        state="spooled",
        spool_name=f"claim{number}",
    )


def manifest(seq: int) -> Manifest:
    return build(b"t" * 16, seq, bytes(16), [])


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index(tmp_path / "index.db")
    index.enter((instance(number), ATTRIBUTES) for number in (1, 2, 3))
    return index


def test_entering_again_changes_nothing(index: Index) -> None:
    index.set_state("claim1", "quarantined", "aside")
    index.enter([(instance(1), ATTRIBUTES)])
    found = index.instance("claim1")
    assert found is not None
    assert (found.state, found.spool_name) == ("quarantined", "aside")


def test_claim_is_known_until_it_is_forgotten(index: Index) -> None:
    assert index.claimed("claim1") == bytes([1]) * 32
    index.forget("claim1")
    assert (index.claimed("claim1"), index.instance("claim1")) == (None, None)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [1, 2, 3]),
        ({"patient_ids": ["P1"]}, [1, 2, 3]),
        ({"patient_ids": ["P2"]}, []),
        ({"studies": [STUDY], "instances": ["1.9.2", "1.9.3"]}, [2, 3]),
        ({"series": ["1.2.99"]}, []),
        ({"studies": ["1.2.1' OR '1'='1"]}, []),
    ],
)
def test_select_matches_all_keys_given(index: Index, keys: dict[str, list[str]], expected: list[int]) -> None:
    assert [found.sop_uid for found in index.select(**keys)] == [f"1.9.{number}" for number in expected]


def test_waiting_counts_what_is_in_no_batch_by_study(index: Index) -> None:
    index.enter([(instance(7, "1.2.7"), ATTRIBUTES)])
    index.set_state("claim3", "quarantined", "aside")
    assert sorted(index.waiting(), key=lambda waiting: waiting.study_uid) == [
        Waiting(STUDY, 2, 1, 2),
        Waiting("1.2.7", 1, 7, 7),
    ]
    assert [found.claim for found in index.waiting_instances(STUDY, 1)] == ["claim1"]


def test_waiting_is_answered_from_its_index_alone(index: Index, tmp_path: Path) -> None:
    """A backlog of many thousands is asked for twenty times a second."""
    plan = sqlite3.connect(tmp_path / "index.db").execute(f"EXPLAIN QUERY PLAN {WAITING}")
    assert "COVERING INDEX instances_waiting" in str(plan.fetchall())


def test_prepared_batch_keeps_its_members_and_anchoring_names_their_units(index: Index) -> None:
    assert index.next_seq(STUDY) == 0
    prepared = manifest(0)
    index.keep_prepared(STUDY, prepared, {"claim1": "cid1", "claim2": "cid2"})
    assert index.next_seq(STUDY) == 1
    [batch] = index.unanchored()
    assert (batch.manifest, batch.token, batch.root, batch.count) == (prepared.cid, b"t" * 16, prepared.record_root, 0)
    assert [waiting.count for waiting in index.waiting()] == [1]
    assert index.anchored_batch(prepared.cid) is None
    assert sorted(index.keep_anchored(batch, 5)) == ["claim1", "claim2"]
    assert index.keep_anchored(batch, 5) == []
    assert index.anchored_batch(prepared.cid) == batch.id
    assert (index.unanchored(), index.anchored_batches()) == ([], [replace(batch, position=5)])
    assert index.counts() == {"anchored": 2, "spooled": 1}
    assert index.study_of_token(b"t" * 16) == STUDY


def test_decision_and_its_batch_are_kept_together_or_not_at_all(index: Index) -> None:
    prepared = manifest(0)
    index.keep_prepared(STUDY, prepared, {})
    decision = Supersession("c.1", "claim1", "quality", "prepared", "old", prepared.cid, "cid", b"n", None)
    with pytest.raises(sqlite3.IntegrityError):
        index.keep_prepared(STUDY, prepared, {}, decision)
    assert index.supersessions() == []
    index.keep_prepared(STUDY, manifest(1), {}, decision)
    assert index.supersessions("prepared") == [decision]


def test_text_of_any_language_comes_back(index: Index) -> None:
    assert index.studies([STUDY]) == [(STUDY, None, dict(ATTRIBUTES.study))]
    assert index.series_attributes(STUDY) == [(SERIES, {"Modality": "MR"})]


def test_failed_write_is_undone_and_the_next_one_works(index: Index) -> None:
    def broken() -> list[tuple[Instance, Attributes]]:
        raise RuntimeError

    def found(fail: Callable[[], object]):  # type: ignore[no-untyped-def]
        yield instance(8), ATTRIBUTES
        fail()

    with pytest.raises(RuntimeError):
        index.enter(found(broken))
    assert index.instance("claim8") is None
    index.enter([(instance(8), ATTRIBUTES)])
    assert index.instance("claim8") is not None


def test_commit_that_fails_is_undone_and_the_next_one_works(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (a INTEGER PRIMARY KEY, b REFERENCES t DEFERRABLE INITIALLY DEFERRED)"
    database = Database(tmp_path / "x.db", schema)
    database.connection().execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError), database.write() as db:
        db.execute("INSERT INTO t VALUES (1, 99)")
    with database.write() as db:
        db.execute("INSERT INTO t VALUES (2, 2)")
    assert database.rows("SELECT a FROM t") == [(2,)]


def test_an_object_keeps_what_it_says_itself(index: Index, tmp_path: Path) -> None:
    """Its study and series may have come of another object: research is told what this one says."""
    index.keep_prepared(STUDY, manifest(0), {"claim1": "cid1"})
    [row] = index.listing.objects([("claim1", manifest(0).cid), ("claim2", manifest(0).cid)])
    expected = {"PatientID": "P1", "PatientName": "Née^É", "Modality": "MR", "InstanceNumber": "1", "StudyDate": ""}
    assert expected.items() <= row.items()
    assert (row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"]) == (STUDY, SERIES, "1.9.1")


@pytest.mark.parametrize("version", [0, 1, 3])
def test_an_index_of_another_version_is_refused_and_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: int
) -> None:
    node = make_node(tmp_path)
    store(node, real_file())
    drain(node)
    node.index.close()
    node.index_held.close()
    path = node.config.data_dir / INDEX
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("DROP TABLE series")
    with pytest.raises(ConfigError, match=f"version {version}, expected 2.*`orthanc-ledger reindex`"):
        Index(path)
    command = runner(capsys, "--config", tmp_path / "node" / CONFIG_NAME)
    assert command("studies").code == 2
    assert command("reindex").code == 0
    assert [row["instances"] for row in command("studies", "--json").rows] == [1]


def _open_and_enter(path: Path, number: int) -> None:
    Index(path).enter([(instance(number), ATTRIBUTES)])


def test_processes_that_start_at_once_on_a_new_file_all_write(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "index.db"
    processes = [context.Process(target=_open_and_enter, args=(path, number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert Index(path).counts() == {"spooled": 6}
