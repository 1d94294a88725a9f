"""A node for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import File, load
from .world import Node, config, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the node's inbox keeps its files."""
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    """The clinical port."""
    with serving(folder, config()) as running:
        yield running


@pytest.fixture
def research_node(node: Node) -> Iterator[Node]:
    """The research port over the same inbox."""
    with serving(node.inbox.folder, config("research"), node.inbox) as running:
        yield running


@pytest.fixture(scope="session")
def series(samples_dir: Path) -> list[File]:
    """Four real GE slices of one series."""
    return [load(path) for path in sorted(samples_dir.glob("ge-*/mr_0004/*.dcm"))[:4]]
