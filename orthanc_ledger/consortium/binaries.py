"""Programs built from pinned sources into the user's cache: Fabric's own, the chaincode, Kubo and ipfs-cluster.

A folder in the cache is named by the SHA-256 of what it is built from, and appears whole or not at all; once it is
there neither Go nor the network is needed.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from orthanc_ledger.consortium.mends import CLUSTER_MENDS, KUBO_MENDS, MENDS, Mend, mend
from orthanc_ledger.consortium.topology import FABRIC_VERSION
from orthanc_ledger.errors import ConfigError, LedgerAway
from orthanc_ledger.sole import sole

FABRIC_SOURCE = Path(__file__).parent / "fabric"
KUBO_SOURCE = Path(__file__).parent / "kubo"
CLUSTER_SOURCE = Path(__file__).parent / "ipfs_cluster"
CHAINCODE_SOURCE = Path(__file__).resolve().parents[2] / "chaincode"

_FABRIC = "github.com/hyperledger/fabric"
_BOXO = "github.com/ipfs/boxo"  # Kubo's library of what IPFS is made of
_CLUSTER = "github.com/ipfs-cluster/ipfs-cluster"
_FABRIC_FLAGS = ("-ldflags", f"-s -w -X {_FABRIC}/common/metadata.Version={FABRIC_VERSION}-mended")
_KUBO_FLAGS = ("-ldflags", "-s -w -X github.com/ipfs/kubo.CurrentCommit=mended")
_CLUSTER_FLAGS = ("-ldflags", "-s -w")
_WITHOUT_C = {"CGO_ENABLED": "0"}  # with a C compiler or without: the same program
_OTHER_BUILDER_S = 1800.0
_LAST_LINES = 20
_PROGRAM_S = 60

log = logging.getLogger(__name__)


def fabric_binaries() -> Path:
    """The folder of peer, orderer, configtxgen, cryptogen and osnadmin, with MENDS, built when it is not there.

    Raises ConfigError when Go is missing or the build fails, LedgerAway when another builder holds the cache too long.
    """
    return _built("fabric", FABRIC_SOURCE, "tool", _FABRIC_FLAGS, _FABRIC, MENDS)


def chaincode_binary(source: Path = CHAINCODE_SOURCE) -> Path:
    """The program of a chaincode's main package in ``source``. The same sources give the same bytes on any machine
    with the same Go, so that organisations can compare what they run. Raises as ``fabric_binaries``.
    """
    if not (source / "go.mod").is_file():
        raise ConfigError(f"{source}: expected a Go module; the network is started from a clone of the project")
    (program,) = _built("chaincode", source, ".", ()).iterdir()
    return program


def kubo_binary() -> Path:
    """The program `ipfs` of Kubo, with KUBO_MENDS. Raises as ``fabric_binaries``."""
    return _built("kubo", KUBO_SOURCE, "tool", _KUBO_FLAGS, _BOXO, KUBO_MENDS) / "ipfs"


def cluster_binary() -> Path:
    """The program `ipfs-cluster-service`, with CLUSTER_MENDS. Raises as ``fabric_binaries``."""
    return (
        _built("ipfs-cluster", CLUSTER_SOURCE, "tool", _CLUSTER_FLAGS, _CLUSTER, CLUSTER_MENDS) / "ipfs-cluster-service"
    )


def run_program(program: Path, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """What one of these programs says, with ``environment`` over this process's.

    Raises LedgerAway, with its words, when it fails or takes longer than a minute.
    """
    what = " ".join([program.name, *words[:3]])
    try:
        done = subprocess.run(
            [program, *words],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PROGRAM_S,
        )
    except subprocess.TimeoutExpired as error:
        raise LedgerAway(f"{what}: no answer in {_PROGRAM_S} s") from error
    if done.returncode:
        raise LedgerAway(f"{what}: {done.stdout.strip()}")
    return done.stdout


def _built(
    name: str, source: Path, package: str, flags: Iterable[str], mended: str = "", mends: tuple[Mend, ...] = ()
) -> Path:
    """The folder of what is built. ``mended``: the module that the mends are made in."""
    flags = ("-trimpath", "-buildvcs=false", *flags)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orthanc-ledger"
    folder = cache / f"{name}-{_digest(source, (*flags, *map(repr, mends)))[:32]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    lock = cache / f"{name}.lock"
    busy = LedgerAway(f"{lock}: somebody else has been building for {_OTHER_BUILDER_S:.0f} s")
    with sole(lock, busy, _OTHER_BUILDER_S):
        if not folder.is_dir():
            _build(name, source, package, flags, mended, mends, folder)
    return folder


def _digest(source: Path, words: Iterable[str]) -> str:
    """SHA-256 over how it is built, and name and content of every Go file under ``source``, tests left out."""
    digest = hashlib.sha256("\0".join((*words, *_WITHOUT_C)).encode())
    files = (*source.rglob("*.go"), *source.glob("go.*"))
    for path in sorted(path for path in files if not path.name.endswith("_test.go")):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(source)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _build(
    name: str,
    source: Path,
    package: str,
    flags: Iterable[str],
    mended: str,
    mends: tuple[Mend, ...],
    folder: Path,
) -> None:
    if shutil.which("go") is None:
        raise ConfigError(f"{name} has to be built and Go is not installed: expected `go`, 1.21 or newer, on PATH")
    log.info("building %s, once: minutes for Fabric and Kubo, less for the others", name)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        if mends:
            source = _mended(source, mended, mends, Path(temporary))
        result = Path(temporary) / "result"
        result.mkdir()
        _go(source, "build", *flags, "-o", f"{result}/", package)
        result.rename(folder)


def _mended(source: Path, mended: str, mends: Iterable[Mend], folder: Path) -> Path:
    """A copy of the module ``source`` that is built from a mended copy of one it asks for."""
    release = json.loads(_go(source, "mod", "download", "-json", mended))["Dir"]
    copy = folder / mended.rpartition("/")[2]
    shutil.copytree(release, copy, copy_function=shutil.copyfile)  # Go's own copy is read-only
    mend(copy, mends)
    module = folder / "module"
    shutil.copytree(source, module)
    _go(module, "mod", "edit", "-replace", f"{mended}=../{copy.name}")  # as relative, the same on any machine
    return module


def _go(module: Path, *words: str) -> str:
    """What a `go` command says in a module's folder. Raises ConfigError, with its last lines, when it fails."""
    done = subprocess.run(["go", *words], cwd=module, env={**os.environ, **_WITHOUT_C}, capture_output=True, text=True)
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-_LAST_LINES:])
        raise ConfigError(f"{module}: go {words[0]} failed; its last lines:\n{last}")
    return done.stdout
