"""A Kubo that is not private, or would not keep what it took, gets no batch: the setting is named."""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orthanc_ledger.content.kubo.privacy import RULES
from orthanc_ledger.errors import ConfigError, ContentAway
from tests.conftest import ROOT
from tests.kubo.live import GONE, Node, change
from tests.kubo.test_store import fresh, store_of

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

STRANGER = "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN"
BLOCKS = "Datastore.Spec.mounts.0"

BROKEN: dict[str, tuple[object, ...]] = {
    "AutoConf.Enabled": (True, GONE),
    "AutoTLS.Enabled": (True, GONE),
    "Routing.Type": ("auto", "dht", "autoclient", GONE),
    "Routing.DelegatedRouters": (["https://delegated-ipfs.dev"], ["auto"]),
    "Ipns.DelegatedPublishers": (["auto"],),
    "DNS.Resolvers": ({".": "auto"},),
    "Provide.Enabled": (True, GONE),
    "HTTPRetrieval.Enabled": (True, GONE),
    "Discovery.MDNS.Enabled": (True, GONE),
    "Version.SwarmCheckEnabled": (True, GONE),
    "AutoNAT.ServiceMode": ("enabled", GONE),
    "Plugins.Plugins.telemetry.Disabled": (False, GONE),
    "Swarm.DisableNatPortMap": (False, GONE),
    "Swarm.EnableHolePunching": (True, GONE),
    "Swarm.RelayClient.Enabled": (True, GONE),
    "Swarm.RelayService.Enabled": (True, GONE),
    "Swarm.Transports.Network.QUIC": (True, GONE),
    "Swarm.Transports.Network.Relay": (True, GONE),
    "Swarm.Transports.Network.WebRTCDirect": (True, GONE),
    "Swarm.Transports.Network.Websocket": (True, GONE),
    "Swarm.Transports.Network.WebTransport": (True, GONE),
    "Addresses.Swarm": ([], ["/ip4/127.0.0.1/udp/4001/quic-v1"], ["/ip4/127.0.0.1/tcp/4001/ws"]),
    "Addresses.Gateway": (["/ip4/0.0.0.0/tcp/8080"], "/ip4/127.0.0.1/tcp/8080"),
    "Internal.Bitswap.BroadcastControl.Enable": (True, GONE),
    "Datastore.HashOnRead": (False, GONE),
    "Datastore.BlockKeyCacheSize": (65536, GONE),
    "Datastore.BloomFilterSize": (1048576,),
    "Datastore.WriteThrough": (False,),
    "Import.CidVersion": (0, GONE),
    "Import.HashFunction": ("blake3", GONE),
    "Import.UnixFSChunker": ("size-262144", GONE),
    "Import.UnixFSRawLeaves": (False, GONE),
    "Import.UnixFSFileMaxLinks": (174, GONE),
    "Import.UnixFSDAGLayout": ("trickle",),
}
MORE_BROKEN: list[tuple[str, object, str]] = [
    ("Bootstrap", [STRANGER], "Bootstrap"),
    ("Bootstrap", ["auto"], "Bootstrap"),
    (f"{BLOCKS}.sync", False, "Datastore.Spec, /blocks: sync"),
    (f"{BLOCKS}.sync", GONE, "Datastore.Spec, /blocks: sync"),
    (f"{BLOCKS}.type", "pebbleds", "Datastore.Spec, /blocks: type"),
    (f"{BLOCKS}.path", "elsewhere", "Datastore.Spec, /blocks: path"),
    (f"{BLOCKS}.shardFunc", "/repo/flatfs/shard/v1/prefix/2", "Datastore.Spec, /blocks: shardFunc"),
    ("Datastore.Spec.mounts", [], "Datastore.Spec, /blocks: type"),
    ("Identity.PeerID", "12D3KooWQcSGQrVyRNVSRTxFh5dTSPbZZrJXJvqTTCfPmhWVgbZi", "kubo_repo"),
]
CHECKED_OTHERWISE = ("swarm.key", "Bootstrap", "Peering.Peers", "API.Authorizations", "Datastore.Spec", "sync")
NOT_CHECKED = ("LIBP2P_FORCE_PNET=1", "IPFS_TELEMETRY=off")  # the environment of a process that may be elsewhere


