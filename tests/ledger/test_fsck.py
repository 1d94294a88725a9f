"""fsck of a ledger that is as it should be, of one rolled back, and of files that are no ledger; and the command."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from orthanc_ledger.cli import main
from orthanc_ledger.errors import ConfigError, LedgerAway
from orthanc_ledger.ledger.checkpoint import sign_note
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.fsck import MOST_FINDINGS, Kind, check
from orthanc_ledger.ledger.log import Checkpoint
from tests.ledger.channel import CUSTODIAN, OWNER, START, People
from tests.ledger.tampered import END, SIZE, World, anchor, rewrite, tell_story


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, people: People) -> Path:
    path = tmp_path_factory.mktemp("honest") / "ledger.db"
    tell_story(path, people)
    return path


@pytest.fixture
def world(honest: Path, people: People, tmp_path: Path) -> World:
    return World(Path(shutil.copy(honest, tmp_path / "ledger.db")), people, tmp_path)


def kinds(path: Path, *checkpoints: Checkpoint) -> list[str]:
    return [finding.kind for finding in check(path, checkpoints).findings]


def checkpoint(path: Path, size: int | None = None) -> Checkpoint:
    with closing(EmbeddedLedger(path)) as ledger:
        return ledger.checkpoint(size)


class TestClean:
    def test_a_clean_ledger_has_no_findings(self, world: World) -> None:
        report = check(world.path)
        assert (report.size, report.time, report.findings) == (SIZE, END, ())
        assert report.root == checkpoint(world.path).root
        with world.database() as db:
            assert report.state_rows == db.execute("SELECT count(*) FROM state").fetchone()[0]

    def test_earlier_checkpoints_fit_a_longer_log(self, world: World) -> None:
        assert kinds(world.path, *(checkpoint(world.path, size) for size in (12, 0, 4, 1, 4))) == []

    def test_what_is_appended_meanwhile_is_not_in_the_snapshot(self, world: World) -> None:
        with closing(EmbeddedLedger(world.path, world.people.identities[OWNER], lambda: END)) as ledger:
            report = check(world.path, (), lambda read, size: append_once(ledger))
            assert (report.size, report.findings, ledger.size) == (SIZE, (), SIZE + 1)

    def test_progress_tells_the_end(self, world: World) -> None:
        heard: list[tuple[int, int]] = []
        check(world.path, (), lambda read, size: heard.append((read, size)))
        assert heard == [(SIZE, SIZE)]

    def test_a_missing_file_is_no_ledger(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no ledger here"):
            check(tmp_path / "ledger.db")

    def test_a_locked_file_is_a_ledger_away(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("orthanc_ledger.ledger.log.BUSY_TIMEOUT_S", 0.05)
        with closing(sqlite3.connect(world.path, isolation_level=None)) as holder:
            holder.execute("PRAGMA locking_mode=EXCLUSIVE")
            holder.execute("BEGIN EXCLUSIVE")
            with pytest.raises(LedgerAway, match="locked"):
                check(world.path)


def append_once(ledger: EmbeddedLedger) -> None:
    ledger.submit("Anchor", anchor("meanwhile"))


class TestRewritten:
    """By whoever holds the signed transactions: whole in itself, so that only a checkpoint kept elsewhere tells."""

    def test_a_log_rolled_back(self, world: World, tmp_path: Path) -> None:
        kept, shorter = checkpoint(world.path), tmp_path / "shorter.db"
        rewrite(world.path, shorter, lambda position: position < 9)
        assert kinds(shorter) == []
        (finding,) = check(shorter, [checkpoint(world.path, 5), kept]).findings
        assert (finding.position, finding.kind) == (9, Kind.ROLLED_BACK)

    def test_a_revocation_left_out(self, world: World, tmp_path: Path) -> None:
        kept, other = checkpoint(world.path), tmp_path / "other.db"
        rewrite(world.path, other, lambda position: position != 9)
        with closing(EmbeddedLedger(other, world.people.identities[OWNER], lambda: END)) as ledger:
            assert ledger.submit("Anchor", anchor("filler")).position + 1 == kept.size
        assert kinds(other) == []
        (finding,) = check(other, [checkpoint(world.path, size) for size in range(1, 13)]).findings
        assert (finding.position, finding.kind) == (None, Kind.OTHER_LOG)
        assert "first 10 entries" in finding.detail, "the first checkpoint that does not fit"

    def test_a_removed_end_is_a_rollback_too(self, world: World) -> None:
        kept = checkpoint(world.path)
        world.run("DELETE FROM entries WHERE position >= 9")
        assert kinds(world.path, kept) == [Kind.MISSING, Kind.ROLLED_BACK]


class TestDamaged:
    def test_a_page_that_sqlite_cannot_read(self, world: World) -> None:
        content = bytearray(world.path.read_bytes())
        content[3 * 4096 : 3 * 4096 + 64] = b"\xff" * 64
        world.path.write_bytes(content)
        assert kinds(world.path) == [Kind.FILE]

    def test_a_file_that_is_no_database(self, world: World) -> None:
        world.path.write_bytes(b"x" * 8192)
        assert kinds(world.path) == [Kind.FILE]

    def test_an_index_that_hides_an_entry_from_its_transactions_id(self, world: World) -> None:
        """So that the same transaction could be appended twice."""
        world.define(
            "PRAGMA writable_schema=ON",
            "CREATE TABLE other (tx_id BLOB NOT NULL UNIQUE)",
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = "
            "'sqlite_autoindex_other_1') WHERE name = 'sqlite_autoindex_entries_1'",
            "DELETE FROM sqlite_master WHERE tbl_name = 'other'",
        )
        assert kinds(world.path) == [Kind.FILE]

    def test_a_table_that_takes_anything(self, world: World) -> None:
        world.define("ALTER TABLE state RENAME TO old", "CREATE TABLE state (key, position, value)", "DROP TABLE old")
        (finding,) = check(world.path).findings
        assert (finding.kind, finding.detail) == (Kind.FILE, "not as a ledger is made: state")

    def test_it_ends_when_more_is_found_than_anybody_reads(self, world: World) -> None:
        with world.database() as db:
            rows = [(f"standing/{number}", 3, b"\x00") for number in range(MOST_FINDINGS + 1)]
            db.executemany("INSERT INTO state VALUES (?, ?, ?)", rows)
        assert kinds(world.path) == [Kind.STATE_EXTRA] * MOST_FINDINGS


Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def fsck(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `fsck --json`: exit code and rows."""

    def run(*words: object, command: str = "fsck") -> tuple[int, list[dict[str, Any]]]:
        where, rest = ([*words[:2]], words[2:]) if words and words[0] == "--config" else ([], words)
        code = main([str(word) for word in (*where, command, *rest, "--json")])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def signed(world: World) -> Callable[..., Path]:
    """A file with a signed checkpoint of the ledger."""

    def make(name: str = "note", size: int | None = None, signer: str = OWNER) -> Path:
        with closing(EmbeddedLedger(world.path)) as ledger:
            note = sign_note(ledger.checkpoint(size), ledger.log_id, START, world.people.identities[signer])
        path = world.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(note, encoding="utf-8")
        return path

    return make


