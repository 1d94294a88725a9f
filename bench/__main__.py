"""`make bench`: everything side by side, about twenty minutes. `make bench QUICK=1`: a part of it, once.

    python -m bench [--quick] [--out FOLDER]

Prints the report; the full run writes RESULTS.md and results.svg to FOLDER (default: bench/), the quick one only when
FOLDER is given. The peers keep what they receive where TMPDIR says. Nothing else should run meanwhile.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import find, fingerprint, report, retrieve, store
from bench.conditions import PACE, conditions, pace_s
from bench.peers import PEERS, BenchError
from bench.store import Scenario

HERE = Path(__file__).resolve().parent
INTRODUCTION = """\
# Results of `make bench`

Generated; what is asked of the node stands as aims, which are reported and not asserted. Every peer gets the same
copies of real slices from the same sender: dcmtk's dcmsend, or for one association per image a sender of our own,
because a new storescu for each image costs more than the peers do. Every run starts with nothing stored, and with
{warm_up} objects to warm up. Peers take turns within a scenario, in another order in each repeat; nothing else runs.
The senders share the cores with the peer. TCP_NODELAY is set wherever it can be, save where the scenario says
otherwise. Figures are medians of {repeats} repeats (lowest–highest). What storescp gets is what the sender can send.

![{caption}](results.svg)
"""
ANCHORED_NOTE = """\
*Acknowledged* counts from the first request for an association to the last Success. *Anchored* counts from the same
moment until the ledger has the last object, with the 0.75 s in it for which a study must be quiet before its batch
closes; the objects are so many that this matters little, save where Nagle's algorithm slows the sender.
"""


@dataclass(frozen=True)
class Run:
    """How much is measured; ``indexed``: instances in the indexes that C-FIND is asked of."""

    scenarios: Sequence[Scenario]
    repeats: int
    retrieved: int
    huge_mb: int
    indexed: Sequence[int]


FULL = Run(store.FULL, repeats=3, retrieved=500, huge_mb=1000, indexed=(10**4, 10**6))
QUICK = Run(store.QUICK, repeats=1, retrieved=200, huge_mb=100, indexed=(10**4,))
CAPTION = "Median of the repeats, thin line from lowest to highest; anchored is held against what Orthanc acknowledges"


def measure(run: Run) -> tuple[str, str]:
    """The report as Markdown, and its chart as SVG. Raises BenchError when a peer fails."""
    began, facts, pace = time.monotonic(), conditions(), pace_s()
    rates = {scenario.name: store.measure(scenario, PEERS, run.repeats) for scenario in run.scenarios}
    fetched = retrieve.measure(run.retrieved, run.repeats)
    size, huge = store.measure_huge(PEERS, run.huge_mb)
    ratios = [ratio for name, of_one in rates.items() for ratio in report.store_ratios(name, of_one)]
    ratios += report.retrieve_ratios(fetched)
    more = [("Fingerprint against SHA-256", fingerprint.rows()), ("C-FIND (no wire)", find.rows(*run.indexed))]
    facts[PACE] = f"{pace * 1e3:.0f} ms before, {pace_s() * 1e3:.0f} ms after"
    facts["duration"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
    parts = [
        INTRODUCTION.format(warm_up=store.WARM_UP, repeats=run.repeats, caption=CAPTION),
        _section("Aims", report.aims_table(ratios)),
        _section("Conditions", report.table([{"": name, " ": fact} for name, fact in facts.items()])),
        _section("Done before Success", report.table([{"peer": peer.name, "": peer.does} for peer in PEERS])),
        _section("C-STORE", ANCHORED_NOTE),
        *(
            _section(f"{scenario.name} ({scenario.count:,} objects)", report.store_table(rates[scenario.name]), 3)
            for scenario in run.scenarios
        ),
        _section(f"C-GET of a study of {run.retrieved} slices of 131 kB, by getscu", report.retrieve_table(fetched)),
        _section(f"One object of {size / 1e6:,.0f} MB", report.huge_table(size, huge)),
        *(_section(title, report.table(rows)) for title, rows in more),
    ]
    return "\n".join(parts), report.chart(ratios, CAPTION)


def _section(title: str, text: str, level: int = 2) -> str:
    return f"{'#' * level} {title}\n\n{text}"


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="This node beside other SCPs.")
    parser.add_argument("--quick", action="store_true", help="a part of it, once")
    parser.add_argument("--out", type=Path, help="where RESULTS.md and results.svg go")
    args = parser.parse_args(None if arguments is None else list(arguments))
    try:
        text, svg = measure(QUICK if args.quick else FULL)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    folder = args.out or (None if args.quick else HERE)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "RESULTS.md").write_text(text, encoding="utf-8")
        (folder / "results.svg").write_text(svg, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
