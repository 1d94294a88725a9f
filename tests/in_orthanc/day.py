"""A day's work with an Orthanc, as modality, workstation and people at a browser do it: requests and their answers."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conftest import wait_until
from pydicom import dcmread

from tests.in_orthanc.live import Answer, LiveOrthanc
from tests.in_orthanc.peers import GONE, IMPLICIT, LOOKER, PATIENT_ROOT, STUDY_ROOT, WORKSTATION, Peers
from tests.in_orthanc.told import told

JOB_S = 30.0


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
    yield from _viewers(orthanc, ids)
    yield "upload", told(orthanc.call("POST", "/instances", files[-1].read_bytes()))
    yield "upload of no DICOM", told(orthanc.call("POST", "/instances", b"no DICOM"))
    find = {"Level": "Study", "Query": {"PatientName": "*"}, "Expand": True}
    yield "find", told(orthanc.call("POST", "/tools/find", find))
    yield "find, not JSON", told(orthanc.call("POST", "/tools/find", "{"))
    yield "lookup", told(orthanc.call("POST", "/tools/lookup", str(whole.StudyInstanceUID)))
    yield "metadata", told(orthanc.call("PUT", f"/studies/{ids['studies']}/metadata/1024", "seen"))
    yield "that metadata", told(orthanc.call("GET", f"/studies/{ids['studies']}/metadata/1024"))
    yield from _archives(orthanc, ids)
    yield "explorer", told(orthanc.call("GET", "/app/explorer.html"))
    yield "root", told(orthanc.call("GET", "/"))
    yield "as nobody", orthanc.call("GET", "/studies", user=None).status


def _archives(orthanc: LiveOrthanc, ids: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    several = [ids["series"], ids["instances"]]
    for name, path, asked in (
        ("archive of several", "/tools/create-archive", several),
        ("transcoded archive", "/tools/create-archive", {"Resources": several, "Transcode": IMPLICIT}),
        ("media of several", "/tools/create-media", several),
        ("extended media", "/tools/create-media-extended", several),
        ("media of a study", f"/studies/{ids['studies']}/media", {"Extended": True}),
        ("archive of nothing", "/tools/create-archive", ["nothing"]),
    ):
        yield name, told(orthanc.call("POST", path, asked))
    begun = orthanc.call("POST", f"/patients/{ids['patients']}/archive", {"Asynchronous": True})
    yield "archive as a job", told(begun)
    job = begun.json()["Path"].replace("..", "", 1).replace("/..", "")
    wait_until(lambda: orthanc.call("GET", job).json()["State"] == "Success", JOB_S, "the archive is made")
    yield "that archive", told(orthanc.call("GET", f"{job}/archive"))


def _viewers(orthanc: LiveOrthanc, ids: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """What viewers ask Orthanc for: its own Explorer, the Web Viewer, those that know DICOMweb."""
    at, series = f"/instances/{ids['instances']}", f"/series/{ids['series']}"
    for path in (
        f"{at}/rendered?width=64&window-center=400&window-width=800",
        f"{at}/frames/0/rendered",
        f"{at}/frames/0/image-uint8",
        f"{at}/frames/0/image-int16",
        f"{at}/frames/0/raw.gz",
        f"{at}/preview?returnUnsupportedImage",
        f"{series}/instances-tags?simplify",
        f"{series}/ordered-slices?short",
        f"{series}/shared-tags?simplify",
        f"/studies/{ids['studies']}?requestedTags=PatientComments;Modality",
        "/changes?last",
        "/changes?since=2&limit=2",
        "/system",
        "/plugins/dicom-web",
        "/app/libs/jquery.min.js",
    ):
        yield f"a viewer's {_named(path, ids)}", told(orthanc.call("GET", path))
    for method in ("HEAD", "OPTIONS"):
        yield f"{method} of an image", told(orthanc.call(method, f"{at}/preview"))
    for name, headers in {
        "compressed": {"Accept-Encoding": "gzip, deflate"},
        "a part": {"Range": "bytes=0-99"},
        "if changed": {"If-None-Match": '"0"'},
        "from another page": {"Origin": "http://viewer.example"},
        "as JPEG": {"Accept": "image/jpeg"},
        "as PAM": {"Accept": "image/x-portable-arbitrarymap"},
        "as nothing that there is": {"Accept": "video/mp4"},
    }.items():
        yield f"a preview {name}", told(orthanc.call("GET", f"{at}/preview", headers=headers))
    page = {"Level": "Instance", "Query": {"Modality": "MR"}, "Expand": True, "Since": 1, "Limit": 1}
    yield "a page of images", told(orthanc.call("POST", "/tools/find", page))
    yield "bulk content", told(orthanc.call("POST", "/tools/bulk-content", {"Resources": [ids["series"]]}))


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
        "/dicom-web/studies?limit=1&offset=0&ModalitiesInStudy=MR",
        "/dicom-web/series",
        "/dicom-web/instances?includefield=00080005",
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
    for accepted, path in (
        ("application/dicom+xml", f"{at_series}/metadata"),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', at_image),
        (f'multipart/related; type="application/dicom"; transfer-syntax={IMPLICIT}', at_series),
        ('multipart/related; type="application/octet-stream"; transfer-syntax=*', f"{at_image}/frames/1"),
        ('multipart/related; type="application/octet-stream"', f"{at_image}/bulk/7FE00010"),
        ("image/png", f"{at_image}/rendered?viewport=64,64"),
        ("image/jpeg", f"{at_series}/rendered"),
        ("video/mp4", at_image),
    ):
        answer = orthanc.call("GET", path, headers={"Accept": accepted})
        yield f"DICOMweb {path} as {accepted}", told(answer)
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
    modified = orthanc.call("POST", f"/instances/{ids['instances']}/modify", {"Replace": {"PatientName": "changed"}})
    yield "modify an instance", modified.status, dcmread(io.BytesIO(modified.body)).PatientName
    yield "anonymise a study", _shape(orthanc.call("POST", f"/studies/{ids['studies']}/anonymize", {"Keep": []}))
    yield "modify a series", _shape(orthanc.call("POST", f"/series/{ids['series']}/modify", changed))
    yield "delete an instance", told(orthanc.call("DELETE", f"/instances/{ids['instances']}"))
    yield "it is gone", told(orthanc.call("GET", f"/instances/{ids['instances']}"))
    yield "delete a series", told(orthanc.call("DELETE", f"/series/{ids['series']}"))
    yield "delete a study", told(orthanc.call("DELETE", f"/studies/{ids['studies']}"))
    left = orthanc.call("GET", "/statistics").json()
    yield "what is left", {name: count for name, count in left.items() if name.startswith("Count")}
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
