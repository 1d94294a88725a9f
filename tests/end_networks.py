"""Waits for the end of its standard input, then kills the servers of every network under a folder."""

import signal
import sys
from pathlib import Path

from orthanc_ledger.consortium.processes import Processes

sys.stdin.read()
for known in Path(sys.argv[1]).rglob("run/*.json"):
    Processes(known.parent.parent).end(known.stem, signal.SIGKILL)
