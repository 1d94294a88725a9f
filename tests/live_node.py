"""A whole node for tests: set up by `init`, run by `serve` as real processes on free loopback ports, driven by
commands and DICOM clients.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from conftest import wait_until
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.presentation import build_context

_config.STORE_SEND_CHUNKED_DATASET = True  # a file given by its path is sent byte for byte

START_S = 30.0
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PROCESSES = ("clinical", "research", "anchorer", "courier", "eraser", "sweeper", "forwarder", "beside")
NATIVE = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


@dataclass
class LiveNode:
    """One node.

    ``ports``: of the node (`clinical`, `research`) and of each peer that is a move destination, by AE title;
    ``signers``: the words by which a role signs, where that is not `--as` and the role.
    """

    folder: Path
    ports: dict[str, int]
    signers: Mapping[str, Sequence[object]] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.folder / "node" / "orthanc-ledger.yaml"
        self.log = self.folder / "serve.log"

    def command(self, *words: object, code: int = 0) -> str:
        """Run `orthanc-ledger`; its standard output. The test fails when the exit code is another."""
        done = subprocess.run(self._words(*words), capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{words}: exit {done.returncode}, expected {code}: {done.stdout}{done.stderr}"
        return done.stdout

    def rows(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        """The rows that a command prints with --json."""
        return [json.loads(line) for line in self.command(*words, "--json", code=code).splitlines()]

    def status(self) -> dict[str, Any]:
        """What `status` says."""
        done = subprocess.run(self._words("status", "--json"), capture_output=True, text=True, timeout=120)
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def audit(self) -> list[dict[str, Any]]:
        """The ledger's records, read by a process of their own."""
        return self.rows("audit")

    def wait_anchored(self, count: int, timeout_s: float = 60) -> None:
        """Wait until so many objects are anchored."""
        wait_until(lambda: self.status()["anchored"] >= count, timeout_s, f"{count} objects are anchored")

    def launch(self) -> None:
        """Start `serve`, without waiting for its processes."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._words("serve"), stdout=log, stderr=log)

    def start(self) -> None:
        """Start `serve` and wait until both ports answer a C-ECHO."""
        self.launch()
        for port, caller in (("clinical", "MRI1"), ("research", "RESEARCH1")):
            wait_until(lambda port=port, caller=caller: self.echo(caller, port), START_S, f"the {port} port answers")

    def stop(self) -> None:
        """End `serve` and with it the node's processes."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def echo(self, caller: str, port: str) -> bool:
        """Whether a C-ECHO succeeds."""
        with socket.socket() as probe:  # pynetdicom leaves a refused socket unclosed
            if probe.connect_ex(("127.0.0.1", self.ports[port])):
                return False
        with self.associate(caller, port, ["1.2.840.10008.1.1"]) as assoc:
            return bool(assoc.is_established and assoc.send_c_echo().get("Status") == 0)

    @contextmanager
    def associate(self, caller: str, port: str, abstract_syntaxes: list[str], **options: Any) -> Iterator[Any]:
        """A pynetdicom association with the node, released afterwards."""
        ae = AE(ae_title=caller)
        for abstract_syntax in abstract_syntaxes:
            ae.add_requested_context(abstract_syntax, NATIVE)
        assoc = ae.associate("127.0.0.1", self.ports[port], ae_title="NODE", **options)
        try:
            yield assoc
        finally:
            if assoc.is_established:
                assoc.release()

    def store(self, *paths: Path, caller: str = "MRI1", port: str = "clinical") -> list[int]:
        """C-STORE files as they are; the statuses."""
        headers = [dcmread(path, stop_before_pixels=True) for path in paths]
        syntaxes = sorted({(header.SOPClassUID, header.file_meta.TransferSyntaxUID) for header in headers})
        ae = AE(ae_title=caller)
        ae.requested_contexts = [build_context(sop_class, [syntax]) for sop_class, syntax in syntaxes]
        assoc = ae.associate("127.0.0.1", self.ports[port], ae_title="NODE")
        assert assoc.is_established
        statuses = [assoc.send_c_store(path).Status for path in paths]
        assoc.release()
        return statuses

    def find(self, caller: str, port: str, **keys: str) -> list[Dataset]:
        """C-FIND at study level; the final status first, as a Dataset, then the matches."""
        identifier = data_set(QueryRetrieveLevel="STUDY", **keys)
        with self.associate(caller, port, [STUDY_ROOT_FIND]) as assoc:
            answers = list(assoc.send_c_find(identifier, STUDY_ROOT_FIND))
        return [answers[-1][0], *(match for status, match in answers if match is not None)]

    def get(self, caller: str, port: str, **keys: str) -> tuple[Dataset, Dataset | None, dict[str, bytes]]:
        """C-GET; the final status, its identifier (failed UIDs), and the received data sets, encoded, by SOP
        Instance UID.
        """
        received: dict[str, bytes] = {}

        def keep(event: Any) -> int:
            received[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
            return 0

        sop_classes = [MR_IMAGE, "1.2.840.10008.5.1.4.1.1.4.1"]
        roles = [build_role(sop_class, scp_role=True) for sop_class in sop_classes]
        with self.associate(
            caller, port, [STUDY_ROOT_GET, *sop_classes], ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)]
        ) as assoc:
            *_, (status, identifier) = assoc.send_c_get(data_set(**keys), STUDY_ROOT_GET)
        return status, identifier, received

    def move(self, caller: str, port: str, destination: str, **keys: str) -> tuple[Dataset, Dataset | None]:
        """C-MOVE; the final status and its identifier."""
        with self.associate(caller, port, [STUDY_ROOT_MOVE]) as assoc:
            *_, (status, identifier) = assoc.send_c_move(data_set(**keys), destination, STUDY_ROOT_MOVE)
        return status, identifier

    def approve(self, study_uid: str, ae_title: str = "RESEARCH1", organisation: str = "ResearchMSP") -> str:
        """Register and confirm the node, ask for the study, approve as owner and custodian; the request's id."""
        self.command("nodes", "register", ae_title, *self._as("research"))
        self.command("nodes", "confirm", organisation, ae_title, *self._as("custodian"))
        return self.request_and_approve(study_uid, ae_title, organisation)

    def request_and_approve(
        self, study_uid: str, ae_title: str = "RESEARCH1", organisation: str = "ResearchMSP"
    ) -> str:
        """As `approve`, for a node that is confirmed."""
        tokens = self.folder / "tokens.json"
        self.command("studies", "--study", study_uid, "--tokens", tokens, "--for", organisation)
        words = ["--studies", tokens, "--node", ae_title, "--duo", "DUO:0000042", *self._as("research")]
        request = self.rows("request", *words)[0]["id"]
        for who in ("custodian", "owner"):
            self.command("approve", request, *self._as(who))
        return str(request)

    def children(self) -> list[int]:
        """Process ids of all that `serve` started."""
        assert self.process is not None
        return children_of(self.process.pid)

    def processes(self) -> list[tuple[str, int]]:
        """What `serve` started and already is what it will be: each process's name in its command, and its id."""
        return [(name, pid) for pid in sorted(self.children()) for name in command_of(pid) if name in PROCESSES]

    def workers(self) -> list[int]:
        """Process ids of those that the anchorer has work for it."""
        return [pid for name, anchorer in self.processes() if name == "anchorer" for pid in children_of(anchorer)]

    def all_processes(self) -> list[int]:
        """Process ids of whatever runs with this node's configuration, whoever started it."""
        found = map(int, filter(str.isdigit, os.listdir("/proc")))
        return [pid for pid in found if str(self.config) in command_of(pid)]

    def _as(self, role: str) -> Sequence[object]:
        return self.signers.get(role, ("--as", role))

    def _words(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "orthanc_ledger", "--config", str(self.config), *(str(word) for word in words)]


