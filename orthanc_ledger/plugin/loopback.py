"""What the plugin has Orthanc do over loopback HTTP, where a call from within would hold all of Orthanc: sending."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from orthanc_ledger.errors import OrthancAway
from orthanc_ledger.orthanc_rest import OrthancRest

_BEFORE_OTHERS = 100  # a C-MOVE does not wait behind jobs that nobody waits for; 0 is theirs


@dataclass(frozen=True)
class Job:
    """A job that stores instances: how many, how far it is (per cent), and its state, as Orthanc calls it."""

    count: int
    progress: int
    state: str

    @property
    def ended(self) -> bool:
        """Whether it sends nothing more, unless a person has it go on."""
        return self.state not in ("Pending", "Running", "Retry")

    @property
    def sent(self) -> int:
        """How many it has sent at least: exact up to 100 in all, as progress is rounded to whole per cent."""
        return self.count if self.state == "Success" else max(0, -((1 - 2 * self.progress) * self.count // 200))


class Loopback(OrthancRest):
    """Orthanc, asked by the plugin. Raises as `OrthancRest`."""

    def store(self, modality: str, ids: Sequence[str], originator: str, message_id: int) -> str:
        """Begin to send what these ids name, over one association, up to the first failure; the job's id."""
        asked = {
            "Resources": list(ids),
            "Synchronous": False,
            "Permissive": False,
            "Priority": _BEFORE_OTHERS,
            "MoveOriginatorAet": originator,
            "MoveOriginatorID": message_id,
        }
        return str(
            self._known(self._json("POST", f"/modalities/{quote(modality)}/store", json.dumps(asked).encode()))["ID"]
        )

    def numbered(self, accession_number: str) -> list[str]:
        """Ids of the studies with this Accession Number; case counts as little as for Orthanc's other identifiers."""
        asked = {"Level": "Study", "Query": {"AccessionNumber": accession_number}, "Expand": True}
        found = self._known(self._json("POST", "/tools/find", json.dumps(asked).encode()))
        wanted = accession_number.strip().upper()  # exact: in the query some characters are wildcards
        return [row["ID"] for row in found if row["MainDicomTags"]["AccessionNumber"].strip().upper() == wanted]

    def job(self, id: str) -> Job:
        """How far a job is."""
        found = self._known(self._json("GET", f"/jobs/{id}"))
        return Job(found["Content"]["InstancesCount"], found["Progress"], found["State"])

    def cancel(self, id: str) -> None:
        """Have a job begin nothing more."""
        self._json("POST", f"/jobs/{id}/cancel", b"{}")

    def contents(self, ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """What these ids name; those that name nothing are left out."""
        asked = {"Resources": list(ids), "Metadata": False}
        found: Sequence[Mapping[str, Any]] = self._known(
            self._json("POST", "/tools/bulk-content", json.dumps(asked).encode())
        )
        return found

    def size(self, kind: str, id: str) -> int:
        """How many instances a resource has; its kind is `Patient`, `Study`, `Series` or `Instance`."""
        if kind == "Instance":
            return 1
        path = kind.lower() if kind == "Series" else {"Patient": "patients", "Study": "studies"}[kind]
        return int(self._known(self._json("GET", f"/{path}/{id}/statistics"))["CountInstances"])

    def _known(self, answer: Any) -> Any:
        if answer is None:
            raise OrthancAway("Orthanc does not know any more what it was just told of")
        return answer
