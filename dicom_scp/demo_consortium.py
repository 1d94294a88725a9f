"""The demo's node on a Hyperledger Fabric network: three organisations, each with its own keys, peers, connection file.

Custodian and research centre sign as on machines of their own, where no node is configured.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from dicom_scp.demo_node import DemoNode, StepFailed, free_ports, poll
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import FABRIC_VERSION, Topology, trial
from orthanc_ledger.consortium.trial import identity_of, put_in_use, trial_policy_sha256
from orthanc_ledger.errors import ConfigError, LedgerAway
from orthanc_ledger.ledger import Ledger, all_rows, open_ledger
from orthanc_ledger.setup_node import CONFIG_NAME


def consortium_node(folder: Path) -> "ConsortiumNode":
    """The hospital's node in ``folder``, its network's servers on free ports."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("orthanc_ledger.consortium").setLevel(logging.INFO)  # the first build takes minutes
    topology = trial()
    servers = sum(name.endswith("port") for server in topology.servers for name in vars(server))
    clinical, research, *others = free_ports(2 + servers)
    return ConsortiumNode(folder, clinical, research, topology.with_ports(iter(others).__next__))


@dataclass(frozen=True)
class ConsortiumNode(DemoNode):
    """The hospital's node; its ledger is a channel that three organisations keep."""

    topology: Topology

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
        network, owner = self._network, self.topology.endorsing[0].name
        try:
            try:
                network.up()
                put_in_use(network)
            except (ConfigError, LedgerAway) as error:
                raise StepFailed(f"the network did not come up: {error}") from error
            ledger, identity = f"fabric:{network.connection(owner)}", identity_of(network, owner, "node")
            self._init("--ledger", ledger, "--identity", identity)
            yield (
                f"Hyperledger Fabric {FABRIC_VERSION}",
                f"{len(self.topology.orderers)} orderers, {len(self.topology.peers)} peers",
                f"{', '.join(each.name for each in self.topology.organisations)} with keys of their own",
            )
        finally:
            network.down()

    def signed(self, role: str, *words: object) -> list[dict[str, Any]]:
        """As the base has it: by the person of that role's organisation, at that organisation's own peer."""
        (organisation,) = (each.name for each in self.topology.organisations if each.role == role)
        person, connection = identity_of(self._network, organisation, "person"), self._network.connection(organisation)
        if role == "owner":
            rows = self.rows(*words, "--as", person)
        else:
            rows = self._elsewhere(connection, *words, "--as", person)
        self._settle()
        return rows

    def checked_ledger(self, trail: list[dict[str, Any]]) -> tuple[str, ...]:
        """As the base has it: each peer, asked alone, tells the same."""
        names = []
        for name, connection in self._peers():
            poll(partial(self._tells, connection, trail), f"{name} tells the same {len(trail)} records")
            names.append(name)
        return (f"the same {len(trail)} records by {', '.join(names)}",)

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
            return Network.create(self.folder / "network", trial_policy_sha256(self.topology), self.topology)
        except (ConfigError, LedgerAway) as error:
            raise StepFailed(f"the network could not be made: {error}") from error


def _length(ledger: Ledger) -> int:
    return len(list(all_rows(ledger, "Audit", {})))
