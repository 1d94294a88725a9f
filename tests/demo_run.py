"""Runs of the demo: on the node as it is, and on nodes that break a promise.

A mutation is put into every process of a demo by a `sitecustomize` on PYTHONPATH; the product knows nothing of it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

DEADLINE_S = 240
COMMAND = [sys.executable, "-m", "orthanc_ledger", "demo"]

LOAD_MUTATED = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

class Mutation(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            mutate(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Mutation())
"""


def run_demo(tmp_path: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo to its end, its temporary folder in ``tmp_path``."""
    return subprocess.run(
        [*COMMAND, *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of the running processes that name a folder, there or in their environment: of a demo whose folder
    for temporary files it is, and of all it began.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (os.fsdecode((process / name).read_bytes()) for name in ("cmdline", "environ"))
        except OSError:  # it ended just now, or is not ours
            continue
        if str(folder) in command + environment:
            found.append(command.replace("\0", " "))
    return found


def check_it_fails(tmp_path: Path, mutation: str, failure: str, *options: str) -> None:
    """Run the demo with a mutation: it names the step that fails (``failure``, a pattern), and leaves nothing."""
    done = run_mutated(tmp_path, mutation, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(f"^✗ {failure}", done.stdout, re.MULTILINE), done.stdout


def run_mutated(tmp_path: Path, mutation: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo with a mutation; fails the test when it leaves anything."""
    sites = tmp_path / "sites"
    sites.mkdir()
    (sites / "sitecustomize.py").write_text(mutation + LOAD_MUTATED)
    folders = tmp_path / "folders"
    folders.mkdir()
    done = run_demo(folders, *options, PYTHONPATH=str(sites))
    assert (processes_of(folders), list(folders.iterdir())) == ([], [])
    return done
