"""Whoever changes the ledger's file is found by a replay, or by a checkpoint kept elsewhere."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import dag_cbor
import pytest

from orthanc_ledger.errors import ConfigError, IntegrityError
from orthanc_ledger.ledger.admission import judge, read_genesis
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import create_organisation, issue, load_identity
from orthanc_ledger.ledger.log import Checkpoint, LogFile, Row
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.ledger.replay import replay
from orthanc_ledger.ledger.transaction import SignedTransaction, sign
from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    LAB,
    OTHER_DIGEST,
    OWNER,
    START,
    STUDY,
    Channel,
    Embedded,
    People,
    cid,
    policy,
)

Tamper = Callable[[sqlite3.Connection], None]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, people: People) -> Path:
    """A ledger with a story of 11 entries."""
    path = tmp_path_factory.mktemp("honest") / "ledger.db"
    host = Embedded(path, people, policy())
    channel = Channel(host, policy()).init()
    request, manifest = channel.approved()
    channel.wait(10)
    channel.call(OWNER, "LogRelease", **channel.release(request, manifest))
    channel.call(CUSTODIAN, "Revoke", id=request, reason="breach")
    channel.anchor()
    assert host.entries() == 11
    host.close()
    return path


@pytest.fixture
def copy(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(honest, tmp_path / "ledger.db"))


def run(statement: str, *values: object) -> Tamper:
    return lambda db: check_changed(db.execute(statement, values))


def check_changed(cursor: sqlite3.Cursor) -> None:
    assert cursor.rowcount > 0


def change_entry(db: sqlite3.Connection) -> None:
    """Change the count of an anchor inside its signed transaction."""
    (entry,) = db.execute("SELECT entry FROM entries WHERE position = 2").fetchone()
    fields = dag_cbor.decode(entry)
    tx = dag_cbor.decode(fields["tx"])
    tx["args"]["count"] = 4
    fields["tx"] = dag_cbor.encode(tx)
    db.execute("UPDATE entries SET entry = ? WHERE position = 2", (dag_cbor.encode(fields),))


def swap_entries(db: sqlite3.Connection) -> None:
    db.execute("UPDATE entries SET position = -5 WHERE position = 5")
    db.execute("UPDATE entries SET position = 5 WHERE position = 6")
    db.execute("UPDATE entries SET position = 6 WHERE position = -5")


def remove_middle(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM entries WHERE position = 4")


def remove_middle_and_close_the_gap(db: sqlite3.Connection) -> None:
    remove_middle(db)
    for position in range(5, 11):
        db.execute("UPDATE entries SET position = ? WHERE position = ?", (position - 1, position))


def unrevoke(db: sqlite3.Connection) -> None:
    """Set a request back to approved in the state."""
    for key, position, value in db.execute("SELECT key, position, value FROM state WHERE key LIKE 'request/%'"):
        record = dag_cbor.decode(value)
        if record["state"] == "revoked":
            values = (dag_cbor.encode({**record, "state": "approved"}), key, position)
            db.execute("UPDATE state SET value = ? WHERE key = ? AND position = ?", values)
            return
    pytest.fail("no revoked request in the state")


TAMPERED: dict[str, tuple[Tamper, str]] = {
    "an entry's bytes": (change_entry, "entry 2: its bytes differ from the tree"),
    "an entry's time": (run("UPDATE entries SET time = time + 1 WHERE position = 10"), "entry 10: its columns"),
    "an entry's id": (run("UPDATE entries SET tx_id = ? WHERE position = 3", b"x" * 32), "entry 3: its columns"),
    "the genesis": (run("UPDATE entries SET entry = ? WHERE position = 0", b"\xa0"), "entry 0: expected a genesis"),
    "no genesis": (run("DELETE FROM entries WHERE position = 0"), "entry 0, the genesis, is missing"),
    "a reordered pair": (swap_entries, "entry 5: its bytes differ from the tree"),
    "a removed middle": (remove_middle, "entry 4 is missing: the next one is 5"),
    "a removed middle, closed up": (remove_middle_and_close_the_gap, "entry 4: its bytes differ from the tree"),
    "a removed end": (run("DELETE FROM entries WHERE position = 10"), "tree nodes and"),
    "a leaf of the tree": (
        run("UPDATE subtrees SET hash = ? WHERE level = 0 AND number = 7", b"x" * 32),
        "entry 7: its bytes differ from the tree's node 0/7",
    ),
    "an inner node of the tree": (
        run("UPDATE subtrees SET hash = ? WHERE level = 3 AND number = 0", b"x" * 32),
        "tree's node 3/0",
    ),
    "a removed node of the tree": (
        run("DELETE FROM subtrees WHERE level = 1 AND number = 2"),
        "tree node 1/2 is missing",
    ),
    "an added node of the tree": (run("INSERT INTO subtrees VALUES (5, 9, ?)", b"x" * 32), "tree nodes and"),
    "a state row": (unrevoke, "state request/.*: differs from what entry 9 wrote"),
    "a removed state row": (run("DELETE FROM state WHERE key LIKE 'revocation/%'"), "state revocation/.*: differs"),
    "an added state row": (
        run("INSERT INTO state VALUES ('standing/00', 3, ?)", dag_cbor.encode(7)),
        "state rows, got",
    ),
    "a state row of the future": (
        run("INSERT INTO state SELECT key, 99, value FROM state WHERE key LIKE 'request/%' AND position = 7"),
        "state rows, got",
    ),
    "a state row that is no dag-cbor": (
        run("INSERT INTO state VALUES (?, 2, ?)", f"standing/{STUDY.hex()}", b"\xff"),
        "not dag-cbor",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_replay_finds_and_names(copy: Path, what: str) -> None:
    tamper, message = TAMPERED[what]
    db = sqlite3.connect(copy)
    tamper(db)
    db.commit()
    db.close()
    with pytest.raises(IntegrityError, match=message):
        replay(copy)


def test_an_honest_ledger_replays(copy: Path) -> None:
    report = replay(copy)
    assert (report.size, report.time) == (11, START + 10)
    ledger = EmbeddedLedger(copy)
    assert report.root == ledger.root()
    ledger.close()


def rewrite(source: Path, target: Path, keep: Callable[[int], bool]) -> None:
    """What the owner of a ledger can do: a new file, whole in itself, of some of its transactions."""
    old = LogFile(source)
    _, members = read_genesis(old)
    first = old.entry(0)
    assert first is not None
    new = LogFile.create(target, first)
    for row in old.entries(1):
        if keep(row.position):
            time, transaction = SignedTransaction.decode_entry(row.entry)
            append_unchecked(new, members, transaction, time)
    old.close()
    new.close()


def append_unchecked(log: LogFile, members: Members, transaction: SignedTransaction, time: int) -> None:
    position = log.last()[0] + 1
    with log.transaction("IMMEDIATE"):
        applied = judge(read_genesis(log)[0], members, log, transaction, position, time)
        log.append(Row(position, time, transaction.tx_id, transaction.entry(time)), applied.changes)


def test_only_a_checkpoint_kept_elsewhere_finds_a_log_rolled_back(copy: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(copy)
    rewrite(copy, tmp_path / "rewritten.db", lambda position: position < 10)
    replay(tmp_path / "rewritten.db")
    with pytest.raises(IntegrityError, match="rolled back"):
        replay(tmp_path / "rewritten.db", checkpoint)


def test_only_a_checkpoint_kept_elsewhere_finds_a_revocation_left_out(
    copy: Path, tmp_path: Path, people: People
) -> None:
    checkpoint = checkpoint_of(copy)
    rewrite(copy, tmp_path / "rewritten.db", lambda position: position != 9)
    ledger = EmbeddedLedger(tmp_path / "rewritten.db", people.identities[OWNER], lambda: START + 10)
    args = {"manifestCid": cid("filler"), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}
    assert ledger.submit("Anchor", args).position + 1 == checkpoint.size
    ledger.close()
    replay(tmp_path / "rewritten.db")
    with pytest.raises(IntegrityError, match="not those of the checkpoint"):
        replay(tmp_path / "rewritten.db", checkpoint)


def checkpoint_of(path: Path) -> Checkpoint:
    ledger = EmbeddedLedger(path)
    checkpoint = ledger.checkpoint()
    ledger.close()
    return checkpoint


def test_an_earlier_checkpoint_fits_a_longer_log(copy: Path) -> None:
    ledger = EmbeddedLedger(copy)
    checkpoints = [ledger.checkpoint(size) for size in (1, 4, 11)]
    ledger.close()
    for checkpoint in checkpoints:
        replay(copy, checkpoint)


def forged_entry(path: Path, transaction: SignedTransaction, time: int) -> None:
    """Append a transaction's entry and tree nodes without asking anybody."""
    log = LogFile(path)
    position = log.last()[0] + 1
    with log.transaction("IMMEDIATE"):
        log.append(Row(position, time, transaction.tx_id, transaction.entry(time)), {})
    log.close()


