"""Who gets what of Orthanc with the plugin, found out by asking.

`PYTHONPATH=tests python -m tests.in_orthanc.access_table` writes the tables into docs/orthanc-access.md.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from conftest import ROOT, free_ports

from tests.in_orthanc.live import VERSIONS, Version
from tests.in_orthanc.routes import AREAS, METHODS, area_of
from tests.in_orthanc.walk import HEADERS, RESEARCH, Walked, World, world

PAGE = ROOT / "docs" / "orthanc-access.md"
FILES = sorted((ROOT / "orthanc_ledger" / "samples" / "ge-discovery-mr750").rglob("*.dcm"))
HEAD = f"""
## Orthanc {{version}}

{{paths}} paths, each asked by {", ".join(METHODS)}: {{requests}} requests of everybody.

| paths | how many | {" | ".join(HEADERS)} |
|---|---|{"---|" * len(HEADERS)}
"""
SERVICES = f"""
| DIMSE service, asked by {RESEARCH} | answer |
|---|---|
"""


def marks(version: Version) -> tuple[str, str]:
    """What stands before and after a version's section."""
    return f"<!-- {version}: generated, do not edit -->\n", f"<!-- end of {version} -->"


def section(version: Version, made: World, walked: Walked, services: Mapping[str, str]) -> str:
    """The generated section of a version."""
    paths = Counter(map(area_of, made.routes()))
    rows = [[area, str(paths[area]), *(answers(walked, area, who) for who in HEADERS)] for area in AREAS if paths[area]]
    head = HEAD.format(version=version, paths=paths.total(), requests=paths.total() * len(METHODS))
    told = [[name, answer] for name, answer in grouped(services).items()]
    return head + table(rows) + SERVICES + table(told)


def answers(walked: Walked, area: str, who: str) -> str:
    """Every status that somebody was answered in an area."""
    return ", ".join(str(status) for status in sorted(walked[area, who]))


def grouped(services: Mapping[str, str]) -> dict[str, str]:
    """Services with their answers; those that differ in their level only, as one."""
    found: dict[str, set[str]] = {}
    for name, told in services.items():
        found.setdefault(name.split(",")[0], set()).add(told)
    return {name: ", ".join(sorted(told)) for name, told in found.items()}


def table(rows: list[list[str]]) -> str:
    """Rows of a table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def kept(version: Version) -> str:
    """A version's section as the page has it."""
    begin, end = marks(version)
    return PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]


def write(version: Version, text: str) -> None:
    """Have the page say this of a version."""
    begin, end = marks(version)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(f"{before.rstrip()}\n\n{begin}{text}{end}{rest.partition(end)[2] or chr(10)}", encoding="utf-8")


if __name__ == "__main__":
    with closing(free_ports()) as ports:
        for each in VERSIONS:
            with TemporaryDirectory() as name, world(each, Path(name), ports.__next__, FILES) as made:
                write(each, section(each, made, made.walk(), made.services(RESEARCH)))
