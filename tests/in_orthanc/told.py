"""HTTP answers of an Orthanc without what is another each time: times, random identifiers, ports."""

import io
import json
import re
import zipfile
from email import message_from_bytes, policy
from typing import Any

from pydicom import dcmread

from tests.in_orthanc.live import Answer
from tests.in_orthanc.peers import Told, digest

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{8}T\d{6}(\.\d+)?")
_NEW_UID = re.compile(r"1\.2\.276\.0\.7230010\.3\.\d[\d.]*")  # as DCMTK makes them
_BOUNDARY = re.compile(r"boundary=.*")
_VARIES = {"Date", "LastUpdate", "ReceptionDate", "EffectiveRuntime", "UncompressedSizeMB", "DiskSizeMB", "ServerTime"}
_OF_THE_PLACE = {"DicomPort", "HttpPort", "DatabaseServerIdentifier"}
_OTHER_HEADERS = {"Date", "Content-Length"}  # lengths are those of the bodies


def told(answer: Answer) -> Told:
    """An answer without what varies."""
    headers = {name: _steady(value) for name, value in answer.headers.items() if name not in _OTHER_HEADERS}
    return {"status": answer.status, "headers": headers, "body": _body(answer)}


def _body(answer: Answer) -> Any:
    kind = answer.headers.get("Content-Type", "")
    if "json" in kind:
        value = _without(json.loads(answer.body))
        several = "dicom+json" in kind and isinstance(value, list)  # 1.12 reads with several threads
        return sorted(value, key=json.dumps) if several else value
    if kind == "application/zip":
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            return {name: _in_archive(archive.read(name), name) for name in archive.namelist()}
    if "multipart" in kind:
        message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.body, policy=policy.HTTP)
        return [
            (part.get_content_type(), digest(part.get_payload(decode=True) or b"")) for part in message.iter_parts()
        ]
    if kind.startswith(("text", "application/x")) or not kind:
        return _steady(answer.body.decode(errors="replace"))
    return len(answer.body), digest(answer.body)


def _in_archive(content: bytes, name: str) -> Any:
    """A file's digest; of a DICOMDIR its elements, without offsets, which depend on the length of its own new UID."""
    if name != "DICOMDIR":
        return digest(content)
    return [str(each) for each in dcmread(io.BytesIO(content)).iterall() if each.VR not in ("SQ", "UL")]


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "…" if key in _VARIES | _OF_THE_PLACE else _without(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner) for inner in value]
    return _steady(value) if isinstance(value, str) else value


def _steady(text: str) -> str:
    for pattern in (_BOUNDARY, _UUID, _TIME, _NEW_UID):
        text = pattern.sub("…", text)
    return re.sub(r"(127\.0\.0\.1|localhost):\d+", r"\1:…", text)
