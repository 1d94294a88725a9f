"""What a Kubo node must be before it gets a batch: private, durable, and set so that a repair heals.

Its settings are read in its repository (docs/ipfs.md has the reason of each), and what they say is proved where it can
be: it must be the repository's node that answers, not without its token, and not to a dial without the swarm key.
"""

import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from orthanc_ledger.content.kubo.connection import KuboNode
from orthanc_ledger.content.kubo.http import Refused
from orthanc_ledger.content.kubo.rpc import Kubo
from orthanc_ledger.errors import ConfigError, ContentAway

CONFIG = "config"
SWARM_KEY = "swarm.key"
SHARDS = "/repo/flatfs/shard/v1/next-to-last/2"

_DIAL_S = 2.0
_REFUSED = (401, 403)
_HELLO = b"\x13/multistream/1.0.0\n"  # multistream-select, in clear
_KEY = re.compile(r"/key/swarm/psk/1\.0\.0/\s+/base(?:16|64)/\s+\S{40,}\s*")
_TCP = re.compile(r"/ip[46]/([^/]+)/tcp/(\d+)")


@dataclass(frozen=True)
class Rule:
    """A setting by its dotted path, what it must be, in words, and whether a value (None: not set) is."""

    setting: str
    expected: str
    holds: Callable[[Any], bool]


def _is(expected: object) -> Callable[[Any], bool]:
    return lambda value: type(value) is type(expected) and value == expected


def _must(setting: str, expected: object) -> Rule:
    return Rule(setting, json.dumps(expected), _is(expected))


def _none(setting: str) -> Rule:
    return Rule(setting, "none", lambda value: not value)


RULES: Final = (
    # nobody outside is known, asked, told or let in
    _must("AutoConf.Enabled", False),
    _must("AutoTLS.Enabled", False),
    _must("Routing.Type", "none"),
    _none("Routing.DelegatedRouters"),
    _none("Ipns.DelegatedPublishers"),
    _none("DNS.Resolvers"),
    _must("Provide.Enabled", False),
    _must("HTTPRetrieval.Enabled", False),
    _must("Discovery.MDNS.Enabled", False),
    _must("Version.SwarmCheckEnabled", False),
    _must("AutoNAT.ServiceMode", "disabled"),
    _must("Plugins.Plugins.telemetry.Disabled", True),
    _must("Swarm.DisableNatPortMap", True),
    _must("Swarm.EnableHolePunching", False),
    _must("Swarm.RelayClient.Enabled", False),
    _must("Swarm.RelayService.Enabled", False),
    *(
        _must(f"Swarm.Transports.Network.{transport}", False)
        for transport in ("QUIC", "Relay", "WebRTCDirect", "Websocket", "WebTransport")
    ),
    Rule(
        "Addresses.Swarm",
        "TCP addresses",
        lambda value: bool(value) and all(_TCP.fullmatch(address) for address in value),
    ),
    _none("Addresses.Gateway"),
    # every connected node is asked for a block: else one that has it is not, and a repair calls it lost
    _must("Internal.Bitswap.BroadcastControl.Enable", False),
    # what was acknowledged outlives a power loss, and a changed byte is told
    _must("Datastore.HashOnRead", True),
    # written again, a damaged block is replaced
    _must("Datastore.BlockKeyCacheSize", 0),
    Rule("Datastore.BloomFilterSize", "0", lambda value: not value),
    Rule("Datastore.WriteThrough", "true", lambda value: value is not False),
    # CIDs as ours, also by `ipfs add`
    _must("Import.CidVersion", 1),
    _must("Import.HashFunction", "sha2-256"),
    _must("Import.UnixFSChunker", "size-1048576"),
    _must("Import.UnixFSRawLeaves", True),
    _must("Import.UnixFSFileMaxLinks", 1024),
    Rule("Import.UnixFSDAGLayout", '"balanced"', lambda value: value in (None, "balanced")),
)


def identify(node: KuboNode, kubo: Kubo) -> str:
    """The peer id of who answers. Raises ConfigError when the token is refused, ContentAway when nobody does."""
    try:
        return kubo.peer_id()
    except Refused as error:
        if error.status in _REFUSED:
            raise ConfigError(f"nodes: {node.name}: token: is not in API.Authorizations: {error}") from error
        raise


def check_node(node: KuboNode, kubo: Kubo, peer_id: str) -> None:
    """Check a node that has just said that it is ``peer_id``.

    Raises ConfigError naming every setting that must be another, and ContentAway when the node cannot be asked.
    """
    settings = read_settings(node.repo)
    faults = [*_broken_rules(settings), *_broken_store(settings), *_strangers(settings), *_broken_key(node.repo)]
    if (expected := at(settings, "Identity.PeerID")) != peer_id:
        faults.append(f"kubo_repo: is of the node {expected}, but {node.api} is {peer_id}")
    elif _changed_since_start(node.repo):
        faults.append("its settings or its swarm key were changed since it started: start it again")
    if (status := kubo.status_without_token()) not in _REFUSED:
        faults.append(f"API.Authorizations: expected secrets, but it answers {status} to who has none")
    if not faults:  # as then these are its addresses
        faults.extend(_open_doors(node.api, settings["Addresses"]["Swarm"]))
    if faults:
        raise ConfigError(f"Kubo node {node.name} ({node.repo / CONFIG}): {'; '.join(faults)} (docs/ipfs.md)")