@contextmanager
def changed(node: Node, setting: str, value: object) -> Iterator[None]:
    """Its repository with one setting changed, as if it had been started so."""
    config = node.repo / "config"
    healthy, times = config.read_text(), (config.stat().st_atime_ns, config.stat().st_mtime_ns)
    settings = json.loads(healthy)
    change(settings, setting, value)
    try:
        config.write_text(json.dumps(settings))
        os.utime(config, ns=times)
        yield
    finally:
        config.write_text(healthy)
        os.utime(config, ns=times)


def test_the_trial_network_s_nodes_are_taken(hospital: Node, tmp_path: Path) -> None:
    store_of(tmp_path, hospital).check()


def test_every_rule_is_tried() -> None:
    assert [rule.setting for rule in RULES] == list(BROKEN)


def test_every_setting_on_the_page_is_a_rule() -> None:
    page = (ROOT / "docs" / "ipfs.md").read_text(encoding="utf-8")
    table = page.partition("| setting | value | why |")[2].partition("\n\n")[0]
    told = {word for row in table.splitlines() for word in re.findall("`(.+?)`", "".join(row.split("|")[1:2]))}
    ruled = {word for rule in RULES for word in told if f".{word}." in f".{rule.setting}."}
    assert told - ruled == {*CHECKED_OTHERWISE, *NOT_CHECKED, "none"}  # none: a value


def test_every_rule_stands_on_the_page() -> None:
    page = (ROOT / "docs" / "ipfs.md").read_text(encoding="utf-8")
    for rule in RULES:
        words = set(rule.setting.split(".")) - {"Enabled", "Datastore", "Swarm"}
        assert any(f"{word}`" in page for word in words) or rule.setting == "Addresses.Swarm", rule.setting


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [*((setting, value, setting) for setting, values in BROKEN.items() for value in values), *MORE_BROKEN],
)
def test_a_setting_that_must_be_another_is_named(
    hospital: Node, tmp_path: Path, setting: str, value: object, named: str
) -> None:
    with changed(hospital, setting, value):
        with pytest.raises(ConfigError, match=rf"kubo0\.hospital \(.*config\): {re.escape(named)}: ") as refused:
            store_of(tmp_path, hospital).check()
        assert "; " not in str(refused.value)  # that one only
    store_of(tmp_path, hospital).check()


def test_all_that_is_wrong_is_said_at_once(stray_node: Callable[..., Node], tmp_path: Path) -> None:
    node = stray_node({"Datastore.HashOnRead": False, f"{BLOCKS}.sync": False, "Provide.Enabled": True})
    with pytest.raises(ConfigError, match=r"Provide\.Enabled.*HashOnRead.*sync"):
        store_of(tmp_path, node).check()


def test_a_node_without_a_swarm_key_is_refused(stray_node: Callable[..., Node], tmp_path: Path) -> None:
    node = stray_node({"swarm.key": GONE})
    with pytest.raises(ConfigError, match=r"swarm\.key: is missing"):
        store_of(tmp_path, node).check()


def test_a_swarm_key_that_the_running_node_does_not_use_is_no_proof(
    stray_node: Callable[..., Node], hospital: Node, tmp_path: Path
) -> None:
    node = stray_node({"swarm.key": GONE})
    shutil.copy2(hospital.repo / "swarm.key", node.repo / "swarm.key")
    with pytest.raises(ConfigError, match=r"swarm\.key: the node does not use it: it answers at /ip4/"):
        store_of(tmp_path, node).check()


