"""The contract's events, from any place on, and where a reader of them got to."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.durable import sync
from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger import Value
from orthanc_ledger.ledger.fabric import dagjson
from orthanc_ledger.ledger.fabric.gateway import Gateway


@dataclass(frozen=True)
class Place:
    """A transaction on the channel: where a reader goes on."""

    block: int
    transaction_id: str  # 64 hex digits


@dataclass(frozen=True)
class Event:
    """What a committed transaction announced."""

    place: Place
    name: str  # of the contract function
    record: Value  # as under event/SEQUENCE


def follow(gateway: Gateway, after: Place | None) -> Iterator[Event]:
    """As `FabricLedger.events`. Raises IntegrityError for a payload that is no DAG-JSON."""
    block, transaction_id = (0, "") if after is None else (after.block, after.transaction_id)
    with contextlib.closing(gateway.chaincode_events(block, transaction_id)) as responses:
        for response in responses:
            for event in response.events:
                place = Place(response.block_number, event.tx_id)
                yield Event(place, event.event_name, dagjson.decode(event.payload))


class Bookmark:
    """A file that holds a reader's place: `BLOCK TRANSACTION_ID`. One reader a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def place(self) -> Place | None:
        """The place kept last; None: none yet. Raises IntegrityError when the file holds something else."""
        try:
            text = self._path.read_text(encoding="ascii")
            block, transaction_id = text.split()
            return Place(int(block), transaction_id)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise IntegrityError(f"{self._path}: expected BLOCK TRANSACTION_ID; remove it to begin anew") from error

    def keep(self, place: Place) -> None:
        """Keep a place, durable when this returns: what came before it does not come again. Raises OSError."""
        with tempfile.NamedTemporaryFile("w", dir=self._path.parent, prefix=self._path.name, delete=False) as file:
            file.write(f"{place.block} {place.transaction_id}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, self._path)
        sync(self._path.parent)
