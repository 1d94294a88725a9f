"""A hospital with two Gateways of the tests' own, and its ledgers."""

import sqlite3
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import Identity
from tests.fabric.gateway_double import Chain, GatewayDouble, Serving, tls
from tests.fabric.peers import OWNER, Peers


class World:
    """Two peers of the hospital, and its ledger; `ledger()` is another process's."""

    def __init__(self, folder: Path, peers: Peers, identity: Identity) -> None:
        self.chain, self.identity, self.now = Chain(), identity, peers.now
        self.doubles = [GatewayDouble(peers, self.chain) for _ in range(2)]
        certificate = tls()
        self.servers = [Serving(double, certificate) for double in self.doubles]
        (folder / "tls.pem").write_bytes(certificate[1])
        self.settings: dict[str, Any] = {
            "channel": "custody",
            "chaincode": "custody",
            "organisation": OWNER,
            "peers": [{"endpoint": f"127.0.0.1:{each.port}", "tls_ca": "tls.pem"} for each in self.servers],
            "organisations": {OWNER: f"organisations/{OWNER}/cacerts/ca.pem"},
            "commit_s": 1,
        }
        self.path = folder / "connection.yaml"
        self._opened: list[FabricLedger] = []

    def ledger(self, patience_s: float = 5.0, **settings: object) -> FabricLedger:
        self.path.write_text(yaml.safe_dump({**self.settings, **settings}))
        self._opened.append(FabricLedger(self.path, self.identity, lambda: self.now, patience_s))
        return self._opened[-1]

    def steps(self) -> list[str]:
        return [step for double in self.doubles for step in double.calls]

    def kept(self) -> int:
        with sqlite3.connect(self.path.with_name("connection.envelopes.db")) as database:
            return int(database.execute("SELECT count(*) FROM envelopes").fetchone()[0])

    def close(self) -> None:
        for ledger in self._opened:
            ledger.close()
        for each in self.servers:
            each.server.stop(None).wait()
