"""The keyring: what it keeps, from whom, and between processes."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from orthanc_ledger import tokens
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld, ServiceAway
from orthanc_ledger.keyring import Keyring, StudyErased
from orthanc_ledger.node_key import NodeKey

STUDY = "1.2.826.0.1.3680043.8.498.1"
OTHER = "1.2.826.0.1.3680043.8.498.2"


class Files(NamedTuple):
    keyring: Path
    node_key: Path

    def open(self) -> Keyring:
        return Keyring.open(self.keyring, NodeKey(self.node_key))

    def sql(self, *statements: str) -> None:
        db = sqlite3.connect(self.keyring)
        with db:
            for statement in statements:
                db.execute(statement)
        db.close()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "data").mkdir()
    (tmp_path / "keys").mkdir()
    return Files(tmp_path / "data" / "keyring.db", tmp_path / "keys" / "node.key")


@pytest.fixture
def keyring(files: Files) -> Keyring:
    return Keyring.create(files.keyring, NodeKey(files.node_key))


def test_keys_are_the_same_when_opened_again(keyring: Keyring, files: Files) -> None:
    study = keyring.ensure_study(STUDY)
    batch = keyring.new_batch(STUDY)
    again = files.open()
    assert again.k_lookup == keyring.k_lookup
    assert again.study(STUDY) == study == again.ensure_study(STUDY)
    assert again.batch_key(batch.key_id) == batch.key


def test_keys_have_their_sizes_and_differ(keyring: Keyring) -> None:
    study, other = keyring.ensure_study(STUDY), keyring.ensure_study(OTHER)
    first, second = keyring.new_batch(STUDY), keyring.new_batch(STUDY)
    assert {len(each.token) for each in (study, other)} == {len(each.key_id) for each in (first, second)} == {16}
    secret = [keyring.k_lookup, study.k_study, other.k_study, first.key, second.key]
    assert {len(each) for each in secret} == {32}
    assert len({*secret, study.token, other.token, first.key_id, second.key_id}) == 9


def test_randomness_is_the_injected_one(files: Files) -> None:
    drawn: list[bytes] = []

    def random(size: int) -> bytes:
        drawn.append(bytes([len(drawn) + 1]) * size)
        return drawn[-1]

    keyring = Keyring.create(files.keyring, NodeKey(files.node_key), random)
    study, batch = keyring.ensure_study(STUDY), keyring.new_batch(STUDY)
    assert {files.node_key.read_bytes(), keyring.k_lookup, study.token, study.k_study, batch.key_id, batch.key} <= {
        *drawn
    }


def test_unknown_study_and_batch_are_not_held(keyring: Keyring) -> None:
    assert keyring.study(STUDY) is None
    with pytest.raises(NotHeld):
        keyring.new_batch(STUDY)
    with pytest.raises(NotHeld, match="ab" * 16):
        keyring.batch_key(b"\xab" * 16)


def test_erased_study_gets_no_new_keys(keyring: Keyring, files: Files) -> None:
    files.sql(f"INSERT INTO erased VALUES (x'{tokens.erased_mark(keyring.k_lookup, STUDY).hex()}')")
    with pytest.raises(StudyErased) as caught:
        keyring.ensure_study(STUDY)
    assert STUDY not in str(caught.value)
    assert keyring.study(STUDY) is None
    assert keyring.ensure_study(OTHER)


def test_files_are_the_owners_only(keyring: Keyring, files: Files) -> None:
    keyring.ensure_study(STUDY)
    assert len(files.node_key.read_bytes()) == 32
    for file in (files.node_key, *files.keyring.parent.iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_files_hold_no_key_and_no_uid_in_clear(keyring: Keyring, files: Files) -> None:
    study, batch = keyring.ensure_study(STUDY), keyring.new_batch(STUDY)
    on_disk = b"".join(file.read_bytes() for file in files.keyring.parent.iterdir())
    assert batch.key_id in on_disk  # the search finds what is there
    for secret in (
        keyring.k_lookup,
        study.token,
        study.k_study,
        batch.key,
        STUDY.encode(),
        files.node_key.read_bytes(),
    ):
        assert secret not in on_disk


def test_keys_do_not_show_when_printed(keyring: Keyring) -> None:
    study, batch = keyring.ensure_study(STUDY), keyring.new_batch(STUDY)
    shown = repr((study, batch))
    assert repr(study.k_study) not in shown
    assert repr(batch.key) not in shown


def test_every_process_may_write_and_every_write_is_durable(keyring: Keyring, files: Files) -> None:
    db = keyring._db.connection()
    pragmas = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "secure_delete")]
    assert pragmas == ["wal", 2, 1]


@pytest.mark.parametrize("existing", ["keyring", "node_key"])
def test_nothing_is_overwritten(files: Files, existing: str) -> None:
    there: Path = getattr(files, existing)
    there.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=there.name):
        Keyring.create(files.keyring, NodeKey(files.node_key))
    assert there.read_bytes() == b"precious"
    assert [file.name for file in (files.keyring, files.node_key) if file.exists()] == [there.name]


def test_keyring_in_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"node\.key.*cannot be made"):
        Keyring.create(tmp_path / "keyring.db", NodeKey(tmp_path / "missing" / "node.key"))


@pytest.mark.parametrize("missing", ["keyring", "node_key"])
def test_missing_file_is_named(keyring: Keyring, files: Files, missing: str) -> None:
    gone: Path = getattr(files, missing)
    gone.unlink()
    with pytest.raises(ConfigError, match=str(gone)):
        files.open()
    assert not gone.exists()


def test_other_node_key_is_refused(keyring: Keyring, files: Files) -> None:
    files.node_key.write_bytes(bytes(32))
    with pytest.raises(ConfigError, match=f"{files.node_key}.*not the key of keyring"):
        files.open()


def test_cut_node_key_is_refused(keyring: Keyring, files: Files) -> None:
    files.node_key.write_bytes(bytes(31))
    with pytest.raises(ConfigError, match=f"{files.node_key}: expected 32 bytes, got 31"):
        files.open()


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 100, b""])
def test_file_that_is_no_keyring_is_refused(files: Files, content: bytes) -> None:
    files.node_key.write_bytes(bytes(32))
    files.keyring.write_bytes(content)
    with pytest.raises(ConfigError, match=str(files.keyring)):
        files.open()


def test_exchanged_study_rows_are_found(keyring: Keyring, files: Files) -> None:
    keyring.ensure_study(STUDY)
    keyring.ensure_study(OTHER)
    files.sql(
        "CREATE TABLE old AS SELECT * FROM study",
        "UPDATE study SET wrapped = (SELECT wrapped FROM old WHERE old.name != study.name)",
    )
    with pytest.raises(IntegrityError):
        keyring.study(STUDY)


@pytest.mark.parametrize(
    "exchange",
    [
        "UPDATE batch SET wrapped = (SELECT wrapped FROM old WHERE old.key_id != batch.key_id)",
        "UPDATE batch SET study = x'00'",
        "UPDATE batch SET wrapped = (SELECT wrapped FROM lookup)",
        "UPDATE batch SET wrapped = x'00'",
    ],
)
def test_exchanged_batch_row_is_found(keyring: Keyring, files: Files, exchange: str) -> None:
    keyring.ensure_study(STUDY)
    first, _ = keyring.new_batch(STUDY), keyring.new_batch(STUDY)
    files.sql("CREATE TABLE old AS SELECT * FROM batch", exchange)
    with pytest.raises(IntegrityError):
        keyring.batch_key(first.key_id)


def test_write_that_fails_leaves_nothing(keyring: Keyring, files: Files) -> None:
    files.sql("CREATE TRIGGER full BEFORE INSERT ON study BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(IntegrityError, match="disk full"):
        keyring.ensure_study(STUDY)
    files.sql("DROP TRIGGER full")
    assert keyring.study(STUDY) is None
    assert keyring.ensure_study(STUDY) == files.open().study(STUDY)


def test_file_locked_for_too_long_is_away(keyring: Keyring, files: Files) -> None:
    keyring._db.connection().execute("PRAGMA busy_timeout = 1")
    locking = sqlite3.connect(files.keyring, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceAway, match="locked"):
        keyring.ensure_study(STUDY)
    locking.close()
    assert keyring.ensure_study(STUDY)


PROCESS = """
import json, os, signal, sys
from pathlib import Path
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.node_key import NodeKey

keyring = Keyring.open(Path(sys.argv[1]), NodeKey(Path(sys.argv[2])))
print("ready", flush=True)
sys.stdin.readline()
studies = [keyring.ensure_study(f"1.2.{number}").token.hex() for number in range(30)]
batch = keyring.new_batch("1.2.0")
print(json.dumps([studies, batch.key_id.hex(), batch.key.hex()]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_at_once_agree_and_what_they_were_given_outlives_them(keyring: Keyring, files: Files) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, files.keyring, files.node_key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    given = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 4
    kept = [keyring.ensure_study(f"1.2.{number}").token.hex() for number in range(30)]
    assert [studies for studies, _, _ in given] == [kept] * 4
    for _, key_id, key in given:
        assert keyring.batch_key(bytes.fromhex(key_id)).hex() == key
