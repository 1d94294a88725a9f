"""What can be read of a Part 10 file (PS3.10 7) that is kept whatever it is, as it is stored elsewhere already."""

import logging
import struct
from dataclasses import dataclass
from typing import BinaryIO

from orthanc_ledger.errors import Unreadable
from orthanc_ledger.instance import Identifiers, data_set_at, read_identifiers

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """``data_set_offset``: bytes before the data set; ``identifiers``: None when the data set cannot be read so far."""

    data_set_offset: int = 0
    transfer_syntax: str = ""
    identifiers: Identifiers | None = None


def read_part10(file: BinaryIO) -> Head:
    """Read the head of a Part 10 file, or of a plain data set, at the file's beginning."""
    head = Head()
    try:
        file.seek(0)
        head = Head(*data_set_at(file))
        file.seek(head.data_set_offset)
        return Head(head.data_set_offset, head.transfer_syntax, read_identifiers(file, head.transfer_syntax))
    except Unreadable:
        LOGGER.warning("an object came whose head cannot be read; it goes to quarantine")
        return head


def part10_head(transfer_syntax: str) -> bytes:
    """What makes a Part 10 file of a data set, and no more of file meta than a reader needs (PS3.10 7.1)."""
    value = transfer_syntax.encode("ascii")
    value += b"\0" * (len(value) % 2)
    meta = struct.pack("<HH2sH", 2, 0x0010, b"UI", len(value)) + value
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta
