"""A hospital's Orthanc and node with all there is around them: a ward, research AEs of two organisations, and studies
of which one is approved.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import wait_until
from pydicom import dcmread

from orthanc_ledger.assemble import BESIDE
from tests.in_orthanc.conftest import Hospital, new_hospital
from tests.in_orthanc.kept import store_files
from tests.in_orthanc.live import Version
from tests.in_orthanc.moving import WAIT_S, Destination, Response, move

HERE = "127.0.0.1"
NOWHERE = 1
"""A port on which nobody listens."""


@dataclass
class House:
    """``approved`` may go to RESEARCH1, ``others`` to nobody of research."""

    hospital: Hospital
    ward: Destination
    research: dict[str, Destination]
    approved: list[Path]
    others: list[Path]

    def fresh(self) -> None:
        """Forget what arrived."""
        for destination in (self.ward, *self.research.values()):
            destination.fresh()

    @property
    def left(self) -> set[str]:
        """SOP Instance UIDs of what arrived anywhere, or began to."""
        return {uid for each in (self.ward, *self.research.values()) for uid in each.arrived}

    def move(
        self,
        caller: str,
        destination: str,
        study: str,
        each: Callable[[int], object] = lambda number: None,
        **more: Any,
    ) -> list[Response]:
        """C-MOVE of a study, with nothing arrived before. ``each`` as `Destination`'s."""
        self.fresh()
        for lab in self.research.values():
            lab.each = each
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}
        return move(self.hospital.orthanc, caller, destination, keys, **more)

    def rows(self, function: str) -> list[dict[str, Any]]:
        """The ledger's records of a function."""
        return [row for row in self.hospital.node.audit() if row["function"] == function]

    def denials(self) -> int:
        """How many refusals the ledger has."""
        return sum(row["args"]["count"] for row in self.rows("LogDenials"))


def uid(path: Path, keyword: str = "StudyInstanceUID") -> str:
    """A UID of a file."""
    return str(dcmread(path, stop_before_pixels=True)[keyword].value)


def uids(paths: Sequence[Path]) -> set[str]:
    """SOP Instance UIDs of files."""
    return {uid(path, "SOPInstanceUID") for path in paths}


@contextmanager
def open_house(
    version: Version, folder: Path, free_port: Callable[[], int], approved: list[Path], others: list[Path]
) -> Iterator[House]:
    """Everything runs, and all scans are anchored."""
    with ExitStack() as stack:
        research = {title: Destination(title, free_port()) for title in ("RESEARCH1", "RESEARCH2", "FOREIGN1")}
        ward = Destination("WARD", free_port())
        for destination in (ward, *research.values()):
            stack.enter_context(destination.listening())
        peers = [
            {
                "ae_title": title,
                "role": "research",
                "organisation": "ForeignMSP" if title == "FOREIGN1" else "ResearchMSP",
                "host": HERE,
                "port": each.port,
            }
            for title, each in research.items()
        ]
        ledger = {"Move": True, "Accept": ["DicomAlwaysAllowMove"]}
        settings = {
            "DicomAlwaysAllowMove": True,
            "ConcurrentJobs": 8,
            "DicomModalities": {
                "MRI1": ["MRI1", HERE, NOWHERE],
                "WS": ["WARD", HERE, ward.port],
                "LOOKER": {"AET": "LOOKER", "Host": HERE, "Port": NOWHERE, "AllowMove": False},
            },
        }
        made = new_hospital(version, folder, free_port, ledger, settings, {"peers": peers})
        stack.callback(made.orthanc.stop)
        made.start()
        store_files(made.orthanc, [*approved, *others])
        made.node.wait_anchored(len(approved) + len(others))
        made.node.approve(uid(approved[0]))
        wait_until((made.node.config.parent / "data" / BESIDE).exists, WAIT_S, "the node answers the plugin")
        yield House(made, ward, research, approved, others)
        assert made.orthanc.stop() == 0
