"""One YAML file, read once into one frozen configuration.

Units are in the names; an unknown or contradictory key stops the start.
"""

import os
import pwd
import types
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from orthanc_ledger.batch import BatchLimits
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.node_key import NodeKey, locate
from orthanc_ledger.peer import Peer
from orthanc_ledger.sinks import PathSink, open_sink
from orthanc_ledger.yaml_file import read_yaml

T = TypeVar("T")

_MOST_ON_KUBO_MB = 16_384  # sealed below `content.cid.LARGEST`


RESERVED_ASSOCIATIONS = 20
"""Of the clinical port's associations, kept for modalities: scanners must not wait for viewers."""

SHORTEST_WITHIN_S = 0.1
"""A checkpoint in less would be one for each entry."""


@dataclass(frozen=True)
class Listen:
    """A DICOM port: address, TCP port, number of receiver processes, associations at once in each.

    A process fills about one core, with all its associations; the kernel shares out connections by chance.
    """

    host: str = "127.0.0.1"
    port: int = 0
    processes: int = 2
    max_associations: int = 100


@dataclass(frozen=True)
class Https:
    """Where the HTTPS application listens, and as whom: certificate (chain) and key in PEM files."""

    certificate: Path
    key: Path
    host: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class Console:
    """Where people's web application listens, and the file of their accounts. Off loopback it needs a certificate
    (chain) and its key, PEM files.
    """

    accounts: Path
    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Config:
    """Everything a node is told. Paths are absolute; relative ones in the file count from the file's folder.

    ``orthanc``: this node is Orthanc's plugin; Orthanc's own port takes the place of ``clinical``.
    """

    organisation: str
    ae_title: str
    data_dir: Path
    node_key: NodeKey
    identity: Path
    content: str
    ledger: str
    research: Listen
    clinical: Listen | None = None
    orthanc: bool = False
    peers: tuple[Peer, ...] = ()
    forward: tuple[str, ...] = ()
    batch: BatchLimits = field(default_factory=BatchLimits)
    spool_reserve_mb: int = 1024
    largest_object_mb: int = 16384
    denial_report_s: float = 1.0
    ledger_retry_s: float = 1.0
    all_roles: bool = False
    checkpoint_sinks: tuple[str, ...] = ()
    checkpoint_within_s: float = 5.0
    alarm_sinks: tuple[str, ...] = ()
    https: Https | None = None
    console: Console | None = None
    sweep_every_h: float = 24.0
    sweep_mb_s: float = 20.0
    erasure_alarm_days: float = 7.0

    def peer(self, ae_title: str) -> Peer | None:
        """The peer of that AE title, or None."""
        return next((peer for peer in self.peers if peer.ae_title == ae_title), None)

    @property
    def destinations(self) -> tuple[Peer, ...]:
        """The peers that get an unchanged copy of everything (`forward`)."""
        return tuple(peer for title in self.forward for peer in self.peers if peer.ae_title == title)


@dataclass(frozen=True)
class Party:
    """What an organisation without a DICOM node is told: the custodian's keeper, a research centre that pulls. Paths
    as in `Config`.

    ``ae_title``: of the research centre's confirmed node, whose releases it pulls; the name of the custodian's. The
    sweep is the keeper's.
    """

    organisation: str
    ae_title: str
    data_dir: Path
    identity: Path
    content: str
    ledger: str
    console: Console | None = None
    sweep_every_h: float = 24.0
    sweep_mb_s: float = 20.0


def load(path: Path) -> Config:
    """Read the configuration file.

    Raises ConfigError naming the file and the key when the file is missing, is not YAML, has an unknown, missing or
    mistyped key, or contradicts itself, or when its data_dir is another user's.
    """
    config = _read(Config, path, "`orthanc-ledger init` makes one")
    _check(config, str(path))
    _check_owner(config.data_dir)
    return config


def load_party(path: Path) -> Party:
    """Read the configuration file of a party without a DICOM node. Raises ConfigError as `load`."""
    party = _read(Party, path, "docs/parties.md says how one is made")
    _check_title(party.ae_title, str(path))
    _check_console(party.console, str(path))
    _check_owner(party.data_dir)
    return party


