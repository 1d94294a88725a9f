"""The provenance panel: in Orthanc's Explorer on the pages of a study, a series and an instance, and by itself under
/ledger/studies/ID, which a button of Explorer 2 can open. HTTP's filter lets staff alone in.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import orthanc

from orthanc_ledger.assemble import BESIDE
from orthanc_ledger.config import Config
from orthanc_ledger.errors import ConfigError, ServiceAway
from orthanc_ledger.plugin.beside import Beside
from orthanc_ledger.plugin.lasting import lasting
from orthanc_ledger.plugin.settings import Settings
from orthanc_ledger.web.console.names import url
from orthanc_ledger.words import day

_RESOURCE = "/ledger/(studies|series|instances)/([0-9a-f-]{44})"
_LEVELS = {"studies": "study", "series": "series", "instances": "instance"}
_UIDS = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
_FILES = {"panel.css": "text/css", "panel.js": "text/javascript", "page.js": "text/javascript"}
_TITLE = ("PatientName", "PatientID", "StudyDate", "StudyDescription")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def register(settings: Settings, config: Config) -> None:
    """Put it into the Explorer, and answer its calls."""
    panel = Panel(Beside(config.data_dir / BESIDE), (settings.console or _console(config)).rstrip("/"))
    orthanc.RegisterRestCallback(_RESOURCE, lasting(panel.page))
    orthanc.RegisterRestCallback(f"{_RESOURCE}/facts", lasting(panel.facts))
    orthanc.RegisterRestCallback(f"/ledger/({'|'.join(_FILES)})", lasting(panel.file))
    orthanc.ExtendOrthancExplorer("\n".join(_read(name) for name in ("panel.js", "explorer.js")))


class Panel:
    """Answers GET; the callbacks wait for the node's processes, which holds up nobody else in Orthanc."""

    def __init__(self, beside: Beside, console: str) -> None:
        """``console``: its URL, empty where there is none."""
        self._beside = beside
        self._console = console

    def page(self, output: orthanc.RestOutput, uri: str, **request: Any) -> None:
        """The page of a study, series or instance."""
        if _is_get(output, request):
            _answer(output, _read("page.html"), "text/html")

    def file(self, output: orthanc.RestOutput, uri: str, **request: Any) -> None:
        """Style and scripts."""
        if _is_get(output, request):
            [name] = request["groups"]
            _answer(output, _read(name), _FILES[name])

    def facts(self, output: orthanc.RestOutput, uri: str, **request: Any) -> None:
        """What the node knows, as JSON; 404: Orthanc has no such thing; 503: the node's processes are away."""
        if not _is_get(output, request):
            return
        kind, id = request["groups"]
        try:
            resource, study = _resource(kind, id)
            count = 1 if kind == "instances" else int(_get(f"/{kind}/{id}/statistics")["CountInstances"])
        except orthanc.OrthancException:
            output.SendHttpStatusCode(404)
            return
        asked = {
            "level": _LEVELS[kind],
            "uid": resource["MainDicomTags"][_UIDS[kind]],
            "study_uid": study["MainDicomTags"]["StudyInstanceUID"],
            "orthanc_id": next(iter(resource.get("Instances", [id]))),
            "events": "events" in request["get"],
        }
        try:
            found = self._beside.provenance(asked)
        except ServiceAway:
            output.SendHttpStatusCode(503)
            return
        console = f"{self._console}/studies/{quote(asked['study_uid'], safe='')}" if self._console else None
        shown = {**found, "in_orthanc": count, "title": _title(study), "console": console}
        _answer(output, json.dumps(shown), "application/json")


def _console(config: Config) -> str:
    """Where the node's own console is; empty where there is none, or nobody can tell."""
    try:
        return (config.console and url(config.console)) or ""
    except ConfigError:  # of its certificate: the console itself says it
        return ""


def _resource(kind: str, id: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What Orthanc says of something, and of its study."""
    resource = _get(f"/{kind}/{id}")
    return resource, resource if kind == "studies" else _get(f"/{kind}/{id}/study")


def _get(uri: str) -> Any:
    return json.loads(orthanc.RestApiGet(uri))


def _title(study: Mapping[str, Any]) -> str:
    tags = {**study["PatientMainDicomTags"], **study["MainDicomTags"]}
    told = {**tags, "StudyDate": day(tags.get("StudyDate", ""))}
    return ", ".join(told[name] for name in _TITLE if told.get(name))


def _is_get(output: orthanc.RestOutput, request: Mapping[str, Any]) -> bool:
    if request["method"] == "GET":
        return True
    output.SendMethodNotAllowed("GET")
    return False


def _answer(output: orthanc.RestOutput, body: str, mime: str) -> None:
    for name, value in _HEADERS.items():
        output.SetHttpHeader(name, value)
    output.AnswerBuffer(body.encode(), mime)


def _read(name: str) -> str:
    return (files("orthanc_ledger.plugin") / "static" / name).read_text(encoding="utf-8")
