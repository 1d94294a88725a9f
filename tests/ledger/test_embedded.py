"""The embedded ledger: its log, its clock, and what it does not accept."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import dag_cbor
import pytest

from orthanc_ledger.clock import Clock
from orthanc_ledger.errors import ConfigError, ContractError, LedgerAway
from orthanc_ledger.ledger import log as log_module
from orthanc_ledger.ledger import open_ledger
from orthanc_ledger.ledger.embedded import EmbeddedLedger, create_ledger
from orthanc_ledger.ledger.fsck import check
from orthanc_ledger.ledger.identity import Identity, issue, load_identity
from orthanc_ledger.ledger.transaction import SignedTransaction, sign
from orthanc_ledger.merkle import Tree, leaf_hash, verify_consistency, verify_inclusion
from tests.ledger.channel import CUSTODIAN, DAY, DIGEST, OWNER, START, STUDY, People, cid, policy

NONCE = b"n" * 16


class Time:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def path(tmp_path: Path, people: People, time: Time) -> Path:
    create_ledger(tmp_path / "ledger.db", people.ca_certificates, policy(), time)
    return tmp_path / "ledger.db"


OpenLedger = Callable[..., EmbeddedLedger]


@pytest.fixture
def open_as(path: Path, people: People, time: Time) -> Iterator[OpenLedger]:
    """Open the ledger as an organisation (or with an identity); closed at the end."""
    opened: list[EmbeddedLedger] = []

    def open_one(organisation: str = OWNER, identity: Identity | None = None, clock: Clock = time) -> EmbeddedLedger:
        opened.append(EmbeddedLedger(path, identity or people.identities[organisation], clock))
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_as: OpenLedger) -> EmbeddedLedger:
    """As the owner, with its policy in force."""
    owner = open_as()
    owner.submit("InitPolicy", {"policy": policy()})
    return owner


def anchor(name: str) -> dict[str, Any]:
    return {"manifestCid": cid(name), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}


def test_a_url_names_the_ledger(path: Path, people: People) -> None:
    ledger = open_ledger(f"embedded:{path}", people.identities[OWNER], lambda: START)
    assert ledger.submit("InitPolicy", {"policy": policy()}).position == 1


@pytest.mark.parametrize("url", ["", "embedded", "embedded:", "ipfs:somewhere", "/var/lib/ledger.db"])
def test_an_unknown_scheme_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(ConfigError, match="embedded:"):
        open_ledger(url)


def test_a_missing_ledger_is_not_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerAway, match="not there: mount its disk or restore it"):
        open_ledger(f"embedded:{tmp_path / 'ledger.db'}").query("GetPolicy", {})
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_is_never_overwritten(path: Path, people: People) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        create_ledger(path, people.ca_certificates, policy())


def test_policy_and_genesis_name_the_same_organisations(tmp_path: Path, people: People) -> None:
    certificates = {OWNER: people.ca_certificates[OWNER], CUSTODIAN: people.ca_certificates[CUSTODIAN]}
    with pytest.raises(ConfigError, match="expected the organisations"):
        create_ledger(tmp_path / "ledger.db", certificates, policy())


def test_without_an_identity_it_answers_queries_only(path: Path, ledger: EmbeddedLedger) -> None:
    reader = EmbeddedLedger(path, clock=lambda: START)
    assert reader.query("GetPolicy", {}) == policy()
    with pytest.raises(ConfigError, match="identity"):
        reader.submit("Anchor", anchor("m"))
    reader.close()


def test_every_entry_is_provably_in_the_tree(ledger: EmbeddedLedger) -> None:
    roots = {1: ledger.root(1)}
    tree = Tree()
    for number in range(20):
        size = ledger.submit("Anchor", anchor(f"m{number}")).position + 1
        roots[size] = ledger.root()
    entries = list(ledger.entries())
    assert len(entries) == ledger.size == 22
    for position, entry in enumerate(entries):
        checkpoint, proof = ledger.inclusion(position)
        verify_inclusion(leaf_hash(entry), position, checkpoint.size, proof, checkpoint.root)
        tree.add(leaf_hash(entry))
        assert ledger.root(position + 1) == tree.root()
        assert roots.get(position + 1, tree.root()) == tree.root()
    assert list(ledger.entries(19)) == entries[19:]
    for beyond in (-1, 22):
        with pytest.raises(IndexError):
            ledger.inclusion(beyond)
    with pytest.raises(IndexError):
        ledger.root(23)


def test_every_size_is_provably_continued_by_every_later_one(ledger: EmbeddedLedger) -> None:
    while ledger.size < 20:
        ledger.submit("Anchor", anchor(f"m{ledger.size}"))
    for new in range(21):
        for old in range(new + 1):
            proof = ledger.consistency(old, new)
            verify_consistency(old, ledger.root(old), new, ledger.root(new), proof)
    assert ledger.consistency(7) == ledger.consistency(7, 20)
    for old_size, new_size in ((-1, 3), (4, 3), (3, 21)):
        with pytest.raises(IndexError, match="no tree"):
            ledger.consistency(old_size, new_size)


def test_a_consistency_proof_reads_few_nodes(ledger: EmbeddedLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    while ledger.size < 100:
        ledger.submit("Anchor", anchor(f"m{ledger.size}"))
    read: list[tuple[int, int]] = []
    honest = log_module.LogFile.subtree

    def counted(self: log_module.LogFile, level: int, number: int) -> bytes:
        read.append((level, number))
        return honest(self, level, number)

    monkeypatch.setattr(log_module.LogFile, "subtree", counted)
    for old in range(1, 100):
        read.clear()
        ledger.consistency(old)
        assert len(read) <= 2 * (100).bit_length()


def test_a_refused_call_leaves_no_entry(ledger: EmbeddedLedger) -> None:
    before = ledger.size, ledger.root()
    with pytest.raises(ContractError):
        ledger.submit("ConfirmStored", {"manifestCid": cid("m")})
    with pytest.raises(ContractError, match="INVALID args"):
        ledger.submit("Anchor", {**anchor("m"), "root": object()})
    assert (ledger.size, ledger.root()) == before


def test_the_same_signed_transaction_is_one_entry(ledger: EmbeddedLedger, people: People, time: Time) -> None:
    node = {"aeTitle": "PACS", "role": "clinical", "certDigests": []}
    transaction = sign(people.identities[OWNER], ledger.log_id, "RegisterNode", node, NONCE, START)
    first = ledger.append(transaction)
    ledger.submit("RevokeNode", {"node": {"organisation": OWNER, "aeTitle": "PACS"}})
    time.now += 5
    assert ledger.append(transaction) == first
    resigned = sign(people.identities[OWNER], ledger.log_id, "RegisterNode", node, NONCE, START)
    assert resigned.signature != transaction.signature
    assert ledger.append(resigned) == first
    assert ledger.query("Nodes", {})[0]["state"] == "revoked"


def test_a_transaction_for_another_log_is_refused(
    ledger: EmbeddedLedger, people: People, tmp_path: Path, time: Time
) -> None:
    create_ledger(tmp_path / "other.db", people.ca_certificates, policy(), time)
    other = EmbeddedLedger(tmp_path / "other.db", people.identities[OWNER], time)
    stolen = sign(people.identities[OWNER], other.log_id, "Anchor", anchor("m"), NONCE, START)
    with pytest.raises(ContractError, match="INVALID log"):
        ledger.append(stolen)
    other.close()


def test_a_transaction_changed_after_signing_is_refused(ledger: EmbeddedLedger, people: People) -> None:
    honest = sign(people.identities[OWNER], ledger.log_id, "Anchor", anchor("m"), NONCE, START)
    forged = sign(people.identities[OWNER], ledger.log_id, "Anchor", anchor("n"), NONCE, START)
    object.__setattr__(forged, "signature", honest.signature)
    with pytest.raises(ContractError, match="NOT_PERMITTED signature"):
        ledger.append(forged)


@pytest.mark.parametrize(
    "entry",
    [
        "5bffffffffffffffff",  # a byte string longer than any memory
        "d82a40",  # a link without bytes
        "a16461726773a0",  # other fields
        "81" * 5000,  # deeper than any stack
    ],
)
def test_bytes_that_are_no_transaction_are_refused(entry: str) -> None:
    with pytest.raises(ContractError, match="INVALID transaction"):
        SignedTransaction.decode_entry(bytes.fromhex(entry))


def test_an_entry_in_another_encoding_of_the_same_fields_is_refused(people: People) -> None:
    transaction = sign(people.identities[OWNER], b"l" * 32, "Anchor", anchor("m"), NONCE, START)
    canonical = transaction.entry(START)
    assert SignedTransaction.decode_entry(canonical) == (START, transaction)
    fields = {"time": START, "tx": transaction.payload, "signature": transaction.signature}
    other_order = b"\xa3" + b"".join(dag_cbor.encode({name: value})[1:] for name, value in fields.items())
    longer_integer = canonical.replace(b"dtime\x1a", b"dtime\x1b" + bytes(4))
    for encoding in (other_order, longer_integer):
        assert encoding != canonical
        with pytest.raises(ContractError, match="INVALID transaction"):
            SignedTransaction.decode_entry(encoding)


def test_an_expired_certificate_is_refused(open_as: OpenLedger, people: People, time: Time, tmp_path: Path) -> None:
    folder = issue(people.folder / OWNER, f"brief-{tmp_path.name.replace('_', '-')}", "person", time, days=2)
    brief = open_as(identity=load_identity(folder))
    brief.submit("InitPolicy", {"policy": policy()})
    time.now += 2 * DAY
    brief.submit("Anchor", anchor("m"))
    time.now += 1
    with pytest.raises(ContractError, match="NOT_PERMITTED certificate"):
        brief.submit("Anchor", anchor("n"))


@pytest.mark.parametrize(("offset", "accepted"), [(300, True), (301, False), (-7 * DAY, True), (-7 * DAY - 1, False)])
def test_a_signers_time_must_be_near_the_entrys(
    ledger: EmbeddedLedger, people: People, offset: int, accepted: bool
) -> None:
    transaction = sign(people.identities[OWNER], ledger.log_id, "Anchor", anchor("m"), NONCE, START + offset)
    if accepted:
        assert ledger.append(transaction).time == START
    else:
        with pytest.raises(ContractError, match="SKEW time"):
            ledger.append(transaction)


def test_time_never_goes_backwards(ledger: EmbeddedLedger, time: Time) -> None:
    time.now = START + 1000
    assert ledger.submit("Anchor", anchor("m")).time == START + 1000
    time.now = START
    assert ledger.submit("Anchor", anchor("n")).time == START + 1000


def test_a_clock_a_month_ahead_needs_the_operators_word(ledger: EmbeddedLedger, time: Time) -> None:
    time.now = START + 31 * DAY
    ledger.submit("Anchor", anchor("m"))
    time.now += 31 * DAY + 1
    with pytest.raises(LedgerAway, match="31 days"):
        ledger.submit("Anchor", anchor("n"))
    ledger.confirm_clock()
    assert ledger.submit("Anchor", anchor("n")).time == time.now


def test_the_operators_word_holds_for_the_clock_he_saw(ledger: EmbeddedLedger, time: Time) -> None:
    time.now = START + 40 * DAY
    ledger.confirm_clock()
    time.now = START + 80 * DAY
    with pytest.raises(LedgerAway, match="31 days"):
        ledger.submit("Anchor", anchor("m"))


def test_a_locked_file_is_a_ledger_away(
    open_as: OpenLedger, ledger: EmbeddedLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "BUSY_TIMEOUT_S", 0.05)
    waiting = open_as()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerAway, match="locked"):
        waiting.submit("Anchor", anchor("m"))
    assert waiting.query("AnchorsOfStudy", {"study": STUDY}) == []
    holder.execute("ROLLBACK")
    holder.close()
    assert waiting.submit("Anchor", anchor("m")).position == 2


def save(path: Path) -> Path:
    """A copy of a ledger's file as it is now."""
    copy = path.with_suffix(".copy")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def put_in_place(copy: Path, path: Path) -> None:
    """As who has the disk can, while processes hold the ledger open."""
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    os.replace(copy, path)


