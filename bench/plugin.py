"""What the plugin costs Orthanc: plain, with the plugin, and with the node's processes beside it; a quarter of an hour.

    python -m bench.plugin [--quick] [--out FILE]

Prints the report; with --out, into that file too. Nothing else should run.
"""

import argparse
import json
import os
import statistics
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

from bench.conditions import PACE, conditions, pace_s
from bench.peers import MODALITY, BenchError, Peer, free_port, run, tool, wait_anchored
from bench.report import spread, table
from bench.sender import Exchange, send_each_alone, send_together
from bench.slices import LARGE, MEDIUM, SMALL, copies
from bench.store import WARM_UP, Scenario, rotated
from orthanc_ledger.assemble import Node
from orthanc_ledger.config import load

AIM = 1.10
REPORT = """\
# Results of `python -m bench.plugin`

Generated. One Orthanc, the same settings each time: alone; with Python hooks that do nothing, which is what Orthanc's
Python plugin itself costs; with ours, which writes each object to the node's spool, with two more waits for the disk,
before Orthanc answers. The node's processes are idle (not started), or run and anchor what came before, on the same
cores. All share one disk, and the senders the cores. TCP_NODELAY is set on both sides. Every run starts with nothing
stored, and with {warm_up} objects to warm up; they take turns, in another order in each of {repeats} repeats. *Time* is
the median of the time that an object took, over plain Orthanc's (aim: at most {aim:.2f}×); *CPU* is what Orthanc's own
process used for an object.

{tables}

## Conditions

{conditions}
"""
FULL = (
    Scenario("10 kB, 1 association", SMALL, 800),
    Scenario("10 kB, 4 associations", SMALL, 1200, associations=4),
    Scenario("131 kB, 1 association", MEDIUM, 800),
    Scenario("131 kB, 4 associations", MEDIUM, 1200, associations=4),
    Scenario("525 kB, 4 associations", LARGE, 600, associations=4),
    Scenario("131 kB, one association per image", MEDIUM, 200, alone=True),
)
QUICK = (
    Scenario("131 kB, 1 association", MEDIUM, 200),
    Scenario("131 kB, 4 associations", MEDIUM, 400, associations=4),
)
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")
_START = Path(__file__).resolve().parent.parent / "orthanc_ledger" / "plugin" / "start" / "orthanc_ledger_plugin.py"
_STAFF, _NODE = "staff", "node"
_EMPTY = """\
import orthanc

orthanc.RegisterOnChangeCallback(lambda change, level, id: None)
orthanc.RegisterReceivedInstanceCallback(lambda content, origin: (orthanc.ReceivedInstanceAction.KEEP_AS_IS, None))
orthanc.RegisterIncomingCStoreInstanceFilter(lambda instance: 0)
orthanc.RegisterOnStoredInstanceCallback(lambda instance, id: None)
"""


class PlainOrthanc(Peer):
    """As in a hospital: modalities are listed, users have passwords."""

    name = "Orthanc, plain"
    does = "stored"
    plugin: ClassVar[dict[str, Any]] = {}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._http_port = free_port()

    def configuration(self) -> dict[str, Any]:
        """Orthanc's."""
        return {
            "Name": "bench",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "HttpPort": self._http_port,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {_STAFF: "of the house", _NODE: "asks for the node"},
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {MODALITY: {"AET": MODALITY, "Host": "127.0.0.1", "Port": 104}},
            "Plugins": [],
        }

    def command(self) -> list[str]:
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(self.configuration()))
        return [tool("env"), f"PYTHONPATH={sysconfig.get_path('purelib')}", tool("Orthanc"), str(path)]

    def ports(self) -> tuple[int, ...]:
        return (self.port, self._http_port)

    def settled(self, count: int) -> None:
        """Wait until nothing works on any more of what was sent."""


class WithHooks(PlainOrthanc):
    name = "with empty hooks"
    does = "stored"

    def configuration(self) -> dict[str, Any]:
        script = self.folder / "hooks" / "empty.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(_EMPTY)
        return super().configuration() | {"PythonScript": str(script), "Plugins": [str(_PLUGIN)]}


