"""Custody through Kubo beside the local store and `ipfs add`, and how a research centre fetches; a quarter of an hour.

    python -m bench.kubo [--quick] [--out FILE]

Prints the report; with --out, into that file too. Nothing else should run.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from operator import methodcaller
from pathlib import Path

import yaml

from bench import pull
from bench.conditions import PACE, machine, pace_s
from bench.peers import OrthancLedger, free_port
from bench.report import spread, table
from bench.sender import send_together
from bench.slices import MEDIUM, SMALL, copies
from bench.store import WARM_UP, rotated
from orthanc_ledger.consortium import ipfs
from orthanc_ledger.consortium.ipfs import IpfsNetwork
from orthanc_ledger.consortium.topology import trial
from orthanc_ledger.content import ContentStore, verify_cid
from orthanc_ledger.content.cbor import CID, encode
from orthanc_ledger.content.cid import block_cid, cid_bytes
from orthanc_ledger.content.kubo.rpc import Kubo
from orthanc_ledger.content.kubo.store import KuboStore
from orthanc_ledger.content.local import LocalStore

SIZES = {"10 kB": 10_000, "131 kB": 131_000, "4 MB": 4_000_000}
COUNTS = {"10 kB": 1000, "131 kB": 1000, "4 MB": 50}
PARALLEL = 4
REPORT = """\
# Results of `python -m bench.kubo`

Generated. Kubo nodes set as docs/ipfs.md says (flatfs synced, HashOnRead), on the machine that asks them, one disk for
all. Every batch is of random bytes, as sealed ones are; figures are medians of {repeats} repeats (lowest–highest), in
another order in each.

## A batch, until it is durable and pinned

Objects a second, of one batch of so many; in brackets the time beside the local store's (file, fsync, rename). The
product is *CAR, one pin, and local*: first Kubo, then the local store.

{writes}

## Reading

Objects a second, each read whole and its CID checked, one after the other.

{reads}

## A node, from C-STORE to the anchor

dcmsend sends slices over one association to a node on the embedded ledger; with Kubo its content store is
*CAR, one pin, and local*, on one node and on two.

{custody}

## A research centre fetches

One study of {count} slices of 131 kB, from such a node on one Kubo node, released anew each time: objects a second
from each program's start to its end. All write files; these are compared with what was sent.

{fetched}

## Conditions

{conditions}
"""

Way = Callable[["Bench", Sequence[bytes]], object]


class Bench:
    """Two Kubo nodes of one organisation, and the stores that use them."""

    def __init__(self, network: IpfsNetwork, folder: Path) -> None:
        self.nodes = [
            Kubo(
                kubo.name,
                f"http://127.0.0.1:{kubo.api_port}",
                ipfs.token_file(network.directory, kubo).read_text().strip(),
            )
            for kubo in network.topology.kubos
        ]
        self._source = ipfs.connection(network.directory, "hospital")
        self._folder = folder

    def kubo_store(self, nodes: int) -> KuboStore:
        """On so many of the nodes."""
        return KuboStore(self.connection(self._folder / f"kubo{nodes}", nodes))

    def connection(self, folder: Path, nodes: int) -> Path:
        """A connection file of a store on so many nodes, with a local store beside them, both in a folder."""
        raw = yaml.safe_load(self._source.read_text())
        for node in raw["nodes"]:
            node.update({key: str(self._source.parent / node[key]) for key in ("token", "kubo_repo")})
        raw = {"nodes": raw["nodes"][:nodes], "local": "objects"}
        if not (folder / "objects").is_dir():
            LocalStore.create(folder / "objects")
        (folder / "kubo.yaml").write_text(yaml.safe_dump(raw))
        return folder / "kubo.yaml"

    def local_store(self) -> LocalStore:
        folder = self._folder / "local"
        return LocalStore(folder) if folder.is_dir() else LocalStore.create(folder)


def put(store: ContentStore, objects: Sequence[bytes]) -> list[str]:
    """A batch as the anchorer's: objects, a block that links to them."""
    with store.begin() as batch:
        cids = [batch.add_object(methodcaller("write", content)).cid for content in objects]
        batch.add_block(encode([CID(cid_bytes(cid)) for cid in cids]))
        batch.commit()
    return cids


def add_each(bench: Bench, objects: Sequence[bytes], pin: bool = True) -> list[str]:
    """`ipfs add`, one call for each object."""
    return [_add(bench.nodes[0], content, pin) for content in objects]


def add_each_in_parallel(bench: Bench, objects: Sequence[bytes]) -> list[str]:
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(lambda content: _add(bench.nodes[0], content, True), objects))


def add_then_one_pin(bench: Bench, objects: Sequence[bytes]) -> None:
    """`ipfs add` without pins, then a block that links to all, pinned."""
    block = encode([CID(cid_bytes(cid)) for cid in add_each(bench, objects, pin=False)])
    bench.nodes[0].add([block_cid(block)], [(cid_bytes(block_cid(block)), block)], len(block), pin=True)


def _add(node: Kubo, content: bytes, pin: bool) -> str:
    answer = node._post(f"add?pin={str(pin).lower()}&quieter=true", iter([content]))
    return str(node.json(answer, "add")["Hash"])


WAYS: dict[str, Way] = {
    "local store": lambda bench, objects: put(bench.local_store(), objects),
    "CAR, one pin, and local: one node": lambda bench, objects: put(bench.kubo_store(1), objects),
    "CAR, one pin, and local: two nodes": lambda bench, objects: put(bench.kubo_store(2), objects),
    "`ipfs add`, a pin each": lambda bench, objects: add_each(bench, objects),
    f"`ipfs add`, a pin each, {PARALLEL} at once": lambda bench, objects: add_each_in_parallel(bench, objects),
    "`ipfs add`, then one pin": add_then_one_pin,
}


