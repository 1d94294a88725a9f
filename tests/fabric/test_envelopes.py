"""Kept envelopes: durable, first come, dropped once the commit is known."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger.fabric.envelopes import FORGOTTEN_AFTER_S, Envelopes, Kept
from tests.conftest import ROOT

NOW = 1_800_000_000
CALL, OTHER = b"c" * 32, b"o" * 32


@pytest.fixture
def envelopes(tmp_path: Path) -> Envelopes:
    return Envelopes(tmp_path / "envelopes.db")


def test_an_envelope_is_found_by_its_call_in_another_process_too(envelopes: Envelopes, tmp_path: Path) -> None:
    assert envelopes.find(CALL) is None
    envelopes.keep(CALL, b"bytes", NOW)
    assert Envelopes(tmp_path / "envelopes.db").find(CALL) == Kept(NOW, b"bytes")
    assert envelopes.find(OTHER) is None


def test_who_comes_second_is_told_the_first_envelope(envelopes: Envelopes) -> None:
    assert envelopes.keep(CALL, b"first", NOW) == Kept(NOW, b"first")
    assert envelopes.keep(CALL, b"second", NOW + 1) == Kept(NOW, b"first")


def test_of_threads_that_keep_at_once_one_is_first(envelopes: Envelopes) -> None:
    kept: list[Kept] = []
    threads = [
        threading.Thread(target=lambda number=number: kept.append(envelopes.keep(CALL, b"%d" % number, NOW)))
        for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 16
    assert set(kept) == {envelopes.find(CALL)}


def test_only_the_envelope_that_was_settled_is_forgotten(envelopes: Envelopes) -> None:
    envelopes.keep(CALL, b"later", NOW)
    envelopes.forget(CALL, b"earlier")
    assert envelopes.find(CALL) == Kept(NOW, b"later")
    envelopes.forget(CALL, b"later")
    assert envelopes.find(CALL) is None


def test_what_nobody_asked_for_again_goes_in_the_end(envelopes: Envelopes) -> None:
    envelopes.keep(CALL, b"old", NOW)
    envelopes.keep(OTHER, b"new", NOW + FORGOTTEN_AFTER_S)
    assert envelopes.find(CALL)
    envelopes.keep(b"third", b"new", NOW + FORGOTTEN_AFTER_S + 1)
    assert envelopes.find(CALL) is None
    assert envelopes.find(OTHER)


def test_signed_bytes_are_for_their_owner_only(envelopes: Envelopes, tmp_path: Path) -> None:
    envelopes.keep(CALL, b"bytes", NOW)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def spoil_folder(path: Path) -> None:
    path.parent.rmdir()


def spoil_file(path: Path) -> None:
    path.write_bytes(b"no database, but longer than a header of one is" * 10)


@pytest.mark.parametrize("spoil", [spoil_folder, spoil_file])
def test_where_none_can_be_kept_the_ledger_is_away(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "envelopes.db"
    spoil(path)
    with pytest.raises(LedgerAway, match=r"envelopes\.db: signed envelopes cannot be kept there: .*`envelopes`"):
        Envelopes(path).keep(CALL, b"bytes", NOW)


def test_what_was_kept_outlives_a_kill(tmp_path: Path, start_process: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    path = tmp_path / "envelopes.db"
    command = [sys.executable, "-m", "tests.fabric.keep_child", path]
    child = start_process(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as told_by_child:
        told = [int(told_by_child.readline()) for _ in range(50)]
        child.kill()
        told += [int(line) for line in told_by_child if line.endswith(b"\n")]
    envelopes = Envelopes(path)
    for number in told:
        assert envelopes.find(number.to_bytes(32, "big")) == Kept(NOW, b"envelope %d" % number)
