"""Where Orthanc itself may send to: nowhere of research's. Its lists are looked at before it starts, once it has (for
what its database keeps), when staff change them, and when they use what the plugin is not told of.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import orthanc

from orthanc_ledger.errors import ConfigError, ServiceAway
from orthanc_ledger.plugin import events
from orthanc_ledger.plugin.answers import pass_on, refuse
from orthanc_ledger.plugin.lasting import lasting
from orthanc_ledger.plugin.loopback import Loopback
from orthanc_ledger.plugin.research import Research, modality_place, server_url

LOGGER = logging.getLogger(__name__)

_INSTEAD = "research gets scans from the node alone, which shows its research peers among the modalities"
_AGAIN = re.compile(r"/jobs/([^/]+)/(?:resubmit|resume)")
_ROUTES = {"modality": "modalities", "peer": "peers"}
_ENDED = ("Success", "Failure")


class Destinations:
    """Tells which of Orthanc's destinations are research's. ``dicom_web``: the root of the DICOMweb plugin."""

    def __init__(self, research: Research, dicom_web: str) -> None:
        self._research = research
        self._servers = f"/{dicom_web.strip('/')}/servers"
        self._used = re.compile(re.escape(self._servers) + "/([^/]+)/.+")

    def leads_to_research(self, kind: str, name: str, entry: Any) -> bool:
        """Whether an entry of a list does, of kind `modality`, `peer` or `server`. A modality's name must not look like
        research's either.
        """
        if kind == "modality":
            return self._research.peer(name) is not None or self._research.is_place(modality_place(entry))
        return self._research.is_machine(server_url(entry))

    def check(self, orthanc_configuration: Mapping[str, Any]) -> None:
        """Raises ConfigError naming the entry of Orthanc's configuration that leads to research."""
        lists = {
            ("modality", '"DicomModalities"'): orthanc_configuration.get("DicomModalities"),
            ("peer", '"OrthancPeers"'): orthanc_configuration.get("OrthancPeers"),
            ("server", '"DicomWeb": "Servers"'): (orthanc_configuration.get("DicomWeb") or {}).get("Servers"),
        }
        for (kind, setting), entries in lists.items():
            for name, entry in (entries or {}).items():
                if self.leads_to_research(kind, name, entry):
                    raise ConfigError(f"{setting}: {name!r} leads to research: remove it; {_INSTEAD}")

    def kept(self) -> Iterator[tuple[str, str]]:
        """Kind and name of what Orthanc has now, from its database, too, and leads to research."""
        for kind, route in _ROUTES.items():
            for name, entry in json.loads(orthanc.RestApiGet(f"/{route}?expand")).items():
                if self.leads_to_research(kind, name, entry):
                    yield kind, name

    def permits(self, method: str, uri: str) -> bool:
        """Whether a request of staff may be answered: not if it has DICOMweb's plugin send to research, whose list this
        one cannot guard, nor if a job does that Orthanc had before.
        """
        if method != "POST":
            return True
        if used := self._used.fullmatch(uri):
            servers = json.loads(orthanc.RestApiGetAfterPlugins(f"{self._servers}?expand"))
            entry = servers.get(unquote(used[1]), servers.get(used[1]))
            return entry is None or not self.leads_to_research("server", used[1], entry)
        if again := _AGAIN.fullmatch(uri):
            try:
                return not self.is_sent_to_research(json.loads(orthanc.RestApiGet(f"/jobs/{again[1]}")))
            except orthanc.OrthancException:
                return True  # there is no such job, as Orthanc will say
        return True

    def is_sent_to_research(self, job: Mapping[str, Any]) -> bool:
        """Whether a job, as /jobs/ID tells of it, sends there."""
        content = job.get("Content", {})
        return self._research.peer(str(content.get("RemoteAet", ""))) is not None or self._research.is_machine(
            str(content.get("Peer", ""))
        )


def register(whole: Mapping[str, Any], research: Research, loopback: Callable[[], Loopback]) -> Destinations:
    """Look at what Orthanc has, and at what staff change. Raises ConfigError as `Destinations.check`."""
    destinations = Destinations(research, (whole.get("DicomWeb") or {}).get("Root", "/dicom-web/"))
    if not research.peers:
        return destinations
    destinations.check(whole)
    events.listen(orthanc.ChangeType.ORTHANC_STARTED, lambda *_: _look(destinations, loopback))
    for kind, route in _ROUTES.items():
        orthanc.RegisterRestCallback(f"/{route}/([^/]+)", lasting(_guard(destinations, kind)))
    return destinations


def _look(destinations: Destinations, loopback: Callable[[], Loopback]) -> None:
    """What only the running Orthanc knows of."""
    kept = list(destinations.kept())
    for kind, name in kept:
        LOGGER.error(
            "Orthanc's database has the %s %r, which leads to research: Orthanc stops. Start it without the plugin and "
            'with "RemoteAccessAllowed" false, DELETE /%s/%s, and start it again as it was; %s',
            *(kind, name, _ROUTES[kind], name, _INSTEAD),
        )
    if kept:
        orthanc.RestApiPost("/tools/shutdown", b"")
        return
    for job in json.loads(orthanc.RestApiGet("/jobs?expand")):
        if job["State"] not in _ENDED and destinations.is_sent_to_research(job):
            LOGGER.error("a job that Orthanc kept would send to research: it is cancelled")
            try:
                loopback().cancel(job["ID"])
            except ServiceAway as error:
                LOGGER.error("it could not be cancelled, Orthanc stops: %s", error)
                orthanc.RestApiPost("/tools/shutdown", b"")


def _guard(destinations: Destinations, kind: str) -> Callable[..., None]:
    """Answers /modalities/NAME and /peers/NAME: an entry that leads to research is refused, all else is Orthanc's."""

    def answered(output: "orthanc.RestOutput", uri: str, **request: Any) -> None:
        method, body = request["method"], request.get("body", b"")
        if method == "POST":
            output.SendMethodNotAllowed("GET,PUT,DELETE")
            return
        if method == "PUT":
            try:
                entry = json.loads(body)
                body = json.dumps(entry).encode()  # just what is looked at: Orthanc's own reader takes more than JSON
            except ValueError:
                entry, body = None, b""
            name = request["groups"][0]
            if isinstance(entry, (list, dict)) and destinations.leads_to_research(kind, name, entry):
                refuse(output, HTTPStatus.FORBIDDEN, method, uri, f"{name} would lead to research; {_INSTEAD}")
                return
        pass_on(output, method, uri, body, request.get("get") or {})

    return answered