def load_either(path: Path) -> Config | Party:
    """Read a node's configuration, or that of a party without one: only a node's has a `node_key`. Raises ConfigError
    as `load`.
    """
    raw = read_yaml(path, "`orthanc-ledger init` makes a node's; docs/parties.md says how another party's is made")
    return load(path) if isinstance(raw, dict) and "node_key" in raw else load_party(path)


def check_data_dir(party: Party) -> None:
    """Raises ConfigError when a party's data_dir is not there: one made anew, as its disk is not mounted, would know of
    nothing that is to be erased.
    """
    if not party.data_dir.is_dir():
        raise ConfigError(f"data_dir: expected a folder at {party.data_dir}: make it, or mount its disk")


def _read(kind: type[T], path: Path, made_by: str) -> T:
    return _build(kind, read_yaml(path, made_by), str(path), "", path.resolve().parent)


def _check_owner(data_dir: Path) -> None:
    """Raises ConfigError when it is another user's: what root writes there, the node can neither read nor delete."""
    try:
        owner, runner = data_dir.stat().st_uid, os.geteuid()
    except OSError:  # not there yet, or not to be seen: whoever opens it says so
        return
    if owner == runner:
        return
    owners, ours = _user_name(owner), _user_name(runner)
    raise ConfigError(
        f"data_dir: {data_dir} is {owners}'s, and this runs as {ours}: run it as the node's user "
        f"(`runuser -u {owners} -- …`), or give the node's folder to the user who is to run it (chown)"
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _check_title(title: str, path: str) -> None:
    if not 1 <= len(title) <= 16 or title != title.strip() or not title.isascii() or "\\" in title:
        raise ConfigError(
            f"{path}: AE title {title!r}: expected 1 to 16 ASCII characters without backslash and outer spaces "
            "(PS3.5 6.2)"
        )


def _check(config: Config, path: str) -> None:
    titles = [peer.ae_title for peer in config.peers]
    for title in (config.ae_title, *titles):
        _check_title(title, path)
    if len(set(titles)) != len(titles):
        raise ConfigError(f"{path}: peers: an AE title stands twice; one title is one peer")
    for peer in config.peers:
        if peer.role == "research" and not peer.organisation:
            raise ConfigError(f"{path}: peers: {peer.ae_title}: a research peer needs its `organisation` (MSP ID)")
        if (peer.host is None) != (peer.port is None):
            raise ConfigError(
                f"{path}: peers: {peer.ae_title}: a move destination needs `host` and `port`, both or neither"
            )
    _check_clinical(config, path)
    if config.node_key.path.is_relative_to(config.data_dir):
        raise ConfigError(
            f"{path}: node_key: must lie outside data_dir, whose backup it would open ({config.node_key.path})"
        )
    if config.content.startswith("kubo:") and config.largest_object_mb > _MOST_ON_KUBO_MB:
        raise ConfigError(
            f"{path}: largest_object_mb: at most {_MOST_ON_KUBO_MB} with a kubo: store, which reads none larger back; "
            f"got {config.largest_object_mb}"
        )
    _check_forward(config, path)
    _check_sinks(config, path)
    _check_console(config.console, path)


def _check_clinical(config: Config, path: str) -> None:
    clinical, research = config.clinical, config.research
    if (clinical is None) != config.orthanc:
        raise ConfigError(
            f"{path}: clinical: "
            + (
                "missing"
                if clinical is None
                else "with `orthanc: true` Orthanc's own port takes its place: leave it out"
            )
        )
    if clinical is None:
        return
    if clinical.port and (clinical.host, clinical.port) == (research.host, research.port):
        raise ConfigError(f"{path}: clinical and research: the two roles need two ports, both are {clinical.port}")
    if clinical.max_associations <= RESERVED_ASSOCIATIONS:
        raise ConfigError(
            f"{path}: clinical.max_associations: expected more than the {RESERVED_ASSOCIATIONS} kept for modalities, "
            f"got {clinical.max_associations}"
        )


def _check_forward(config: Config, path: str) -> None:
    if len(set(config.forward)) != len(config.forward):
        raise ConfigError(f"{path}: forward: an AE title stands twice")
    for title in config.forward:
        peer = config.peer(title)
        if peer is None or peer.role != "clinical" or peer.host is None:
            raise ConfigError(
                f"{path}: forward: {title}: expected the AE title of a peer with role clinical, host and port"
            )


def _check_console(console: Console | None, path: str) -> None:
    if console is None:
        return
    if (console.certificate is None) != (console.key is None):
        raise ConfigError(f"{path}: console: TLS needs `certificate` and `key`, both or neither")
    if console.certificate is None and not is_loopback(console.host):
        raise ConfigError(
            f"{path}: console.host: {console.host}: passwords would go over the network in the clear: give "
            "`certificate` and `key`, or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_sinks(config: Config, path: str) -> None:
    if config.checkpoint_sinks and not config.ledger.startswith("embedded:"):
        raise ConfigError(
            f"{path}: checkpoint_sinks: only an embedded ledger has checkpoints; {config.ledger} is kept by its peers: "
            "leave the key out"
        )
    for key, urls in (("checkpoint_sinks", config.checkpoint_sinks), ("alarm_sinks", config.alarm_sinks)):
        if len(set(urls)) != len(urls):
            raise ConfigError(f"{path}: {key}: a sink stands twice")
        for url in urls:
            try:
                sink = open_sink(url)
            except ConfigError as error:
                raise ConfigError(f"{path}: {key}: {error}") from error
            if not isinstance(sink, PathSink):
                continue
            if key == "alarm_sinks":
                raise ConfigError(f"{path}: {key}: expected command:, http: or https:, got {url!r}")
            if sink.folder.resolve().is_relative_to(config.data_dir.resolve()):
                raise ConfigError(
                    f"{path}: {key}: {url}: must lie outside data_dir: who puts that back would put these back, too"
                )
    if config.checkpoint_within_s < SHORTEST_WITHIN_S:
        raise ConfigError(
            f"{path}: checkpoint_within_s: expected at least {SHORTEST_WITHIN_S}, got {config.checkpoint_within_s}"
        )


def _build(kind: type[T], raw: Any, path: str, where: str, base: Path) -> T:
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: {where or 'top level'}: expected keys and values, got {type(raw).__name__}")
    hints = get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    for key in raw:
        if key not in known:
            raise ConfigError(f"{path}: {where}{key}: unknown key; known here: {', '.join(sorted(known))}")
    values = {}
    for name, known_field in known.items():
        if name in raw:
            values[name] = _value(hints[name], raw[name], path, f"{where}{name}", base)
        elif known_field.default is MISSING and known_field.default_factory is MISSING:
            raise ConfigError(f"{path}: {where}{name}: missing")
    return kind(**values)


def _value(hint: Any, raw: Any, path: str, where: str, base: Path) -> Any:
    origin = get_origin(hint)
    if hint is NodeKey and isinstance(raw, str):
        try:
            return locate(raw, base)
        except ConfigError as error:
            raise ConfigError(f"{path}: {where}: {error}") from error
    if is_dataclass(hint):
        return _build(hint, raw, path, f"{where}.", base)  # type: ignore[arg-type]  # a dataclass type, not an instance
    if origin is tuple:
        if not isinstance(raw, list):
            raise ConfigError(f"{path}: {where}: expected a list, got {raw!r}")
        return tuple(_value(get_args(hint)[0], item, path, f"{where}[{n}]", base) for n, item in enumerate(raw))
    if origin is Literal:
        if raw not in get_args(hint):
            raise ConfigError(f"{path}: {where}: expected one of {', '.join(get_args(hint))}, got {raw!r}")
        return raw
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        return None if raw is None else _value(inner, raw, path, where, base)
    if hint is Path and isinstance(raw, str):
        return base / raw
    if hint is float and isinstance(raw, (int, float)) and not isinstance(raw, bool) and raw >= 0:
        return float(raw)
    if hint is bool and isinstance(raw, bool):
        return raw
    if hint is int and isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    if hint is str and isinstance(raw, str):
        scheme, colon, rest = raw.partition(":")
        located = colon and where in ("content", "ledger") and "://" not in rest
        return f"{scheme}:{base / rest}" if located or (scheme == "path" and rest) else raw
    raise ConfigError(f"{path}: {where}: expected {getattr(hint, '__name__', hint)}, got {raw!r}")
