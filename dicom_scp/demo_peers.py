"""The demo's DICOM peers, a modality that stores and a research centre that asks: they know the node by its ports."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicom_scp.demo_node import AE_TITLE, MODALITY, RESEARCH, StepFailed, expect

_META_OFFSET = 144  # preamble, prefix, and the element that gives the length of the rest (PS3.10 7.1)
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Answer:
    """What a C-GET or C-MOVE brought: final status, Error Comment, failed UIDs, and data sets by SOP Instance UID."""

    status: int
    comment: str
    failed: tuple[str, ...]
    received: dict[str, bytes]


def answers(port: int, caller: str) -> bool:
    """Whether the node answers C-ECHO."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)):
            return False
    with _associate(caller, port, [Verification]) as assoc:
        return bool(assoc.send_c_echo().get("Status") == 0x0000)


def store(port: int, paths: Sequence[Path]) -> str:
    """Send files as the modality does; returns with what. Raises StepFailed unless each was answered 0x0000."""
    storescu = _dcmtk_storescu()
    if storescu is not None:
        command = [storescu, "-aet", MODALITY, "-aec", AE_TITLE, "127.0.0.1", str(port), *map(str, paths)]
        # dcmtk waits 40 ms for every small packet otherwise
        done = subprocess.run(
            command, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, text=True, check=False
        )
        expect(done.returncode == 0, f"storescu ended with {done.returncode}: {done.stderr.strip()}")
        return "dcmtk's storescu"
    _config.STORE_SEND_CHUNKED_DATASET = True  # a path's data set is sent byte for byte
    with _associate(MODALITY, port, [MRImageStorage]) as assoc:
        statuses = {assoc.send_c_store(path).get("Status") for path in paths}
    expect(statuses == {0x0000}, f"expected status 0x0000 for each object, got {statuses}")
    return "pynetdicom"


def _dcmtk_storescu() -> str | None:
    """Path of dcmtk's storescu; in an activated venv pynetdicom's comes first, which encodes data sets anew."""
    own = Path(sys.executable).parent
    folders = [folder for folder in os.get_exec_path() if Path(folder) != own]
    return shutil.which("storescu", path=os.pathsep.join(folders))


def find_studies(port: int) -> int:
    """How many studies the research centre sees. Raises StepFailed unless the C-FIND ends with 0x0000."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = ""
    model = StudyRootQueryRetrieveInformationModelFind
    with _associate(RESEARCH, port, [model]) as assoc:
        *pending, (final, _) = assoc.send_c_find(identifier, model)
    expect(final.get("Status") == 0x0000, f"C-FIND: expected 0x0000, got {_hex(final)}")
    return len(pending)


def get_study(port: int, study_uid: str) -> Answer:
    """C-GET of a study by the research centre. Raises StepFailed when there is no final response."""
    received: dict[str, bytes] = {}
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study_uid
    model = StudyRootQueryRetrieveInformationModelGet
    options = {
        "ext_neg": [build_role(MRImageStorage, scp_role=True)],
        "evt_handlers": [(evt.EVT_C_STORE, partial(_keep, received))],
    }
    with _associate(RESEARCH, port, [model, MRImageStorage], **options) as assoc:
        *_, (final, failed) = assoc.send_c_get(identifier, model)
    return _answer("C-GET", final, failed, received)


def _keep(received: dict[str, bytes], event: Any) -> int:
    received[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
    return 0x0000


def _answer(service: str, final: Dataset, failed: Dataset | None, received: dict[str, bytes]) -> Answer:
    """What a retrieve brought. Raises StepFailed when there was no final response."""
    expect("Status" in final, f"{service}: no final response came")
    uids = failed.get("FailedSOPInstanceUIDList", []) if failed else []
    return Answer(
        status=final.Status,
        comment=str(final.get("ErrorComment", "")),
        failed=(uids,) if isinstance(uids, str) else tuple(uids),
        received=received,
    )


def is_turned_away(port: int) -> bool:
    """Whether a C-FIND and a C-GET of the research centre end without any answer."""
    models = (StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet)
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    asked.StudyInstanceUID = ""
    answered = []
    for model, ask in zip(models, ("send_c_find", "send_c_get"), strict=True):
        with _associate(RESEARCH, port, [model]) as assoc:
            answered += [status for status, _ in getattr(assoc, ask)(asked, model) if "Status" in status]
    return not answered


def move_study(port: int, to: int, study_uid: str) -> Answer:
    """C-MOVE of a study by the research centre, to itself on port ``to``."""
    received: dict[str, bytes] = {}
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study_uid
    model = StudyRootQueryRetrieveInformationModelMove
    recipient = AE(ae_title=RESEARCH)
    recipient.add_supported_context(MRImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    handlers = [(evt.EVT_C_STORE, partial(_keep, received))]
    recipient.start_server(("127.0.0.1", to), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    try:
        with _associate(RESEARCH, port, [model]) as assoc:
            *_, (final, failed) = assoc.send_c_move(identifier, RESEARCH, model)
    finally:
        recipient.shutdown()
    return _answer("C-MOVE", final, failed, received)


def encoded_data_set(path: Path) -> bytes:
    """The data set's bytes of a Part 10 file, as they stand in it."""
    meta_length = int(read_file_meta_info(path).FileMetaInformationGroupLength)
    return path.read_bytes()[_META_OFFSET + meta_length :]


@contextmanager
def _associate(caller: str, port: int, abstract_syntaxes: Sequence[str], **options: Any) -> Iterator[Any]:
    ae = AE(ae_title=caller)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
    for abstract_syntax in abstract_syntaxes:
        ae.add_requested_context(abstract_syntax, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    assoc = ae.associate("127.0.0.1", port, ae_title=AE_TITLE, **options)
    if not assoc.is_established:
        raise StepFailed(f"{caller}: the node accepted no association on port {port}")
    try:
        yield assoc
    finally:
        assoc.release()


def _hex(response: Dataset) -> str:
    return f"0x{response.Status:04X}" if "Status" in response else "no response"
