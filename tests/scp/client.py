"""Clients: pynetdicom's SCU, with what it received kept as bytes, and dcmtk's tools."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as StudyGet
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as StudyMove

from .world import LOCAL, NODE

EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE, JPEG_LS = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80"
JPEG_2000, JPEG_LOSSY = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50"
MR = "1.2.840.10008.5.1.4.1.1.4"
WAIT_S = 20


@dataclass(frozen=True)
class File:
    """A Part 10 file taken apart: the encoded data set and what a command needs to say about it."""

    path: Path
    dataset: Dataset
    transfer_syntax: str
    encoded: bytes

    @property
    def sop_instance(self) -> str:
        return str(self.dataset.SOPInstanceUID)

    @property
    def study(self) -> str:
        return str(self.dataset.StudyInstanceUID)


def load(path: Path) -> File:
    meta, offset = split_dataset(path)
    return File(path, dcmread(path), str(meta.TransferSyntaxUID), path.read_bytes()[offset:])


def bundled(name: str) -> File:
    """One of the real files in pydicom's wheel."""
    return load(Path(str(get_testdata_file(name, download=False))))


@contextmanager
def associated(
    port: int,
    contexts: Sequence[PresentationContext],
    calling: str = "SCANNER",
    called: str = NODE,
    receives: "Received | None" = None,
    roles: Sequence[str] = (),
) -> Iterator[Association]:
    """An association with the node, established or not; released at the end."""
    ae = AE(calling)
    ae.dimse_timeout = ae.acse_timeout = WAIT_S
    ae.network_timeout = 10 * WAIT_S  # a test that waits for the node to abort must not see this side do it
    handlers = [(evt.EVT_C_STORE, receives.take)] if receives else []
    assoc = ae.associate(
        LOCAL,
        port,
        contexts=list(contexts),
        ae_title=called,
        ext_neg=[build_role(uid, scp_role=True) for uid in roles],
        evt_handlers=handlers,
    )
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


@dataclass
class Received:
    """What came by C-STORE, by SOP Instance UID: (transfer syntax, encoded data set). ``answers`` overrides Success."""

    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    originators: list[tuple[str | None, int | None]] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    cancel: tuple[int, int] | None = None
    abort_at: int | None = None

    def take(self, event: evt.Event) -> int:
        number = len(self.originators)
        request = event.request
        self.originators.append((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        if self.abort_at == number:
            event.assoc.abort()
            return 0x0000
        if self.cancel is not None and not number:
            event.assoc.send_c_cancel(self.cancel[0], context_id=self.cancel[1])
        status = self.answers.get(number, 0x0000)
        if status & 0xF000 in (0x0000, 0xB000):
            self.objects[request.AffectedSOPInstanceUID] = (
                str(event.context.transfer_syntax),
                request.DataSet.getvalue(),
            )
        return status


def store(assoc: Association, file: File, *, sop_class: str | None = None, sop_instance: str | None = None) -> Dataset:
    """Send a file's data set byte for byte; the response."""
    return store_bytes(
        assoc,
        file.encoded,
        file.transfer_syntax,
        sop_class or str(file.dataset.SOPClassUID),
        sop_instance or file.sop_instance,
    )


def store_bytes(assoc: Association, data_set: bytes, syntax: str, sop_class: str, sop_instance: str) -> Dataset:
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = sop_instance
    request.Priority = 0
    request.DataSet = BytesIO(data_set)
    (context_id, *_) = (
        context.context_id
        for context in assoc.accepted_contexts
        if context.abstract_syntax == sop_class and context.transfer_syntax[0] == syntax
    )
    with reactor_paused(assoc):
        assoc.dimse.send_msg(request, context_id)
        _, response = assoc.dimse.get_msg(block=True)
    answer = Dataset()
    if response is not None:
        answer.Status = response.Status
        answer.ErrorComment = response.ErrorComment
    return answer


@contextmanager
def reactor_paused(assoc: Association) -> Iterator[None]:
    """Keep pynetdicom's own loop from taking the responses."""
    assoc._reactor_checkpoint.clear()
    try:
        yield
    finally:
        assoc._reactor_checkpoint.set()


def storage(files: Sequence[File]) -> list[PresentationContext]:
    """A context for each SOP class and transfer syntax among the files."""
    pairs = dict.fromkeys((str(file.dataset.SOPClassUID), file.transfer_syntax) for file in files)
    return [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]


@dataclass
class Outcome:
    """The responses to a C-GET or C-MOVE."""

    pending: list[Dataset]
    final: Dataset
    failed: list[str]
    received: Received


def get(
    port: int,
    identifier: Dataset,
    storage_contexts: Sequence[PresentationContext],
    calling: str = "WORKSTATION",
    received: Received | None = None,
    model: str = StudyGet,
) -> Outcome:
    """C-GET with the given storage contexts."""
    received = received or Received()
    contexts = [build_context(model, [EXPLICIT]), *storage_contexts]
    roles = list(dict.fromkeys(str(context.abstract_syntax) for context in storage_contexts))
    with associated(port, contexts, calling, receives=received, roles=roles) as assoc:
        return outcome(assoc.send_c_get(identifier, model), received)


def move(port: int, identifier: Dataset, destination: str, calling: str = "WORKSTATION") -> Outcome:
    """C-MOVE to an AE title."""
    with associated(port, [build_context(StudyMove, [EXPLICIT])], calling) as assoc:
        return outcome(assoc.send_c_move(identifier, destination, StudyMove), Received())


def outcome(responses: Iterator[tuple[Dataset, Dataset | None]], received: Received) -> Outcome:
    *pending, (final, identifier) = list(responses)
    failed = [] if identifier is None else identifier.get("FailedSOPInstanceUIDList", [])
    if isinstance(failed, bytes):  # too long for UI in explicit VR, hence UN
        failed = failed.rstrip(b"\0").decode().split("\\")
    return Outcome(
        [status for status, _ in pending], final, [failed] if isinstance(failed, str) else list(failed), received
    )


def study_level(study: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study
    return identifier


@contextmanager
def destination(received: Received, port: int, contexts: Sequence[PresentationContext]) -> Iterator[None]:
    """A move destination on ``port`` that accepts ``contexts``."""
    ae = AE("DESTINATION")
    server = ae.start_server(
        (LOCAL, port), block=False, contexts=list(contexts), evt_handlers=[(evt.EVT_C_STORE, received.take)]
    )
    try:
        yield
    finally:
        server.shutdown()


def run(tool: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a dcmtk tool without Nagle's delay; its output is joined."""
    return subprocess.run(
        [tool, *map(str, arguments)],
        env={**os.environ, "TCP_NODELAY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
