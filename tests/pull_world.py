"""A research centre beside a key world: its configuration, its private key, and what it pulls."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from key_world import KeyWorld

from orthanc_ledger.content import ContentStore, open_store
from orthanc_ledger.holdings import Holding, Holdings
from orthanc_ledger.ledger import all_rows, open_ledger
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.pull import Pull


@dataclass
class Centre:
    """The research centre; its content store is the hospital's, as if all had been fetched into it, unless ``store``
    names its own.
    """

    keys: KeyWorld
    folder: Path
    store: str | None = None

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def content(self) -> ContentStore:
        return open_store(self.store or self.keys.world.node.config.content)

    @property
    def holdings(self) -> Holdings:
        self.folder.mkdir(exist_ok=True)
        return Holdings(self.folder / "pull.db")

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    def pulling(self, content: ContentStore | None = None) -> Pull:
        world = self.keys.world
        ledger = open_ledger(world.node.config.ledger, load_identity(self.keys.identity()), world.clock)
        return Pull(ledger, content or self.content, self.holdings, self.quarantine, world.clock, seen_within_s=0)

    def pull(
        self, request: bytes, hospital: Any = None, content: ContentStore | None = None, **options: Any
    ) -> Holding:
        keys = self.keys
        return self.pulling(content).study(
            hospital or keys.client(), keys.private, request, keys.study, self.out, **options
        )

    @property
    def files(self) -> list[Path]:
        """All files under `out`."""
        return sorted(path for path in self.out.rglob("*") if path.is_file())

    def told(self, function: str) -> list[dict[str, Any]]:
        """The arguments of what the research centre told the ledger by a function."""
        events = all_rows(self.keys.world.ledger("owner"), "Audit", {})
        return [event["args"] for event in events if event["function"] == function]

    def configure(self) -> Path:
        """Write its configuration and its private key; the configuration's file."""
        node = self.keys.world.node
        if not (self.folder / "keys").exists():
            self.keys.private.write(self.folder / "keys")
        values = {
            "organisation": "ResearchMSP",
            "ae_title": "RESEARCH1",
            "data_dir": str(self.folder),
            "identity": str(self.keys.identity()),
            "content": node.config.content,
            "ledger": node.config.ledger,
        }
        path = self.folder / "party.yaml"
        path.write_text(yaml.safe_dump(values))
        return path


def erase(centre: Centre) -> None:
    """Have the study erased on the ledger, without a time of grace."""
    world, study = centre.keys.world, {"study": centre.keys.study}
    policy = {**world.ledger("owner").query("GetPolicy", {}), "erase_grace_s": 0}
    policy.pop("version", None)
    proposal = world.ledger("owner").submit("ProposePolicy", {"policy": policy}, b"p" * 16).result["id"]
    world.ledger("custodian").submit("ConfirmPolicy", {"id": proposal})
    world.ledger("owner").submit("RequestErase", study)
    world.ledger("custodian").submit("ConfirmErase", study)
