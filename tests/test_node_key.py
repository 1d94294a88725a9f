"""The node key: where it lies, and how another takes its place while others read and write."""

import os
import pty
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import Command, runner
from conftest import ROOT
from node_make import drain, make_node, open_node, real_file, store

from orthanc_ledger import node_key as module
from orthanc_ledger.assemble import KEYRING, Node
from orthanc_ledger.erasure import NODE_KEY
from orthanc_ledger.errors import ConfigError, NotHeld, ServiceAway
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.node_key import NEW_PASSPHRASE_FILE, PASSPHRASE_FILE, NodeKey, Passphrase, locate
from orthanc_ledger.setup_node import CONFIG_NAME, Plan, create_node
from orthanc_ledger.sole import sole

STUDY, OTHER = "1.2.826.1", "1.2.826.2"


@pytest.fixture
def place(tmp_path: Path) -> NodeKey:
    return NodeKey(tmp_path / "node.key")


@pytest.fixture
def keyring(tmp_path: Path, place: NodeKey) -> Keyring:
    keyring = Keyring.create(tmp_path / KEYRING, place)
    for study in (STUDY, OTHER):
        keyring.ensure_study(study)
        keyring.new_batch(study)
    return keyring


@pytest.fixture
def passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse\n")
    monkeypatch.setenv(PASSPHRASE_FILE, str(file))
    return file


def opened(keyring: Keyring) -> object:
    """All that a keyring opens."""
    keys = [keyring.batch_key(key_id) for (key_id,) in keyring._db.rows("SELECT key_id FROM batch ORDER BY key_id")]
    return keyring.k_lookup, keyring.study(STUDY), keyring.study(OTHER), keys, keyring.study_tokens()


def test_a_key_that_others_may_read_is_refused(keyring: Keyring, place: NodeKey, tmp_path: Path) -> None:
    """As a copy is that was put back from a backup by `cp`."""
    place.path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"node\.key: others on this machine may read it: chmod 600"):
        Keyring.open(tmp_path / KEYRING, place)


# Rotation


def test_everything_opens_under_the_new_key_and_nothing_under_the_old(keyring: Keyring, place: NodeKey) -> None:
    before, old = opened(keyring), place.path.read_bytes()
    keyring.rotate()
    assert opened(keyring) == opened(Keyring.open(keyring._path, place)) == before
    assert place.path.read_bytes() != old
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o600
    assert [path.name for path in place.path.parent.glob("node.key*")] == ["node.key"]
    files = b"".join(path.read_bytes() for path in place.path.parent.iterdir())
    assert old not in files
    place.path.write_bytes(old)
    with pytest.raises(ConfigError, match="is not the key of keyring"):
        Keyring.open(keyring._path, place)


def test_the_old_key_s_place_on_the_disk_is_overwritten(keyring: Keyring, place: NodeKey, tmp_path: Path) -> None:
    same, old = tmp_path / "same", place.path.read_bytes()
    same.hardlink_to(place.path)
    keyring.rotate()
    assert len(same.read_bytes()) == len(old)
    assert same.read_bytes() not in (old, bytes(len(old)), place.path.read_bytes())


def test_who_has_the_keyring_open_goes_on_reading_and_writing(keyring: Keyring, place: NodeKey) -> None:
    other = Keyring.open(keyring._path, place)
    before = opened(other)
    keyring.rotate()
    written = other.ensure_study("1.2.826.3")  # its first call after: it must not write under the key that is gone
    assert keyring.study("1.2.826.3") == written
    keyring.rotate()
    batch = other.new_batch(STUDY)
    keyring.rotate()
    assert keyring.batch_key(batch.key_id) == batch.key
    assert other.study(OTHER) == before[2]  # type: ignore[index]


