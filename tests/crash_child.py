"""What test_crash.py runs under strace, which kills a process before its ``KILL_AT``-th call of a system call.

``python crash_child.py TEMPLATE TARGET write|anchor`` forks one child for each kill point, on a copy of the node in
TEMPLATE. The child spends KILL_AT − n calls on nothing, then works, and so is killed before the n-th call of its work.
Prints one line of JSON a point.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from node_make import drain, open_node, real_file, store, variant

KILL_AT = 200
STEPS = {"pwrite64": 5}  # SQLite's pages: there are many, and none counts before its fdatasync
NO_FILE = 1_000_000
NOWHERE = "/nowhere/at/all"
IDLE_CALLS: dict[str, Callable[[], object]] = {
    "fsync": lambda: os.fsync(NO_FILE),
    "fdatasync": lambda: os.fdatasync(NO_FILE),
    "pwrite64": lambda: os.pwrite(NO_FILE, b"", 0),
    "linkat": lambda: os.link(NOWHERE, NOWHERE, src_dir_fd=NO_FILE),
    "rename": lambda: os.rename(NOWHERE, NOWHERE),
    "unlink": lambda: os.unlink(NOWHERE),
}
OBJECTS = 3


def objects() -> list:  # type: ignore[type-arg]
    """Three real objects of one study."""
    return [variant(real_file(), SOPInstanceUID=f"1.2.826.0.1.{n}", InstanceNumber=n) for n in range(OBJECTS)]


def write(folder: Path) -> None:
    """Accept the objects as a receiver does, noting each Success before the next one."""
    node = open_node(folder)
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for ds in objects():
        store(node, ds)
        os.write(acknowledged, f"{ds.SOPInstanceUID}\n".encode())


def anchor(folder: Path) -> None:
    """Start an anchorer that anchors everything."""
    drain(open_node(folder))


WORK = {"write": write, "anchor": anchor}


def main(template: Path, target: Path, work: str) -> None:
    for name, idle in IDLE_CALLS.items():
        for number in range(1, KILL_AT, STEPS.get(name, 1)):
            folder = target / f"{name}-{number}"
            shutil.copytree(template, folder)
            child = os.fork()
            if child == 0:
                for _ in range(KILL_AT - number):
                    with contextlib.suppress(OSError):
                        idle()
                WORK[work](folder)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps({"folder": str(folder), "status": status}), flush=True)
            if status != -signal.SIGKILL:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
