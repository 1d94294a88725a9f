"""In what a unit of the conflict queue differs from the content that its UID has, found out by a process of its own:
codecs decode both, and an object made to crash or hang one ends that process alone.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

from orthanc_ledger.arrival import read_head
from orthanc_ledger.assemble import Node
from orthanc_ledger.compare import Difference
from orthanc_ledger.errors import NotHeld, Unreadable
from orthanc_ledger.part10 import part10_head
from orthanc_ledger.spool import CONFLICTS, claim_of

LARGEST = 256 << 20
"""Bytes of a data set that is compared: both are kept in memory, as no clear bytes touch a disk."""

_LIMIT_S = 60
_PATIENCE_S = 5
_CHUNK = 1 << 20
_ONE = threading.Lock()


def difference(node: Node, name: str) -> list[Difference]:
    """Where a unit differs from the first content, as `compare` names it; empty when both are equal.

    Raises NotHeld, IntegrityError, ContentAway; Unreadable when they cannot be compared, or others are, for long.
    """
    first = node.index.instance(claim_of(name))
    if first is None:
        raise NotHeld("the first content is not in the index yet: try again in a moment")
    with _alone(), contextlib.ExitStack() as stack:
        data_set = stack.enter_context(node.near_library.open(first))
        held = stack.enter_context(_in_memory(data_set, first.transfer_syntax))
        unit = stack.enter_context(node.spool.open(name, CONFLICTS))
        came = stack.enter_context(_in_memory(unit, read_head(unit).arrival.transfer_syntax))
        return _compared(held, came)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    if not _ONE.acquire(timeout=_PATIENCE_S):
        raise Unreadable("others are being compared: try again in a minute")
    try:
        yield
    finally:
        _ONE.release()


@contextlib.contextmanager
def _in_memory(data_set: BinaryIO, transfer_syntax: str) -> Iterator[int]:
    """The descriptor of a Part 10 file that is in memory only. Raises Unreadable when it is too large."""
    descriptor = os.memfd_create("compared")
    try:
        with open(descriptor, "wb", closefd=False) as copy:
            size = copy.write(part10_head(transfer_syntax))
            while chunk := data_set.read(_CHUNK):
                size += copy.write(chunk)
                if size > LARGEST:
                    raise Unreadable(f"more than {LARGEST >> 20} MiB: too large to be compared here")
        yield descriptor
    finally:
        os.close(descriptor)


def _compared(*descriptors: int) -> list[Difference]:
    paths = [f"/proc/self/fd/{descriptor}" for descriptor in descriptors]
    command = [sys.executable, "-m", "orthanc_ledger", "compare", "--json", *paths]
    try:
        done = subprocess.run(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unreadable(f"not compared within {_LIMIT_S} s") from error
    if done.returncode not in (0, 1):
        raise Unreadable("one of the two cannot be decoded")
    return [Difference(**json.loads(line)) for line in done.stdout.splitlines()]
