"""Programs in the cache: named by what they are built from, built once, there whole or not at all."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_ledger.consortium.binaries import (
    CLUSTER_SOURCE,
    FABRIC_SOURCE,
    KUBO_SOURCE,
    chaincode_binary,
    run_program,
)
from orthanc_ledger.consortium.mends import Mend, mend
from orthanc_ledger.consortium.topology import CLUSTER_VERSION, FABRIC_VERSION, KUBO_VERSION
from orthanc_ledger.errors import ConfigError, LedgerAway
from tests.consortium.live import need_go

MAIN = 'package main\n\nfunc main() {{ println("{}") }}\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    need_go()
    go = subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("GOCACHE", go)  # which would be in the empty cache, too, without the standard library
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "orthanc-ledger"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A module with a program that says one."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "go.mod").write_text("module said\n\ngo 1.24\n")
    (folder / "main.go").write_text(MAIN.format("one"))
    return folder


def said(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stderr.strip()


def test_built_once_then_needed_neither_go_nor_sources_read_twice(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chaincode_binary(source)
    built = first.stat().st_mtime_ns
    monkeypatch.setenv("PATH", "")
    assert chaincode_binary(source) == first
    assert first.stat().st_mtime_ns == built
    assert said(first) == "one"


def test_other_sources_are_another_program_and_tests_are_no_sources(cache: Path, source: Path) -> None:
    first = chaincode_binary(source)
    (source / "main_test.go").write_text("package main\n")
    assert chaincode_binary(source) == first
    (source / "main.go").write_text(MAIN.format("two"))
    second = chaincode_binary(source)
    assert (said(first), said(second)) == ("one", "two")


def test_builders_that_meet_build_once(cache: Path, source: Path) -> None:
    with ThreadPoolExecutor() as pool:
        found = {each.result() for each in [pool.submit(chaincode_binary, source) for _ in range(3)]}
    assert len(found) == 1
    assert sorted(path.name.partition("-")[0] for path in cache.iterdir()) == ["chaincode", "chaincode.lock"]


def test_a_build_that_fails_says_why_and_leaves_nothing(cache: Path, source: Path) -> None:
    (source / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(ConfigError, match=r"go build failed.*\n(.*\n)*.*undefined: nonsense"):
        chaincode_binary(source)
    assert [path.name for path in cache.iterdir()] == ["chaincode.lock"]


def test_without_go_it_is_said_what_is_missing(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"Go is not installed: expected `go`, 1\.21 or newer"):
        chaincode_binary(source)


def test_without_a_module_it_is_said_where_one_was_expected(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a Go module"):
        chaincode_binary(tmp_path / "nothing")


def test_a_program_s_own_words_are_kept_when_it_fails(tmp_path: Path) -> None:
    program = tmp_path / "osnadmin"
    program.write_text("#!/bin/sh\necho $MOOD: no such channel >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(LedgerAway, match=r"^osnadmin channel join -c: sorry: no such channel$"):
        run_program(program, "channel", "join", "-c", "nowhere", environment={"MOOD": "sorry"})


@pytest.mark.parametrize(
    ("source", "module", "expected", "version"),
    [
        (FABRIC_SOURCE, "hyperledger/fabric", ("3.1.1", "v1.4.0-rc1.0.20250510200036-435a7f1a780a"), FABRIC_VERSION),
        (KUBO_SOURCE, "ipfs/kubo", ("0.42.0", "v0.42.0"), KUBO_VERSION),
        (CLUSTER_SOURCE, "ipfs-cluster/ipfs-cluster", ("1.1.6", "v1.1.6"), CLUSTER_VERSION),
    ],
    ids=["fabric", "kubo", "ipfs-cluster"],
)
def test_programs_are_pinned_to_their_release(
    source: Path, module: str, expected: tuple[str, str], version: str
) -> None:
    pinned = re.search(rf"^\tgithub.com/{module} (\S+)", (source / "go.mod").read_text(), re.MULTILINE)
    assert pinned is not None
    assert (version, pinned[1]) == expected


@pytest.mark.parametrize("text", ["f(x) f(x)\n", "f(y)\n", None], ids=["twice", "not", "no file"])
def test_a_mend_is_made_where_its_text_stands_once_and_else_nothing_is_built(tmp_path: Path, text: str | None) -> None:
    chosen = Mend("a.go", "f(x)", "g(x)")
    (tmp_path / "a.go").write_text("if f(x) {\n")
    mend(tmp_path, [chosen])
    assert (tmp_path / "a.go").read_text() == "if g(x) {\n"
    if text is None:
        (tmp_path / "a.go").unlink()
    else:
        (tmp_path / "a.go").write_text(text)
    with pytest.raises(ConfigError, match=r"^a\.go: expected `f\(x\)` once, got it [02] times"):
        mend(tmp_path, [chosen])
