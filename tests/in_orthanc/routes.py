"""Every route of an Orthanc: those it lists itself, those its plugins register, its pages, WebDAV. What stands for
their placeholders is what it holds.
"""

import http.client
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.in_orthanc.live import LiveOrthanc, Version

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND")
VIEWER, PEER = "viewer", "peer"  # of "DicomModalities", "OrthancPeers" and the DICOMweb servers

# What a route belongs to, by what its path begins with.
AREAS = {
    "Orthanc's own pages: `/`, `/app/…`": ("/app", "/favicon.ico", "/plugins/explorer.js"),
    "what it holds: `/patients`, `/studies`, `/series`, `/instances`": (
        "/patients",
        "/studies",
        "/series",
        "/instances",
    ),
    "sending and asking: `/modalities`, `/peers`, `/queries`": ("/modalities", "/peers", "/queries"),
    "tools: `/tools/…`": ("/tools",),
    "DICOMweb and WADO: `/dicom-web/…`, `/wado`": ("/dicom-web", "/wado"),
    "WebDAV: `/webdav/…`": ("/webdav",),
    "this plugin's: `/ledger/…`": ("/ledger",),
    "itself: `/system`, `/statistics`, `/changes`, `/jobs` and such": ("/",),
}


@dataclass(frozen=True)
class Held:
    """What an Orthanc holds: ids of one object by level, of a job, and the object's UIDs."""

    patients: str
    studies: str
    series: str
    instances: str
    jobs: str
    uids: tuple[str, str, str]  # Study, Series and SOP Instance UID


def area_of(path: str) -> str:
    """What a route belongs to."""
    return next(area for area, begins in AREAS.items() if path == "/" or path.startswith(begins))


def routes_of(orthanc: LiveOrthanc, held: Held) -> list[str]:
    """The paths of everything that a running Orthanc answers, each once."""
    own = [_filled(path, held) for path in documented(orthanc.version)]
    plugins = [path for pattern in _registered(orthanc.log) for path in _matching(pattern, held)]
    return sorted({*own, *plugins, *_pages(orthanc), *_folders(orthanc), "/favicon.ico"})


@cache
def documented(version: Version) -> tuple[str, ...]:
    """The routes that Orthanc lists, with placeholders: in its OpenAPI document, and those that it leaves out there, as
    their examples are on a server that it cannot reach without a network.
    """
    with TemporaryDirectory() as name:
        orthanc = LiveOrthanc(version, Path(name), 1, 1)
        (orthanc.folder / "orthanc.json").write_text(json.dumps(orthanc.configuration()))
        page = orthanc.folder / "openapi.json"
        words = orthanc.command(["Orthanc", f"--openapi={page}", str(orthanc.folder / "orthanc.json")])
        ran = subprocess.run(["unshare", "--net", *words], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr[-3000:]
        listed = [(method, path) for path, calls in json.loads(page.read_text())["paths"].items() for method in calls]
    left_out = re.findall(r"Ignoring URI without API documentation: (\w+) (\S+)", ran.stderr)
    counts = re.search(r"contains (\d+) paths over a total of (\d+) paths", ran.stderr)
    assert counts is not None
    assert (len(listed), len(listed) + len(left_out)) == (int(counts[1]), int(counts[2]))
    return tuple(sorted({path for _, path in [*listed, *left_out]}))


def _filled(path: str, held: Held) -> str:
    """A path of Orthanc's list."""
    kind = path.split("/")[1]
    of_kind = {"modalities": VIEWER, "peers": PEER, "plugins": "dicom-web", **vars(held)}
    name = "dicom" if "/attachments/" in path else "ReceptionDate"
    values = {
        "id": of_kind.get(kind, "0"),
        "name": name,
        "frame": "0",
        "index": "0",
        "label": "urgent",
        "key": "archive",
    }
    return re.sub(r"\{(\w+)\}", lambda found: str(values.get(found[1], "0010-0010")), path)


def _registered(log: Path) -> Iterator[str]:
    """The patterns of all REST callbacks of plugins."""
    for found in re.finditer(r"has registered a REST callback .*?on: (\S+)", log.read_text(errors="replace")):
        yield found[1]


def _matching(pattern: str, held: Held) -> Iterator[str]:
    """Paths that a plugin's pattern fits: one for each of its words, with and without what may be left out."""
    if found := re.search(r"\(([\w.]+(?:\|[\w.]+)*)\)|(\(/\.\*\)\?)", pattern):
        for word in found[1].split("|") if found[1] else ("", "/store"):
            yield from _matching(pattern.replace(found[0], word, 1), held)
        return
    uids = dict(zip(("studies", "series", "instances"), held.uids, strict=True))
    values = {
        "servers": PEER,
        "modalities": VIEWER,
        "peers": PEER,
        "frames": "1",
        **vars(held),
        **(uids if pattern.startswith("/dicom-web") else {}),
    }
    path = pattern
    while group := re.search(r"(\w+)/\([^()]*\)", path):
        path = path.replace(group[0], f"{group[1]}/{values.get(group[1], 'index.html')}", 1)
    assert re.fullmatch(pattern, path), f"{path} does not fit {pattern}"
    yield path


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def _pages(orthanc: LiveOrthanc) -> Iterator[str]:
    """Orthanc's Explorer, and all files that it is made of."""
    yield from ("/", "/app/explorer.html")
    links = _Links()
    links.feed(orthanc.call("GET", "/app/explorer.html").body.decode())
    for link in links.found:
        if not re.match(r"https?:|#|\.\./", link):
            yield f"/app/{link.split('?')[0]}"


def _folders(orthanc: LiveOrthanc) -> Iterator[str]:
    """WebDAV's folders, three levels of them, and what one may send into them."""
    yield from ("/webdav/uploads/new.dcm", "/webdav/by-uids/new")
    level = ["/webdav/"]
    for _ in range(3):
        yield from level
        answers = [orthanc.call("PROPFIND", path, headers={"Depth": "1"}).body.decode() for path in level]
        found = {link for answer in answers for link in re.findall(r"<D:href>([^<]+)</D:href>", answer)}
        level = sorted(found - set(level))


@dataclass
class Walker:
    """Asks an Orthanc over one connection, which is made anew where Orthanc closes it."""

    port: int
    headers: Mapping[str, str]
    _connection: http.client.HTTPConnection | None = field(default=None, init=False)

    def ask(self, method: str, path: str) -> tuple[int, int]:
        """Status and length of an answer."""
        connection = self._connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self._connection = connection
        connection.request(method, path, b"{}" if method in ("POST", "PUT") else None, dict(self.headers))
        answer = connection.getresponse()
        length = len(answer.read())
        if answer.will_close:
            self.close()
        return answer.status, length

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