def test_a_ledger_replaced_while_open_gets_nothing_and_the_one_in_its_place_is_taken_up(
    ledger: EmbeddedLedger, path: Path
) -> None:
    put_in_place(save(path), path)
    with pytest.raises(LedgerAway, match="replaced while open"):
        ledger.submit("Anchor", anchor("lost"))
    with pytest.raises(LedgerAway, match="replaced while open"):
        ledger.query("AnchorsOfStudy", {"study": STUDY})
    ledger.submit("Anchor", anchor("kept"))
    assert [row["manifestCid"] for row in ledger.query("AnchorsOfStudy", {"study": STUDY})] == [cid("kept")]
    assert check(path).findings == ()


def test_a_ledger_replaced_during_a_call_does_not_acknowledge_it(
    ledger: EmbeddedLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, honest = save(path), log_module.LogFile.append

    def append_then_replace(self: log_module.LogFile, row: log_module.Row, changes: Mapping[str, Any]) -> None:
        honest(self, row, changes)
        put_in_place(copy, path)

    with monkeypatch.context() as patched:
        patched.setattr(log_module.LogFile, "append", append_then_replace)
        with pytest.raises(LedgerAway, match="replaced while open"):
            ledger.submit("Anchor", anchor("m"))
    assert ledger.submit("Anchor", anchor("m")).position == 2
    assert check(path).size == 3


def test_a_ledger_that_is_gone_while_open_is_away_until_it_is_back(ledger: EmbeddedLedger, path: Path) -> None:
    path.rename(path.with_suffix(".gone"))
    for _ in range(2):
        with pytest.raises(LedgerAway):
            ledger.query("GetPolicy", {})
    path.with_suffix(".gone").rename(path)
    assert ledger.query("GetPolicy", {}) == policy()


def test_nothing_is_appended_to_another_ledger_in_its_place(
    ledger: EmbeddedLedger, path: Path, tmp_path: Path, people: People, time: Time
) -> None:
    create_ledger(tmp_path / "other.db", people.ca_certificates, policy(), time)
    put_in_place(tmp_path / "other.db", path)
    for expected in ("replaced while open", "another ledger"):
        with pytest.raises(LedgerAway, match=expected):
            ledger.submit("InitPolicy", {"policy": policy()})
    assert check(path).size == 1


def test_a_file_with_a_foreign_view_is_not_asked(ledger: EmbeddedLedger, path: Path) -> None:
    ledger.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE state RENAME TO hidden")
        db.execute(
            "CREATE VIEW state AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
        )
    with pytest.raises(LedgerAway, match="not as a ledger is made: hidden, state; `fsck`"):
        ledger.query("GetPolicy", {})


def test_failed_but_persisted_a_commit_without_its_answer_is_found_again(
    ledger: EmbeddedLedger, open_as: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is written, the caller hears an error, submits again and gets the first commit."""
    honest = log_module.LogFile.append

    def persist_then_fail(self: log_module.LogFile, row: log_module.Row, changes: Mapping[str, Any]) -> None:
        honest(self, row, changes)
        self._db.execute("COMMIT")
        raise sqlite3.OperationalError("disk I/O error")

    failing = open_as()
    with monkeypatch.context() as patched:
        patched.setattr(log_module.LogFile, "append", persist_then_fail)
        with pytest.raises(LedgerAway):
            failing.submit("Anchor", anchor("m"))
    assert ledger.submit("Anchor", anchor("m")).position == 2
    assert ledger.size == 3


def test_failed_an_entry_without_its_state_is_not_written(
    ledger: EmbeddedLedger, open_as: OpenLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = log_module.LogFile.append

    def fail_after_writing(self: log_module.LogFile, row: log_module.Row, changes: Mapping[str, Any]) -> None:
        honest(self, row, changes)
        raise sqlite3.OperationalError("disk is full")

    failing = open_as()
    with monkeypatch.context() as patched:
        patched.setattr(log_module.LogFile, "append", fail_after_writing)
        with pytest.raises(LedgerAway, match="disk is full"):
            failing.submit("Anchor", anchor("m"))
    assert ledger.size == 2
    assert failing.submit("Anchor", anchor("m")).position == 2
    report = check(path)
    assert (report.size, report.findings) == (3, ())


def test_threads_of_one_process_append_and_ask_at_once(ledger: EmbeddedLedger, path: Path) -> None:
    failures: list[BaseException] = []

    def work(prefix: str) -> None:
        try:
            for number in range(20):
                position = ledger.submit("Anchor", anchor(f"{prefix}{number}")).position
                assert ledger.query("GetAnchor", {"manifestCid": cid(f"{prefix}{number}")})["sequence"] == position
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(prefix,)) for prefix in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    report = check(path)
    assert (report.size, report.findings) == (82, ())
