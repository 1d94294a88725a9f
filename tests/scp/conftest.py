"""A node for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom.transport import AssociationSocket

from .client import File, load
from .world import Node, config, serving


@pytest.fixture(scope="session", autouse=True)
def clients_close_their_sockets() -> Iterator[None]:
    """pynetdicom's own clients leave a socket to the garbage collector when the peer was faster to close: a warning."""
    shut_down = AssociationSocket._shutdown_socket

    def close(self: AssociationSocket) -> None:
        shut_down(self)
        if self.socket is not None:
            self.socket.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssociationSocket, "_shutdown_socket", close)
        yield


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
