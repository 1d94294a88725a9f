"""Live Kubo nodes for tests: private ones that are connected, and ones that are set otherwise."""

import base64
import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.consortium import ipfs
from orthanc_ledger.consortium.ipfs import IpfsNetwork
from orthanc_ledger.consortium.running import Command
from orthanc_ledger.consortium.topology import LOOPBACK, Server, trial
from tests.conftest import wait_until
from tests.consortium.live import need_go

WAIT_S = 30.0
ANSWER_S = 20.0
GONE = object()  # a setting that is to be missing
ALL_PATHS = {"API.Authorizations.node.AllowedPaths": ["/api/v0"]}


class Refused(Exception):
    """Another answer than 200: its status and text."""


def answer_of(request: urllib.request.Request) -> tuple[bytes, str]:
    """Body and media type of an answer. Raises Refused, OSError."""
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return answer.read(), answer.headers.get("Content-Type", "")
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(f"{error.code} {error.read().decode()}") from None


@dataclass(frozen=True)
class Node:
    """A Kubo node as its organisation reaches it."""

    name: str
    api: str  # http://HOST:PORT
    token: str
    token_file: Path
    repo: Path  # its IPFS_PATH
    swarm: str  # multiaddr that ends in its peer id

    @property
    def peer_id(self) -> str:
        return self.swarm.rpartition("/")[2]

    def settings(self) -> dict[str, Any]:
        """Its `config`."""
        settings: dict[str, Any] = json.loads((self.repo / "config").read_text())
        return settings

    def call(
        self, command: str, *args: str, body: bytes | None = None, token: str | None = None, **options: str
    ) -> Any:
        """An RPC, by nothing of ours; the answer's JSON values, in a list, or the bytes when they are none.

        Raises urllib.error.HTTPError, OSError.
        """
        named = [(name.replace("_", "-"), value) for name, value in options.items()]
        query = urllib.parse.urlencode([*(("arg", arg) for arg in args), *named])
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        if body is not None:
            headers["Content-Type"] = "multipart/form-data; boundary=b"
            body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + body + b"\r\n--b--\r\n"
        request = urllib.request.Request(f"{self.api}/api/v0/{command}?{query}", body or b"", headers)
        told, kind = answer_of(request)
        return [json.loads(line) for line in told.splitlines()] if "json" in kind else told

    def connected(self) -> set[str]:
        """The peer ids that it is connected with; none while it is away."""
        try:
            return {each["Peer"] for each in self.call("swarm/peers")[0]["Peers"] or ()}
        except OSError:
            return set()


@dataclass(frozen=True)
class ClusterPeer:
    """An ipfs-cluster peer as its organisation reaches it."""

    name: str
    api: str  # http://HOST:PORT
    token_file: Path  # USER:PASSWORD

    def call(self, path: str, method: str = "GET", credentials: str | None = None) -> Any:
        """A call of its REST API, by nothing of ours; the answer's JSON. Raises Refused, OSError."""
        named = (self.token_file.read_text().strip() if credentials is None else credentials).encode()
        headers = {"Authorization": f"Basic {base64.b64encode(named).decode()}"} if named else {}
        return json.loads(answer_of(urllib.request.Request(f"{self.api}{path}", None, headers, method=method))[0])

    def pin(self, cid: str) -> int:
        """Have it pinned, asking again while the peers have not met; returns how often that was refused."""
        refused = 0

        def accepted() -> bool:
            nonlocal refused
            try:
                self.call(f"/pins/{cid}", "POST")
            except Refused as error:
                if "not enough peers" not in str(error):
                    raise
                refused += 1
                return False
            return True

        wait_until(accepted, WAIT_S, "the cluster takes a pin")
        return refused

    def status(self, cid: str) -> dict[str, str]:
        """What each peer says of a pin, by its name."""
        peers = self.call(f"/pins/{cid}")["peer_map"].values()
        return {each["peername"]: each["status"] for each in peers}