def measure_writes(bench: Bench, repeats: int, divisor: int) -> list[dict[str, object]]:
    """Rows of objects a second, by way and size."""
    rates: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for name, size in SIZES.items():
        count = COUNTS[name] // divisor
        for repeat in range(repeats):
            for way in rotated(list(WAYS), repeat):
                objects = [os.urandom(size) for _ in range(count)]
                os.sync()
                began = time.perf_counter()
                WAYS[way](bench, objects)
                rates[way].setdefault(name, []).append(count / (time.perf_counter() - began))
                _say(f"{name}: {way}: {rates[way][name][-1]:,.0f}/s")
    first = next(iter(WAYS))
    return [
        {
            "": way,
            **{f"{name}, {COUNTS[name] // divisor:,}": _beside(by_size[name], rates[first][name]) for name in SIZES},
        }
        for way, by_size in rates.items()
    ]


def measure_reads(bench: Bench, repeats: int, divisor: int) -> list[dict[str, object]]:
    """Rows of objects a second, by place and size."""
    store = bench.kubo_store(1)
    ways: dict[str, Callable[[str], object]] = {
        "local store": lambda cid: _read(store.near, cid),
        "Kubo": lambda cid: _read(store, cid),
        "`ipfs cat`, nothing checked": lambda cid: sum(map(len, bench.nodes[0].read(cid))),
    }
    rates: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for name, size in SIZES.items():
        cids = put(store, [os.urandom(size) for _ in range(COUNTS[name] // divisor)])
        for repeat in range(repeats):
            for way in rotated(list(ways), repeat):
                began = time.perf_counter()
                for cid in cids:
                    ways[way](cid)
                rates[way].setdefault(name, []).append(len(cids) / (time.perf_counter() - began))
    first = next(iter(ways))
    return [
        {"": way, **{name: _beside(by_size[name], rates[first][name]) for name in SIZES}}
        for way, by_size in rates.items()
    ]


def measure_custody(bench: Bench, repeats: int, divisor: int) -> list[dict[str, object]]:
    """Rows of objects acknowledged and anchored a second by a node on each store."""
    rows: list[dict[str, object]] = []
    stores = {"local store": 0, "Kubo, one node": 1, "Kubo, two nodes": 2}
    with tempfile.TemporaryDirectory() as name:
        for size, count in ((SMALL, 1200 // divisor), (MEDIUM, 1200 // divisor)):
            studies = copies(size, Path(name) / size.name, count)
            rates: dict[str, tuple[list[float], list[float]]] = {store: ([], []) for store in stores}
            for repeat in range(repeats):
                for store in rotated(list(stores), repeat):
                    acknowledged, anchored = _custody(bench, stores[store], studies, count)
                    rates[store][0].append(acknowledged)
                    rates[store][1].append(anchored)
                    _say(f"{size.name}: {store}: {acknowledged:,.0f} acknowledged/s, {anchored:,.0f} anchored/s")
            rows += [
                {
                    "slices": f"{count:,} of {size.name}",
                    "content store": store,
                    "acknowledged/s": spread(acknowledged),
                    "anchored/s": spread(anchored),
                }
                for store, (acknowledged, anchored) in rates.items()
            ]
    return rows


def _custody(bench: Bench, nodes: int, studies: Sequence[Path], count: int) -> tuple[float, float]:
    os.sync()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = OrthancLedger(folder / "peer")
        if nodes:
            peer.configure(content=f"kubo:{bench.connection(folder, nodes)}")
        with peer.running():
            send_together(peer, copies(SMALL, folder / "warm-up", WARM_UP), folder)
            peer.wait_anchored(WARM_UP)
            sent = send_together(peer, studies, folder)
            return sent.rate, count / (peer.wait_anchored(WARM_UP + count) - sent.began)


def _read(store: ContentStore, cid: str) -> None:
    with store.open(cid) as file:
        verify_cid(file, cid)


def _beside(rates: Sequence[float], base: Sequence[float]) -> str:
    slower = statistics.median(base) / statistics.median(rates)
    return f"{spread(rates)} ({slower:.1f}×)"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def running() -> Iterator[Bench]:
    """Two nodes of a hospital, connected with each other and nobody else."""
    with tempfile.TemporaryDirectory() as name:
        whole = trial(hospital_kubos=2).with_ports(free_port)
        topology = replace(whole, organisations=whole.organisations[:1])
        ipfs.prepare(Path(name) / "network", topology)
        network = IpfsNetwork(Path(name) / "network", topology)
        network.up()
        try:
            yield Bench(network, Path(name))
        finally:
            network.down()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.kubo", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of it, once")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    repeats, divisor = (1, 10) if args.quick else (3, 1)
    began, facts, pace = time.monotonic(), machine(), pace_s()
    with running() as bench:
        writes, reads, custody = (
            table(measured(bench, repeats, divisor)) for measured in (measure_writes, measure_reads, measure_custody)
        )
    fetched = table(pull.measure(pull.COUNT // divisor, repeats))
    facts["Kubo"] = "0.42.0, one mend (orthanc_ledger/consortium/mends.py)"
    facts[PACE] = f"{pace * 1e3:.0f} ms before, {pace_s() * 1e3:.0f} ms after"
    facts["duration"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
    conditions = table([{"": name, " ": fact} for name, fact in facts.items()])
    sections = {"writes": writes, "reads": reads, "custody": custody, "fetched": fetched, "conditions": conditions}
    report = REPORT.format(repeats=repeats, count=pull.COUNT // divisor, **sections)
    print(report)
    if args.out:
        args.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
