"""A day's work with an Orthanc, as modality, workstation and people at a browser do it: every request with its answer,
without what is another one each time (times, random identifiers, ports).
"""

import hashlib
import io
import json
import re
import socket
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import PresentationContext, build_context

from tests.in_orthanc.live import AE_TITLE, Answer, LiveOrthanc

MODALITY, WORKSTATION, GONE, LOOKER = "MRI1", "WS1", "GONE", "LOOKER"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PATIENT_ROOT = {"FIND": "1.2.840.10008.5.1.4.1.2.1.1", "MOVE": "1.2.840.10008.5.1.4.1.2.1.2"}
STUDY_ROOT = {
    "FIND": "1.2.840.10008.5.1.4.1.2.2.1",
    "MOVE": "1.2.840.10008.5.1.4.1.2.2.2",
    "GET": "1.2.840.10008.5.1.4.1.2.2.3",
}
NATIVE = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
JPEG_LS = "1.2.840.10008.1.2.4.80"

Told = dict[str, Any]
Handlers = Sequence[tuple[Any, Callable[[Any], Any]]]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{8}T\d{6}(\.\d+)?")
_NEW_UID = re.compile(r"1\.2\.276\.0\.7230010\.3\.\d[\d.]*")  # as DCMTK makes them
_BOUNDARY = re.compile(r"boundary=.*")
_VARIES = {"Date", "LastUpdate", "ReceptionDate", "EffectiveRuntime", "UncompressedSizeMB", "DiskSizeMB", "ServerTime"}
_HEADERS = ("content-type", "content-disposition", "location")


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


def a_day(peers: Peers, files: Sequence[Path], altered: Path) -> Iterator[tuple[str, Any]]:
    """Every step and what came of it. ``files``: MR slices of one study; ``altered``: other content under the SOP
    Instance UID of the first.
    """
    first = dcmread(files[0], stop_before_pixels=True)
    study = {"StudyInstanceUID": str(first.StudyInstanceUID)}
    series = {**study, "SeriesInstanceUID": str(first.SeriesInstanceUID)}
    image = {**series, "SOPInstanceUID": str(first.SOPInstanceUID)}
    patient = {"PatientID": str(first.PatientID)}
    with peers.workstation():
        yield "C-ECHO", peers.echo()
        yield "C-ECHO of a stranger", peers.echo("STRANGER")
        yield "C-STORE", peers.store(files)
        yield "C-STORE again", peers.store(files[:2])
        yield "C-STORE of other content", peers.store([altered])
        yield "C-STORE of a stranger", peers.store(files[:1], "STRANGER")
        yield from _dimse(peers, patient, study, series, image)
        yield from _rest(peers, study, series, image, files)
        yield from _dicomweb(peers.orthanc, study, series, image, altered)
        yield from _sends(peers, study, image)
        yield from _changes(peers.orthanc, study, series, image)