def read_settings(repo: Path) -> dict[str, Any]:
    """A node's settings. Raises ConfigError."""
    try:
        settings = json.loads((repo / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"kubo_repo {repo}: {CONFIG} cannot be read ({error}): name the node's IPFS_PATH") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"kubo_repo {repo}: {CONFIG}: expected keys and values")
    return settings


def owner_of(repo: Path) -> set[int]:
    """The user id of a node's settings, as which it runs; none while they cannot be seen: ``check_node`` tells."""
    try:
        return {(repo / CONFIG).stat().st_uid}
    except OSError:
        return set()


def at(settings: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for word in path.split("."):
        settings = settings.get(word) if isinstance(settings, dict) else None
    return settings


def _broken_rules(settings: dict[str, Any]) -> Iterator[str]:
    for rule in RULES:
        if not rule.holds(value := at(settings, rule.setting)):
            yield f"{rule.setting}: expected {rule.expected}, got {json.dumps(value)}"


def _broken_store(settings: dict[str, Any]) -> Iterator[str]:
    """Blocks in files that are synced, and lie where a damaged one is looked for."""
    mounts = at(settings, "Datastore.Spec.mounts") or ()
    found = [mount.get("child", mount) for mount in mounts if mount.get("mountpoint") == "/blocks"]
    expected = {"type": "flatfs", "path": "blocks", "shardFunc": SHARDS, "sync": True}
    for mount in found or [{}]:
        for key, value in expected.items():
            if (got := mount.get(key)) != value:
                yield f"Datastore.Spec, /blocks: {key}: expected {json.dumps(value)}, got {json.dumps(got)}"
                if key == "type":
                    break  # of another the other keys say nothing


def _strangers(settings: dict[str, Any]) -> Iterator[str]:
    """Bootstrap may name who is peered with anyway, and nobody else."""
    friends = {peer.get("ID") for peer in at(settings, "Peering.Peers") or ()}
    for address in at(settings, "Bootstrap") or ():
        if address.rpartition("/")[2] not in friends:
            yield f"Bootstrap: expected none but peers of Peering.Peers, got {address}"


def _broken_key(repo: Path) -> Iterator[str]:
    place = repo / SWARM_KEY
    try:
        if place.stat().st_mode & 0o007:
            yield f"{SWARM_KEY}: any user of this machine may read it: chmod 600"
        key = place.read_text(encoding="ascii")
    except FileNotFoundError:
        yield f"{SWARM_KEY}: is missing: every node of the private network needs the same"
    except (OSError, UnicodeDecodeError) as error:
        yield f"{SWARM_KEY}: cannot be read ({error})"
    else:
        if not _KEY.fullmatch(key):
            yield f"{SWARM_KEY}: expected a key of the form /key/swarm/psk/1.0.0/"


def _changed_since_start(repo: Path) -> bool:
    """A node reads its settings when it starts, and then writes its API's address."""
    try:
        started = (repo / "api").stat().st_mtime_ns
        return any((repo / name).stat().st_mtime_ns > started for name in (CONFIG, SWARM_KEY))
    except OSError:
        return False


def _open_doors(api: str, addresses: list[str]) -> Iterator[str]:
    """Of the swarm's addresses those where somebody answers who was not asked for the key. A node of a private network
    encrypts from the first byte, so it never says what protocols it speaks in clear. It does say something at once.

    Raises ContentAway when one says nothing, which may be a node that has no time, with a swarm key or without.
    """
    for address in addresses:
        found = _TCP.fullmatch(address)
        if found is None:
            continue
        host = str(urlsplit(api).hostname) if ipaddress.ip_address(found[1]).is_unspecified else found[1]
        try:
            answer = _dialled(host, int(found[2]))
        except OSError as error:
            yield f"Addresses.Swarm: {address} cannot be dialled ({error}): nothing proves that it wants the swarm key"
        else:
            if answer.startswith(_HELLO):
                yield f"{SWARM_KEY}: the node does not use it: it answers at {address} to who has none; start it again"
            elif len(answer) < len(_HELLO):
                raise ContentAway(f"{api}: {address} says nothing: nothing proves that it wants the swarm key")


def _dialled(host: str, port: int) -> bytes:
    """What is said at an address to somebody without a swarm key."""
    got = b""
    with socket.create_connection((host, port), _DIAL_S) as dial:
        dial.sendall(_HELLO + b"\x07/noise\n")
        try:
            while len(got) < len(_HELLO) and (data := dial.recv(len(_HELLO))):
                got += data
        except (TimeoutError, ConnectionResetError):
            pass
    return got
