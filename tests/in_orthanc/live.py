"""Real Orthancs for tests: Debian 12's 1.10.1 with plugin 4.0 on this machine, and 1.12.7 with plugin 5.0 and Python
3.13 in a chroot, both on free loopback ports, with this project's plugin or plain.
"""

import base64
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
Version = Literal["1.10.1", "1.12.7"]
VERSIONS: tuple[Version, ...] = ("1.10.1", "1.12.7")
SCRIPT = ROOT / "orthanc_ledger" / "plugin" / "start" / "orthanc_ledger_plugin.py"
STAFF, LEDGER, STUDENT = "staff", "ledger", "student"
USERS = {STAFF: "of the house", LEDGER: "asks for the node", STUDENT: "is research"}
AE_TITLE = "PACS"
_PLUGINS = "/usr/share/orthanc/plugins"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@cache
def trixie() -> tuple[Path, Path]:
    """The folder of the chroot, and of the packages for its Python."""
    made = subprocess.run([ROOT / "scripts" / "orthanc-trixie"], capture_output=True, text=True, timeout=1200)
    assert made.returncode == 0, f"no Orthanc 1.12 could be made: {made.stderr[-3000:]}"
    system, packages = made.stdout.split()[-2:]
    return Path(system), Path(packages)


@dataclass
class LiveOrthanc:
    """One Orthanc in a folder of its own.

    ``ledger``: the section "Ledger", for the plugin; None: plain Orthanc. ``settings`` go over the usual ones.
    ``shared``: folders that it sees besides its own, under the same paths.
    """

    version: Version
    folder: Path
    http_port: int
    dicom_port: int
    ledger: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    shared: tuple[Path, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        """What it and the processes that it started said."""
        return self.folder / "orthanc.log"

    def configuration(self) -> dict[str, Any]:
        """Orthanc's configuration, whole."""
        plugins = [f"{_PLUGINS}/libOrthancDicomWeb.so"]
        own: dict[str, Any] = {}
        if self.ledger is not None:
            plugins.append(f"{_PLUGINS}/libOrthancPython.so")
            own = {"PythonScript": str(SCRIPT), "PythonVerbose": False, "Ledger": self.ledger}
        return {
            "Name": "tests",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": AE_TITLE,
            "DicomCheckCalledAet": True,
            "DicomCheckModalityHost": True,
            "DicomAlwaysAllowStore": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": USERS,
            "RemoteAccessAllowed": False,
            "StableAge": 1,
            "Plugins": plugins,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **own,
            **self.settings,
        }

    def launch(self, given: Path | None = None) -> None:
        """Start it, without waiting for it. ``given``: another configuration, a file or folder in its own folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = given or self.folder / "orthanc.json"
        if given is None:
            path.write_text(json.dumps(self.configuration(), indent=1))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(["Orthanc", "--verbose", str(path)]), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def start(self, given: Path | None = None) -> None:
        """Start it and wait until its HTTP answers. ``given``: as for `launch`."""
        self.launch(given)
        wait_until(self._answers, START_S, f"Orthanc {self.version} answers: {self.log}")

    def stop(self) -> int | None:
        """End it, as its service would; its exit code."""
        if self.process is None:
            return None
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code

    def kill(self) -> None:
        """Kill it where it stands."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def refused(self) -> str:
        """Start it although it will not: the log of a start that failed."""
        self.launch()
        assert self.process is not None
        code = self.process.wait(START_S)
        self.process = None
        assert code != 0, "it started"
        return self.log.read_text(errors="replace")

    def call(
        self,
        method: str,
        path: str,
        body: bytes | str | Mapping[str, Any] | list[Any] | None = None,
        user: str | None = STAFF,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        """An HTTP call as a user; None: as nobody."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        sent = {**({"Authorization": basic(user)} if user else {}), **(headers or {})}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=timeout_s)) as http_:
            http_.request(method, path, body if body is None or isinstance(body, (bytes, str)) else b"", sent)
            answer = http_.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"Orthanc ended: {self.log.read_text(errors='replace')[-3000:]}"
        try:
            return self.call("GET", "/system").status == 200
        except OSError:
            return False

    def command(self, words: list[str]) -> list[str]:
        """How a program is started beside this Orthanc: on this machine or in its chroot."""
        if self.version == "1.10.1":
            packages = sysconfig.get_path("purelib")
            return [shutil.which("env") or "env", f"PYTHONPATH={packages}", "TCP_NODELAY=1", *_sbin(words)]
        system, packages_313 = trixie()
        seen = [ROOT, packages_313, self.folder, *self.shared]
        binds = [f"mkdir -p {system}{path} && mount --bind {path} {system}{path}" for path in map(str, seen)]
        mounts = [
            f"mount -t proc proc {system}/proc",
            f"mount --rbind /dev {system}/dev",
            f"mount -t tmpfs tmpfs {system}/tmp",
        ]
        compiled = f"PYTHONPYCACHEPREFIX={packages_313}/__pycache__ PYTHONDONTWRITEBYTECODE="  # once, not at each start
        environment = f"PYTHONPATH={packages_313}:{ROOT} TCP_NODELAY=1 {compiled}"
        run = f"exec chroot {system} /usr/bin/env {environment} {' '.join(_sbin(words))}"
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "; ".join([*mounts, *binds, run])]


def python_of(version: Version) -> str:
    """The Python that runs the node's processes beside an Orthanc, as it sees it."""
    return sys.executable if version == "1.10.1" else "/usr/bin/python3"


def basic(user: str, password: str | None = None) -> str:
    """The header Authorization of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password or USERS[user]}".encode()).decode()


def _sbin(words: list[str]) -> list[str]:
    return ["/usr/sbin/Orthanc", *words[1:]] if words[0] == "Orthanc" else words
