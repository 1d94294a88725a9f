"""Whose console it is, and what lies behind it: a hospital's node, or an organisation that runs none."""

from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.assemble import OUTBOX, Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.config import Config, Console, Party
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger import OpenLedger, open_ledger
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.outbox import Outbox


@dataclass(frozen=True)
class House:
    """One organisation's side. ``identity``: the folder of its node's or keeper's own; ``ledger``: as that sees it,
    at ``ledger_url``; ``node``: None where there is none.
    """

    organisation: str
    ae_title: str
    identity: Path
    ledger_url: str
    ledger: OpenLedger
    outbox: Outbox
    node: Node | None

    def role(self) -> str:
        """The organisation's role in the policy: owner, custodian or research; empty when it is not in it. Raises
        LedgerAway.
        """
        return str(self.ledger.query("GetPolicy", {})["organisations"].get(self.organisation, ""))

    @property
    def held(self) -> Node:
        """The node. Raises ConfigError where there is none; pages that need one are not shown then."""
        if self.node is None:
            raise ConfigError("this organisation runs no node")
        return self.node


def open_house(config: Config | Party) -> House:
    """The house of a configuration. Raises ConfigError."""
    if isinstance(config, Config):
        node = Node(config)
        ledger, outbox = node.ledger_as(), node.outbox
    else:
        node = None
        ledger = open_ledger(config.ledger, load_identity(config.identity), system_clock)
        outbox = Outbox(config.data_dir / OUTBOX, system_clock)
    where = config.identity, config.ledger
    return House(config.organisation, config.ae_title, *where, ledger, outbox, node)


def console_of(config: Config | Party, path: Path) -> Console:
    """The section of the configuration. Raises ConfigError when there is none."""
    if config.console is None:
        raise ConfigError(f"{path}: console: missing; config/orthanc-ledger.yaml tells its keys")
    return config.console