def test_writers_and_readers_at_once_lose_nothing(keyring: Keyring, place: NodeKey) -> None:
    made, stop = {}, threading.Event()

    def work() -> None:
        mine = Keyring.open(keyring._path, place)
        number = 0
        while not stop.is_set() or number < 5:
            study = f"1.2.826.9.{number}"
            made[study] = (mine.ensure_study(study), mine.new_batch(study))
            assert mine.study(study) == made[study][0]
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(10):
        keyring.rotate()
    stop.set()
    worker.join(30)
    fresh = Keyring.open(keyring._path, place)
    assert len(made) >= 5
    for study, (keys, batch) in made.items():
        assert fresh.study(study) == keys
        assert fresh.batch_key(batch.key_id) == batch.key


def test_a_study_left_out_is_gone_with_its_batches(keyring: Keyring, place: NodeKey) -> None:
    study = keyring.study(STUDY)
    assert study is not None
    [gone] = [keyring.new_batch(STUDY).key_id]
    keyring.rotate(without={study.token})
    assert keyring.study(STUDY) is None
    assert keyring.study_tokens() == {keyring.ensure_study(OTHER).token}
    with pytest.raises(NotHeld):
        keyring.batch_key(gone)
    assert keyring._db.rows("SELECT COUNT(*) FROM batch") == [(1,)]


KILL = """
import os, signal, sys
from pathlib import Path
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.node_key import NodeKey

def killed(event, args):
    global left
    if event in ("open", "os.link", "os.rename", "os.remove") and "node.key" in f"{args}":
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

keyring = Keyring.open(Path(sys.argv[1]), NodeKey(Path(sys.argv[2])))
left = int(sys.argv[3])
sys.addaudithook(killed)
keyring.rotate()
"""


def test_killed_at_each_of_its_steps_the_keyring_opens_and_the_next_rotation_ends_it(
    keyring: Keyring, place: NodeKey, figure: Callable[[str], None]
) -> None:
    """Before each opening, linking, renaming and unlinking of the key's files; system calls: tests/crash."""
    before, points = opened(keyring), 0
    while True:
        words = [sys.executable, "-c", KILL, keyring._path, place.path, str(points + 1)]
        code = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60).returncode
        assert opened(Keyring.open(keyring._path, place)) == opened(keyring) == before
        if code == 0:
            break
        points += 1
        if points % 2:  # else the next one has it to do
            keyring.rotate()
            assert [path.name for path in place.path.parent.glob("node.key*")] == ["node.key"]
    assert points >= 6
    figure(f"rotation killed at {points} of its steps")


@dataclass(frozen=True)
class Interrupted(NodeKey):
    """A place whose reader is stopped, once, between the key in force and the one beside it."""

    meanwhile: Callable[[], object] = print
    seen: list[Path] = field(default_factory=list)

    def _unwrap(self, path: Path) -> bytes:
        key = super()._unwrap(path)
        if not self.seen:
            self.seen.append(path)
            self.meanwhile()
        return key


def test_who_looks_for_the_key_while_it_is_changed_finds_it(keyring: Keyring, place: NodeKey) -> None:
    """Else a retrieve would take the keys' rows for damaged, and flag what is sound."""
    before, other = opened(keyring), Keyring.open(keyring._path, place)
    keyring.rotate()
    other._node_key = Interrupted(place.path, meanwhile=keyring.rotate)
    assert opened(other) == before
    started = Keyring.open(keyring._path, Interrupted(place.path, meanwhile=keyring.rotate))
    assert opened(started) == before


def test_one_rotation_at_a_time(keyring: Keyring) -> None:
    with (
        sole(keyring._path.with_name("keyring.lock"), ServiceAway("")),
        pytest.raises(ServiceAway, match="another process changes"),
    ):
        keyring.rotate()


def test_a_new_key_that_cannot_be_written_leaves_the_one_before(keyring: Keyring, place: NodeKey) -> None:
    before, old = opened(keyring), place.path.read_bytes()
    place.path.with_name("node.key.new").mkdir()  # it cannot be written there
    with pytest.raises(ServiceAway):
        keyring.rotate()
    assert (opened(keyring), place.path.read_bytes()) == (before, old)