class Kubos(IpfsNetwork):
    """Nodes of one folder: `start`, `stop`, `kill`, `freeze`, `resume` by name, and what tests ask of them."""

    def cluster(self, name: str = "cluster0.hospital") -> ClusterPeer:
        (peer,) = (each for each in self.topology.clusters if each.name == name)
        return ClusterPeer(name, f"http://{LOOPBACK}:{peer.api_port}", ipfs.token_file(self.directory, peer))

    def node(self, name: str = "kubo0.hospital") -> Node:
        (kubo,) = (each for each in self.topology.kubos if each.name == name)
        repo, token_file = ipfs.folder(self.directory, kubo), ipfs.token_file(self.directory, kubo)
        swarm = f"{kubo.swarm}/p2p/{ipfs.peer_id(repo)}"
        api = f"http://{LOOPBACK}:{kubo.api_port}"
        return Node(name, api, token_file.read_text().strip(), token_file, repo, swarm)

    @property
    def nodes(self) -> list[Node]:
        return [self.node(each.name) for each in self.topology.kubos]

    def wait_connected(self) -> None:
        """Return once every node is connected with every other."""
        nodes = self.nodes
        everybody = {node.peer_id for node in nodes}
        wait_until(
            lambda: all(node.connected() >= everybody - {node.peer_id} for node in nodes), WAIT_S, "all are connected"
        )


class Stray(Kubos):
    """Starts without a swarm key, too."""

    def _command(self, server: Server, program: Path | None) -> Command:
        command, environment = super()._command(server, program)
        return command, {**environment, "LIBP2P_FORCE_PNET": "0"}


@contextmanager
def running_kubos(
    directory: Path,
    free_port: Callable[[], int],
    hospital_kubos: int = 2,
    cluster: bool = False,
    kind: type[Kubos] = Kubos,
) -> Iterator[Kubos]:
    """`kubo0.hospital`, `kubo1.hospital`, …, `kubo0.custodian`, `kubo0.research`, connected; gone afterwards.

    ``cluster``: and `cluster0.hospital`, `cluster1.hospital`, …
    """
    need_go()
    topology = trial(hospital_kubos=hospital_kubos, cluster=cluster).with_ports(free_port)
    ipfs.prepare(directory, topology)
    kubos = kind(directory, topology)
    try:
        kubos.up()
        kubos.wait_connected()
        yield kubos
    finally:
        kubos.down()


def stray(
    directory: Path,
    free_port: Callable[[], int],
    changes: Mapping[str, object],
    swarm_key: Path | None = None,
    kind: type[Kubos] = Stray,
) -> Kubos:
    """A node of its own, prepared and not started: `kubo0.hospital` of a network of one.

    ``changes``: setting by dotted path, list places as numbers ("Datastore.Spec.mounts.0.sync"); GONE takes it out.
    ``swarm_key``: instead of one of its own; GONE in ``changes`` under "swarm.key": none.
    """
    whole = trial(hospital_kubos=1).with_ports(free_port)
    topology = replace(whole, organisations=whole.organisations[:1])
    ipfs.prepare(directory, topology)
    kubos = kind(directory, topology)
    repo = kubos.node().repo
    if swarm_key is not None:
        shutil.copy(swarm_key, repo / "swarm.key")
    settings = kubos.node().settings()
    for path, value in changes.items():
        if path == "swarm.key":
            (repo / "swarm.key").unlink()
        else:
            change(settings, path, value)
    (repo / "config").write_text(json.dumps(settings))
    return kubos


def change(settings: Any, path: str, value: object) -> None:
    """Set one value by its dotted path, or take it out (GONE)."""
    *before, last = path.split(".")
    for word in before:
        settings = settings[int(word)] if isinstance(settings, list) else settings.setdefault(word, {})
    if value is GONE:
        del settings[last]
    elif isinstance(settings, list):
        settings[int(last)] = value
    else:
        settings[last] = value


def write_yaml(path: Path, *nodes: Node, **keys: object) -> Path:
    """A file for `content: kubo:…` that names these nodes, with further keys (`replicas=2`, `cluster=…`)."""
    named = [
        {"name": node.name, "api": node.api, "token": str(node.token_file), "kubo_repo": str(node.repo)}
        for node in nodes
    ]
    path.write_text(yaml.safe_dump({"nodes": named, "local": "objects", **keys}))
    return path