class TestCommand:
    def test_clean_without_a_checkpoint_has_an_exit_code_of_its_own(
        self, world: World, fsck: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, (row,) = fsck("--ledger", world.path)
        assert (code, row["state"], row["size"], row["checkpoints"]) == (4, "clean", SIZE, 0)
        assert main(["fsck", "--ledger", str(world.path)]) == 4
        assert "rollback not detectable" in capsys.readouterr().out

    def test_clean_with_a_signed_checkpoint_and_one_copied_by_hand(
        self, world: World, fsck: Run, signed: Callable[..., Path]
    ) -> None:
        code, (row,) = fsck("--ledger", world.path, "--checkpoint", signed(size=7, signer=CUSTODIAN))
        assert (code, row["checkpoints"], row["newest_checkpoint"]) == (0, 1, 7)
        by_hand = f"{row['size']}:{row['root']}"
        code, (row,) = fsck("--ledger", world.path, "--checkpoint", by_hand, "--checkpoint", signed())
        assert (code, row["checkpoints"], row["newest_checkpoint"]) == (0, 2, SIZE)

    def test_findings_are_rows_and_exit_code_1(self, world: World, fsck: Run) -> None:
        world.run("UPDATE entries SET time = time + 1 WHERE position = 10")
        code, (finding, row) = fsck("--ledger", world.path)
        assert (code, finding["position"], finding["kind"]) == (1, 10, Kind.COLUMNS)
        assert (row["state"], row["findings"]) == ("damaged", 1)

    def test_a_checkpoint_that_nobody_here_signed(self, world: World, fsck: Run, signed: Callable[..., Path]) -> None:
        note = signed()
        note.write_text(note.read_text(encoding="utf-8").replace(f"\n{SIZE}\n", "\n7\n"), encoding="utf-8")
        code, (finding, row) = fsck("--ledger", world.path, "--checkpoint", note)
        assert (code, finding["kind"], row["checkpoints"]) == (1, Kind.NOTE, 0)

    def test_a_checkpoint_that_does_not_fit_names_its_signers(self, world: World, fsck: Run) -> None:
        """Any member can sign what never was; the owner is not to answer for it."""
        with closing(EmbeddedLedger(world.path)) as ledger:
            log_id = ledger.log_id
        for signer, false in ((CUSTODIAN, Checkpoint(10**6, bytes(32))), (OWNER, Checkpoint(SIZE, bytes(32)))):
            identity = world.people.identities[signer]
            note = world.folder / "note"
            note.write_text(sign_note(false, log_id, START, identity), encoding="utf-8")
            serial = x509.load_der_x509_certificate(identity.certificate).serial_number
            _, (finding, _) = fsck("--ledger", world.path, "--checkpoint", note)
            assert finding["detail"].endswith(f", signed by {signer} (certificate {serial:x})")
            _, (finding, _) = fsck("--ledger", world.path, "--checkpoint", f"{false.size}:{false.root.hex()}")
            assert "signed by" not in finding["detail"]

    @pytest.mark.parametrize("time", [1 << 62, -(1 << 62)])
    def test_a_time_that_no_calendar_has(self, world: World, fsck: Run, time: int) -> None:
        world.append(world.sign("Anchor", **anchor("late")), time)
        code, (*_, row) = fsck("--ledger", world.path)
        assert (code, row["time"]) == (1, f"second {time}")

    def test_a_file_that_is_no_ledger_has_no_entries_and_no_time(
        self, world: World, fsck: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        world.path.write_bytes(b"no database" * 1000)
        code, (finding, row) = fsck("--ledger", world.path)
        assert (code, finding["kind"], row["size"], row["time"]) == (1, Kind.FILE, 0, None)
        assert main(["fsck", "--ledger", str(world.path)]) == 1
        out = capsys.readouterr().out
        assert ("damaged: nothing was read\n" in out, "1970" in out) == (True, False)

    def test_a_file_that_is_no_checkpoint(self, world: World, fsck: Run) -> None:
        code, (finding, _) = fsck("--ledger", world.path, "--checkpoint", world.path)
        assert (code, finding["kind"]) == (1, Kind.NOTE)

    @pytest.mark.parametrize("text", ["12", "1:00", f"1:{'g' * 64}", "no\0name"])
    def test_a_checkpoint_that_is_not_there(self, world: World, fsck: Run, text: str) -> None:
        assert fsck("--ledger", world.path, "--checkpoint", text)[0] == 2

    def test_a_checkpoint_does_not_hide_that_there_is_no_genesis(
        self, world: World, fsck: Run, signed: Callable[..., Path]
    ) -> None:
        note = signed()
        world.run("DELETE FROM entries WHERE position = 0")
        code, (finding, _) = fsck("--ledger", world.path, "--checkpoint", note)
        assert (code, finding["kind"]) == (1, Kind.GENESIS)


class TestOfANode:
    """fsck and verify by the configuration: checkpoints at its path sinks count."""

    @pytest.fixture
    def config(self, world: World) -> Path:
        path = world.folder / "orthanc-ledger.yaml"
        (world.folder / "kept").mkdir()
        keys = {
            "organisation": OWNER,
            "ae_title": "NODE",
            "data_dir": "data",
            "node_key": "node.key",
            "identity": str(world.people.folder / OWNER / "identities" / "person-1"),
            "content": "local:objects",
            "ledger": "embedded:ledger.db",
            "clinical": {"port": 0},
            "research": {"port": 0},
            "checkpoint_sinks": [f"path:{world.folder / 'kept'}"],
        }
        path.write_text(yaml.safe_dump(keys), encoding="utf-8")
        return path

    def test_checkpoints_at_the_sinks_are_compared(
        self, world: World, config: Path, fsck: Run, signed: Callable[..., Path]
    ) -> None:
        assert fsck("--config", config)[0] == 4, "nothing kept yet"
        for size in (3, SIZE):
            signed(f"kept/{size:020}", size)
        code, (row,) = fsck("--config", config)
        assert (code, row["checkpoints"], row["newest_checkpoint"]) == (0, 2, SIZE)

    def test_a_rollback_is_found_by_them(
        self, world: World, config: Path, fsck: Run, signed: Callable[..., Path]
    ) -> None:
        signed(f"kept/{SIZE:020}")
        rewrite(world.path, world.folder / "shorter.db", lambda position: position < 9)
        shutil.move(world.folder / "shorter.db", world.path)
        code, (finding, _) = fsck("--config", config)
        assert (code, finding["position"], finding["kind"]) == (1, 9, Kind.ROLLED_BACK)
        code, (row,) = fsck("--config", config, "--log-only", command="verify")
        assert (code, row["state"]) == (1, "DAMAGED")
        assert "entry 9: rolled back" in row["detail"]
