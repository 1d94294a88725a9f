"""The demo's node on a network of Hyperledger Fabric and Kubo: three organisations, each with its own keys, peers, IPFS
node, and files that name them.

Custodian and research centre work as on machines of their own, where no node is configured.
"""

import base64
import hashlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from dicom_scp.demo_node import DemoNode, StepFailed, hold_ports, poll
from orthanc_ledger.consortium import ipfs
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import FABRIC_VERSION, KUBO_VERSION, LOOPBACK, Topology, trial
from orthanc_ledger.consortium.trial import https_files, identity_of, party_file, put_in_use, trial_policy_sha256
from orthanc_ledger.errors import ConfigError, LedgerAway
from orthanc_ledger.ledger import Ledger, all_rows, open_ledger
from orthanc_ledger.setup_node import CONFIG_NAME

GRACE_S = 5
"""Between request and confirmation of an erasure, seconds; in a hospital days."""

_EMPTY_DIRECTORY = bytes.fromhex("0a020801")  # which each Kubo makes for itself
_POLICY = {"require_stored": True, "erase_grace_s": GRACE_S}


def consortium_node(folder: Path, held: ExitStack) -> "ConsortiumNode":
    """The hospital's node in ``folder``, its network's servers on ports that are held. Raises StepFailed."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("orthanc_ledger.consortium").setLevel(logging.INFO)  # the first build takes minutes
    topology = trial()
    servers = sum(name.endswith("port") for server in topology.servers for name in vars(server))
    clinical, research, https, *others = hold_ports(3 + servers, held)
    return ConsortiumNode(folder, clinical, research, topology.with_ports(iter(others).__next__), https)


@dataclass(frozen=True)
class ConsortiumNode(DemoNode):
    """The hospital's node; its ledger is a channel that three organisations keep."""

    topology: Topology
    https_port: int

    @property
    def _objects(self) -> Path:
        return self._network.party(self._of("owner")) / "objects" / "objects"

    @property
    def believed(self) -> dict[str, tuple[str, object]]:
        """As the base has it: those whose peers have to endorse."""
        folders = {each: self._network.party(each.name) for each in self.topology.endorsing}
        return {
            each.name: ("--peers", f"{each.msp_id}={folder / 'cacerts' / 'ca.pem'}") for each, folder in folders.items()
        }

    @contextmanager
    def set_up(self) -> Iterator[tuple[str, ...]]:
        """As the base has it: a network, and the hospital's node on it with the hospital's keys alone."""
        network, owner = self._network, self._of("owner")
        try:
            try:
                network.up()
                put_in_use(network, _POLICY)
            except (ConfigError, LedgerAway) as error:
                raise StepFailed(f"the network did not come up: {error}") from error
            ledger, identity = f"fabric:{network.connection(owner)}", identity_of(network, owner, "node")
            content = f"kubo:{ipfs.connection(network.directory, owner)}"
            certificate, key = map(str, https_files(network, owner))
            https = {"port": self.https_port, "certificate": certificate, "key": key}
            self._init("--ledger", ledger, "--identity", identity, "--content", content, https=https)
            yield (
                f"Hyperledger Fabric {FABRIC_VERSION}: {len(self.topology.orderers)} orderers, "
                f"{len(self.topology.peers)} peers",
                f"Kubo {KUBO_VERSION}: {len(self.topology.kubos)} nodes",
                f"{', '.join(each.name for each in self.topology.organisations)} with keys of their own",
            )
        finally:
            network.down()

    def signed(self, role: str, *words: object) -> list[dict[str, Any]]:
        """As the base has it: by the person of that role's organisation, at that organisation's own peer."""
        organisation = self._of(role)
        person, connection = identity_of(self._network, organisation, "person"), self._network.connection(organisation)
        if role == "owner":
            rows = self.rows(*words, "--as", person)
        else:
            rows = self._elsewhere(connection, *words, "--as", person)
        self._settle()
        return rows

    def keeping(self) -> AbstractContextManager[None]:
        """Run the custodian's keeper until the block is left."""
        return self._runs("keeper", party_file(self._network, self._of("custodian")))

    def at_research(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        """What `pull`, `pulled` or `keypair` prints at the research centre. Raises as ``command``."""
        return self.rows(*words, code=code, config=party_file(self._network, self._of("research")))

    def pull(self, request: str, *options: object, code: int = 0) -> list[dict[str, Any]]:
        """The same of a `pull` into the folder `studies`."""
        hospital, out = f"https://{LOOPBACK}:{self.https_port}", self.folder / "studies"
        private = self.folder / "keys" / "private.key"
        return self.at_research(
            "pull", request, "--hospital", hospital, "--key", private, "--out", out, *options, code=code
        )

    def blocks(self, role: str) -> dict[Path, bool]:
        """Files of the blocks on an organisation's Kubo, its own one apart; whether each is what its name says."""
        (kubo,) = self.topology.organisation(self._of(role)).kubos
        files = (ipfs.folder(self._network.directory, kubo) / "blocks").glob("*/*.data")
        contents = {path: path.read_bytes() for path in files}
        return {path: path.stem == block_name(data) for path, data in contents.items() if data != _EMPTY_DIRECTORY}

    def checked_ledger(self, trail: list[dict[str, Any]]) -> tuple[str, ...]:
        """As the base has it: each peer, asked alone, tells the same."""
        names = []
        for name, connection in self._peers():
            poll(partial(self._tells, connection, trail), f"{name} tells the same {len(trail)} records")
            names.append(name)
        return (f"the same {len(trail)} records by {', '.join(names)}",)

    def _of(self, role: str) -> str:
        (name,) = (each.name for each in self.topology.organisations if each.role == role)
        return name

    def _settle(self) -> None:
        """Wait until every organisation's peer has what the signer's has: who comes next asks another."""
        connections = [self._network.connection(each.name) for each in self.topology.organisations]
        with ExitStack() as opened:
            ledgers = [opened.enter_context(closing(open_ledger(f"fabric:{path}"))) for path in connections]
            try:
                poll(lambda: len({_length(ledger) for ledger in ledgers}) == 1, "all peers know of it")
            except LedgerAway as error:
                raise StepFailed(f"a peer is away: {error}") from error

    def _tells(self, connection: Path, trail: list[dict[str, Any]]) -> bool:
        return self._elsewhere(connection, "audit") == trail

    def _elsewhere(self, connection: Path, *words: object) -> list[dict[str, Any]]:
        """What a command prints on a machine that has a connection file, and no node's configuration."""
        return self.rows(*words, "--ledger", f"fabric:{connection}", config=connection.with_name(CONFIG_NAME))

    def _peers(self) -> Iterator[tuple[str, Path]]:
        """Each peer's name, and a connection file that names it alone."""
        for organisation in self.topology.organisations:
            usual = self._network.connection(organisation.name)
            settings = yaml.safe_load(usual.read_text(encoding="utf-8"))
            for peer, own in zip(organisation.peers, settings["peers"], strict=True):
                alone = usual.with_name(f"{peer.name}.yaml")
                alone.write_text(yaml.safe_dump({**settings, "peers": [own]}), encoding="utf-8")
                yield peer.name, alone

    @cached_property
    def _network(self) -> Network:
        try:
            return Network.create(self.folder / "network", trial_policy_sha256(self.topology, _POLICY), self.topology)
        except (ConfigError, LedgerAway) as error:
            raise StepFailed(f"the network could not be made: {error}") from error


def _length(ledger: Ledger) -> int:
    return len(list(all_rows(ledger, "Audit", {})))


def block_name(content: bytes) -> str:
    """The name of the file in which Kubo keeps a block: its multihash, sha2-256, in base32 (docs/manifest.md)."""
    return base64.b32encode(b"\x12\x20" + hashlib.sha256(content).digest()).decode().rstrip("=")
