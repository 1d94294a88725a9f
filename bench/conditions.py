"""Under which conditions the figures were taken."""

import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.peers import tool
from bench.slices import ROOT, series
from orthanc_ledger import __version__

_SYNCS = 200
_SYNCED_BYTES = 4096
_ENTRIES = 300_000
PACE = f"a dict of {_ENTRIES:,} texts in Python"


def machine() -> dict[str, str]:
    """What a reader must know of this machine, by name."""
    folder = Path(tempfile.gettempdir())
    load_1_min, *_ = os.getloadavg()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "kernel": platform.release(),
        "file system": f"{_file_system(folder)}; 4 kB written and fsynced in {_fsync_s(folder) * 1e3:.2f} ms (median)",
        "load before": f"{load_1_min:.2f} in the last minute",
        "orthanc-ledger": f"{__version__}, commit {_commit()}",
        "Python": f"{platform.python_version()}, pydicom {version('pydicom')}, pynetdicom {version('pynetdicom')}",
    }


def conditions() -> dict[str, str]:
    """What a reader must know to compare nodes, by name."""
    return {
        **machine(),
        "dcmtk": _first_version(_said(tool("dcmsend"), "--version")),
        "Orthanc": _first_version(_said(tool("Orthanc"), "--version")),
        "slices": f"mosaics of {len(series())} real GE slices",
    }


def pace_s() -> float:
    """Seconds for `PACE`, the median of five: where they differ at two moments, the machine did, which others share."""
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        texts = {number: str(number) for number in range(_ENTRIES)}
        sum(map(len, texts.values()))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _said(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30).stdout.strip()


def _first_version(text: str) -> str:
    found = re.search(r"\d+\.\d+\.\d+", text)
    return found[0] if found else "unknown"


def _commit() -> str:
    commit = _said("git", "rev-parse", "--short", "HEAD") or "unknown"
    return f"{commit}, with changes" if _said("git", "status", "--porcelain", "--untracked-files=no") else commit


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder: of the longest mount point above it."""
    mounts = (line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    above = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]))[1]


def _fsync_s(folder: Path) -> float:
    """Seconds for a small write and its fsync, the median of many."""
    seconds = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(bytes(_SYNCED_BYTES))
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