# Under a passphrase


def test_a_key_under_a_passphrase_opens_with_that_one_only(tmp_path: Path, passphrase: Path) -> None:
    place = locate("passphrase:node.key", tmp_path)
    keyring = Keyring.create(tmp_path / KEYRING, place)
    key = place.read()[0].key
    assert key not in place.path.read_bytes()
    assert b"horse" not in place.path.read_bytes()
    assert Keyring.open(keyring._path, place).k_lookup == keyring.k_lookup
    passphrase.write_text("wrong horse")
    with pytest.raises(ConfigError, match="another passphrase") as refused:
        Keyring.open(keyring._path, place)
    assert "horse" not in str(refused.value)
    passphrase.write_text("correct horse")  # with a line's end or without
    content = bytearray(place.path.read_bytes())
    content[-1] ^= 1
    place.path.write_bytes(content)
    with pytest.raises(ConfigError, match="changed"):
        Keyring.open(keyring._path, place)


def test_systemds_credential_is_found(tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_FILE)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    passphrase.rename(tmp_path / module.CREDENTIAL)
    assert module.read_passphrase() == b"correct horse"


@pytest.mark.parametrize(("content", "named"), [(None, "No such file"), ("", "empty"), ("\n", "empty")])
def test_no_passphrase_is_named(passphrase: Path, content: str | None, named: str) -> None:
    passphrase.unlink() if content is None else passphrase.write_text(content)
    with pytest.raises(ConfigError, match=named):
        module.read_passphrase()


def test_without_terminal_and_file_it_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_FILE, raising=False)
    with pytest.raises(ConfigError, match=f"{PASSPHRASE_FILE}.*{module.CREDENTIAL}"):
        module.read_passphrase()


TYPED = """
import os, subprocess, sys
from orthanc_ledger.node_key import read_passphrase
assert read_passphrase() == b"typed horse"
assert read_passphrase() == b"typed horse"
child = "from orthanc_ledger.node_key import read_passphrase; assert read_passphrase() == b'typed horse'"
subprocess.run([sys.executable, "-c", child], stdin=subprocess.PIPE, check=True)
assert b"horse" not in b"".join(f"{name}={value}".encode() for name, value in os.environ.items())
"""


def test_what_is_typed_once_serves_this_process_and_those_it_starts() -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE_FILE}
    environment["PYTHONPATH"] = str(ROOT)
    with subprocess.Popen(
        [sys.executable, "-c", TYPED],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"passphrase of the node key" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, b"typed horse\n")
        assert process.wait(60) == 0, shown
    os.close(ours)
    assert b"horse" not in shown


@pytest.mark.parametrize(("configured", "kept"), [("file", "passphrase"), ("passphrase", "file")])
def test_a_key_of_the_other_kind_says_what_to_write(
    tmp_path: Path, passphrase: Path, configured: str, kept: str
) -> None:
    keyring = Keyring.create(tmp_path / KEYRING, locate(f"{kept}:node.key", tmp_path))
    with pytest.raises(ConfigError, match=f"write `node_key: {kept}:"):
        Keyring.open(keyring._path, locate(f"{configured}:node.key", tmp_path))


def test_the_place_for_a_device_says_that_it_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not built"):
        locate("pkcs11:token=hospital;object=node", tmp_path)


# Commands


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = make_node(tmp_path)
    store(node, real_file())
    drain(node)
    return node