def make_live_node(folder: Path, free_port: Callable[[], int], **settings: Any) -> LiveNode:
    """A node that is set up and not yet started, with a modality, two clinical peers, and three research peers of
    two organisations.
    """
    titles = ("clinical", "research", "VIEWER", "RESEARCH1", "RESEARCH2", "FOREIGN1")
    node = LiveNode(folder, {title: free_port() for title in titles})
    words = ["init", folder / "node", "--key-backup", folder / "node.key.backup", "--all-roles", "--ae-title", "NODE"]
    words += ["--clinical-port", node.ports["clinical"], "--research-port", node.ports["research"]]
    command = [sys.executable, "-m", "orthanc_ledger", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    raw = yaml.safe_load(node.config.read_text())

    def peer(ae_title: str, role: str, **more: Any) -> dict[str, Any]:
        place = {"host": "127.0.0.1", "port": node.ports[ae_title]} if ae_title in node.ports else {}
        return {"ae_title": ae_title, "role": role, "hosts": ["127.0.0.1"], **place, **more}

    raw["peers"] = [
        peer("MRI1", "modality"),
        peer("MRI2", "modality", duplicate="accept"),
        peer("VIEWER", "clinical"),
        peer("RESEARCH1", "research", organisation="ResearchMSP"),
        peer("RESEARCH2", "research", organisation="ResearchMSP"),
        peer("FOREIGN1", "research", organisation="ForeignMSP"),
    ]
    raw |= {"denial_report_s": 0.1, "spool_reserve_mb": 64, **settings}
    node.config.write_text(yaml.safe_dump(raw))
    return node


def children_of(pid: int) -> list[int]:
    """Process ids of a process's children; none when it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_of(pid: int) -> list[str]:
    """The words a process was started with; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def data_set(**keys: str) -> Dataset:
    """A Dataset of keywords."""
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def encoded(path: Path) -> bytes:
    """The data set's bytes of a Part 10 file."""
    raw = path.read_bytes()
    meta_length = int.from_bytes(raw[140:144], "little")
    return raw[144 + meta_length :]


def dcmtk_environment() -> dict[str, str]:
    """Environment of dcmtk's tools: Nagle's algorithm off."""
    return {**os.environ, "TCP_NODELAY": "1"}
