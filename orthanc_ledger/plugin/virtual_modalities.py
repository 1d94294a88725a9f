"""The node's research peers as staff see them in Orthanc: modalities to which the node sends what it releases."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from http import HTTPStatus
from typing import Any

import orthanc

from orthanc_ledger.errors import OrthancAway, ServiceAway
from orthanc_ledger.plugin.answers import answer, refuse
from orthanc_ledger.plugin.beside import Beside, MoveRefused
from orthanc_ledger.plugin.lasting import lasting
from orthanc_ledger.plugin.loopback import Loopback
from orthanc_ledger.plugin.research import Research
from orthanc_ledger.plugin.resources import NotThere, resolve

LOGGER = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_AWAY = "the node's processes are away"
_ALLOWED = ("Echo", "EventReport", "Find", "FindWorklist", "Get", "Move", "NAction", "Transcoding")


class VirtualModalities:
    """Answers for them. ``ae_title``: of the node, which sends."""

    def __init__(self, research: Research, ae_title: str, node: Beside, loopback: Callable[[], Loopback]) -> None:
        self._research = research
        self._ae_title = ae_title
        self._node = node
        self._loopback = loopback

    def list(self, output: "orthanc.RestOutput", uri: str, **request: Any) -> None:
        """/modalities, with Orthanc's own."""
        if request["method"] != "GET":
            output.SendMethodNotAllowed("GET")
            return
        if "expand" in (request.get("get") or {}):
            listed = json.loads(orthanc.RestApiGet("/modalities?expand"))
            answer(output, listed | {each.ae_title: self._entry(each.ae_title) for each in self._research.destinations})
        else:
            names = json.loads(orthanc.RestApiGet("/modalities"))
            answer(output, [*names, *(each.ae_title for each in self._research.destinations)])

    def one(self, output: "orthanc.RestOutput", uri: str, **request: Any) -> None:
        """/modalities/AE-TITLE and what is under it."""
        method, (title, route) = request["method"], request["groups"]
        if method == "GET" and not route:
            answer(output, ["configuration", "store"])
        elif method == "GET" and route == "/configuration":
            answer(output, self._entry(title))
        elif method == "POST" and route == "/store":
            self._store(output, uri, title, request.get("body", b""))
        else:
            message = f"{title} is a research peer of the node, which alone sends to it, and only by C-STORE"
            refuse(output, HTTPStatus.FORBIDDEN, method, uri, message)

    def _entry(self, title: str) -> dict[str, Any]:
        peer = self._research.peer(title)
        assert peer is not None
        place = {"AET": peer.ae_title, "Host": peer.host, "Port": peer.port, "Manufacturer": "Generic"}
        return place | {f"Allow{service}": False for service in _ALLOWED} | {"AllowStore": True}

    def _store(self, output: "orthanc.RestOutput", uri: str, title: str, body: bytes) -> None:
        asked = read_request(body)
        if asked is None:
            refuse(output, HTTPStatus.BAD_REQUEST, "POST", uri, "Bad file format")
            return
        ids, permissive = asked
        try:
            with closing(self._loopback()) as loopback:
                count, moves = resolve(loopback, ids)
        except NotThere:
            refuse(output, HTTPStatus.NOT_FOUND, "POST", uri, "Unknown resource")
            return
        except OrthancAway as error:
            refuse(output, HTTPStatus.SERVICE_UNAVAILABLE, "POST", uri, str(error))
            return
        sent, reasons = self._send(title, moves)
        LOGGER.info("staff sent to %s: %d of %d objects", title, sent, count)
        why = ", ".join(reasons) or "some objects are not in the node, or could not be sent"
        if not sent:
            status = HTTPStatus.SERVICE_UNAVAILABLE if _AWAY in reasons else HTTPStatus.FORBIDDEN
            refuse(output, status, "POST", uri, f"{title}: nothing was sent: {why}")
        elif sent < count and not permissive:
            message = f"{title}: {sent} of {count} objects were sent: {why}"
            refuse(output, HTTPStatus.INTERNAL_SERVER_ERROR, "POST", uri, message)
        else:
            told = {"Description": "REST API", "LocalAet": self._ae_title, "RemoteAet": title, "ParentResources": ids}
            answer(output, told | {"InstancesCount": count, "FailedInstancesCount": max(count - sent, 0)})

    def _send(self, title: str, moves: Iterable[Mapping[str, str]]) -> tuple[int, Sequence[str]]:
        """How many were sent, and why others were not."""
        sent, reasons = 0, dict[str, None]()
        for keys in moves:
            try:
                with closing(self._node.move(None, 0, title, keys)) as move:
                    outcomes = [move.next() for _ in range(move.count)]
            except (MoveRefused, ServiceAway) as error:
                reasons[str(error) if isinstance(error, MoveRefused) else _AWAY] = None
                continue
            sent += sum(outcome.sent for outcome in outcomes)
            reasons |= dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason)
        return sent, list(reasons)


def read_request(body: bytes) -> tuple[list[str], bool] | None:
    """The ids in a body as /modalities/NAME/store takes it, and whether failures are no error; None: it is none."""
    text = body.decode("utf-8", "replace").strip()
    if _ID.fullmatch(text):
        return [text], False
    try:
        asked = json.loads(text)
    except ValueError:
        return None
    ids, options = (asked.get("Resources"), asked) if isinstance(asked, dict) else (asked, {})
    ids = [ids] if isinstance(ids, str) else ids
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        return None
    return ids, options.get("Permissive") is True


def register(research: Research, ae_title: str, node: Beside, loopback: Callable[[], Loopback]) -> None:
    """Show them, before what guards /modalities/NAME is registered: the first that fits answers."""
    if not research.destinations:
        return
    virtual = VirtualModalities(research, ae_title, node, loopback)
    titles = "|".join(re.escape(each.ae_title) for each in research.destinations)
    orthanc.RegisterRestCallback("/modalities", lasting(virtual.list))
    orthanc.RegisterRestCallback(f"/modalities/({titles})(/.*)?", lasting(virtual.one))
