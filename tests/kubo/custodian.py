"""A custodian beside a hospital's node on Kubo: its folder, its keeper, and what came of it."""

from dataclasses import dataclass, field
from pathlib import Path

from orthanc_ledger import assemble
from orthanc_ledger.assemble import OUTBOX
from orthanc_ledger.clock import system_clock
from orthanc_ledger.config import Party
from orthanc_ledger.keeper import Keeper
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.outbox import Outbox
from tests.gate_world import World
from tests.kubo.live import Node, write_yaml
from tests.kubo.world import arrive, next_uid
from tests.node_make import drain

HOUR_S = 3600


@dataclass
class Custodian:
    """A custodian's folder, with a clock that is moved by hand."""

    world: World
    folder: Path
    kubo: Node
    later_s: int = 0
    party: Party = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir(parents=True)
        file = write_yaml(self.folder / "kubo.yaml", self.kubo, keep_days=0)
        self.party = Party(
            organisation="CustodianMSP",
            ae_title="KEEPER",
            data_dir=self.folder / "data",
            identity=self.world.folder / "node" / "organisations" / "custodian" / "identities" / "node",
            content=f"kubo:{file}",
            ledger=self.world.node.config.ledger,
        )

    def keeper(self) -> Keeper:
        """As a process started now."""
        return assemble.keeper(self.party, lambda _: None, self.clock, lambda: float(self.clock()))

    def clock(self) -> int:
        return system_clock() + self.later_s

    def work(self) -> None:
        """What a process started now does until nothing is due."""
        keeper = self.keeper()
        while keeper.step():
            pass

    def work_next_day(self) -> None:
        self.later_s += 25 * HOUR_S
        self.work()

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.party.data_dir / OUTBOX, system_clock)

    @property
    def alarms(self) -> list[tuple[str, str]]:
        return sorted((alarm.kind, alarm.claim) for alarm in self.outbox.alarms())


def stored(world: World) -> dict[str, bool]:
    """By manifest CID, whether the ledger calls it stored."""
    return {row["manifestCid"]: row["stored"] for row in all_rows(world.node.ledger, "Anchors", {})}


def objects(world: World, study_uid: str = "") -> list[str]:
    return [str(row.object) for row in world.node.index.select(studies=[study_uid or world.study_uid])]


def new_study(world: World) -> str:
    study_uid = next_uid()
    arrive(world.node, study_uid)
    drain(world.node)
    return study_uid
