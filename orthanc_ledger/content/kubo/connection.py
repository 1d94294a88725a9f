"""The file that `content: kubo:…` names: which Kubo nodes, what is kept beside them and how long."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orthanc_ledger.errors import ConfigError
from orthanc_ledger.yaml_file import Keys, read_yaml

_REPLICAS = 2


@dataclass(frozen=True)
class KuboNode:
    """A Kubo node of this organisation: its RPC API and the bearer secret for it, its repository (IPFS_PATH)."""

    name: str
    api: str  # http://HOST:PORT
    repo: Path
    token: str = field(repr=False)


@dataclass(frozen=True)
class ClusterApi:
    """The REST API of an ipfs-cluster peer of this organisation, and USER:PASSWORD for it."""

    api: str
    credentials: str = field(repr=False)


@dataclass(frozen=True)
class Connection:
    """The content store of one organisation on its Kubo nodes."""

    nodes: tuple[KuboNode, ...]  # asked in this order
    local: Path
    keep_days: float | None  # of sealed objects in the local store; None: for ever
    replicas: int  # on how many nodes a batch is pinned before it counts as stored
    cluster: ClusterApi | None = None


def read_connection(path: Path) -> Connection:
    """Read a connection file (YAML; relative paths count from its folder).

    Raises ConfigError naming file and key when it is missing, is not YAML, has an unknown, missing or mistyped key, or
    names a secret that cannot be read.
    """
    raw = read_yaml(path, "name the file that lists the Kubo nodes (docs/ipfs.md)")
    keys = Keys(path, "", raw, {"nodes", "local"}, {"keep_days", "replicas", "cluster"})
    nodes = tuple(_node(path, number, node) for number, node in enumerate(keys.filled("nodes", list)))
    names = [node.name for node in nodes]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: nodes: a name stands twice")
    if min(len({node.api for node in nodes}), len({node.repo.resolve() for node in nodes})) < len(nodes):
        raise ConfigError(f"{path}: nodes: an api or kubo_repo stands twice: that is one node, and one copy")
    replicas = keys.positive("replicas", int) if "replicas" in raw else min(_REPLICAS, len(nodes))
    cluster = _cluster(path, raw["cluster"]) if "cluster" in raw else None
    if replicas > len(nodes):
        raise ConfigError(f"{path}: replicas: {replicas} of {len(nodes)} nodes: name more nodes, or fewer replicas")
    return Connection(
        nodes=nodes,
        local=path.parent / keys.text("local"),
        keep_days=keys.number("keep_days") if "keep_days" in raw else None,
        replicas=replicas,
        cluster=cluster,
    )


def _node(path: Path, number: int, raw: Any) -> KuboNode:
    where = f"nodes[{number}]."
    keys = Keys(path, where, raw, {"name", "api", "token", "kubo_repo"}, set())
    api = _address(path, where, keys.text("api"))
    return KuboNode(keys.text("name"), api, path.parent / keys.text("kubo_repo"), _secret(path, where, keys))


def _cluster(path: Path, raw: Any) -> ClusterApi:
    keys = Keys(path, "cluster.", raw, {"api", "token"}, set())
    return ClusterApi(_address(path, "cluster.", keys.text("api")), _secret(path, "cluster.", keys))


def _address(path: Path, where: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f"{path}: {where}api: expected http://HOST:PORT, got {url!r}")
    return url.rstrip("/")


def _secret(path: Path, where: str, keys: Keys) -> str:
    file = path.parent / keys.text("token")
    try:
        secret = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {where}token: {file}: cannot be read ({error})") from error
    if not secret or not secret.isprintable():
        raise ConfigError(f"{path}: {where}token: {file}: expected one line, the API's secret")
    return secret