@pytest.mark.parametrize("key", ["", "0" * 64, "/key/swarm/psk/1.0.0/\n/base16/\n"])
def test_a_file_that_is_no_swarm_key_is_none(hospital: Node, tmp_path: Path, key: str) -> None:
    place = hospital.repo / "swarm.key"
    healthy, times = place.read_text(), (place.stat().st_atime_ns, place.stat().st_mtime_ns)
    try:
        place.write_text(key)
        with pytest.raises(ConfigError, match=r"swarm\.key: expected a key"):
            store_of(tmp_path, hospital).check()
    finally:
        place.write_text(healthy)
        os.utime(place, ns=times)


def test_a_swarm_key_that_any_user_may_read_is_refused(hospital: Node, tmp_path: Path) -> None:
    place = hospital.repo / "swarm.key"
    try:
        place.chmod(0o644)
        with pytest.raises(ConfigError, match=r"swarm\.key: any user of this machine may read it: chmod 600"):
            store_of(tmp_path, hospital).check()
    finally:
        place.chmod(0o600)


def test_an_api_that_is_open_to_everybody_is_refused(stray_node: Callable[..., Node], tmp_path: Path) -> None:
    node = stray_node({"API.Authorizations": GONE})
    with pytest.raises(ConfigError, match=r"API\.Authorizations: .* answers 200 to who has none"):
        store_of(tmp_path, node).check()


@pytest.mark.parametrize("name", ["config", "swarm.key"])
def test_what_was_changed_after_the_start_counts_as_wrong(hospital: Node, tmp_path: Path, name: str) -> None:
    config = hospital.repo / name
    times = (config.stat().st_atime_ns, config.stat().st_mtime_ns)
    try:
        os.utime(config)
        with pytest.raises(ConfigError, match="changed since it started: start it again"):
            store_of(tmp_path, hospital).check()
    finally:
        os.utime(config, ns=times)


def test_a_repository_that_is_not_there_is_named(hospital: Node, tmp_path: Path) -> None:
    store = store_of(tmp_path, hospital)
    yaml = tmp_path / "kubo.yaml"
    yaml.write_text(yaml.read_text().replace(f"kubo_repo: {hospital.repo}", "kubo_repo: nowhere"))
    with pytest.raises(ConfigError, match=r"kubo_repo .*nowhere: config cannot be read"):
        type(store)(yaml).check()


def test_a_wrong_token_is_told(hospital: Node, tmp_path: Path) -> None:
    store = store_of(tmp_path, hospital)
    (tmp_path / "wrong").write_text("wrong")
    yaml = tmp_path / "kubo.yaml"
    yaml.write_text(yaml.read_text().replace(str(hospital.token_file), "wrong"))
    with pytest.raises(ConfigError, match=r"nodes: kubo0\.hospital: token: .* 403 "):
        type(store)(yaml).check()


def test_a_swarm_port_that_nobody_can_reach_proves_nothing(
    hospital: Node, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with (
        changed(hospital, "Addresses.Swarm", [f"/ip4/127.0.0.1/tcp/{free_port()}"]),
        pytest.raises(ConfigError, match=r"Addresses\.Swarm: .* cannot be dialled"),
    ):
        store_of(tmp_path, hospital).check()


def test_a_swarm_port_that_says_nothing_proves_nothing(hospital: Node, tmp_path: Path) -> None:
    """As a node without a swarm key, on a machine that has no time for it; a later check may get an answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"
        with changed(hospital, "Addresses.Swarm", [address]), pytest.raises(ContentAway, match="says nothing"):
            store_of(tmp_path, hospital).check()


def test_scans_wait_while_a_node_must_not_be_used(hospital: Node, tmp_path: Path) -> None:
    """It is found at the next batch, and a node that has been private does not end for it."""
    store = store_of(tmp_path, hospital)
    with changed(hospital, "Datastore.HashOnRead", False), pytest.raises(ContentAway, match="HashOnRead"):
        store.begin()
    fresh(10).put(store)
