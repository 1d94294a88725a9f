"""The HTTP filter: Orthanc asks here, once it has found user and password right, about each request that it would
answer; its pages, WebDAV and what other plugins serve are among them. Headers are named in lower case; of one that
stands twice Orthanc looks at the first, and gives it on.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orthanc

from orthanc_ledger.assemble import ENTRANCE, Node
from orthanc_ledger.entrance import SECRET_HEADER, Entrance, credentials, keep
from orthanc_ledger.errors import SpoolFull
from orthanc_ledger.plugin import request
from orthanc_ledger.plugin.access import Access
from orthanc_ledger.plugin.sender import Here
from orthanc_ledger.plugin.settings import Settings
from orthanc_ledger.plugin.uploads import is_upload
from orthanc_ledger.sender import HTTPS, uri
from orthanc_ledger.spool import Spool

_log = logging.getLogger(__name__)

_METHODS = {
    int(orthanc.HttpMethod.GET): "GET",  # told of HEAD, OPTIONS and PROPFIND, too
    int(orthanc.HttpMethod.POST): "POST",
    int(orthanc.HttpMethod.PUT): "PUT",
    int(orthanc.HttpMethod.DELETE): "DELETE",
}
_TOLD_EVERY_S = 60.0
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,30}")


@dataclass
class Denials:
    """Tells the log of refused requests: for each user at most once a minute, without what follows a path's first part,
    which may name a patient.
    """

    monotonic: Callable[[], float] = time.monotonic
    _told: dict[str | None, tuple[float, int]] = field(default_factory=dict)

    def note(self, user: str | None, method: str, uri: str) -> None:
        """A request was refused. ``user``: one whose password Orthanc has found right."""
        now = self.monotonic()
        last, untold = self._told.get(user, (float("-inf"), 0))
        if now - last < _TOLD_EVERY_S:
            self._told[user] = last, untold + 1
            return
        self._told[user] = now, 0
        first = uri.split("/")[1] if uri.startswith("/") else ""
        path = f"/{first}" if _PLAIN.fullmatch(first) else "/…"
        more = f" ({untold} more since the last such line)" if untold else ""
        _log.warning('denied over HTTP: user %r, who is not among "Staff": %s %s%s', user, method, path, more)


def register(whole: Mapping[str, Any], settings: Settings, node: Node, permits: Callable[[str, str], bool]) -> None:
    """Keep how the node gets in, and have Orthanc ask here. ``permits``: whether staff may have a method and URI
    answered, as far as it can be told from these. Raises OSError.
    """
    users = {user: credentials(user, password) for user, password in whole["RegisteredUsers"].items()}
    access, denials = Access(users, settings.staff, settings.user, secrets.token_hex(32)), Denials()
    keep(node.config.data_dir / ENTRANCE, _entrance(whole, access))

    def admits(uri: str, *, method: int, ip: str, headers: Mapping[str, str], **_: object) -> bool:
        user, name = access.user(headers.get("authorization", "")), _METHODS.get(int(method), str(method))
        if not access.admits(user, ip, headers.get(SECRET_HEADER.lower(), "")):
            denials.note(user, name, uri)
            return False
        if (is_upload(name, uri) and not _has_room(node.spool)) or not permits(name, uri):
            return False
        request.begin(request.Request(name, uri, ip, user))
        return True

    orthanc.RegisterIncomingHttpRequestFilter(admits)


def _has_room(spool: Spool) -> bool:
    try:
        spool.check_room()
    except SpoolFull as error:
        _log.error("an upload over HTTP is refused: %s", error)
        return False
    return True


def _entrance(whole: Mapping[str, Any], access: Access) -> Entrance:
    here = Here.of(whole, "127.0.0.1")
    certificate = whole.get("SslCertificate", "certificate.pem") if here.scheme == HTTPS else None
    return Entrance(
        url=uri(here.scheme, here.host, here.http_port),
        user=access.own,
        password=whole["RegisteredUsers"][access.own],
        secret=access.secret,
        certificate=str(_beside_configuration(certificate)) if certificate else None,
    )


def _beside_configuration(name: str) -> Path:
    """A file that Orthanc's configuration names: a relative path counts from the folder of the configuration."""
    configuration = Path(orthanc.GetConfigurationPath()).resolve()
    return (configuration if configuration.is_dir() else configuration.parent) / name