def test_a_forged_signer_in_the_log_is_found(copy: Path, tmp_path: Path) -> None:
    create_organisation(tmp_path / "impostor", OWNER, lambda: START)
    impostor = load_identity(issue(tmp_path / "impostor", "person-1", "person", lambda: START))
    ledger = EmbeddedLedger(copy)
    args = {"manifestCid": cid("forged"), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}
    transaction = sign(impostor, ledger.log_id, "Anchor", args, b"n" * 16, START + 10)
    ledger.close()
    forged_entry(copy, transaction, START + 10)
    with pytest.raises(IntegrityError, match="entry 11 cannot have been accepted: NOT_PERMITTED certificate"):
        replay(copy)


def test_a_call_the_contract_refuses_is_found_in_the_log(copy: Path, people: People) -> None:
    ledger = EmbeddedLedger(copy)
    args = {"manifestCid": cid("forged"), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}
    transaction = sign(people.identities[LAB], ledger.log_id, "Anchor", args, b"n" * 16, START + 10)
    ledger.close()
    forged_entry(copy, transaction, START + 10)
    with pytest.raises(IntegrityError, match="entry 11 cannot have been accepted: NOT_PERMITTED role"):
        replay(copy)


def test_a_repeat_in_the_log_is_found(copy: Path, people: People) -> None:
    ledger = EmbeddedLedger(copy)
    first = ledger.query("AnchorsOfStudy", {"study": STUDY})[0]
    args = {name: first[name] for name in ("manifestCid", "study", "root", "count", "kind")}
    transaction = sign(people.identities[OWNER], ledger.log_id, "Anchor", args, b"n" * 16, START + 10)
    ledger.close()
    forged_entry(copy, transaction, START + 10)
    with pytest.raises(IntegrityError, match="entry 11 repeats"):
        replay(copy)


def test_an_entry_before_the_one_it_follows_is_found(copy: Path, people: People) -> None:
    log = LogFile(copy)
    genesis, members = read_genesis(log)
    args = {"manifestCid": cid("late"), "study": STUDY, "root": OTHER_DIGEST, "count": 1, "kind": "original"}
    transaction = sign(people.identities[OWNER], genesis.log, "Anchor", args, b"n" * 16, START)
    append_unchecked(log, members, transaction, START)
    log.close()
    with pytest.raises(IntegrityError, match="time goes backwards"):
        replay(copy)


def test_a_missing_file_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ledger here"):
        replay(tmp_path / "ledger.db")
