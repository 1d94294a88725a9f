"""The applications beside an Orthanc: a modality that sends, a workstation that asks and listens. What they are
answered, without what is another each time.
"""

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import PresentationContext, build_context

from tests.in_orthanc.live import AE_TITLE, LiveOrthanc

MODALITY, WORKSTATION, GONE, LOOKER = "MRI1", "WS1", "GONE", "LOOKER"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PATIENT_ROOT = {"FIND": "1.2.840.10008.5.1.4.1.2.1.1", "MOVE": "1.2.840.10008.5.1.4.1.2.1.2"}
STUDY_ROOT = {
    "FIND": "1.2.840.10008.5.1.4.1.2.2.1",
    "MOVE": "1.2.840.10008.5.1.4.1.2.2.2",
    "GET": "1.2.840.10008.5.1.4.1.2.2.3",
}
IMPLICIT = "1.2.840.10008.1.2"
NATIVE = ["1.2.840.10008.1.2.1", IMPLICIT]

Told = dict[str, Any]
Handlers = Sequence[tuple[Any, Callable[[Any], Any]]]


class Peers:
    """The applications beside an Orthanc. ``port``: where the workstation listens."""

    def __init__(self, orthanc: LiveOrthanc, port: int) -> None:
        self.orthanc = orthanc
        self.port = port
        self._arrived: dict[str, str] = {}

    def modalities(self) -> dict[str, Any]:
        """Orthanc's "DicomModalities"."""
        local = {"Host": "127.0.0.1", "Port": self.port}
        return {
            MODALITY: {"AET": MODALITY, **local},
            WORKSTATION: {"AET": WORKSTATION, **local},
            GONE: {"AET": GONE, "Host": "127.0.0.1", "Port": 1},
            LOOKER: {"AET": LOOKER, **local, "AllowMove": False, "AllowGet": False, "AllowStore": False},
        }

    @contextmanager
    def workstation(self) -> Iterator[None]:
        """The workstation listens."""
        ae = AE(ae_title=WORKSTATION)
        ae.add_supported_context(MR_IMAGE, NATIVE)
        ae.add_supported_context("1.2.840.10008.1.1")
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        try:
            yield
        finally:
            server.shutdown()

    def _keep(self, event: Any) -> int:
        originator = getattr(event.request, "MoveOriginatorApplicationEntityTitle", None)
        self._arrived[event.request.AffectedSOPInstanceUID] = (
            f"{digest(event.request.DataSet.getvalue())} for {originator}"
        )
        return 0

    def arrived(self) -> dict[str, str]:
        """What came to the workstation since this was last asked."""
        found, self._arrived = self._arrived, {}
        return found

    @contextmanager
    def associated(
        self,
        contexts: Sequence[PresentationContext],
        caller: str = WORKSTATION,
        handlers: Handlers = (),
        **options: Any,
    ) -> Iterator[Any]:
        """An association with Orthanc, or what became of it."""
        opened: list[socket.socket] = []
        keep = (evt.EVT_CONN_OPEN, lambda event: opened.append(event.assoc.dul.socket.socket))
        ae = AE(ae_title=caller)
        ae.requested_contexts = list(contexts)
        assoc = ae.associate(
            "127.0.0.1", self.orthanc.dicom_port, ae_title=AE_TITLE, evt_handlers=[keep, *handlers], **options
        )
        try:
            yield assoc
        finally:
            if assoc.is_established:
                assoc.release()
            for each in opened:  # pynetdicom leaves one open that Orthanc ended
                each.close()

    def store(self, files: Sequence[Path], caller: str = MODALITY) -> Told:
        """C-STORE of files as they are."""
        kinds = sorted({(str(file.SOPClassUID), str(file.file_meta.TransferSyntaxUID)) for file in map(dcmread, files)})
        contexts = [build_context(sop_class, [syntax]) for sop_class, syntax in kinds]
        with self.associated(contexts, caller) as assoc:
            accepted = sorted((each.abstract_syntax, each.transfer_syntax[0]) for each in assoc.accepted_contexts)
            statuses = [status_of(assoc.send_c_store(file)) for file in files] if assoc.is_established else None
            return {"accepted": accepted, "statuses": statuses}

    def find(self, root: Mapping[str, str], caller: str = WORKSTATION, **keys: str) -> Told:
        """C-FIND."""
        with self.associated(native(root["FIND"]), caller) as assoc:
            answers = list(assoc.send_c_find(data_set(**keys), root["FIND"]))
            matches = sorted(json.dumps(match.to_json_dict()) for _, match in answers if match is not None)
            return {"statuses": sorted({status_of(status) for status, _ in answers}), "matches": matches}

    def get(self, caller: str = WORKSTATION, **keys: Any) -> Told:
        """C-GET, Study Root."""
        received: dict[str, str] = {}

        def keep(event: Any) -> int:
            received[event.request.AffectedSOPInstanceUID] = digest(event.request.DataSet.getvalue())
            return 0

        roles, handlers = [build_role(MR_IMAGE, scp_role=True)], [(evt.EVT_C_STORE, keep)]
        with self.associated(native(STUDY_ROOT["GET"], MR_IMAGE), caller, handlers, ext_neg=roles) as assoc:
            *_, (status, _) = assoc.send_c_get(data_set(**keys), STUDY_ROOT["GET"])
            return {"status": counts_of(status), "received": received}

    def move(self, to: str, root: Mapping[str, str] = STUDY_ROOT, caller: str = WORKSTATION, **keys: Any) -> Told:
        """C-MOVE."""
        with self.associated(native(root["MOVE"]), caller) as assoc:
            if not assoc.is_established:
                return {"established": False}
            answers = list(assoc.send_c_move(data_set(**keys), to, root["MOVE"]))
            status, identifier = answers[-1]
            failed = None if identifier is None else identifier.to_json_dict()
            return {"status": counts_of(status), "failed": failed, "arrived": self.arrived()}

    def echo(self, caller: str = WORKSTATION) -> Told:
        """C-ECHO."""
        with self.associated(native("1.2.840.10008.1.1"), caller) as assoc:
            return {"status": status_of(assoc.send_c_echo()) if assoc.is_established else None}


def native(*abstract_syntaxes: str) -> list[PresentationContext]:
    """Contexts in the native transfer syntaxes."""
    return [build_context(each, NATIVE) for each in abstract_syntaxes]


def digest(data: bytes) -> str:
    """SHA-256, shortened."""
    return hashlib.sha256(data).hexdigest()[:16]


def status_of(status: Dataset) -> int | None:
    """A DIMSE status; None: there was no answer."""
    found: int | None = status.get("Status")
    return found


def counts_of(status: Dataset) -> dict[str, int]:
    """Status and counts of a retrieve's last response."""
    names = ("Status", *(f"NumberOf{kind}Suboperations" for kind in ("Completed", "Failed", "Warning", "Remaining")))
    return {name: status[name].value for name in names if name in status}


def data_set(**keys: Any) -> Dataset:
    """A Dataset of keywords."""
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier
