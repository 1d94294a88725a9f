"""The demo with Orthanc in the middle: this machine's Orthanc takes the scan and shows it to staff as ever, the node
behind it decides what research gets.
"""

import base64
import http.client
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orthanc_ledger
from dicom_scp import demo_peers as peers
from dicom_scp.demo_node import AE_TITLE, MODALITY, DemoNode, expect, poll
from dicom_scp.demo_story import Story, step

_PLUGIN = "libOrthancPython.so"
_PLUGINS = Path("/usr/share/orthanc/plugins")
_SCRIPT = Path(orthanc_ledger.__file__).parent / "plugin" / "start" / "orthanc_ledger_plugin.py"
_STAFF, _STUDENT, _NODE = "radiology", "student", "ledger"
_USERS = {_STAFF: "of the house", _STUDENT: "is research", _NODE: "asks for the node"}


@dataclass(frozen=True)
class OrthancNode(DemoNode):
    """A node behind an Orthanc, whose DICOM port is ``clinical_port``; the research centre's own is ``move_port``."""

    http_port: int
    move_port: int

    @property
    def _callers(self) -> list[dict[str, object]]:
        modality, research = super()._callers
        return [modality, {**research, "host": "127.0.0.1", "port": self.move_port}]

    @contextmanager
    def set_up(self) -> Iterator[tuple[str, ...]]:
        """As the base has it; Orthanc's configuration beside it."""
        expect(
            (_PLUGINS / _PLUGIN).exists(), f"{_PLUGINS / _PLUGIN} is not here: apt-get install orthanc orthanc-python"
        )
        with super().set_up() as facts:
            self._orthanc_json.write_text(json.dumps(self._orthanc(), indent=2), encoding="utf-8")
            yield (*facts, "Orthanc's configuration names it")

    def running(self) -> AbstractContextManager[None]:
        """Run Orthanc, which runs the node."""
        program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
        packages = [*filter(None, [os.environ.get("PYTHONPATH")]), sysconfig.get_path("purelib")]
        words = [program, str(self._orthanc_json)]
        return self._started("orthanc", words, PYTHONPATH=os.pathsep.join(packages), TCP_NODELAY="1")

    def call(self, method: str, path: str, body: str | None = None, user: str = _STAFF) -> tuple[int, Any]:
        """Status and JSON of an answer of Orthanc's to a user; None: it was no JSON."""
        credentials = base64.b64encode(f"{user}:{_USERS[user]}".encode()).decode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)) as connection:
            connection.request(method, path, body, {"Authorization": f"Basic {credentials}"})
            answer = connection.getresponse()
            content = answer.read()
        is_json = "json" in (answer.getheader("Content-Type") or "")
        return answer.status, json.loads(content) if is_json else None

    def orthanc_id(self, uid: str) -> str:
        """Orthanc's own identifier of a study. Raises StepFailed."""
        _, found = self.call("POST", "/tools/lookup", uid)
        expect(found, "Orthanc does not have the study")
        return str(found[0]["ID"])

    def _init(self, *options: object, **settings: object) -> None:
        super()._init("--orthanc", *options, **settings)

    @property
    def _orthanc_json(self) -> Path:
        return self.folder / "orthanc.json"

    def _orthanc(self) -> dict[str, Any]:
        storage = str(self.folder / "orthanc")
        return {
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "HttpPort": self.http_port,
            "DicomPort": self.clinical_port,
            "DicomAet": AE_TITLE,
            "DicomModalities": {"mri": [MODALITY, "127.0.0.1", 104]},
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomAlwaysAllowMove": True,
            "AuthenticationEnabled": True,
            "RegisteredUsers": _USERS,
            "Plugins": [str(_PLUGINS / _PLUGIN)],
            "PythonScript": str(_SCRIPT),
            "Ledger": {
                "Configuration": str(self._config),
                "Python": sys.executable,
                "Staff": [_STAFF],
                "User": _NODE,
                "Move": True,
                "Accept": ["DicomAlwaysAllowMove"],
            },
        }


class OrthancStory(Story):
    """The story as a hospital sees it that has an Orthanc."""

    _node: OrthancNode

    def __init__(self, node: OrthancNode) -> None:
        super().__init__(node)

    def _stores(self) -> None:
        super()._stores()
        with step("staff have it in Orthanc") as shown:
            count = self._count()
            expect(count == len(self._files), f"expected {len(self._files)} images in Orthanc, got {count}")
            shown.found(f"{count} images, as ever")

    def _is_anchored(self) -> None:
        super()._is_anchored()
        with step("Orthanc's page says so") as shown:
            shown.found(self._says("under custody"))

    def _is_closed(self, name: str, why: str = "no approval") -> None:
        super()._is_closed(name, why)
        with step("nor does Orthanc give it any") as shown:
            expect(peers.is_turned_away(self._node.clinical_port), "Orthanc answered research")
            status, _ = self._node.call("GET", "/studies", user=_STUDENT)
            expect(status == 403, f"HTTP: expected 403, got {status}")
            answer = self._moves()
            expect(not answer.received, f"C-MOVE: expected nothing, got {len(answer.received)} objects")
            self._refused += 1
            shown.found("C-FIND and C-GET: no answer", "HTTP: 403", f"C-MOVE: 0x{answer.status:04X}, nothing sent")

    def _is_released(self) -> None:
        super()._is_released()
        with step("and by a C-MOVE of Orthanc's") as shown:
            answer = self._moves()
            self._expect_as_sent(answer.received, len(self._sent))
            self._outcomes.append((len(answer.received), 0))
            shown.found(f"{len(answer.received)} objects, sent and logged by the node")
        sent = sum(sent for sent, _ in self._outcomes)
        with step("Orthanc's page tells to whom") as shown:
            told = self._panel(lambda page: sum(each["sent"] or 0 for each in page["releases"]) == sent, f"{sent} sent")
            (release,) = told["releases"]
            shown.found(f"{sent} objects to {release['ae_title']} of {release['organisation']}", *release["purposes"])

    def _is_tampered_with(self) -> None:
        super()._is_tampered_with()
        with step("staff are told, and work on") as shown:
            shown.found(self._says("withheld: differs from its anchor"), f"{self._count()} images in Orthanc")

    def _moves(self) -> peers.Answer:
        return peers.move_study(self._node.clinical_port, self._node.move_port, self._study)

    def _count(self) -> int:
        """How many of the study's images Orthanc has."""
        _, found = self._node.call("GET", f"/studies/{self._node.orthanc_id(self._study)}/statistics")
        return int(found["CountInstances"])

    def _says(self, state: str) -> str:
        """A state, once the page of the study shows it. Raises StepFailed."""
        self._panel(lambda page: page["state"] == state, repr(state))
        return state

    def _panel(self, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """What the page of the study shows, once it is as it should be. Raises StepFailed."""
        path = f"/ledger/studies/{self._node.orthanc_id(self._study)}/facts"
        shown: dict[str, Any] = {}

        def is_shown() -> bool:
            status, found = self._node.call("GET", path)
            shown.update(found or {})
            return status == 200 and condition(shown)

        poll(is_shown, f"the page shows {what}")
        return shown
