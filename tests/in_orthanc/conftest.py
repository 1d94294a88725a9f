"""A hospital's Orthanc with the plugin, and what ends with its test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from orthanc_ledger.setup_node import Plan, create_node
from tests.browser import chromium as chromium
from tests.browser import pages as pages
from tests.in_orthanc.live import LEDGER, STAFF, VERSIONS, LiveOrthanc, Version, python_of
from tests.live_node import LiveNode


@dataclass
class Hospital:
    """An Orthanc with the plugin, and the node that is behind it."""

    orthanc: LiveOrthanc
    node: LiveNode

    def start(self) -> "Hospital":
        """Start both."""
        self.orthanc.start()
        return self


Hospitals = Callable[..., Hospital]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Version:
    """Each Orthanc that is supported, in turn."""
    found: Version = request.param
    return found


class Site(NamedTuple):
    """Where tests of a file make one hospital for all."""

    version: Version
    folder: Path
    free_port: Callable[[], int]


@pytest.fixture(scope="module", params=VERSIONS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Site:
    """One for each Orthanc that is supported."""
    return Site(request.param, tmp_path_factory.mktemp(request.param), free_port)


@pytest.fixture
def orthancs(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., LiveOrthanc]]:
    """Makes Orthancs, which end with the test."""
    with ExitStack() as stack:

        def make(version: Version, name: str = "orthanc", **more: Any) -> LiveOrthanc:
            made = LiveOrthanc(version, tmp_path / name, free_port(), free_port(), **more)
            stack.callback(made.stop)
            return made

        yield make


def new_hospital(
    version: Version,
    folder: Path,
    free_port: Callable[[], int],
    ledger: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    node: dict[str, Any] | None = None,
) -> Hospital:
    """A hospital, not started yet: ``ledger`` goes over the section's keys, ``settings`` over Orthanc's, ``node`` over
    the node's.
    """
    home, port = folder / "node", free_port()
    where = {"directory": home, "key_backup": folder / "node.key.backup", "research_port": port}
    create_node(Plan(**where, ae_title="NODE", all_roles=True, orthanc=True))
    live = LiveNode(folder, {"research": port})
    raw = yaml.safe_load(live.config.read_text()) | {"denial_report_s": 0.1, "spool_reserve_mb": 64, **(node or {})}
    live.config.write_text(yaml.safe_dump(raw))
    section = {
        "Configuration": str(live.config),
        "Python": python_of(version),
        "Staff": [STAFF],
        "User": LEDGER,
        **(ledger or {}),
    }
    ports, more = (free_port(), free_port()), {"ledger": section, "settings": settings or {}, "shared": (home,)}
    return Hospital(LiveOrthanc(version, folder / "orthanc", *ports, **more), live)


@pytest.fixture
def hospital(tmp_path: Path, free_port: Callable[[], int], version: Version) -> Iterator[Hospitals]:
    """Makes hospitals as `new_hospital` does, which end with the test."""
    with ExitStack() as stack:

        def make(*settings: dict[str, Any], **more: dict[str, Any]) -> Hospital:
            made = new_hospital(version, tmp_path, free_port, *settings, **more)
            stack.callback(made.orthanc.stop)
            return made

        yield make
