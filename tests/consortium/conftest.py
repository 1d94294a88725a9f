"""One network for all live tests of a file: three organisations, three orderers, four peers."""

from collections.abc import Callable, Iterator

import pytest

from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import trial
from tests.consortium.live import running


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Network]:
    with running(tmp_path_factory.mktemp("network"), trial().with_ports(free_port)) as started:
        yield started