def _dimse(
    peers: Peers, patient: dict[str, str], study: dict[str, str], series: dict[str, str], image: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    wanted = {"PatientName": "", "StudyDate": "", "ModalitiesInStudy": "", "NumberOfStudyRelatedInstances": ""}
    for name, root, level, keys in (
        ("patients", PATIENT_ROOT, "PATIENT", {"PatientID": "*", "PatientName": ""}),
        ("studies", STUDY_ROOT, "STUDY", {"StudyInstanceUID": "", **wanted}),
        ("studies of a patient", PATIENT_ROOT, "STUDY", {**patient, "StudyInstanceUID": ""}),
        ("studies by wildcard", STUDY_ROOT, "STUDY", {"PatientName": "*", "StudyInstanceUID": ""}),
        ("studies of another day", STUDY_ROOT, "STUDY", {"StudyDate": "19000101", "StudyInstanceUID": ""}),
        ("series", STUDY_ROOT, "SERIES", {**study, "SeriesInstanceUID": "", "Modality": ""}),
        ("images", STUDY_ROOT, "IMAGE", {**series, "SOPInstanceUID": "", "InstanceNumber": ""}),
    ):
        yield f"C-FIND of {name}", peers.find(root, QueryRetrieveLevel=level, **keys)
    yield "C-FIND without a level", peers.find(STUDY_ROOT, StudyInstanceUID="")
    for level, keys in (("STUDY", study), ("SERIES", series), ("IMAGE", image)):
        yield f"C-GET of {level}", peers.get(QueryRetrieveLevel=level, **keys)
    yield "C-GET of nothing", peers.get(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3")
    yield from _moves(peers, patient, study, series, image)


def _moves(
    peers: Peers, patient: dict[str, str], study: dict[str, str], series: dict[str, str], image: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    yield "C-MOVE of a patient", peers.move(WORKSTATION, PATIENT_ROOT, QueryRetrieveLevel="PATIENT", **patient)
    for level, keys in (("STUDY", study), ("SERIES", series), ("IMAGE", image)):
        yield f"C-MOVE of {level}", peers.move(WORKSTATION, QueryRetrieveLevel=level, **keys)
    several = {**study, "SeriesInstanceUID": [series["SeriesInstanceUID"], "1.2.3"]}
    yield "C-MOVE of several series", peers.move(WORKSTATION, QueryRetrieveLevel="SERIES", **several)
    yield "C-MOVE of nothing", peers.move(WORKSTATION, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3")
    yield "C-MOVE to nobody", peers.move("NOBODY", QueryRetrieveLevel="STUDY", **study)
    yield "C-MOVE to one who is gone", peers.move(GONE, QueryRetrieveLevel="STUDY", **study)
    yield "C-MOVE by who may not", peers.move(WORKSTATION, caller=LOOKER, QueryRetrieveLevel="STUDY", **study)


def _rest(
    peers: Peers, study: dict[str, str], series: dict[str, str], image: dict[str, str], files: Sequence[Path]
) -> Iterator[tuple[str, Any]]:
    orthanc = peers.orthanc
    ids = {level: _lookup(orthanc, uid) for level, uid in _uids(study, series, image).items()}
    yield "ids", ids
    whole = dcmread(files[0])
    ids["patients"] = orthanc.call("GET", f"/studies/{ids['studies']}").json()["ParentPatient"]
    paths = ["/patients", "/studies", "/series", "/instances", "/statistics", "/changes", "/exports", "/peers"]
    paths += ["/modalities", "/modalities?expand", "/modalities/WS1", "/queries", "/nothing", "/studies/nothing"]
    paths += ["/studies?expand", "/studies?since=0&limit=1", f"/modalities/{WORKSTATION}/configuration"]
    for level, about in (
        ("patients", ["", "/studies", "/statistics", "/shared-tags", "/module", "/archive", "/media"]),
        ("studies", ["", "/series", "/instances", "/statistics", "/shared-tags", "/module-patient", "/archive"]),
        ("studies", ["/media", "/metadata", "/attachments", "/labels", "/instances-tags", "/reconstruct-nothing"]),
        ("series", ["", "/instances", "/ordered-slices", "/statistics", "/shared-tags", "/archive", "/numpy"]),
        (
            "instances",
            ["", "/file", "/tags", "/simplified-tags", "/tags?short", "/header", "/preview", "/image-uint16"],
        ),
        ("instances", ["/frames", "/frames/0/raw", "/frames/0/preview", "/frames/7/raw", "/content", "/metadata"]),
        ("instances", ["/content/0010-0010", "/matlab", "/pdf", "/attachments/dicom/md5", "/attachments/dicom/info"]),
        ("instances", ["/metadata?expand", "/statistics", "/module", "/attachments/dicom/data", "/patient"]),
    ):
        paths += [f"/{level}/{ids[level]}{rest}" for rest in about]
    for path in paths:
        yield f"GET {_named(path, ids)}", told(orthanc.call("GET", path))
    rgb = {"Accept": "image/jpeg"}
    yield "GET a preview as JPEG", told(orthanc.call("GET", f"/instances/{ids['instances']}/preview", headers=rgb))
    yield "upload", told(orthanc.call("POST", "/instances", files[-1].read_bytes()))
    yield "upload of no DICOM", told(orthanc.call("POST", "/instances", b"no DICOM"))
    find = {"Level": "Study", "Query": {"PatientName": "*"}, "Expand": True}
    yield "find", told(orthanc.call("POST", "/tools/find", find))
    yield "find, not JSON", told(orthanc.call("POST", "/tools/find", "{"))
    yield "lookup", told(orthanc.call("POST", "/tools/lookup", str(whole.StudyInstanceUID)))
    yield "metadata", told(orthanc.call("PUT", f"/studies/{ids['studies']}/metadata/1024", "seen"))
    yield "that metadata", told(orthanc.call("GET", f"/studies/{ids['studies']}/metadata/1024"))
    yield "archive of several", told(orthanc.call("POST", "/tools/create-archive", [ids["series"]]))
    yield "explorer", told(orthanc.call("GET", "/app/explorer.html"))
    yield "root", told(orthanc.call("GET", "/"))
    yield "as nobody", orthanc.call("GET", "/studies", user=None).status


def _dicomweb(
    orthanc: LiveOrthanc, study: dict[str, str], series: dict[str, str], image: dict[str, str], altered: Path
) -> Iterator[tuple[str, Any]]:
    at_study = f"/dicom-web/studies/{study['StudyInstanceUID']}"
    at_series = f"{at_study}/series/{series['SeriesInstanceUID']}"
    at_image = f"{at_series}/instances/{image['SOPInstanceUID']}"
    wado = (
        f"/wado?requestType=WADO&studyUID={study['StudyInstanceUID']}&seriesUID={series['SeriesInstanceUID']}"
        f"&objectUID={image['SOPInstanceUID']}"
    )
    for path in (
        "/dicom-web/studies",
        "/dicom-web/studies?PatientName=*&includefield=all",
        "/dicom-web/studies?StudyDate=19000101",
        "/dicom-web/series",
        f"{at_study}/series",
        f"{at_study}/instances",
        f"{at_study}/metadata",
        f"{at_series}/metadata",
        f"{at_image}/metadata",
        at_study,
        at_series,
        at_image,
        f"{at_image}/frames/1",
        f"{at_image}/rendered",
        "/dicom-web/studies/1.2.3",
        wado,
        f"{wado}&contentType=application/dicom",
    ):
        yield f"DICOMweb {path}", told(orthanc.call("GET", path))
    headers = {
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=mark',
        "Accept": "application/dicom+json",
    }
    body = b"--mark\r\nContent-Type: application/dicom\r\n\r\n" + altered.read_bytes() + b"\r\n--mark--\r\n"
    yield "STOW-RS", told(orthanc.call("POST", "/dicom-web/studies", body, headers=headers))
    yield "STOW-RS of nothing", told(orthanc.call("POST", "/dicom-web/studies", b"--mark--\r\n", headers=headers))


def _sends(peers: Peers, study: dict[str, str], image: dict[str, str]) -> Iterator[tuple[str, Any]]:
    orthanc, resource = peers.orthanc, _lookup(peers.orthanc, study["StudyInstanceUID"])
    yield "echo a modality", told(orthanc.call("POST", f"/modalities/{WORKSTATION}/echo", {}))
    yield "send", told(orthanc.call("POST", f"/modalities/{WORKSTATION}/store", resource)), peers.arrived()
    yield "send to one who is gone", told(orthanc.call("POST", f"/modalities/{GONE}/store", resource))
    yield "send to nobody", told(orthanc.call("POST", "/modalities/NOBODY/store", resource))
    place = {"AET": "NEW", "Host": "127.0.0.1", "Port": peers.port}
    yield "a new modality", told(orthanc.call("PUT", "/modalities/NEW", place))
    yield "that modality", told(orthanc.call("GET", "/modalities/NEW/configuration"))
    yield "it goes", told(orthanc.call("DELETE", "/modalities/NEW"))
    yield "a new peer", told(orthanc.call("PUT", "/peers/friend", {"Url": "http://127.0.0.1:1/"}))
    yield "the peers", told(orthanc.call("GET", "/peers?expand"))


def _changes(
    orthanc: LiveOrthanc, study: dict[str, str], series: dict[str, str], image: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    ids = {level: _lookup(orthanc, uid) for level, uid in _uids(study, series, image).items()}
    changed = {"Replace": {"StudyDescription": "changed"}, "Keep": ["StudyInstanceUID"], "Force": True}
    yield (
        "modify an instance",
        told(orthanc.call("POST", f"/instances/{ids['instances']}/modify", {"Replace": {}})).keys(),
    )
    yield "anonymise a study", _shape(orthanc.call("POST", f"/studies/{ids['studies']}/anonymize", {"Keep": []}))
    yield "modify a series", _shape(orthanc.call("POST", f"/series/{ids['series']}/modify", changed))
    yield "delete an instance", told(orthanc.call("DELETE", f"/instances/{ids['instances']}"))
    yield "it is gone", told(orthanc.call("GET", f"/instances/{ids['instances']}"))
    yield "delete a series", told(orthanc.call("DELETE", f"/series/{ids['series']}"))
    yield "delete a study", told(orthanc.call("DELETE", f"/studies/{ids['studies']}"))
    yield "what is left", told(orthanc.call("GET", "/statistics"))["body"].keys()
    yield "how many are left", len(orthanc.call("GET", "/instances").json())


def _uids(study: dict[str, str], series: dict[str, str], image: dict[str, str]) -> dict[str, str]:
    return {
        "studies": study["StudyInstanceUID"],
        "series": series["SeriesInstanceUID"],
        "instances": image["SOPInstanceUID"],
    }


def _lookup(orthanc: LiveOrthanc, uid: str) -> str:
    [found] = orthanc.call("POST", "/tools/lookup", uid).json()
    return str(found["ID"])


def _named(path: str, ids: Mapping[str, str]) -> str:
    for level, identifier in ids.items():
        path = path.replace(identifier, level.upper())
    return path


def _shape(answer: Answer) -> Any:
    """Of an answer with new random identifiers: its status and keys."""
    return answer.status, sorted(answer.json())


def told(answer: Answer) -> Told:
    """An answer without what varies."""
    headers = {name: _steady(answer.headers[name]) for name in map(str.title, _HEADERS) if name in answer.headers}
    return {"status": answer.status, "headers": headers, "body": _body(answer)}


def _body(answer: Answer) -> Any:
    kind = answer.headers.get("Content-Type", "")
    if "json" in kind:
        value = _without(json.loads(answer.body))
        several = "dicom+json" in kind and isinstance(value, list)  # 1.12 reads with several threads
        return sorted(value, key=json.dumps) if several else value
    if "zip" in kind:
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            return {name: digest(archive.read(name)) for name in archive.namelist() if name != "DICOMDIR"}
    if "multipart" in kind:
        message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.body, policy=policy.HTTP)
        return [
            (part.get_content_type(), digest(part.get_payload(decode=True) or b"")) for part in message.iter_parts()
        ]
    if kind.startswith(("text", "application/x")) or not kind:
        return _steady(answer.body.decode(errors="replace"))
    return len(answer.body), digest(answer.body)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "…" if key in _VARIES else _without(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner) for inner in value]
    return _steady(value) if isinstance(value, str) else value


def _steady(text: str) -> str:
    for pattern in (_BOUNDARY, _UUID, _TIME, _NEW_UID):
        text = pattern.sub("…", text)
    return re.sub(r"(127\.0\.0\.1|localhost):\d+", r"\1:…", text)


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