@pytest.fixture
def command(node: Node, capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(capsys, "--config", node.config.data_dir.parent / CONFIG_NAME)


def healthy(node: Node) -> bool:
    [instance] = node.index.select()
    with node.library.open(instance) as data_set:
        return bool(data_set.read())


def test_an_alarm_stands_until_the_new_key_is_copied(node: Node, command: Command, tmp_path: Path) -> None:
    manifests = [instance.manifest for instance in node.index.select()]
    assert command("node-key", "rotate").code == 0
    assert [alarm.kind for alarm in node.outbox.alarms()] == [NODE_KEY]
    inside = node.config.data_dir / "node.key"
    assert command("node-key", "backup", inside).code == 2
    assert command("node-key", "backup", tmp_path / "copy").code == 0
    assert (tmp_path / "copy").read_bytes() == node.config.node_key.path.read_bytes()
    assert node.outbox.alarms() == []
    assert command("node-key", "rotate", "--key-backup", tmp_path / "copy").code == 2, "never overwritten"
    assert command("node-key", "rotate", "--key-backup", tmp_path / "copy-2").code == 0
    assert node.outbox.alarms() == []
    assert healthy(node)
    assert [instance.manifest for instance in open_node(tmp_path).index.select()] == manifests


def test_a_copy_after_an_interrupted_rotation_is_of_the_key_that_opens_the_rows(
    node: Node, command: Command, tmp_path: Path
) -> None:
    """Killed between the commit and the key's taking its place: the file of that name opens nothing."""
    keyring, key = node.config.data_dir / KEYRING, node.config.node_key
    points = 0
    while not Keyring.open(keyring, key)._find_key().staged:
        points += 1
        words = [sys.executable, "-c", KILL, keyring, key.path, str(points)]
        assert subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60).returncode
    assert command("node-key", "backup", tmp_path / "copy").code == 0
    assert Keyring.open(keyring, NodeKey(tmp_path / "copy")).k_lookup == node.keyring.k_lookup
    assert healthy(node)


def test_no_copy_between_the_alarm_and_the_new_key_takes_the_alarm_back(
    node: Node, command: Command, tmp_path: Path
) -> None:
    codes: list[int] = []
    node.keyring.rotate(first=lambda: codes.append(command("node-key", "backup", tmp_path / "copy").code))
    assert codes == [3], "it is to be tried again"
    assert not (tmp_path / "copy").exists()


def test_a_key_is_put_under_a_passphrase_and_that_is_changed(
    node: Node, command: Command, tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    new.write_text("another horse")
    monkeypatch.setenv(NEW_PASSPHRASE_FILE, str(new))
    _ = node.index
    assert command("node-key", "rotate", "--passphrase").code == 2, "the node runs"
    node.index.close()
    node.index_held.close()
    assert command("node-key", "rotate", "--passphrase").code == 0
    refused = command("status")
    assert (refused.code, "write `node_key: passphrase:" in refused.err) == (2, True)
    config = tmp_path / "node" / CONFIG_NAME
    config.write_text(config.read_text().replace("node_key: file:", "node_key: passphrase:"))
    assert command("status").code == 2, "the passphrase before"
    passphrase.write_text("another horse")
    assert healthy(open_node(tmp_path))
    new.write_text("third horse")
    assert command("node-key", "rotate", "--passphrase").code == 0
    passphrase.write_text("third horse")
    assert healthy(open_node(tmp_path))


def test_init_without_the_passphrase_makes_nothing(
    tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(tmp_path / "node", tmp_path / "backup", all_roles=True, passphrase=True)
    monkeypatch.setenv(PASSPHRASE_FILE, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="nowhere"):
        create_node(plan)
    monkeypatch.setenv(PASSPHRASE_FILE, str(passphrase))
    create_node(plan)


def test_init_makes_a_key_under_a_passphrase_and_so_is_its_copy(tmp_path: Path, passphrase: Path) -> None:
    backup = tmp_path / "backup"
    config = create_node(Plan(tmp_path / "node", backup, all_roles=True, passphrase=True))
    assert config.node_key.scheme == "passphrase"
    assert backup.read_bytes() == config.node_key.path.read_bytes()
    assert NodeKey(backup, "passphrase").read()[0].key == config.node_key.read()[0].key
    assert Passphrase().unwrap(backup.read_bytes())