class WithPlugin(PlainOrthanc):
    name = "with the plugin, node idle"
    does = "stored, and in the spool"
    serve = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._node = folder / "node" / "orthanc-ledger.yaml"
        words = ["init", folder / "node", "--key-backup", folder / "node.key.backup", "--all-roles", "--orthanc"]
        run(*words, "--ae-title", "NODE", "--research-port", free_port())

    def configuration(self) -> dict[str, Any]:
        section = {"Configuration": str(self._node), "Staff": [_STAFF], "User": _NODE}
        python = {"PythonScript": str(_START), "Plugins": [str(_PLUGIN)]}
        return super().configuration() | python | {"Ledger": section | {"Serve": self.serve, "Python": sys.executable}}


class WithNode(WithPlugin):
    name = "with the plugin, node anchoring"
    serve = True

    def settled(self, count: int) -> None:
        wait_anchored(Node(load(self._node)), count)


PEERS: tuple[type[PlainOrthanc], ...] = (PlainOrthanc, WithHooks, WithPlugin, WithNode)


@dataclass
class Taken:
    """What each repeat took, milliseconds for an object, by peer: from the sender's first to its last word, and of
    Orthanc's own processor time.
    """

    time: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def measure(scenario: Scenario, repeats: int) -> Taken:
    """Run a scenario with each peer in turn, so many times. Raises BenchError when one fails."""
    taken = Taken()
    with tempfile.TemporaryDirectory() as name:
        studies = copies(scenario.size, Path(name) / "copies", scenario.count, scenario.associations)
        for repeat in range(repeats):
            for kind in rotated(PEERS, repeat):
                with fresh(kind) as (peer, logs):
                    before = cpu_s(peer)
                    sent = send(scenario, peer, studies, logs)
                    taken.time[peer.name].append(1e3 / sent.rate)
                    taken.cpu[peer.name].append(1e3 * (cpu_s(peer) - before) / sent.count)
                    peer.settled(WARM_UP + sent.count)
                last = taken.time[kind.name][-1], taken.cpu[kind.name][-1]
                print(f"{scenario.name}: {kind.name}: {last[0]:.2f} ms, CPU {last[1]:.2f} ms", file=sys.stderr)
    return taken


@contextmanager
def fresh(kind: type[PlainOrthanc]) -> Iterator[tuple[PlainOrthanc, Path]]:
    """As in `bench.store`: one that has nothing yet, running and warm, with a folder for the senders' logs."""
    os.sync()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = kind(folder / "peer")
        with peer.running():
            send_together(peer, copies(SMALL, folder / "warm-up", WARM_UP), folder)
            peer.settled(WARM_UP)
            yield peer, folder


def send(scenario: Scenario, peer: Peer, studies: Sequence[Path], logs: Path) -> Exchange:
    """Send a scenario's objects."""
    if scenario.alone:
        return send_each_alone(peer, [file for study in studies for file in sorted(study.iterdir())])
    return send_together(peer, studies, logs)


def cpu_s(peer: Peer) -> float:
    """Processor time of a peer's own process so far, seconds."""
    used = psutil.Process(peer.pid).cpu_times()
    return float(used.user + used.system)


def rows(taken: Taken) -> list[dict[str, object]]:
    """A scenario's table."""
    base, base_cpu = (statistics.median(each[PlainOrthanc.name]) for each in (taken.time, taken.cpu))
    found: list[dict[str, object]] = []
    for name, times in taken.time.items():
        cpu = statistics.median(taken.cpu[name])
        time, used = f"{statistics.median(times) / base:.2f}×", f"{cpu:.2f} ms ({cpu / base_cpu:.2f}×)"
        found.append({"": name, "objects/s": spread([1e3 / each for each in times]), "time": time, "CPU": used})
    return found


def report(scenarios: Sequence[Scenario], repeats: int) -> str:
    """All of it, as Markdown."""
    facts, pace = conditions(), pace_s()
    tables = [f"## {each.name} ({each.count:,} objects)\n\n{table(rows(measure(each, repeats)))}" for each in scenarios]
    facts[PACE] = f"{pace * 1e3:.0f} ms before, {pace_s() * 1e3:.0f} ms after"
    described = table([{"": name, " ": fact} for name, fact in facts.items()])
    return REPORT.format(
        warm_up=WARM_UP, repeats=repeats, aim=AIM, tables="\n".join(tables).rstrip(), conditions=described
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plugin", description="What the plugin costs Orthanc.")
    parser.add_argument("--quick", action="store_true", help="a part of it, once")
    parser.add_argument("--out", type=Path, help="the file that gets the report")
    args = parser.parse_args()
    try:
        text = report(QUICK, 1) if args.quick else report(FULL, 5)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
