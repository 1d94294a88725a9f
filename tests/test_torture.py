"""A node under load whose processes are killed, 40 rounds; `make torture ROUNDS=1000` for more."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torture import Torture

ROUNDS = 40
SEED = 40

pytestmark = pytest.mark.timeout(900)


def test_whatever_is_killed_under_load_nothing_acknowledged_is_lost_doubled_or_given_away(
    tmp_path: Path, free_port: Callable[[], int], dcmtk: Callable[[str], str]
) -> None:
    dcmtk("storescp")
    torture = Torture(tmp_path, free_port, SEED)
    torture.run(ROUNDS)
    assert (torture.rounds, sum(torture.killed.values())) == (ROUNDS, ROUNDS)
