"""From the C-STORE request to the commit, batch size by batch size, on the embedded ledger and on Fabric beside it."""

import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import yaml

from bench.peers import OrthancLedger
from bench.sender import send_together
from bench.slices import SMALL, copies
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.trial import identity_of, trial_policy
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import load_identity

EMBEDDED, FABRIC = "embedded", "Fabric"
BATCHES = {1: 400, 16: 1600, 256: 2560, 1024: 3072}  # most objects of a batch: objects that are sent
SERIES, SLICES = 30, 20  # for the time that a series takes to its anchor
GROWTH = (10**3, 10**4, 10**5)  # anchored instances
GROWN_BY, AT_ONCE = 16, 50  # instances of an anchor; calls in flight
WARM_UP = 8

_LEDGERS = count()


@dataclass(frozen=True)
class Kind:
    """A node on one of the ledgers, with batches of so many objects at most; ``network``: None for the embedded."""

    network: Network | None
    batch: int | None = None

    @property
    def name(self) -> str:
        return FABRIC if self.network else EMBEDDED

    def make(self, folder: Path) -> OrthancLedger:
        """A new node, set up but not started."""
        peer = OrthancLedger(folder)
        raw = yaml.safe_load(peer.config.read_text())
        if self.batch:
            raw["batch"] = {"max_instances": self.batch}
        if self.network:
            chaincode = new_ledger(self.network)
            del raw["checkpoint_sinks"]
            raw["ledger"] = f"fabric:{self.network.connection('hospital', chaincode)}"
            raw["identity"] = str(identity_of(self.network, "hospital", "node"))
        peer.config.write_text(yaml.safe_dump(raw))
        return peer


def new_ledger(network: Network) -> str:
    """Deploy an empty ledger with the trial policy in force; its chaincode's name."""
    chaincode = f"bench{next(_LEDGERS)}"
    network.deploy(chaincode)
    with closing(open_ledger(network, chaincode)) as ledger:
        ledger.submit("InitPolicy", {"policy": trial_policy(network.topology)})
    return chaincode


def open_ledger(network: Network, chaincode: str) -> FabricLedger:
    """A ledger as the hospital's node sees it."""
    identity = load_identity(identity_of(network, "hospital", "node"))
    return FabricLedger(network.connection("hospital", chaincode), identity)


def measure_batches(network: Network) -> list[dict[str, object]]:
    """Rows of objects and transactions a second, for each batch size on each ledger."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        for batch, objects in BATCHES.items():
            studies = copies(SMALL, Path(name) / str(batch), objects)
            for kind in (Kind(None, batch), Kind(network, batch)):
                with _running(kind) as (peer, logs):
                    sent = send_together(peer, studies, logs)
                    seconds = peer.wait_anchored(WARM_UP + objects) - sent.began
                    anchors = len(peer.ledger_rows("Anchors")) - 1  # without the one of the warm-up
                rows.append(
                    {
                        "batch of": batch,
                        "ledger": kind.name,
                        "objects": objects,
                        "acknowledged/s": f"{sent.rate:.0f}",
                        "anchored/s": f"{objects / seconds:.0f}",
                        "transactions": anchors,
                        "transactions/s": f"{anchors / seconds:.1f}",
                    }
                )
                print(*rows[-1].values(), file=sys.stderr, flush=True)
    return rows


def measure_series(network: Network) -> list[dict[str, object]]:
    """Rows of the time from a series' last Success to its anchor, with the usual batches."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        studies = copies(SMALL, Path(name) / "copies", SERIES * SLICES, SERIES)
        for kind in (Kind(None), Kind(network)):
            seconds = []
            with _running(kind) as (peer, logs):
                for number, study in enumerate(studies, 1):
                    sent = send_together(peer, [study], logs)
                    seconds.append(peer.wait_anchored(WARM_UP + number * SLICES) - sent.ended)
            ranked = sorted(seconds)
            rows.append(
                {
                    "ledger": kind.name,
                    "series": SERIES,
                    "median s": f"{statistics.median(ranked):.2f}",
                    "95 % within s": f"{ranked[int(0.95 * len(ranked))]:.2f}",
                    "slowest s": f"{ranked[-1]:.2f}",
                }
            )
            print(*rows[-1].values(), file=sys.stderr, flush=True)
    return rows


def measure_growth(network: Network) -> list[dict[str, object]]:
    """Rows of how fast Fabric anchors and answers, and what a peer keeps, as instances are anchored."""
    rows: list[dict[str, object]] = []
    chaincode, studies = new_ledger(network), [secrets.token_bytes(16) for _ in range(1000)]
    with closing(open_ledger(network, chaincode)) as ledger, ThreadPoolExecutor(AT_ONCE) as pool:
        done = 0
        for target in GROWTH:
            began, calls = time.monotonic(), range(done, target // GROWN_BY)
            list(pool.map(lambda number: ledger.submit("Anchor", _anchoring(studies[number % len(studies)])), calls))
            seconds, done = time.monotonic() - began, target // GROWN_BY
            asked = time.monotonic()
            list(all_rows(ledger, "AnchorsOfStudy", {"study": studies[0]}))
            answered = time.monotonic()
            ledger.query("Anchors", {})
            rows.append(
                {
                    "instances": f"{target:,}",
                    "transactions/s": f"{len(calls) / seconds:.0f}",
                    "instances/s": f"{len(calls) * GROWN_BY / seconds:,.0f}",
                    "AnchorsOfStudy ms": f"{(answered - asked) * 1e3:.0f}",
                    "Anchors, 50 rows, ms": f"{(time.monotonic() - answered) * 1e3:.0f}",
                    "a peer keeps MB": f"{_size(network.directory / 'data' / 'peer0.hospital') / 1e6:.0f}",
                }
            )
            print(*rows[-1].values(), file=sys.stderr, flush=True)
    return rows


@contextmanager
def _running(kind: Kind) -> Iterator[tuple[OrthancLedger, Path]]:
    """Such a node, running and warm, with a folder for the senders' logs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = kind.make(folder / "peer")
        warm_up: Sequence[Path] = copies(SMALL, folder / "warm-up", WARM_UP)
        with peer.running():
            send_together(peer, warm_up, folder)
            peer.wait_anchored(WARM_UP)
            yield peer, folder


def _anchoring(study: bytes) -> dict[str, object]:
    return {
        "manifestCid": block_cid(secrets.token_bytes(8)),
        "study": study,
        "root": secrets.token_bytes(32),
        "count": GROWN_BY,
        "kind": "original",
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
